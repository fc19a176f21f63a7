//! The index over slots (`n_probe`): every implementation has the same, a stream keeps it, and it finds what matters.
//!
//! A memory of fewer than 84 slots has a list for each. Longer ones are carried into the calls.

mod common;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use burn_sab::{SabLstm, SabLstmConfig, SabLstmState, ScoreConfig, Sparsifier, Strategy};
use common::generate::sparsifiers;
use common::{agree, assert_close, cpu_devices, named, normal, numbers, run, setup, steps};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generate;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const F64: f64 = 1e-10;

fn configs() -> impl Generate<Value = SabLstmConfig> {
    let probes = prop_oneof![1..4usize, Just(20), Just(1000)];
    let hops = prop::option::of(0..3usize);
    (1..7usize, 1..6usize, 1..3usize, 1..6usize, probes, sparsifiers(), hops).prop_map(
        |(d_attention, k_top, k_att, k_trunc, n_probe, sparsifier, hops)| {
            SabLstmConfig::new(2, 5, true)
                .with_score(ScoreConfig::Dot { d_attention })
                .with_k_top(k_top)
                .with_k_att(k_att)
                .with_k_trunc(k_trunc)
                .with_sparsifier(sparsifier)
                .with_max_hops(hops)
                .with_n_probe(Some(n_probe))
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_strategies_agree(
        config in configs(), batch in 1..4usize, time in 1..9usize, carried in 70..260usize, seed in any::<u64>()
    ) {
        for device in cpu_devices() {
            agree(&config, [batch, time, carried], None, seed, DType::F64, &device);
        }
    }

    #[test]
    fn steps_and_chunks_equal_the_sequence(
        config in configs(), time in 2..9usize, carried in 70..260usize, seed in any::<u64>()
    ) {
        for device in cpu_devices() {
            let (layer, x, state) = served(&config, [3, time, carried], seed, &device);
            let whole = layer.forward(x.clone(), Some(state.clone())).1;
            let stepped = steps(&layer, &x, 0..time, state.clone());
            assert_close("steps", &named(&stepped), &named(&whole), F64);
            let first = layer.forward(x.clone().narrow(1, 0, 1), Some(state)).1;
            let second = layer.forward(x.clone().narrow(1, 1, time - 1), Some(first)).1;
            assert_close("chunks", &named(&second), &named(&whole), F64);
        }
    }
}

/// One sequence whose own slots fill the lists, in both data types.
#[test]
fn a_long_sequence_agrees() {
    let config = SabLstmConfig::new(3, 7, true)
        .with_score(ScoreConfig::Dot { d_attention: 5 })
        .with_k_top(3)
        .with_n_probe(Some(1));
    for device in cpu_devices() {
        agree(&config, [2, 150, 0], None, 1, DType::F64, &device);
        agree(&config, [2, 120, 0], Some(&[100, 119]), 1, DType::F64, &device);
        agree(&config, [2, 5, 150], None, 1, DType::F32, &device);
    }
}

/// A layer, inputs and a memory without autodiff.
fn served(
    config: &SabLstmConfig,
    [batch, time, carried]: [usize; 3],
    seed: u64,
    device: &Device,
) -> (SabLstm, Tensor<3>, SabLstmState) {
    let setup = setup(config, batch, time, seed, DType::F64, device);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let slots = normal(&mut rng, [batch, carried, config.d_hidden], 1.0, DType::F64, device);
    let state = setup.state.valid().with_slots(slots.inner());
    (setup.layer.valid(), setup.x.inner(), state)
}

fn indexed() -> SabLstmConfig {
    SabLstmConfig::new(3, 6, true)
        .with_score(ScoreConfig::Dot { d_attention: 5 })
        .with_k_top(2)
        .with_n_probe(Some(1))
}

/// A stream whose rows are taken apart and put together, or stored and restored, goes on as if nothing had happened.
#[test]
fn a_stream_keeps_its_index() {
    for device in cpu_devices() {
        let (layer, x, state) = served(&indexed(), [9, 40, 200], 3, &device);
        let before = steps(&layer, &x, 0..20, state);
        let want = named(&steps(&layer, &x, 20..40, before.clone()));
        let joined = SabLstmState::cat(&before.split(&[1, 5, 3])).unwrap();
        assert_close("joined", &named(&steps(&layer, &x, 20..40, joined)), &want, 0.0);
        let device = x.device();
        let restored = || SabLstmState::from_record(before.clone().into_record(), &device).unwrap();
        assert_close("restored", &named(&steps(&layer, &x, 20..40, restored())), &want, F64);
        for strategy in [Strategy::Primitives, Strategy::Reference] {
            let mut layer = layer.clone();
            layer.settings.strategy = strategy;
            assert_close("restored", &named(&steps(&layer, &x, 20..40, restored())), &want, F64);
        }
        // Rows of different ages.
        let younger = layer.forward(x.clone().narrow(1, 0, 20), None).1;
        let alone = steps(&layer, &x, 20..40, younger.clone());
        let mixed = SabLstmState::cat(&[younger.select(&[4]), before.select(&[4])]).unwrap();
        let row = x.clone().narrow(0, 4, 1);
        let mixed = steps(&layer, &Tensor::cat(vec![row.clone(), row], 0), 20..40, mixed);
        let hidden = Tensor::cat(
            vec![
                alone.hidden.narrow(0, 4, 1),
                steps(&layer, &x, 20..40, before.clone()).hidden.narrow(0, 4, 1),
            ],
            0,
        );
        assert_close(
            "mixed",
            &vec![("hidden".to_owned(), numbers("hidden", &mixed.hidden))],
            &vec![("hidden".to_owned(), numbers("hidden", &hidden))],
            F64,
        );
    }
}

/// Settings are public: an index begins, changes or ends where the next step asks for it.
#[test]
fn a_stream_follows_its_setting() {
    for device in cpu_devices() {
        let (mut layer, x, state) = served(&indexed(), [2, 20, 200], 5, &device);
        let mut results = Vec::new();
        for n_probe in [Some(1), None, Some(3)] {
            let before = steps(&layer, &x, 0..5, state.clone());
            let mut other = layer.clone();
            other.settings.n_probe = n_probe;
            let fresh = before.clone().with_slots(before.slots().unwrap());
            let (want, got) = (steps(&other, &x, 5..20, fresh), steps(&other, &x, 5..20, before));
            assert_close("changed", &named(&got), &named(&want), F64);
            results.push(numbers("hidden", &got.hidden));
            layer = other;
        }
        assert_ne!(results[0], results[1]);
        assert_ne!(results[1], results[2]);
    }
}

/// With as many lists as there are, or a list for each slot, it is exact selection.
#[test]
fn enough_lists_are_exact() {
    let config = indexed().with_sparsifier(Sparsifier::Threshold);
    for device in cpu_devices() {
        for (dims, n_probe, bound) in [([3, 9, 250], 1000, 0.0), ([3, 60, 0], 1, F64)] {
            let of = |n_probe| {
                let config = config.clone().with_n_probe(n_probe);
                run(&config, dims, None, 2, DType::F64, &device)
            };
            let (exact, indexed) = (of(None), of(Some(n_probe)));
            assert_close("values", &indexed.0, &exact.0, bound);
            assert_close("gradients", &indexed.1, &exact.1, bound);
        }
    }
}

#[test]
fn other_scores_and_budgets_are_refused() {
    let error = indexed().with_score(ScoreConfig::Additive).validate().unwrap_err().to_string();
    assert!(error.contains("n_probe = 1") && error.contains("additive"), "{error}");
    let error = indexed().with_slot_budget(Some(7)).validate().unwrap_err().to_string();
    assert!(error.contains("n_probe = 1") && error.contains("slot_budget = 7"), "{error}");
    assert!(indexed().without_memory().with_score(ScoreConfig::Additive).validate().is_ok());
}
