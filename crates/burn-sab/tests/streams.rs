//! Streams: what a state carries from step to step is never visible in the numbers.

mod common;

use burn::module::Module;
use burn::tensor::{DType, Tensor};
use burn_sab::{SabLstm, SabLstmConfig, SabLstmState, ScoreConfig, Scorer, Sparsifier, Strategy};
use common::{Setup, assert_close, cpu_devices, named, numbers, setup, steps};

const SCORES: [ScoreConfig; 3] = [
    ScoreConfig::Additive,
    ScoreConfig::Mlp { d_attention: 5 },
    ScoreConfig::Dot { d_attention: 5 },
];

/// Without autodiff, with every score and sparsifier.
fn for_all(time: usize, test: impl Fn(&str, SabLstm, Setup)) {
    for device in cpu_devices() {
        for score in SCORES {
            for sparsifier in [Sparsifier::Threshold, Sparsifier::Released, Sparsifier::Softmax] {
                let config = SabLstmConfig::new(3, 6, true)
                    .with_k_top(3)
                    .with_k_att(2)
                    .with_score(score)
                    .with_sparsifier(sparsifier);
                // 35 rows are three tiles of the CPU kernel.
                let mut setup = setup(&config, 35, time, 3, DType::F64, &device);
                setup.x = setup.x.inner();
                let layer = setup.layer.valid();
                setup.state =
                    SabLstmState::new(setup.state.cell.inner(), setup.state.hidden.inner());
                test(&format!("{score:?}, {sparsifier:?}, {device:?}"), layer, setup);
            }
        }
    }
}

#[test]
fn steps_equal_the_sequence() {
    for_all(50, |what, layer, setup| {
        let want = layer.forward(setup.x.clone(), Some(setup.state.clone())).1;
        let got = steps(&layer, &setup.x, 0..50, setup.state);
        assert_eq!((got.num_slots(), got.step), (want.num_slots(), want.step));
        assert_close(what, &named(&got), &named(&want), 1e-10);
    });
}

/// A sequence goes on where steps stopped, and steps where a sequence stopped.
#[test]
fn steps_and_sequences_take_turns() {
    for_all(24, |what, layer, setup| {
        let want = layer.forward(setup.x.clone(), Some(setup.state.clone())).1;
        let state = steps(&layer, &setup.x, 0..7, setup.state);
        let state = layer.forward(setup.x.clone().narrow(1, 7, 9), Some(state)).1;
        let got = steps(&layer, &setup.x, 16..24, state);
        assert_close(what, &named(&got), &named(&want), 1e-10);
    });
}

/// What is done with one copy of a state does not show in the other.
#[test]
fn a_state_may_go_on_twice() {
    for_all(16, |what, layer, setup| {
        let fork = steps(&layer, &setup.x, 0..9, setup.state);
        let before = named(&fork);
        let other = setup.x.clone().neg();
        let want = named(&steps(&layer, &setup.x, 9..16, fork.clone()));
        steps(&layer, &other, 9..16, fork.clone());
        assert_close(what, &named(&fork), &before, 0.0);
        assert_close(what, &named(&steps(&layer, &setup.x, 9..16, fork)), &want, 0.0);
    });
}

/// Keys belong to the parameters that they were computed with.
#[test]
fn new_parameters_make_new_keys() {
    for_all(20, |what, layer, setup| {
        let mut other = layer.clone();
        match &mut other.scorer {
            Scorer::Additive(score) => score.v = score.v.clone().map(|v| v.neg()),
            Scorer::Mlp(score) => score.memory = score.memory.clone().map(|w| w * -2.0),
            Scorer::Dot(score) => score.key = score.key.clone().map(|w| w * -2.0),
        }
        let (first, second) = (0..12, 12..20);
        let state = steps(&layer, &setup.x, first.clone(), setup.state.clone());
        let got = steps(&other, &setup.x, second.clone(), state);

        let state = layer.forward(setup.x.clone().narrow(1, 0, 12), Some(setup.state)).1;
        let stale = layer.forward(setup.x.clone().narrow(1, 12, 8), Some(state.clone())).1;
        let want = other.forward(setup.x.clone().narrow(1, 12, 8), Some(state)).1;
        assert_close(what, &named(&got), &named(&want), 1e-10);
        let moved = numbers("hidden", &stale.hidden);
        assert!(moved != numbers("hidden", &want.hidden), "{what}: the parameters should matter");
    });
}

