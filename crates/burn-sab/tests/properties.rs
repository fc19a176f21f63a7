//! What holds whatever the numbers are: chunks, single steps, rows, unused slots, and where gradient goes.

mod common;

use burn::module::Module;
use burn::tensor::{DType, Tensor, TensorData};
use burn_sab::{InitialSlot, SabLstmConfig, SabLstmState, ScoreConfig, Strategy};
use common::generate::{configs, scores};
use common::{assert_close, cpu, cpu_devices, gradient, numbers, parameter_gradients, setup};
use proptest::prelude::*;

const F64: f64 = 1e-10;

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chunks_equal_the_whole(
        config in configs(), budget in prop::option::of(1..5usize), time in 2..20usize, cut in 0.0..1.0f64,
        seed in any::<u64>(),
    ) {
        let config = config.with_slot_budget(budget);
        let cut = 1 + ((time - 1) as f64 * cut) as usize;
        for device in cpu_devices() {
            let setup = setup(&config, 3, time, seed, DType::F64, &device);
            let run = |bounds: &[(usize, usize)]| {
                let x = setup.x.clone().require_grad();
                let (mut hidden, mut summary) = (vec![], vec![]);
                let mut state = Some(setup.state.clone());
                for (start, end) in bounds {
                    let chunk = x.clone().narrow(1, *start, end - start);
                    let output = setup.layer.forward_with_reminders(chunk, state.take());
                    hidden.push(output.hidden);
                    summary.push(output.summary);
                    state = Some(output.state);
                }
                let state = state.unwrap();
                let (hidden, summary) = (Tensor::cat(hidden, 1), Tensor::cat(summary, 1));
                let (up_h, up_s, up_c) = setup.up.clone();
                let mut loss = (up_h * hidden.clone()).sum() + (up_s * summary.clone()).sum()
                    + (up_c * state.cell.clone()).sum();
                if let Some(slots) = state.slots() {
                    // The memory that is handed on carries gradient too.
                    loss = loss + slots.powi_scalar(2).sum();
                }
                let grads = loss.backward();
                let values = vec![
                    ("hidden".to_owned(), numbers("hidden", &hidden)),
                    ("summary".to_owned(), numbers("summary", &summary)),
                    ("cell".to_owned(), numbers("cell", &state.cell)),
                    ("last".to_owned(), numbers("last", &state.hidden)),
                    ("counts".to_owned(), vec![state.num_slots() as f64, state.step as f64]),
                ];
                let mut gradients = parameter_gradients(&setup.layer, &grads);
                gradients.push(("x".to_owned(), gradient("x", &x, &grads)));
                (values, gradients)
            };
            let (values, gradients) = run(&[(0, time)]);
            let (chunk_values, chunk_gradients) = run(&[(0, cut), (cut, time)].map(|b| b)[..if cut < time { 2 } else { 1 }]);
            assert_close("chunks", &chunk_values, &values, F64);
            assert_close("chunks", &chunk_gradients, &gradients, F64);
        }
    }

    #[test]
    fn steps_equal_the_sequence(config in configs(), time in 1..12usize, seed in any::<u64>()) {
        for device in cpu_devices() {
            let setup = setup(&config, 2, time, seed, DType::F64, &device);
            let (hidden, last) = setup.layer.forward(setup.x.clone(), Some(setup.state.clone()));
            // Steps run without gradient.
            let layer = setup.layer.valid();
            let mut state = Some(setup.state.clone());
            let mut steps = vec![];
            for t in 0..time {
                let x = setup.x.clone().inner().narrow(1, t, 1).squeeze_dim(1);
                let (h, next) = layer.step(x, state.take());
                steps.push(h);
                state = Some(next);
            }
            let state = state.unwrap();
            let named = |hidden: &Tensor<3>, state: &SabLstmState| vec![
                ("hidden".to_owned(), numbers("hidden", hidden)),
                ("cell".to_owned(), numbers("cell", &state.cell)),
                ("slots".to_owned(), state.slots().map_or(vec![], |slots| numbers("slots", &slots))),
            ];
            assert_close("steps", &named(&Tensor::stack(steps, 1), &state), &named(&hidden, &last), F64);
        }
    }

    #[test]
    fn rows_of_a_batch_are_independent(config in configs(), time in 1..14usize, seed in any::<u64>()) {
        for device in cpu_devices() {
            let setup = setup(&config, 3, time, seed, DType::F64, &device);
            let run = |x: Tensor<3>, state: SabLstmState| setup.layer.forward(x, Some(state)).0;
            let row = |r: usize| {
                let part = |t: &Tensor<2>| t.clone().narrow(0, r, 1);
                let state = SabLstmState::new(part(&setup.state.cell), part(&setup.state.hidden));
                run(setup.x.clone().narrow(0, r, 1), state)
            };
            let whole = run(setup.x.clone(), setup.state.clone());
            let rows = Tensor::cat(vec![row(0), row(1), row(2)], 0);
            let named = |t: &Tensor<3>| vec![("hidden".to_owned(), numbers("hidden", t))];
            assert_close("rows", &named(&rows), &named(&whole), F64);
        }
    }

    /// Softmax over fewer slots than k_top must not notice how much room is left.
    #[test]
    fn unused_places_have_no_effect(time in 1..10usize, room in 1..50usize, score in scores(), seed in any::<u64>()) {
        for device in cpu_devices() {
            let run = |k_top: usize| {
                let config = SabLstmConfig::new(2, 5, true).with_k_top(k_top).with_score(score);
                let setup = setup(&config, 2, time, seed, DType::F64, &device);
                let (mut values, gradients) = setup.run();
                values.truncate(3); // places of slots and weights differ in number
                (values, gradients)
            };
            let (values, gradients) = run(time + 1);
            let (roomy_values, roomy_gradients) = run(time + 1 + room);
            assert_close("room", &roomy_values, &values, F64);
            assert_close("room", &roomy_gradients, &gradients, F64);
        }
    }
}

