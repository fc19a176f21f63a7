//! What the tests of the layer cannot see: threads, instruction sets, what is kept, numbers that are not
//! finite, and gradients that nobody wants.
//!
//! Scratch memory is full of NaN here ([`scratch`]), so a number that is read before it was written
//! shows in every comparison.

pub(super) mod numbers;
mod problem;

use pulp::Arch;

use super::call::tile_rows;
use super::float::Float;
use super::vector::{add, scratch};
use super::{UpGrads, backward, forward};
use crate::op::options::{Readout, SabOptions};
use crate::op::rows::Row;
use crate::op::score::{Score, ScoreKind};
use crate::op::settings::{Recompute, SabSettings, Sparsifier};
use crate::op::tensors::{Needs, Reminders, SabInputs, SabOutputs};
use problem::{KINDS, Named, Problem, Results, Sizes, past};

/// Options with these changes to the settings that all tests begin with.
fn options(change: impl FnOnce(&mut SabSettings)) -> SabOptions {
    let mut settings = SabSettings { k_top: 3, k_att: 2, k_trunc: 4, ..Default::default() };
    change(&mut settings);
    SabOptions { settings, reminders: true, ..Default::default() }
}

/// Settings that take different ways through the kernel.
fn settings() -> [SabOptions; 9] {
    let with = |sparsifier, max_hops, k_top, k_trunc| {
        options(|settings| {
            *settings = SabSettings { sparsifier, max_hops, k_top, k_trunc, ..*settings };
        })
    };
    [
        options(|_| {}),
        with(Sparsifier::Softmax, Some(2), 3, 1),
        with(Sparsifier::Threshold, Some(0), 2, 40),
        with(Sparsifier::Threshold, None, 50, 4),
        with(Sparsifier::Released, None, 4, usize::MAX),
        SabOptions { readout: Readout::At([0, 1, 3].into()), ..options(|_| {}) },
        options(|settings| {
            *settings =
                SabSettings { summary_scale: 0.6, recompute: Recompute::Always, ..*settings };
        }),
        options(|settings| {
            *settings = SabSettings { learned_gain: true, detach_scores: true, ..*settings };
        }),
        SabOptions {
            readout: Readout::At([1, 3].into()),
            ..options(|settings| {
                *settings = SabSettings { learned_gain: true, max_hops: Some(1), ..*settings };
            })
        },
    ]
}

const SHAPE: Sizes = Sizes { batch: 5, time: 75, input: 3, hidden: 7, carried: 2, attention: 5 };

/// Every input needs a gradient.
const ALL: Needs = SabInputs {
    x: true,
    w_ih: true,
    w_hh: true,
    bias: true,
    h0: true,
    c0: true,
    slots: Some(true),
    summary_gain: Some(true),
    // Of the three forms the one with all names; the others take what they have of it.
    score: Score::Mlp { query: true, query_bias: true, memory: true, v: true },
};

/// Largest allowed `|got - want| / max(1, max |want|)`; NaN and infinity fail.
const ROUNDING: f64 = 1e-12;

/// The same numbers to the last bit (the two zeros are one number).
const EXACT: f64 = 0.0;

/// `bound` is [`ROUNDING`] or [`EXACT`].
fn assert_close(what: &str, got: &Named, want: &Named, bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}");
    for ((name, got), (other, want)) in got.iter().zip(want) {
        assert_eq!((name, got.len()), (other, want.len()), "{what}");
        let largest = want.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        for (got, want) in got.iter().zip(want) {
            let close = (got - want).abs() <= bound * largest;
            assert!(close, "{what}: {name} has {got} instead of {want}");
        }
    }
}

/// Every score function in every setting, and a name for it.
fn for_all(mut test: impl FnMut(ScoreKind, SabOptions, &str)) {
    for kind in KINDS {
        for options in settings() {
            let what = format!("{kind:?}, {options:?}");
            test(kind, options, &what);
        }
    }
}

