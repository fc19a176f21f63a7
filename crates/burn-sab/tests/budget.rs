//! A slot budget bounds the memory, and changes nothing else.

mod common;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sab::{InitialSlot, SabLstm, SabLstmConfig, SabLstmOutput, SabLstmState};
use common::{Named, Setup, assert_close, cpu_devices, gradient, numbers, setup};
use rstest::rstest;

const BATCH: usize = 3;
const TIME: usize = 41;
const BUDGET: usize = 5;

fn config(k_att: usize, initial_slot: InitialSlot) -> SabLstmConfig {
    SabLstmConfig::new(3, 6, true)
        .with_k_top(3)
        .with_k_att(k_att)
        .with_k_trunc(4)
        .with_initial_slot(initial_slot)
        .with_slot_budget(Some(BUDGET))
}

fn drawn(config: &SabLstmConfig, device: &Device) -> Setup {
    setup(config, BATCH, TIME, 5, DType::F64, device)
}

fn named(output: &SabLstmOutput) -> Named {
    let slots = output.slots.to_data().iter::<f64>().collect();
    vec![
        ("hidden".to_owned(), numbers("hidden", &output.hidden)),
        ("summary".to_owned(), numbers("summary", &output.summary)),
        ("reminded of".to_owned(), slots),
        ("weights".to_owned(), numbers("weights", &output.weights)),
        ("last".to_owned(), numbers("last", &output.state.hidden)),
        ("slots".to_owned(), numbers("slots", &output.state.slots().unwrap())),
    ]
}

/// The definition, step by step: a layer without a budget, and a memory that is thinned on the host.
fn by_definition(setup: &Setup, x: Tensor<3>) -> (Tensor<3>, SabLstmState) {
    let mut layer = setup.layer.clone();
    layer.settings.slot_budget = None;
    let mut state = setup.state.clone();
    let mut hidden = Vec::new();
    for t in 0..TIME {
        let (h, next) = layer.forward(x.clone().narrow(1, t, 1), Some(state));
        hidden.push(h);
        state = next;
        if state.num_slots() < 2 * BUDGET {
            continue;
        }
        let slots = state.slots().unwrap();
        let [_, count, width] = slots.dims();
        let values = numbers("slots", &slots);
        let rows = (0..BATCH).map(|row| {
            let slot = |place: usize| &values[(row * count + place) * width..][..width];
            let mut by_distance: Vec<(f64, usize)> = (1..count)
                .map(|place| {
                    let pairs = slot(place).iter().zip(slot(place - 1));
                    (pairs.map(|(a, b)| (a - b).powi(2)).sum(), place)
                })
                .collect();
            by_distance.sort_by(|a, b| b.0.total_cmp(&a.0));
            let mut kept: Vec<usize> = by_distance[..BUDGET - 1].iter().map(|(_, p)| *p).collect();
            kept.push(0);
            kept.sort_unstable();
            let row = slots.clone().narrow(0, row, 1);
            Tensor::cat(kept.iter().map(|place| row.clone().narrow(1, *place, 1)).collect(), 1)
        });
        let thinned = Tensor::cat(rows.collect(), 0);
        state = state.with_slots(thinned);
    }
    (Tensor::cat(hidden, 1), state)
}

#[rstest]
fn values_and_gradients_are_those_of_the_definition(
    #[values(1, 2)] k_att: usize,
    #[values(InitialSlot::None, InitialSlot::Hidden)] initial: InitialSlot,
) {
    for device in cpu_devices() {
        let setup = drawn(&config(k_att, initial), &device);
        let run = |by_definition: Option<&dyn Fn(Tensor<3>) -> (Tensor<3>, SabLstmState)>| {
            let x = setup.x.clone().require_grad();
            let (hidden, state) = match by_definition {
                Some(definition) => definition(x.clone()),
                None => setup.layer.forward(x.clone(), Some(setup.state.clone())),
            };
            let slots = state.slots().unwrap();
            let loss =
                (hidden.clone() * setup.up.0.clone()).sum() + slots.clone().powi_scalar(2).sum();
            let grads = loss.backward();
            let found: Named = vec![
                ("hidden".to_owned(), numbers("hidden", &hidden)),
                ("slots".to_owned(), numbers("slots", &slots)),
                ("gradient of x".to_owned(), gradient("x", &x, &grads)),
                (
                    "gradient of W_hh".to_owned(),
                    gradient("W_hh", &setup.layer.weight_hh.val(), &grads),
                ),
            ];
            found
        };
        let want = run(Some(&|x| by_definition(&setup, x)));
        assert_close("with a budget", &run(None), &want, 1e-10);
    }
}

#[test]
fn a_budget_that_is_never_reached_changes_nothing() {
    for device in cpu_devices() {
        let config = config(1, InitialSlot::Hidden).with_slot_budget(None);
        let setup = drawn(&config, &device);
        let mut bounded = setup.layer.clone();
        bounded.settings.slot_budget = Some(TIME);
        let want = setup.layer.forward_with_reminders(setup.x.clone(), Some(setup.state.clone()));
        let got = bounded.forward_with_reminders(setup.x, Some(setup.state));
        assert_close("a large budget", &named(&got), &named(&want), 0.0);
    }
}