/// Which inputs (t) of a single row a loss on the last hidden state reaches.
fn reached(config: &SabLstmConfig, time: usize, seed: u64) -> (Vec<bool>, Vec<Vec<usize>>) {
    let setup = setup(config, 1, time, seed, DType::F64, &cpu());
    let x = setup.x.clone().require_grad();
    let output = setup.layer.forward_with_reminders(x.clone(), Some(setup.state.clone()));
    let grads = output.hidden.narrow(1, time - 1, 1).sum().backward();
    let features = config.d_input;
    let reached =
        gradient("x", &x, &grads).chunks(features).map(|g| g.iter().any(|v| *v != 0.0)).collect();
    let [_, _, places] = output.slots.dims();
    let slots: Vec<i64> = output.slots.to_data().iter::<i64>().collect();
    let weights = numbers("weights", &output.weights);
    let live = slots.chunks(places).zip(weights.chunks(places));
    let live = live
        .map(|(s, w)| {
            s.iter().zip(w).filter(|(_, w)| **w != 0.0).map(|(s, _)| *s as usize).collect()
        })
        .collect();
    (reached, live)
}

/// Steps that the specification lets a loss at the last step reach, from what was retrieved. Slot j is the
/// state after step j: k_att 1, nothing at the start.
fn allowed(config: &SabLstmConfig, time: usize, live: &[Vec<usize>]) -> Vec<bool> {
    let hops = config.settings.max_hops.unwrap_or(usize::MAX);
    // fewest[t]: fewest reminders on a path from the loss to step t.
    let mut fewest = vec![None; time];
    fewest[time - 1] = Some(0usize);
    for t in (0..time).rev() {
        let Some(used) = fewest[t] else { continue };
        let lower = |slot: &mut Option<usize>, value: usize| {
            *slot = Some(slot.map_or(value, |old| old.min(value)))
        };
        let cut = t == 0
            || (t + config.settings.truncation_offset()).is_multiple_of(config.settings.k_trunc);
        if !cut {
            lower(&mut fewest[t - 1], used);
        }
        if used < hops {
            for slot in &live[t] {
                lower(&mut fewest[*slot], used + 1);
            }
        }
    }
    fewest.iter().map(Option::is_some).collect()
}

/// Gradient reaches what the truncation windows and the retrieved slots lead to, and nothing else: not one
/// step before a window, not a slot that was never selected.
#[test]
fn gradient_goes_where_the_specification_says() {
    for max_hops in [None, Some(0), Some(1), Some(2)] {
        for (k_trunc, offset) in [(1, 0), (3, 0), (4, 1), (5, 2), (100, 0)] {
            for seed in 0..4 {
                let config = SabLstmConfig::new(2, 6, true)
                    .with_k_top(1)
                    .with_k_trunc(k_trunc)
                    .with_truncation_offset(Some(offset))
                    .with_score(ScoreConfig::Dot { d_attention: 4 })
                    .with_initial_slot(InitialSlot::None)
                    .with_max_hops(max_hops);
                for strategy in [Strategy::Reference, Strategy::Primitives, Strategy::Auto] {
                    let config = config.clone().with_strategy(strategy);
                    let time = 30;
                    let (reached, live) = reached(&config, time, seed);
                    let allowed = allowed(&config, time, &live);
                    assert_eq!(
                        reached, allowed,
                        "{strategy:?} k_trunc {k_trunc} offset {offset} max_hops {max_hops:?} seed {seed}"
                    );
                    if k_trunc < 10 && max_hops.is_some() {
                        assert!(
                            reached.contains(&false),
                            "the case cuts nothing: it tests nothing"
                        );
                    }
                }
            }
        }
    }
}