/// The same options for rows that differ: in length, from none to all steps, in age, in carried slots, and in
/// resets.
fn ragged(options: &SabOptions, batch: usize, time: usize) -> SabOptions {
    let row = |row: usize| Row {
        first_step: 3 * row,
        carried: row % (SHAPE.carried + 1),
        length: time - (7 * row) % (time + 1),
        resets: (row % 4 + 1..time).step_by(9).take(row % 3).collect(),
    };
    SabOptions { rows: Some((0..batch).map(row).collect()), ..options.clone() }
}

fn on_threads<T: Float + Into<f64>>() {
    // 529 rows make more tiles than there are jobs.
    for (batch, time) in [(1, 40), (5, 40), (33, 40), (529, 4)] {
        for_all(|kind, options, what| {
            let problem = Problem::<T>::new(kind, Sizes { batch, time, ..SHAPE });
            for options in [ragged(&options, batch, time), options] {
                let run = |threads| {
                    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
                    let pool = pool.expect("a thread pool");
                    pool.install(|| problem.run(&options).named())
                };
                let one = run(1);
                assert_close(&format!("2 threads, {what}"), &run(2), &one, EXACT);
                assert_close(&format!("3 threads, {what}"), &run(3), &one, EXACT);
            }
        });
    }
}

#[test]
fn threads_change_no_bit() {
    on_threads::<f32>();
    on_threads::<f64>();
}

fn on_instruction_sets<T: Float + Into<f64>>() {
    let others = [
        Arch::Scalar,
        #[cfg(target_arch = "x86_64")]
        pulp::x86::V3::try_new().map_or(Arch::Scalar, Arch::V3),
    ];
    for_all(|kind, options, what| {
        let problem = Problem::<T>::new(kind, SHAPE);
        let run = |arch| problem.run_on(arch, &options, &ALL).named();
        let best = run(Arch::new());
        for arch in others {
            assert_close(&format!("{arch:?}, {what}"), &run(arch), &best, EXACT);
        }
    });
}

/// Rust neither reorders nor fuses operations, whatever the registers; matrix products are the same
/// in all these runs, because `gemm` chooses its own instructions.
#[test]
fn instruction_sets_change_no_bit() {
    on_instruction_sets::<f32>();
    on_instruction_sets::<f64>();
}

/// A memory whose index searches a part of it.
#[test]
fn an_index_depends_on_no_machine() {
    let shape = Sizes { time: 200, ..SHAPE };
    let options = options(|settings| {
        *settings = SabSettings { n_probe: Some(1), k_att: 1, ..*settings };
    });
    let problem = Problem::<f32>::new(ScoreKind::Dot, shape);
    for options in [ragged(&options, shape.batch, shape.time), options] {
        let want = problem.run(&options).named();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread pool");
        let got = one.install(|| problem.run(&options).named());
        assert_close("1 thread", &got, &want, EXACT);
        let [scalar, best] =
            [Arch::Scalar, Arch::new()].map(|arch| problem.run_on(arch, &options, &ALL).named());
        assert_close("scalar", &scalar, &best, EXACT);
        let mut exact = options.clone();
        exact.settings.n_probe = None;
        assert_ne!(problem.run(&exact).outputs.hidden, problem.run(&options).outputs.hidden);
        // More lists than there are.
        let exact = problem.run(&exact).named();
        let mut all = options.clone();
        all.settings.n_probe = Some(1000);
        assert_close("all lists", &problem.run(&all).named(), &exact, EXACT);
    }
}

#[test]
fn recomputed_gates_equal_kept_ones() {
    for_all(|kind, options, what| {
        let problem = Problem::<f64>::new(kind, SHAPE);
        for options in [ragged(&options, SHAPE.batch, SHAPE.time), options] {
            let run = |recompute| {
                let mut options = options.clone();
                options.settings.recompute = recompute;
                problem.run(&options).named()
            };
            let (kept, recomputed) = (run(Recompute::Never), run(Recompute::Always));
            assert_close(what, &recomputed, &kept, ROUNDING);
        }
    });
}

