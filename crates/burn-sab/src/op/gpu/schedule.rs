//! What the rows of a cube do at a step: from the sizes of the call where rows are alike, and from a table
//! where they differ.

use std::sync::Arc;

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::call::{Call, batch_row};
use super::layout::{falls_on, ranks};
use crate::op::options::SabOptions;
use crate::op::rows::RowTable;
use crate::op::settings::Sparsifier;
use crate::op::tensors::Dims;

/// What a row does at a step.
#[derive(CubeType, Clone, Copy)]
pub(super) struct RowStep {
    /// The visible slots are `first..end`. The step stores slot `end`, if it stores one.
    pub first: usize,
    pub end: usize,
    /// Number of slots that decide the weights.
    pub n: usize,
    /// Whether the weights are the scores themselves.
    pub raw: bool,
    pub stores: bool,
    /// Whether gradient stops between this step and the step before it.
    pub cuts: bool,
    /// Whether the row starts anew.
    pub resets: bool,
    /// Whether the step is one of the row's, not padding.
    pub counts: bool,
}

// The derived one is not `Copy`, though all of its fields are.
impl Clone for RowStepExpand {
    fn clone(&self) -> Self {
        *self
    }
}

impl Copy for RowStepExpand {}

/// The current step.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Step {
    pub t: usize,
    pub lane: usize,
    /// What every row does. Where rows differ: the highest `n`, and whether any row is raw, stores or resets; whether
    /// every one cuts. Barriers depend on this alone.
    pub rows: RowStep,
}

/// Bits of a table's third word.
const STORES: u32 = 1;
const CUTS: u32 = 2;
const RESETS: u32 = 4;
const COUNTS: u32 = 8;

/// Words of a table per row and step: `first`, `end`, and the bits.
const WORDS: usize = 3;

/// Elements of the table of a call.
pub(super) fn table_len(batch: usize, time: usize) -> usize {
    batch + WORDS * batch * time
}

/// The table of a call, if its rows differ: the length of each row, `[B]`, and what it does, `[B, T, 3]`.
pub(super) fn table(options: &SabOptions, dims: &Dims) -> Option<Arc<[u32]>> {
    let rows = options.rows.as_ref()?;
    let rows: Vec<_> = rows.iter().map(|row| RowTable::new(row, options, dims.carried)).collect();
    let word = |number: usize| u32::try_from(number).expect("the kernels count to 2^31");
    let mut table: Vec<u32> = rows.iter().map(|row| word(row.length())).collect();
    for row in &rows {
        for t in 0..dims.time {
            let visible = row.visible(t);
            let bit = |is: bool, bit: u32| if is { bit } else { 0 };
            let bits = bit(row.stores(t).is_some(), STORES)
                | bit(row.cuts(t), CUTS)
                | bit(row.resets(t), RESETS)
                | bit(t < row.length(), COUNTS);
            table.extend([word(visible.start), word(visible.end), bits]);
        }
    }
    Some(table.into())
}

/// Step `t`, before which there are `m` slots, if rows are alike.
#[cube]
pub(super) fn step_at<F: Float>(call: &Call<F>, t: usize, m: usize, lane: usize) -> Step {
    let v = comptime!(call.v);
    let sizes = &call.sizes;
    let rows = if comptime!(v.ragged) {
        of_cube(call, t)
    } else {
        RowStep {
            first: 0usize.runtime(),
            end: m,
            n: ranks(m, sizes.k_top, v.sparsifier),
            raw: comptime!(v.sparsifier == Sparsifier::Released) && m <= sizes.k_top,
            stores: falls_on(t, sizes.first_store, sizes.k_att),
            cuts: falls_on(t, sizes.first_window, sizes.k_trunc),
            resets: false.runtime(),
            counts: true.runtime(),
        }
    };
    Step { t, lane, rows }
}

/// What row `r` of this cube does.
#[cube]
pub(super) fn of_row<F: Float>(call: &Call<F>, step: &Step, r: usize) -> RowStep {
    if comptime!(call.v.ragged) { read(call, step.t, r) } else { step.rows }
}

/// What the rows of this cube do together; see [`Step::rows`].
#[cube]
fn of_cube<F: Float>(call: &Call<F>, t: usize) -> RowStep {
    let mut n = 0usize.runtime();
    let mut raw = false.runtime();
    let mut stores = false.runtime();
    let mut cuts = true.runtime();
    let mut resets = false.runtime();
    #[unroll]
    for r in 0..comptime!(call.v.rows) {
        let row = read(call, t, r);
        n = max(n, row.n);
        raw = raw || row.raw;
        stores = stores || row.stores;
        cuts = cuts && (row.cuts || !row.counts);
        resets = resets || row.resets;
    }
    RowStep {
        first: 0usize.runtime(),
        end: 0usize.runtime(),
        n,
        raw,
        stores,
        cuts,
        resets,
        counts: true.runtime(),
    }
}

/// Reads what row `r` of this cube does at step `t`.
#[cube]
fn read<F: Float>(call: &Call<F>, t: usize, r: usize) -> RowStep {
    let v = comptime!(call.v);
    let table = &call.schedule[0];
    let row = batch_row(r, &call.sizes, v);
    let at = call.sizes.batch + (row * call.sizes.time + t) * WORDS;
    let first = table[at] as usize;
    let end = table[at + 1] as usize;
    let bits = table[at + 2];
    RowStep {
        first,
        end,
        n: ranks(end - first, call.sizes.k_top, v.sparsifier),
        raw: comptime!(v.sparsifier == Sparsifier::Released) && end - first <= call.sizes.k_top,
        stores: bits & STORES != 0u32,
        cuts: bits & CUTS != 0u32,
        resets: bits & RESETS != 0u32,
        counts: bits & COUNTS != 0u32,
    }
}

/// The number of steps of a batch row. Those behind them are padding.
#[cube]
pub(super) fn length_of<F: Float>(call: &Call<F>, row: usize) -> usize {
    if comptime!(call.v.ragged) {
        let table = &call.schedule[0];
        table[row] as usize
    } else {
        call.sizes.time
    }
}

/// The number of steps of the longest row of this cube.
#[cube]
pub(super) fn steps_of_cube<F: Float>(call: &Call<F>) -> usize {
    if comptime!(call.v.ragged) {
        let mut most = 0usize.runtime();
        #[unroll]
        for r in 0..comptime!(call.v.rows) {
            most = max(most, length_of(call, batch_row(r, &call.sizes, call.v)));
        }
        most
    } else {
        call.sizes.time
    }
}
