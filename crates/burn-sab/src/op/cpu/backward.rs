//! The backward pass: the gradients of a call's inputs, by sparse replay of the saved activations.
//!
//! This file splits the batch into tiles and adds up their weight gradients. The module `sweep`
//! processes one tile.

use std::ops::Range;

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::call::{Call, Inputs, tile_rows};
use super::float::Float;
use super::matrix::transpose;
use super::saved::Saved;
use super::score_backward::Transposed;
use super::sweep::Sweep;
use super::tile::{Parameters, Shared, Tile, Wanted};
use super::vector::{add, take};
use super::{Grads, UpGrads};
use crate::op::options::SabOptions;
use crate::op::tensors::{Dims, Needs, SabInputs};

/// Maximum number of jobs, each with its own copy of the parameters' gradients. This bound on memory was
/// set by judgement: enough jobs for the cores of a large machine. It determines the order of sums, so
/// it must not depend on the number of threads. If there are more tiles than jobs, a job processes
/// several tiles.
const JOBS: usize = 32;

/// Computes the gradients of the inputs that need one. `past` holds the call's hidden states or, if only
/// some are outputs, its stored slots. `saved` holds the saved activations of the call. Inputs and
/// options are those of the forward pass.
///
/// # Panics
///
/// Panics if the length of a slice does not match `inputs.dims`.
pub fn backward<T: Float>(
    inputs: &Inputs<'_, T>,
    saved: &Saved<T>,
    past: &[T],
    up: &UpGrads<'_, T>,
    needs: &Needs,
    options: &SabOptions,
) -> Grads<T> {
    backward_on(Arch::new(), inputs, saved, past, up, needs, options)
}