/// Another k_top needs longer lists.
#[test]
fn a_step_may_retrieve_more_than_the_one_before() {
    for_all(20, |what, mut layer, setup| {
        let (stepped, whole) = [2, 5].into_iter().enumerate().fold(
            (setup.state.clone(), setup.state),
            |(stepped, whole), (part, k_top)| {
                layer.settings.k_top = k_top;
                let x = setup.x.clone().narrow(1, part * 10, 10);
                (steps(&layer, &x, 0..10, stepped), layer.forward(x, Some(whole)).1)
            },
        );
        assert_close(what, &named(&stepped), &named(&whole), 1e-10);
    });
}

/// Steps of `x`, `[B, T, I]`, and their summaries, `[B, T, H]`.
fn summaries(layer: &SabLstm, x: &Tensor<3>, mut state: SabLstmState) -> (Tensor<3>, SabLstmState) {
    let mut summaries = vec![];
    for x in x.clone().iter_dim(1) {
        let (hidden, summary, next) = layer.step_with_summary(x.squeeze_dim(1), Some(state));
        assert_eq!(hidden.to_data(), next.hidden.to_data());
        summaries.push(summary);
        state = next;
    }
    (Tensor::stack(summaries, 1), state)
}

const STRATEGIES: [Strategy; 3] = [Strategy::Auto, Strategy::Primitives, Strategy::Reference];

#[test]
fn steps_give_the_summaries_of_the_sequence() {
    for_all(12, |what, mut layer, setup| {
        // The second is more than there are slots, or will be.
        for k_top in [3, u32::MAX as usize] {
            layer.settings.k_top = k_top;
            layer.settings.strategy = Strategy::Auto;
            let (x, state) = (setup.x.clone(), setup.state.clone());
            let want = layer.forward_with_reminders(x.clone(), Some(state.clone()));
            for strategy in STRATEGIES {
                layer.settings.strategy = strategy;
                let (got, after) = summaries(&layer, &x, state.clone());
                let off: f64 = (got - want.summary.clone()).abs().max().into_scalar();
                assert!(off < 1e-10, "{what}, {k_top}, {strategy:?}: {off}");
                assert_close(what, &named(&after), &named(&want.state), 1e-10);
            }
        }
        assert!(layer.settings.summary_scale != 1.0, "the factor should matter");
    });
}

/// The second row takes its first step, in which its slot is made, apart from the others.
#[test]
fn rows_of_different_ages_have_the_summaries_of_each_alone() {
    for_all(12, |what, mut layer, setup| {
        for strategy in STRATEGIES {
            layer.settings.strategy = strategy;
            let row = |row| (setup.x.clone().narrow(0, row, 1), setup.state.select(&[row]));
            let states: Vec<_> = [3, 0, 8]
                .into_iter()
                .enumerate()
                .map(|(r, age)| steps(&layer, &row(r).0, 0..age, row(r).1))
                .collect();
            let alone = states
                .iter()
                .enumerate()
                .map(|(r, state)| summaries(&layer, &row(r).0.narrow(1, 8, 4), state.clone()).0);
            let want = Tensor::cat(alone.collect(), 0);
            let x = setup.x.clone().narrow(0, 0, 3).narrow(1, 8, 4);
            let (got, _) = summaries(&layer, &x, SabLstmState::cat(&states).unwrap());
            let off: f64 = (got - want).abs().max().into_scalar();
            assert!(off < 1e-10, "{what}, {strategy:?}: {off}");
        }
    });
}