/// A tile runs on one thread: half a small batch's rows, and a quarter of a large one's, can run at a time.
#[test]
fn tiles_use_many_cores() {
    let tiles = |batch: usize| batch.div_ceil(tile_rows(batch));
    assert_eq!([1, 2, 3, 4, 8, 15].map(tiles), [1, 2, 2, 2, 4, 8]);
    assert_eq!([16, 32, 64, 256].map(tiles), [4, 8, 16, 64]);
}

#[test]
fn scratch_is_full_of_nan() {
    assert!(scratch::<f32>(3).iter().all(|x| x.is_nan()));
}

#[test]
fn a_bad_row_keeps_to_itself() {
    const PER_ROW: [&str; 10] =
        ["h", "s", "c", "last", "stored", "weights", "grad x", "grad h0", "grad c0", "grad slots"];
    let shape = Sizes { batch: 3, ..SHAPE };
    let good_rows = |results: &Results<f64>| -> Named {
        let mut all = results.named();
        all.retain(|(name, _)| PER_ROW.contains(&name.as_str()));
        for (_, values) in &mut all {
            let row = values.len() / shape.batch;
            values.drain(row..2 * row);
        }
        all
    };
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
        for_all(|kind, options, what| {
            let mut problem = Problem::<f64>::new(kind, shape);
            let clean = problem.run(&options);
            let step = shape.time + 9; // of row 1
            problem.x[step * shape.input] = bad;
            problem.slots[(shape.carried + 1) * shape.hidden] = bad;
            let spoilt = problem.run(&options);
            let what = format!("{bad}, {what}");
            assert_close(&what, &good_rows(&spoilt), &good_rows(&clean), ROUNDING);
            let after = &spoilt.outputs.last[shape.hidden..2 * shape.hidden];
            assert!(!bad.is_nan() || after.iter().all(|h| h.is_nan()), "{what}: lost");
        });
    }
}

#[test]
fn no_gradient_gives_zeros() {
    for_all(|kind, options, what| {
        let problem = Problem::<f64>::new(kind, SHAPE);
        let inputs = problem.inputs(&options);
        let (outputs, saved) = forward(&inputs, &options, true);
        let (saved, zeros) = (saved.expect("saved"), vec![0.0; outputs.hidden.len()]);
        for up in [None, Some(&zeros[..])] {
            let up = UpGrads { hidden: up, summary: up, last: None, cell: None, stored: None };
            let needs = problem.needs(&ALL, &options);
            let grads = backward(&inputs, &saved, past(&outputs, &options), &up, &needs, &options);
            let mut all = Results { outputs: outputs.clone(), grads }.named();
            all.retain(|(name, values)| {
                name.starts_with("grad") && values.iter().any(|x| *x != 0.0)
            });
            assert!(all.is_empty(), "{what}: {all:?}");
        }
    });
}

/// A gradient from the last step alone, without windows: it becomes too small for f32 on the way, and then zero. It
/// does not stay at the smallest subnormal numbers, with which some processors compute very slowly.
#[test]
fn vanishing_gradients_vanish() {
    fn grad_x<T: Float + Into<f64>>(shape: Sizes) -> Vec<f64> {
        let options = options(|settings| {
            // Nothing is stored.
            *settings = SabSettings { k_att: 10_000, k_trunc: usize::MAX, ..*settings };
        });
        let mut problem = Problem::<T>::new(ScoreKind::Dot, shape);
        for w in problem.w_ih.iter_mut().chain(&mut problem.w_hh) {
            *w = *w * T::from_f64(0.1);
        }
        // The forget gates are near 0.85.
        problem.bias[shape.hidden..2 * shape.hidden].fill(T::from_f64(1.75));
        for k in [0, 1, 4] {
            problem.up[k].fill(T::ZERO);
        }
        let results = problem.run(&options);
        results.grads.x.expect("asked for").into_iter().map(Into::into).collect()
    }
    let shape = Sizes { time: 1200, carried: 0, ..SHAPE };
    let (single, double) = (grad_x::<f32>(shape), grad_x::<f64>(shape));
    let smallest = f64::from(f32::MIN_POSITIVE);
    for (at, (single, double)) in single.iter().zip(&double).enumerate() {
        let bound = 1e-3 * double.abs() + 1e3 * smallest;
        assert!((single - double).abs() <= bound, "{at}: {single} for {double}");
        assert!(double.abs() > 1e-4 * smallest || *single == 0.0, "{at}: {single} for {double}");
    }
    let zeros = |x: &[f64]| x.iter().filter(|x| **x == 0.0).count();
    assert!(zeros(&single) > single.len() / 4, "{} vanished", zeros(&single));
    assert_eq!(zeros(&double), 0);
}

