//! Rows of different lengths and rows that start anew: each gives what it gives when it is run alone.

mod common;

use burn::module::Module;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};
use burn_sab::{
    InitialSlot, SabLstm, SabLstmConfig, SabLstmState, ScoreConfig, Segments, Sparsifier, Strategy,
};
use common::extent::{Extent, assert_padding_has_no_effect, run};
use common::generate::configs;
use common::{assert_close, conditioned, cpu_devices, gradient, numbers, setup};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;

const F64: f64 = 1e-10;

const STRATEGIES: [Strategy; 2] = [Strategy::Primitives, Strategy::Auto];

/// Rows of at most `time` steps, with some resets, some of them at padding.
fn extents(batch: usize, time: usize) -> impl Generate<Value = Extent> {
    let lengths = prop::collection::vec(0..=time, batch);
    let resets = prop::collection::vec(prop::collection::btree_set(0..time, 0..4usize), batch);
    (lengths, resets).prop_map(|(lengths, resets)| Extent {
        lengths,
        resets: resets.into_iter().map(|row| row.into_iter().collect()).collect(),
    })
}

/// What every strategy gives against the rows run apart by the reference.
fn agree(config: &SabLstmConfig, time: usize, calls: &[Extent; 2], seed: u64, device: &Device) {
    let with = |strategy, seed, dtype| {
        run(&config.clone().with_strategy(strategy), time, calls, seed, dtype, device)
    };
    let found = (0..300).find_map(|i| {
        let seed = seed.wrapping_add(2 * i);
        let reference = |dtype| with(Strategy::Reference, seed, dtype);
        conditioned(DType::F64, F64, reference).map(|(values, gradients)| (seed, values, gradients))
    });
    let (seed, values, gradients) = found.expect("one draw in three hundred is well conditioned");
    for strategy in STRATEGIES {
        let what = format!("{strategy:?} {device:?} {calls:?} {config}");
        let (got_values, got_gradients) = with(strategy, seed, DType::F64);
        assert_close(&what, &got_values, &values, F64);
        assert_close(&what, &got_gradients, &gradients, F64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// All rows in one call on the CPU kernel, and one by one everywhere else.
    #[test]
    fn all_strategies_agree(
        config in configs(), hops in prop::option::of(0..3usize), first in extents(5, 13), second in extents(5, 13),
        recompute in any::<bool>(), seed in any::<u64>(),
    ) {
        let recompute = if recompute { burn_sab::Recompute::Always } else { burn_sab::Recompute::Auto };
        let config = config.with_max_hops(hops).with_recompute(recompute);
        for device in cpu_devices() {
            agree(&config, 13, &[first.clone(), second.clone()], seed, &device);
        }
    }

    /// With a budget, every row is thinned at its own times.
    #[test]
    fn all_strategies_agree_with_a_budget(
        config in configs(), budget in 1..4usize, first in extents(3, 13), second in extents(3, 13), seed in any::<u64>(),
    ) {
        let config = config.with_slot_budget(Some(budget));
        for device in cpu_devices() {
            agree(&config, 13, &[first.clone(), second.clone()], seed, &device);
        }
    }

    /// The definition, written out once more: a row of a call is the row alone, part by part, without padding.
    #[test]
    fn a_row_is_the_row_alone(config in configs(), extent in extents(4, 11), seed in any::<u64>()) {
        for device in cpu_devices() {
            let setup = setup(&config, 4, 11, seed, DType::F64, &device);
            let segments = extent.segments(11);
            let output = setup.layer.forward_segments(setup.x.clone(), &segments, Some(setup.state.clone()));
            for (row, count) in output.state.slot_counts().into_iter().enumerate() {
                let of_row = |tensor: &Tensor<2>| tensor.clone().narrow(0, row, 1);
                let mut state = SabLstmState::new(of_row(&setup.state.cell), of_row(&setup.state.hidden));
                let mut hidden = Vec::new();
                let length = extent.lengths[row];
                let mut bounds: Vec<usize> = vec![0, length];
                bounds.extend(extent.resets[row].iter().filter(|t| **t < length));
                bounds.sort_unstable();
                bounds.dedup();
                for part in bounds.windows(2) {
                    if extent.resets[row].contains(&part[0]) {
                        let zeros = state.hidden.zeros_like();
                        state = SabLstmState::new(zeros.clone(), zeros);
                    }
                    let x = setup.x.clone().narrow(0, row, 1).narrow(1, part[0], part[1] - part[0]);
                    let (part, next) = setup.layer.forward(x, Some(state));
                    hidden.extend(numbers("hidden", &part));
                    state = next;
                }
                let what = format!("row {row}, {extent:?}, {config}");
                let got = numbers("hidden", &output.hidden.clone().narrow(0, row, 1));
                let (steps, padding) = got.split_at(hidden.len());
                assert_close(&what, &vec![("h".into(), steps.to_vec())], &vec![("h".into(), hidden)], F64);
                prop_assert!(padding.iter().all(|h| *h == 0.0), "{what}");
                prop_assert_eq!(output.state.steps()[row], state.step, "{}", &what);
                prop_assert_eq!(count, state.num_slots(), "{}", &what);
                let last = |state: &Tensor<2>, row| numbers("last", &state.clone().narrow(0, row, 1));
                let got = vec![
                    ("hidden".to_owned(), last(&output.state.hidden, row)),
                    ("cell".to_owned(), last(&output.state.cell, row)),
                ];
                let want = vec![
                    ("hidden".to_owned(), last(&state.hidden, 0)),
                    ("cell".to_owned(), last(&state.cell, 0)),
                ];
                assert_close(&what, &got, &want, F64);
            }
        }
    }
}

fn small() -> SabLstmConfig {
    SabLstmConfig::new(2, 5, true)
        .with_k_top(3)
        .with_k_att(2)
        .with_k_trunc(4)
        .with_score(ScoreConfig::Dot { d_attention: 4 })
}

#[test]
fn padding_has_no_effect() {
    for device in cpu_devices() {
        for strategy in [Strategy::Reference, Strategy::Primitives, Strategy::Auto] {
            for sparsifier in [Sparsifier::Threshold, Sparsifier::Softmax, Sparsifier::Released] {
                let config = small().with_strategy(strategy).with_sparsifier(sparsifier);
                assert_padding_has_no_effect(&config, DType::F64, &device);
            }
        }
    }
}

/// No gradient crosses a reset, and no slot from before it is seen.
#[test]
fn a_reset_is_a_wall() {
    for device in cpu_devices() {
        for strategy in [Strategy::Reference, Strategy::Primitives, Strategy::Auto] {
            let config = small().with_strategy(strategy).full_backpropagation();
            let setup = setup(&config, 2, 8, 1, DType::F64, &device);
            let x = setup.x.clone().require_grad();
            let mask = [false, false, false, true, false, false, false, false];
            let mask = [mask, [false; 8]].concat();
            let mask = Tensor::<2, Bool>::from_data(TensorData::new(mask, [2, 8]), &device);
            let segments = Segments::new(2, 8).with_reset_mask(mask).unwrap();
            let output = setup.layer.forward_segments(x.clone(), &segments, Some(setup.state));
            let grads = output.hidden.narrow(1, 7, 1).sum().backward();
            let of_x = gradient("x", &x, &grads);
            let reached: Vec<bool> =
                of_x.chunks(2).map(|grad| grad.iter().any(|grad| *grad != 0.0)).collect();
            assert_eq!(reached[..8], [false, false, false, true, true, true, true, true]);
            assert_eq!(reached[8..], [true; 8], "{strategy:?}: the other row");
            assert_eq!(output.state.steps(), [5, 8]);
            // The initial slot, and one after every second step from the reset.
            assert_eq!(output.state.slot_counts(), [3, 5]);
        }
    }
}

/// Each row of a layer with `reverse` is read from its own end.
#[test]
fn reverse_begins_at_the_end_of_a_row() {
    for device in cpu_devices() {
        let forward = setup(&small(), 3, 7, 2, DType::F64, &device);
        let mut layer = forward.layer.clone();
        layer.reverse = true;
        let lengths = [7, 3, 5];
        let (hidden, state) = layer.forward_padded(forward.x.clone(), &lengths, None);
        for (row, length) in lengths.into_iter().enumerate() {
            let x = forward.x.clone().narrow(0, row, 1).narrow(1, 0, length);
            let (want, last) = layer.forward(x, None);
            let got = hidden.clone().narrow(0, row, 1).narrow(1, 0, length);
            let named = |h: &Tensor<3>, c: &Tensor<2>| {
                vec![("h".to_owned(), numbers("h", h)), ("c".to_owned(), numbers("c", c))]
            };
            let cell = state.cell.clone().narrow(0, row, 1);
            assert_close("reverse", &named(&got, &cell), &named(&want, &last.cell), F64);
        }
    }
}

/// A state whose rows differ goes on in ordinary calls and in steps.
#[test]
fn a_state_of_different_rows_goes_on() {
    for device in cpu_devices() {
        for initial in [InitialSlot::None, InitialSlot::Hidden] {
            let config = small().with_initial_slot(initial);
            let setup = setup(&config, 3, 9, 3, DType::F64, &device);
            let layer: SabLstm = setup.layer.valid();
            let x = setup.x.clone().inner();
            let (_, state) = layer.forward_padded(x.clone(), &[9, 0, 4], None);
            let (hidden, whole) = layer.forward(x.clone(), Some(state.clone()));
            let mut stepped = state.clone();
            for t in 0..9 {
                let x = x.clone().narrow(1, t, 1).squeeze_dim(1);
                stepped = layer.step(x, Some(stepped)).1;
            }
            let named = |state: &SabLstmState| {
                let slots = state.slots().expect("slots");
                vec![
                    ("hidden".to_owned(), numbers("hidden", &state.hidden)),
                    ("cell".to_owned(), numbers("cell", &state.cell)),
                    ("slots".to_owned(), numbers("slots", &slots)),
                ]
            };
            assert_close("steps", &named(&stepped), &named(&whole), F64);
            assert_eq!((stepped.steps(), whole.steps()), (vec![18, 9, 13], vec![18, 9, 13]));
            // The second row has just begun.
            let of_row = x.narrow(0, 1, 1);
            let (want, _) = layer.forward(of_row, None);
            let got = hidden.narrow(0, 1, 1);
            let named = |tensor| vec![("h".to_owned(), numbers("h", tensor))];
            assert_close("a row at its start", &named(&got), &named(&want), F64);
        }
    }
}

#[test]
#[should_panic(expected = "row 1: length 10, expected at most 9, the steps of x")]
fn a_length_beyond_the_steps_is_named() {
    let device = &cpu_devices()[0];
    let layer = small().init(device);
    layer.forward_padded(Tensor::zeros([2, 9, 2], device), &[3, 10], None);
}

#[test]
#[should_panic(expected = "segments has shape [3, 9], expected [2, 9] (batch and steps of x)")]
fn segments_of_another_batch_are_named() {
    let device = &cpu_devices()[0];
    let layer = small().init(device);
    layer.forward_segments(Tensor::zeros([2, 9, 2], device), &Segments::new(3, 9), None);
}

/// An index begins anew where a row does. The rows have more than 83 slots, of which an index searches a part.
#[test]
fn an_index_is_of_what_a_row_can_see() {
    let config = SabLstmConfig::new(2, 5, true)
        .with_score(ScoreConfig::Dot { d_attention: 4 })
        .with_k_top(2)
        .with_n_probe(Some(1));
    let first = Extent { lengths: vec![120, 110, 0], resets: vec![vec![], vec![5, 15], vec![]] };
    let second = Extent { lengths: vec![10, 20, 120], resets: vec![vec![], vec![7], vec![20]] };
    for device in cpu_devices() {
        agree(&config, 120, &[first.clone(), second.clone()], 1, &device);
    }
}
