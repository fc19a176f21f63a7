//! Sums and maxima over the units that process one row, through shared memory. Software adapters and old
//! browsers have no plane (subgroup) operations.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::variant::Variant;

/// A value below every score: WGSL has no literal for minus infinity.
pub(super) const LOWEST: f32 = -3.0e38;

/// The slot index of a unit that has found no slot.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// Whether the first candidate is better: a higher score, or the older slot of two with equal scores.
#[cube]
fn beats(score: f32, slot: u32, other: f32, other_slot: u32) -> bool {
    score > other || (score == other && slot < other_slot)
}

/// Returns the index in `found` of the row's best candidate. Every unit of the cube must call it. It
/// needs a barrier before the call, which makes the candidates visible, and contains another.
#[cube]
pub(super) fn best_of_row(
    row: usize,
    searcher: usize,
    found: &mut Shared<[f32]>,
    found_slot: &mut Shared<[u32]>,
    #[comptime] v: Variant,
) -> usize {
    let searchers = comptime!(v.searchers());
    let group = comptime!(v.group());
    let groups = comptime!(v.searchers().div_ceil(v.group()));
    // The best candidate of each group is stored behind those of all units.
    let behind = comptime!(v.units);
    if searcher < groups {
        let first = row * searchers + searcher * group;
        let end = min(first + group, (row + 1) * searchers);
        let mut best = first;
        for i in first + 1..end {
            if beats(found[i], found_slot[i], found[best], found_slot[best]) {
                best = i;
            }
        }
        found[behind + row * groups + searcher] = found[best];
        found_slot[behind + row * groups + searcher] = found_slot[best];
    }
    sync_cube();
    let first = behind + row * groups;
    let mut best = first;
    for i in first + 1..first + groups {
        if beats(found[i], found_slot[i], found[best], found_slot[best]) {
            best = i;
        }
    }
    best
}

/// Returns the sum of `part` over the units of the row, to each of them. Every unit of the cube must
/// call it.
#[cube]
pub(super) fn sum_of_row(
    part: f32,
    row: usize,
    searcher: usize,
    found: &mut Shared<[f32]>,
    #[comptime] v: Variant,
) -> f32 {
    let searchers = comptime!(v.searchers());
    let group = comptime!(v.group());
    let groups = comptime!(v.searchers().div_ceil(v.group()));
    let behind = comptime!(v.units);
    found[UNIT_POS as usize] = part;
    sync_cube();
    if searcher < groups {
        let first = row * searchers + searcher * group;
        let end = min(first + group, (row + 1) * searchers);
        let mut sum = 0.0f32;
        for i in first..end {
            sum += found[i];
        }
        found[behind + row * groups + searcher] = sum;
    }
    sync_cube();
    let mut sum = 0.0f32;
    for i in 0..groups {
        sum += found[behind + row * groups + i];
    }
    // The next call may overwrite `found` at once.
    sync_cube();
    sum
}