/// Each input by itself: what needs no gradient comes back without one, and changes no other (but for rounding:
/// the product of fewer columns adds in another order).
#[test]
fn gradients_that_nothing_needs_are_absent_and_change_no_other() {
    let names = ["x", "w_ih", "w_hh", "bias", "h0", "c0", "slots", "summary_gain", "u", "query"];
    for name in names.into_iter().chain(["query_bias", "memory", "key", "v"]) {
        for_all(|kind, options, what| {
            let problem = Problem::<f64>::new(kind, SHAPE);
            if !problem.inputs(&options).arrays.named().iter().any(|(other, _)| *other == name) {
                return;
            }
            let want = problem.run(&options).named();
            for alone in [true, false] {
                // Only this one, or all but this one.
                let mut names = problem.inputs(&options).arrays.named().into_iter();
                let needs = problem
                    .needs(&ALL, &options)
                    .map(|_| names.next().is_some_and(|(other, _)| (other == name) == alone));
                let mut want = want.clone();
                want.retain(|(other, _)| {
                    other.strip_prefix("grad ").is_none_or(|other| (other == name) == alone)
                });
                let got = problem.run_on(Arch::new(), &options, &needs).named();
                assert_close(&format!("{name} alone: {alone}, {what}"), &got, &want, ROUNDING);
            }
        });
    }
}

/// With an empty memory and windows of one step, a sequence is a row of calls of one step each.
#[test]
fn windows_of_one_step_are_calls_of_one_step() {
    let (time, hidden) = (6, SHAPE.hidden);
    let mut options = options(|settings| {
        *settings = SabSettings { k_att: 100, k_trunc: 1, truncation_offset: Some(0), ..*settings };
    });
    let whole = Problem::<f64>::new(ScoreKind::Dot, Sizes { time, carried: 0, ..SHAPE });
    let want = whole.run(&options);
    let reminders = want.outputs.reminders.as_ref().expect("asked for");
    assert!(reminders.summary.iter().chain(&reminders.weights).all(|x| *x == 0.0));
    let grads = want.grads.map(|grad| grad.expect("all are needed"));
    assert!(grads.h0.iter().all(|x| *x != 0.0), "the first step begins no window");

    let mut step = Problem::<f64>::new(ScoreKind::Dot, Sizes { time: 1, carried: 0, ..SHAPE });
    (step.w_ih, step.w_hh, step.bias) =
        (whole.w_ih.clone(), whole.w_hh.clone(), whole.bias.clone());
    (step.h0, step.c0) = (whole.h0.clone(), whole.c0.clone());
    let mut w_hh = vec![0.0; grads.w_hh.len()];
    for t in 0..time {
        let at = |values: &[f64], width: usize| {
            values.chunks(width).skip(t).step_by(time).collect::<Vec<_>>().concat()
        };
        options.first_step = t;
        step.x = at(&whole.x, SHAPE.input);
        step.up[0] = at(&whole.up[0], hidden);
        for k in [2, 3] {
            let last = |up: &f64| if t + 1 == time { *up } else { 0.0 };
            step.up[k] = whole.up[k].iter().map(last).collect();
        }
        let got = step.run(&options);
        let want = vec![
            ("h".to_owned(), at(&want.outputs.hidden, hidden)),
            ("grad x".to_owned(), at(&grads.x, SHAPE.input)),
            // The first step alone is not cut off from the state before it.
            (
                "grad h0".to_owned(),
                grads.h0.iter().map(|x| if t == 0 { *x } else { 0.0 }).collect(),
            ),
        ];
        let got_grads = got.grads.map(|grad| grad.expect("all are needed"));
        let one = vec![
            ("h".to_owned(), got.outputs.hidden.clone()),
            ("grad x".to_owned(), got_grads.x),
            ("grad h0".to_owned(), got_grads.h0),
        ];
        assert_close(&format!("step {t}"), &one, &want, ROUNDING);
        add(&mut w_hh, &got_grads.w_hh);
        (step.h0, step.c0) = (got.outputs.hidden, got.outputs.cell);
    }
    let name = "grad w_hh".to_owned();
    let (got, want) = (vec![(name.clone(), w_hh)], vec![(name, grads.w_hh)]);
    assert_close("all steps", &got, &want, ROUNDING);
}