/// Like [`backward()`], with a given instruction set. No result depends on it.
pub(super) fn backward_on<T: Float>(
    arch: Arch,
    inputs: &Inputs<'_, T>,
    saved: &Saved<T>,
    past: &[T],
    up: &UpGrads<'_, T>,
    needs: &Needs,
    options: &SabOptions,
) -> Grads<T> {
    let call = Call::new(inputs, options, arch);
    let Dims { batch, time, input, hidden, carried, stored, .. } = call.dims;
    assert_eq!(past.len(), batch * call.past_len() * hidden, "length of `past`");
    let given = batch * options.readout.len(time) * hidden;
    let stored = batch * stored * hidden;
    for (up, expected) in [
        (up.hidden, given),
        (up.summary, given),
        (up.last, batch * hidden),
        (up.cell, batch * hidden),
        (up.stored, stored),
    ] {
        assert!(up.is_none_or(|up| up.len() == expected), "length of an upstream gradient");
    }
    let wanted = Wanted {
        x: needs.x,
        columns: hull([
            (needs.bias, 0..1),
            (needs.w_ih, 1..1 + input),
            (needs.w_hh, 1 + input..1 + input + hidden),
        ]),
        h0: needs.h0,
        c0: needs.c0,
        slots: needs.slots == Some(true),
        summary_gain: needs.summary_gain == Some(true),
    };
    let zeros = |yes: bool, len: usize| vec![T::ZERO; if yes { len } else { 0 }];
    let mut x = zeros(wanted.x, batch * time * input);
    let (mut h0, mut c0) = (zeros(wanted.h0, batch * hidden), zeros(wanted.c0, batch * hidden));
    let mut slots = zeros(wanted.slots, batch * carried * hidden);
    // A path cannot pass through more reminders than there are stored slots.
    let hops = options.settings.max_hops.filter(|&hops| hops < call.schedule.stored_slots());
    let shared = Shared {
        call: &call,
        saved,
        past,
        up,
        hops,
        lanes: hops.map_or(1, |hops| hops + 1),
        w_hh: transpose(call.inputs.w_hh, hidden, 4 * hidden),
        w_ih: if wanted.x { transpose(call.inputs.w_ih, input, 4 * hidden) } else { Vec::new() },
        score: Transposed::new(&call),
        score_needs: needs.score,
        wanted,
    };
    let wanted = &shared.wanted;

    let per_tile = tile_rows(batch);
    let tiles_per_job = batch.div_ceil(per_tile).div_ceil(JOBS);
    let (mut x_left, mut h0_left) = (&mut x[..], &mut h0[..]);
    let (mut c0_left, mut slots_left) = (&mut c0[..], &mut slots[..]);
    let mut jobs = Vec::new();
    for first in (0..batch).step_by(per_tile) {
        let rows = per_tile.min(batch - first);
        let part = |yes: bool, len: usize| if yes { rows * len } else { 0 };
        let tile = Tile {
            first,
            rows,
            x: take(&mut x_left, part(wanted.x, time * input)),
            h0: take(&mut h0_left, part(wanted.h0, hidden)),
            c0: take(&mut c0_left, part(wanted.c0, hidden)),
            slots: take(&mut slots_left, part(wanted.slots, carried * hidden)),
        };
        if first % (per_tile * tiles_per_job) == 0 {
            jobs.push(Job { shared: &shared, tiles: Vec::new() });
        }
        jobs.last_mut().expect("a job was pushed for the first tile").tiles.push(tile);
    }
    let parameters: Vec<Parameters<T>> =
        jobs.into_par_iter().map(|job| call.arch.dispatch(job)).collect();

    let mut parameters = parameters.into_iter();
    let mut sum = parameters.next().expect("a batch has at least one tile");
    for part in parameters {
        add(&mut sum.stacked, &part.stacked);
        add(&mut sum.summary_gain, &part.summary_gain);
        for (sum, part) in sum.score.iter_mut().zip(part.score.iter()) {
            add(sum, part);
        }
    }
    // Returns the rows `rows` of `[bias; W_ih; W_hh]`, if they need a gradient.
    let weights = |needed: bool, rows: Range<usize>| {
        needed.then(|| {
            let at = |row: usize| (row - wanted.columns.start) * 4 * hidden;
            sum.stacked[at(rows.start)..at(rows.end)].to_vec()
        })
    };
    let mut score_needs = needs.score.iter();
    SabInputs {
        x: needs.x.then_some(x),
        w_ih: weights(needs.w_ih, 1..1 + input),
        w_hh: weights(needs.w_hh, 1 + input..1 + input + hidden),
        bias: weights(needs.bias, 0..1),
        h0: needs.h0.then_some(h0),
        c0: needs.c0.then_some(c0),
        slots: needs.slots.map(|needed| needed.then_some(slots)),
        summary_gain: needs.summary_gain.map(|needed| needed.then_some(sum.summary_gain)),
        score: sum.score.map(|gradient| (score_needs.next() == Some(&true)).then_some(gradient)),
    }
}

/// The smallest range that contains all needed ranges; `ranges` is in ascending order.
fn hull<const N: usize>(ranges: [(bool, Range<usize>); N]) -> Range<usize> {
    let needed = ranges.into_iter().filter(|(needed, _)| *needed).map(|(_, range)| range);
    needed.reduce(|all, range| all.start..range.end).unwrap_or(0..0)
}

/// Tiles that one thread processes in turn, with one copy of the parameters' gradients.
struct Job<'a, T: Float> {
    shared: &'a Shared<'a, T>,
    tiles: Vec<Tile<'a, T>>,
}

impl<T: Float> WithSimd for Job<'_, T> {
    type Output = Parameters<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Parameters<T> {
        let shared = self.shared;
        let Dims { time, hidden, .. } = shared.call.dims;
        let mut needs = shared.score_needs.iter();
        let mut parameters = Parameters {
            stacked: vec![T::ZERO; shared.wanted.columns.len() * 4 * hidden],
            summary_gain: vec![T::ZERO; if shared.wanted.summary_gain { hidden } else { 0 }],
            score: shared.call.inputs.score.map(|parameter| {
                vec![T::ZERO; if needs.next() == Some(&true) { parameter.len() } else { 0 }]
            }),
        };
        for tile in self.tiles {
            let mut sweep = Sweep::new(shared, tile, &mut parameters);
            let mut t = time;
            while let Some(before) = sweep.before(t) {
                t = before;
                sweep.step(t);
            }
            sweep.finish();
        }
        parameters
    }
}