#[test]
fn the_memory_stays_within_twice_the_budget_however_the_sequence_is_cut() {
    for device in cpu_devices() {
        let setup = drawn(&config(2, InitialSlot::Hidden), &device);
        let whole = setup.layer.forward_with_reminders(setup.x.clone(), Some(setup.state.clone()));
        assert_eq!(whole.weights.dims(), [BATCH, TIME, 3]);
        assert!((BUDGET..2 * BUDGET).contains(&whole.state.num_slots()));
        for chunk in [1, 3, 7, 20] {
            let mut state = setup.state.clone();
            let mut parts = Vec::new();
            for from in (0..TIME).step_by(chunk) {
                let x = setup.x.clone().narrow(1, from, chunk.min(TIME - from));
                let part = setup.layer.forward_with_reminders(x, Some(state));
                assert!(part.state.num_slots() < 2 * BUDGET);
                state = part.state;
                parts.push(part.hidden);
            }
            let parts = vec![("hidden".to_owned(), numbers("hidden", &Tensor::cat(parts, 1)))];
            let want = vec![("hidden".to_owned(), numbers("hidden", &whole.hidden))];
            assert_close(&format!("chunks of {chunk}"), &parts, &want, 1e-10);
        }
    }
}

#[test]
fn steps_without_gradient_equal_the_sequence() {
    for device in cpu_devices() {
        let setup = drawn(&config(1, InitialSlot::Hidden), &device);
        let layer: SabLstm = setup.layer.valid();
        let x = setup.x.inner();
        let first = SabLstmState::new(setup.state.cell.inner(), setup.state.hidden.inner());
        let (hidden, _) = layer.forward(x.clone(), Some(first.clone()));
        let mut state = first;
        for t in 0..TIME {
            let step = x.clone().narrow(1, t, 1);
            let (h, next) = layer.step(step.squeeze_dim(1), Some(state));
            let want = vec![("h".to_owned(), numbers("h", &hidden.clone().narrow(1, t, 1)))];
            assert_close(
                &format!("step {t}"),
                &vec![("h".to_owned(), numbers("h", &h))],
                &want,
                1e-10,
            );
            assert!(next.num_slots() < 2 * BUDGET);
            state = next;
        }
    }
}

/// A summary is the weighted sum of the states that its slots name, also of slots far behind.
#[test]
fn slots_are_named_in_the_order_of_storing() {
    for device in cpu_devices() {
        let setup = drawn(&config(1, InitialSlot::None), &device);
        let output = setup.layer.forward_with_reminders(setup.x, Some(setup.state));
        let hidden = numbers("hidden", &output.hidden);
        let (summary, weights) =
            (numbers("summary", &output.summary), numbers("weights", &output.weights));
        let slots: Vec<i64> = output.slots.to_data().iter::<i64>().collect();
        for (i, want) in summary.iter().enumerate() {
            let (row, t, unit) = (i / (TIME * 6), i / 6 % TIME, i % 6);
            let of_step = (row * TIME + t) * 3..(row * TIME + t + 1) * 3;
            let got: f64 = of_step
                .clone()
                .filter(|place| weights[*place] != 0.0)
                .map(|place| {
                    let moment = slots[place] as usize;
                    assert!(moment < t);
                    weights[place] * hidden[(row * TIME + moment) * 6 + unit]
                })
                .sum();
            assert!((got - want).abs() < 1e-12, "row {row}, step {t}: {got} and {want}");
        }
    }
}

#[test]
fn read_out_steps_are_those_of_the_whole() {
    for device in cpu_devices() {
        let setup = drawn(&config(1, InitialSlot::Hidden), &device);
        let whole = setup.layer.forward_with_reminders(setup.x.clone(), Some(setup.state.clone()));
        for steps in [vec![0], vec![TIME - 1], vec![3, 4, 17, 30]] {
            let some = setup.layer.forward_at(setup.x.clone(), &steps, Some(setup.state.clone()));
            let at = |all: &Tensor<3>| {
                Tensor::cat(steps.iter().map(|t| all.clone().narrow(1, *t, 1)).collect(), 1)
            };
            assert_close(
                &format!("{steps:?}"),
                &vec![
                    ("hidden".to_owned(), numbers("hidden", &some.hidden)),
                    ("summary".to_owned(), numbers("summary", &some.summary)),
                    ("last".to_owned(), numbers("last", &some.state.hidden)),
                ],
                &vec![
                    ("hidden".to_owned(), numbers("hidden", &at(&whole.hidden))),
                    ("summary".to_owned(), numbers("summary", &at(&whole.summary))),
                    ("last".to_owned(), numbers("last", &whole.state.hidden)),
                ],
                1e-12,
            );
        }
    }
}

/// Of equals the older one stays, and the oldest slot always does.
#[test]
fn slots_that_stand_still_are_dropped() {
    for device in cpu_devices() {
        let config = config(1, InitialSlot::None).with_slot_budget(Some(3));
        let layer = drawn(&config, &device).layer;
        let slot = |value: f64| vec![value; 6];
        let memory = [1.0, 1.0, 1.0, 4.0, 4.0, 4.0, 9.0].map(slot).concat();
        let memory = Tensor::from_data(TensorData::new(memory, [1, 7, 6]), (&device, DType::F64));
        let zeros = Tensor::zeros([1, 6], (&device, DType::F64));
        let state = SabLstmState::new(zeros.clone(), zeros).with_slots(memory);
        let x = Tensor::zeros([1, 1, 3], (&device, DType::F64));
        let (_, state) = layer.forward(x, Some(state));
        let slots = numbers("slots", &state.slots().unwrap());
        let first_units: Vec<f64> = slots.chunks(6).map(|slot| slot[0]).collect();
        // The new slot came after the memory was thinned.
        assert_eq!(first_units[..3], [1.0, 4.0, 9.0]);
        assert_eq!(first_units.len(), 4);
    }
}