/// Reading out some steps is reading out all and leaving the others alone.
#[test]
fn given_steps_are_those_of_the_whole() {
    let steps = [0, 3, 40, SHAPE.time - 1];
    for_all(|kind, options, what| {
        let options = SabOptions { readout: Readout::All, ..options };
        let mut whole = Problem::<f64>::new(kind, SHAPE);
        let mut few = Problem::<f64>::new(kind, SHAPE);
        let (width, rows) = (SHAPE.hidden, SHAPE.batch);
        for k in [0, 1] {
            let drawn = std::mem::take(&mut whole.up[k]);
            whole.up[k] = vec![0.0; drawn.len()];
            for (n, row) in drawn.chunks(width).take(rows * steps.len()).enumerate() {
                let at = n / steps.len() * SHAPE.time + steps[n % steps.len()];
                whole.up[k][at * width..(at + 1) * width].copy_from_slice(row);
            }
            few.up[k] = drawn;
        }
        let want = whole.run(&options);
        let outputs = &want.outputs;
        let given = |values: &[f64]| -> Vec<f64> {
            let width = values.len() / (rows * SHAPE.time);
            let at = |row| steps.map(|t| &values[(row * SHAPE.time + t) * width..][..width]);
            (0..rows).flat_map(at).flatten().copied().collect()
        };
        let stored = (0..rows * SHAPE.time).filter(|at| options.stores_slot(at % SHAPE.time));
        let reminders = outputs.reminders.as_ref().expect("asked for");
        let slots: Vec<f64> = reminders.slots.iter().map(|slot| f64::from(*slot)).collect();
        let outputs = SabOutputs {
            hidden: given(&outputs.hidden),
            stored: Some(
                stored.flat_map(|at| outputs.hidden[at * width..][..width].to_vec()).collect(),
            ),
            reminders: Some(Reminders {
                summary: given(&reminders.summary),
                weights: given(&reminders.weights),
                slots: given(&slots).into_iter().map(|slot| slot as i32).collect(),
            }),
            ..outputs.clone()
        };
        let want = Results { outputs, grads: want.grads }.named();
        for recompute in [Recompute::Never, Recompute::Always] {
            let mut options = SabOptions { readout: Readout::At(steps.into()), ..options.clone() };
            options.settings.recompute = recompute;
            let got = few.run(&options).named();
            assert_close(&format!("{recompute:?}, {what}"), &got, &want, ROUNDING);
        }
    });
}

/// Without reminders nothing else changes.
#[test]
fn reminders_are_outputs_only_if_asked_for() {
    for_all(|kind, options, what| {
        let mut problem = Problem::<f64>::new(kind, SHAPE);
        problem.up[1].fill(0.0);
        let mut want = problem.run(&options).named();
        let got = problem.run(&SabOptions { reminders: false, ..options }).named();
        want.retain(|(name, _)| !["s", "slots", "weights"].contains(&name.as_str()));
        assert_close(what, &got, &want, EXACT);
    });
}