/// Equal scores: the older slots win. With all-zero weights of the score every slot scores 0.
#[test]
fn ties_go_to_the_older_slot() {
    for device in cpu_devices() {
        for strategy in [Strategy::Reference, Strategy::Primitives, Strategy::Auto] {
            let config = SabLstmConfig::new(2, 4, true)
                .with_k_top(2)
                .with_initial_slot(InitialSlot::None)
                .with_strategy(strategy);
            let mut setup = setup(&config, 2, 7, 3, DType::F32, &device);
            if let burn_sab::Scorer::Dot(scorer) = &mut setup.layer.scorer {
                scorer.query = burn::module::Param::from_tensor(scorer.query.val().zeros_like());
            }
            let output = setup.layer.forward_with_reminders(setup.x, None);
            let slots: Vec<i64> = output.slots.to_data().iter::<i64>().collect();
            let expected = [[0, 0], [0, 0], [0, 1], [0, 1], [0, 1], [0, 1], [0, 1]].concat();
            assert_eq!(slots, [expected.clone(), expected].concat(), "{strategy:?} {device:?}");
        }
    }
}

/// A loss that does not depend on the layer, and one that depends on the last cell state only.
#[test]
fn missing_gradients_are_zeros() {
    for device in cpu_devices() {
        for strategy in [Strategy::Primitives, Strategy::Auto] {
            let config = SabLstmConfig::new(2, 4, true).with_k_trunc(3).with_strategy(strategy);
            let setup = setup(&config, 2, 7, 1, DType::F64, &device);
            let x = setup.x.clone().require_grad();
            let (hidden, state) = setup.layer.forward(x.clone(), None);
            let grads = (hidden * 0.0).sum().backward();
            assert!(gradient("x", &x, &grads).iter().all(|g| *g == 0.0));
            // x has to be a leaf of its own for a second graph.
            let x = setup.x.clone().require_grad();
            let (_, second) = setup.layer.forward(x.clone(), None);
            let grads = second.cell.sum().backward();
            let reached: Vec<bool> =
                gradient("x", &x, &grads).chunks(2).map(|g| g.iter().any(|v| *v != 0.0)).collect();
            assert!(reached[6] && reached[13], "the last step's input");
            drop(state);
        }
    }
}

/// `detach` cuts everything behind it: cell, hidden state and memory.
#[test]
fn detach_cuts_the_past() {
    for device in cpu_devices() {
        let setup = setup(&SabLstmConfig::new(2, 4, true), 2, 6, 1, DType::F64, &device);
        for cut in [false, true] {
            let x = setup.x.clone().require_grad();
            let (_, state) = setup.layer.forward(x.clone(), None);
            let state = if cut { state.detach() } else { state };
            assert_eq!((state.num_slots(), state.step), (7, 6));
            let (hidden, _) = setup.layer.forward(setup.x.clone(), Some(state));
            let grads = hidden.sum().backward();
            let reached = gradient("x", &x, &grads).iter().any(|g| *g != 0.0);
            assert_eq!(reached, !cut);
        }
    }
}

/// A row of NaN stays in its row and does not stop the program.
#[test]
fn nan_stays_in_its_row() {
    for device in cpu_devices() {
        for strategy in [Strategy::Primitives, Strategy::Auto] {
            for score in [ScoreConfig::Additive, ScoreConfig::Dot { d_attention: 4 }] {
                let config = SabLstmConfig::new(1, 4, true)
                    .with_score(score)
                    .with_k_top(2)
                    .with_strategy(strategy);
                let layer = config.init(&device);
                let mut values = vec![0.5f32; 2 * 8];
                values[3] = f32::NAN;
                let x = Tensor::<3>::from_data(TensorData::new(values, [2, 8, 1]), &device)
                    .require_grad();
                let (hidden, _) = layer.forward(x.clone(), None);
                let rows: Vec<f32> = hidden.to_data().iter::<f32>().collect();
                assert!(rows[4 * 8..].iter().all(|v| v.is_finite()), "{strategy:?}: the other row");
                assert!(rows[4 * 8 - 1].is_nan(), "{strategy:?}: NaN must not be hidden");
                hidden.sum().backward();
            }
        }
    }
}

/// Under Burn's gradient checkpointing the node keeps what it needs, and the gradients are the same.
#[test]
fn gradient_checkpointing_changes_nothing() {
    for device in cpu_devices() {
        for strategy in [Strategy::Primitives, Strategy::Auto] {
            let config = SabLstmConfig::new(2, 4, true).with_k_trunc(3).with_strategy(strategy);
            let gradients =
                |device: &burn::tensor::Device| setup(&config, 2, 9, 1, DType::F64, device).run().1;
            let balanced = device.clone().without_autodiff().autodiff().gradient_checkpointing();
            assert_close("balanced", &gradients(&balanced), &gradients(&device), F64);
        }
    }
}
