//! The backward pass: sparse replay. The work on each tile is in `sweep`.

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::super::options::SabOptions;
use super::float::Float;
use super::matrix::transpose;
use super::score_backward::{self, Transposed};
use super::sweep::Sweep;
use super::vector::{add, take};
use super::{Call, Grads, Inputs, Needs, Saved, Shape, UpGrads, augmented, tile_rows};

/// Most copies of the parameters' gradients, one for each job that runs on its own. A bound on
/// memory, set by judgement: enough jobs for the cores of a large machine. It may not depend on the
/// number of threads, because it decides the order of sums. A job takes several tiles where there
/// are more tiles.
const JOBS: usize = 32;

/// Gradients of a call's inputs. `past`: the call's hidden states, [`super::Outputs::h`], or where only
/// some are read out [`super::Outputs::stored`]; `saved`: what its forward pass kept; inputs and options
/// are those of that pass.
///
/// # Panics
///
/// Panics where a slice has not the number of elements that `inputs.shape` says.
pub fn backward<T: Float>(
    inputs: &Inputs<'_, T>,
    saved: &Saved<T>,
    past: &[T],
    up: &UpGrads<'_, T>,
    needs: Needs,
    options: &SabOptions,
) -> Grads<T> {
    backward_on(Arch::new(), inputs, saved, past, up, needs, options)
}

/// [`backward()`] with a given instruction set; no result depends on it.
pub(super) fn backward_on<T: Float>(
    arch: Arch,
    inputs: &Inputs<'_, T>,
    saved: &Saved<T>,
    past: &[T],
    up: &UpGrads<'_, T>,
    needs: Needs,
    options: &SabOptions,
) -> Grads<T> {
    let call = Call::new(inputs, options, arch);
    let Shape { batch, time, input, hidden, carried, .. } = inputs.shape;
    assert_eq!(past.len(), batch * call.past_len() * hidden, "hidden states to look up");
    let given = batch * options.readout.len(time) * hidden;
    let stored = batch * call.schedule.stored_slots() * hidden;
    for (up, want) in [
        (up.h, given),
        (up.s, given),
        (up.last, batch * hidden),
        (up.c, batch * hidden),
        (up.stored, stored),
    ] {
        assert!(up.is_none_or(|up| up.len() == want), "elements of an upstream gradient");
    }
    let wanted = |yes: bool, len: usize| vec![T::ZERO; if yes { len } else { 0 }];
    let mut grads = Grads {
        x: wanted(needs.x, inputs.x.len()),
        w_ih: Vec::new(),
        w_hh: Vec::new(),
        bias: Vec::new(),
        h0: wanted(needs.state, inputs.h0.len()),
        c0: wanted(needs.state, inputs.c0.len()),
        slots: wanted(needs.slots, batch * carried * hidden),
        score: Vec::new(),
    };
    // A path cannot use more reminders than there are slots to be reminded of.
    let hops = options.max_hops.filter(|&hops| hops < call.schedule.stored_slots());
    let shared = Shared {
        call: &call,
        saved,
        past,
        up,
        needs,
        hops,
        lanes: hops.map_or(1, |hops| hops + 1),
        w_hh: transpose(inputs.w_hh, hidden, 4 * hidden),
        w_ih: if needs.x { transpose(inputs.w_ih, input, 4 * hidden) } else { Vec::new() },
        score: Transposed::new(&call),
    };

    let per_tile = tile_rows(batch);
    let tiles_per_job = batch.div_ceil(per_tile).div_ceil(JOBS);
    let Grads { x, h0, c0, slots, .. } = &mut grads;
    let (mut x, mut h0, mut c0, mut slots) = (&mut x[..], &mut h0[..], &mut c0[..], &mut slots[..]);
    let mut jobs = Vec::new();
    for first in (0..batch).step_by(per_tile) {
        let rows = per_tile.min(batch - first);
        let (state, inputs, memory) = (
            if needs.state { rows * hidden } else { 0 },
            if needs.x { rows * time * input } else { 0 },
            if needs.slots { rows * carried * hidden } else { 0 },
        );
        let tile = Tile {
            first,
            rows,
            x: take(&mut x, inputs),
            h0: take(&mut h0, state),
            c0: take(&mut c0, state),
            slots: take(&mut slots, memory),
        };
        if first % (per_tile * tiles_per_job) == 0 {
            jobs.push(Job { shared: &shared, tiles: Vec::new() });
        }
        jobs.last_mut().expect("pushed for the first tile").tiles.push(tile);
    }
    let parameters: Vec<Parameters<T>> =
        jobs.into_par_iter().map(|job| call.arch.dispatch(job)).collect();

    let mut parameters = parameters.into_iter();
    let mut sum = parameters.next().expect("a batch has at least one tile");
    for part in parameters {
        add(&mut sum.stacked, &part.stacked);
        for (sum, part) in sum.score.iter_mut().zip(&part.score) {
            add(sum, part);
        }
    }
    if needs.weights {
        grads.w_hh = sum.stacked.split_off((1 + input) * 4 * hidden);
        grads.w_ih = sum.stacked.split_off(4 * hidden);
        grads.bias = sum.stacked;
    }
    grads.score = sum.score;
    grads
}

/// What all tiles read.
pub(super) struct Shared<'a, T: Float> {
    pub(super) call: &'a Call<'a, T>,
    pub(super) saved: &'a Saved<T>,
    pub(super) past: &'a [T],
    pub(super) up: &'a UpGrads<'a, T>,
    pub(super) needs: Needs,
    /// Most reminders on a path; None where no path can reach the limit.
    pub(super) hops: Option<usize>,
    /// Gradients that are kept side by side, one for each number of reminders used so far.
    pub(super) lanes: usize,
    /// Transposed, `[4 H, H]`.
    pub(super) w_hh: Vec<T>,
    /// Transposed, `[4 H, I]`; empty if not needed.
    pub(super) w_ih: Vec<T>,
    pub(super) score: Transposed<T>,
}

/// Gradients of the parameters; empty where not wanted.
pub(super) struct Parameters<T> {
    /// Of `[bias; W_ih; W_hh]`.
    pub(super) stacked: Vec<T>,
    pub(super) score: Vec<Vec<T>>,
}

/// Rows of the batch, and their share of the gradients; those are empty where not wanted.
pub(super) struct Tile<'a, T> {
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) x: &'a mut [T],
    pub(super) h0: &'a mut [T],
    pub(super) c0: &'a mut [T],
    pub(super) slots: &'a mut [T],
}

/// Tiles that one thread works through, adding to one copy of the parameters' gradients.
struct Job<'a, T: Float> {
    shared: &'a Shared<'a, T>,
    tiles: Vec<Tile<'a, T>>,
}

impl<T: Float> WithSimd for Job<'_, T> {
    type Output = Parameters<T>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Parameters<T> {
        let shared = self.shared;
        let shape = shared.call.inputs.shape;
        let mut parameters = Parameters {
            stacked: if shared.needs.weights {
                vec![T::ZERO; augmented(&shape) * 4 * shape.hidden]
            } else {
                Vec::new()
            },
            score: if shared.needs.score {
                score_backward::zeros(&shared.call.inputs.score)
            } else {
                Vec::new()
            },
        };
        for tile in self.tiles {
            let mut sweep = Sweep::new(shared, tile, &mut parameters);
            let mut t = shape.time;
            while let Some(before) = sweep.before(t) {
                t = before;
                sweep.step(t);
            }
            sweep.finish();
        }
        parameters
    }
}
