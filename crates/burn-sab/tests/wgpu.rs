//! The layer on wgpu, with Burn's fusion where the build has it: the GPU kernels and the pass on backend
//! primitives give the same numbers as the reference on the CPU.
//!
//! Without an adapter these tests say so and pass; with `SAB_REQUIRE_GPU` set, as CI has it, they fail. Kept
//! tiny: on a software adapter most of the time goes into compiling shaders.

#![cfg(all(feature = "wgpu", feature = "flex"))]

mod common;

use std::sync::OnceLock;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor};
use burn_sab::{
    InitialSlot, NotCovered, SabLstmConfig, SabLstmState, ScoreConfig, Sparsifier, Strategy,
};
use common::extent::{Extent, assert_padding_has_no_effect};
use common::{
    Named, Setup, assert_close, conditioned, largest_error, named, normal, numbers,
    parameter_gradients, setup, steps,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The conformance bound of f32.
const BOUND: f64 = 1e-4;

fn wgpu() -> Option<Device> {
    // wgpu is set up once per process.
    static DEVICE: OnceLock<Result<Device, String>> = OnceLock::new();
    let device =
        DEVICE.get_or_init(|| Device::wgpu_options().init().map_err(|error| error.to_string()));
    match device {
        Ok(device) => Some(device.clone().autodiff()),
        Err(error) if std::env::var_os("SAB_REQUIRE_GPU").is_none() => {
            eprintln!(
                "SKIPPED: no adapter for wgpu ({error}); install a Vulkan driver to run this"
            );
            None
        }
        Err(error) => panic!("SAB_REQUIRE_GPU is set and there is no adapter for wgpu: {error}"),
    }
}

/// A run to compare: a layer, batch, steps, and carried slots.
struct Case {
    config: SabLstmConfig,
    batch: usize,
    time: usize,
    carried: usize,
}

impl Case {
    fn new(config: SabLstmConfig, batch: usize, time: usize) -> Self {
        Self { config, batch, time, carried: 0 }
    }

    fn carried(self, carried: usize) -> Self {
        Self { carried, ..self }
    }

    fn setup(&self, strategy: Strategy, seed: u64, dtype: DType, device: &Device) -> Setup {
        let config = self.config.clone().with_strategy(strategy);
        let mut setup = setup(&config, self.batch, self.time, seed, dtype, device);
        if self.carried > 0 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xCA);
            let sides = [self.batch, self.carried, config.d_hidden];
            setup.state = setup.state.with_slots(normal(&mut rng, sides, 1.0, dtype, device));
            // Both calendars are then in the middle of something.
            setup.state.step = self.carried * config.settings.k_att + 1;
        }
        setup
    }

    /// The reference on the CPU, and a seed at which it does not depend on the last bits.
    fn reference(&self, run: impl Fn(&Setup) -> (Named, Named)) -> (u64, Named, Named) {
        let flex = Device::flex().autodiff();
        let on = |seed, dtype| run(&self.setup(Strategy::Reference, seed, dtype, &flex));
        let found = (5..300).find_map(|seed| {
            conditioned(DType::F32, BOUND, |dtype| on(seed, dtype))
                .map(|(values, gradients)| (seed, values, gradients))
        });
        found.expect("one draw in three hundred is well conditioned")
    }

    fn agree_on(&self, strategies: &[Strategy], run: impl Fn(&Setup) -> (Named, Named)) {
        let Some(device) = wgpu() else { return };
        let (seed, values, gradients) = self.reference(&run);
        for &strategy in strategies {
            let (got_values, got_gradients) = run(&self.setup(strategy, seed, DType::F32, &device));
            let Self { config, batch, time, carried } = self;
            let what = format!("{strategy:?}, B {batch}, T {time}, M0 {carried}, {config}");
            assert_close(&what, &got_values, &values, BOUND);
            assert_close(&what, &got_gradients, &gradients, BOUND);
        }
    }

    fn agree(&self) {
        self.agree_on(&[Strategy::Fused], Setup::run);
    }
}

fn scores() -> [ScoreConfig; 3] {
    [
        ScoreConfig::Additive,
        ScoreConfig::Mlp { d_attention: 5 },
        ScoreConfig::Dot { d_attention: 5 },
    ]
}

const SPARSIFIERS: [Sparsifier; 3] =
    [Sparsifier::Threshold, Sparsifier::Released, Sparsifier::Softmax];

/// Nothing is a multiple of anything; slots come and go, windows begin inside and at the edges.
fn odd(score: ScoreConfig, sparsifier: Sparsifier) -> SabLstmConfig {
    SabLstmConfig::new(3, 7, true)
        .with_k_top(3)
        .with_k_att(2)
        .with_k_trunc(4)
        .with_score(score)
        .with_sparsifier(sparsifier)
}

#[test]
fn wgpu_kernels_agree_on_every_score_and_sparsifier() {
    for score in scores() {
        for sparsifier in SPARSIFIERS {
            Case::new(odd(score, sparsifier), 2, 13).carried(2).agree();
        }
    }
}

#[test]
fn wgpu_kernels_agree_on_limited_hops() {
    for ((hops, score), sparsifier) in [0, 1, 3].into_iter().zip(scores()).zip(SPARSIFIERS) {
        for sparsifier in [Sparsifier::Softmax, sparsifier] {
            let config = odd(score, sparsifier).with_max_hops(Some(hops)).with_k_att(1);
            Case::new(config, 2, 11).carried(1).agree();
        }
    }
    let released = odd(ScoreConfig::Additive, Sparsifier::Released).with_k_att(1);
    Case::new(released.with_max_hops(Some(1)), 2, 9).carried(2).agree();
}

#[test]
fn wgpu_kernels_agree_on_scaled_summaries_and_thinned_memories() {
    for score in scores() {
        let config = odd(score, Sparsifier::Threshold).with_summary_scale(0.6);
        Case::new(config, 2, 13)
            .carried(2)
            .agree_on(&[Strategy::Fused, Strategy::Primitives], Setup::run);
    }
    let dot = odd(ScoreConfig::Dot { d_attention: 5 }, Sparsifier::Softmax).with_k_att(1);
    let limited = dot.clone().with_summary_scale(0.6).with_max_hops(Some(1));
    Case::new(limited, 2, 9).agree();
    Case::new(dot.with_slot_budget(Some(3)), 2, 13).agree();
}

#[test]
fn wgpu_kernels_agree_at_the_edges() {
    let dot = || odd(ScoreConfig::Dot { d_attention: 5 }, Sparsifier::Threshold);
    // One of everything.
    let one = SabLstmConfig::new(1, 1, true).with_k_top(1).with_k_trunc(1);
    Case::new(one, 1, 1).agree();
    // No slot is ever stored.
    Case::new(dot().with_k_att(100), 2, 5).agree();
    // More places than slots; a window per step; then none at all.
    Case::new(dot().with_k_top(50).with_k_trunc(1), 1, 6).agree();
    Case::new(dot().with_k_top(1).with_k_trunc(1000), 3, 6).agree();
    // Keys wider than the state, more units than one plane has.
    let wide = SabLstmConfig::new(2, 70, true)
        .with_k_trunc(3)
        .with_score(ScoreConfig::Mlp { d_attention: 90 });
    Case::new(wide, 2, 6).agree();
}

/// Batches that fill the multiprocessors give each cube two or four rows, the last cube fewer.
#[test]
fn wgpu_kernels_agree_on_tiles_of_rows() {
    for (batch, score) in [(65, 1), (129, 2), (130, 0)] {
        let config = odd(scores()[score], Sparsifier::Softmax).with_k_att(1);
        Case::new(config, batch, 4).carried(1).agree();
    }
}

/// Lengths and resets of rows, two calls one after the other: the second begins with rows that have different numbers
/// of slots. Each row is what it is alone.
fn agree_on_rows(config: SabLstmConfig, time: usize, calls: &[Extent; 2]) {
    let Some(device) = wgpu() else { return };
    let run = |strategy, seed, dtype, device: &Device| {
        let config = config.clone().with_strategy(strategy);
        common::extent::run(&config, time, calls, seed, dtype, device)
    };
    let flex = Device::flex().autodiff();
    let found = (5..300).find_map(|seed| {
        let reference = |dtype| run(Strategy::Reference, seed, dtype, &flex);
        conditioned(DType::F32, BOUND, reference)
            .map(|(values, gradients)| (seed, values, gradients))
    });
    let (seed, values, gradients) = found.expect("one draw in three hundred is well conditioned");
    let (got_values, got_gradients) = run(Strategy::Fused, seed, DType::F32, &device);
    let what = format!("T {time}, {calls:?}, {config}");
    assert_close(&what, &got_values, &values, BOUND);
    assert_close(&what, &got_gradients, &gradients, BOUND);
}

fn three_rows() -> [Extent; 2] {
    let first = Extent { lengths: vec![9, 4, 0], resets: vec![vec![3, 4], vec![0, 2, 7], vec![1]] };
    let second = Extent { lengths: vec![5, 9, 7], resets: vec![vec![], vec![8], vec![0, 3]] };
    [first, second]
}

#[test]
fn wgpu_kernels_agree_on_rows_that_differ() {
    for ((score, sparsifier), hops) in
        scores().into_iter().zip(SPARSIFIERS).zip([Some(1), None, Some(2)])
    {
        for (initial, hops) in [(InitialSlot::Hidden, None), (InitialSlot::None, hops)] {
            let config = odd(score, sparsifier).with_initial_slot(initial).with_max_hops(hops);
            agree_on_rows(config, 9, &three_rows());
        }
    }
    // Released scores as weights, whose queries have gradient; every step stores.
    for score in scores() {
        let released = odd(score, Sparsifier::Released).with_k_att(1).with_learned_gain(true);
        agree_on_rows(released, 9, &three_rows());
    }
}

/// Rows of one cube, of which some have ended, some begin anew, and the last cube has fewer.
#[test]
fn wgpu_kernels_agree_on_tiles_of_rows_that_differ() {
    for (batch, score, sparsifier, hops) in [
        (65, 1, Sparsifier::Threshold, None),
        (129, 2, Sparsifier::Softmax, Some(1)),
        (130, 0, Sparsifier::Released, None),
    ] {
        let extent = |n: usize| Extent {
            lengths: (0..batch).map(|row| (row * n + row / 5) % 6).collect(),
            resets: (0..batch)
                .map(|row| ((row + n) % 3..5).step_by(2 + row % 2).collect())
                .collect(),
        };
        let config = odd(scores()[score], sparsifier).with_k_att(1).with_max_hops(hops);
        agree_on_rows(config, 5, &[extent(1), extent(7)]);
    }
}

#[test]
fn wgpu_padding_has_no_effect() {
    let Some(device) = wgpu() else { return };
    for (score, sparsifier) in scores().into_iter().zip(SPARSIFIERS) {
        let config = odd(score, sparsifier).with_strategy(Strategy::Fused);
        assert_padding_has_no_effect(&config, DType::F32, &device);
    }
}

/// Rows of different ages take a step together, and each is what it is alone.
#[test]
fn wgpu_steps_of_different_ages_agree() {
    let Some(device) = wgpu() else { return };
    let run = |strategy, device: &Device| {
        let config = odd(scores()[2], Sparsifier::Softmax).with_strategy(strategy);
        let setup = setup(&config, 3, 9, 5, DType::F32, device);
        let (layer, x) = (setup.layer.valid(), setup.x.inner());
        let (_, state) = layer.forward_padded(x.clone(), &[6, 0, 3], None);
        let state = steps(&layer, &x, 0..9, state);
        assert_eq!(state.slot_counts(), [8, 5, 7]);
        named(&state)
    };
    let want = run(Strategy::Reference, &Device::flex().autodiff());
    assert_close("steps", &run(Strategy::Fused, &device), &want, BOUND);
}

/// H at which shared memory does not hold the gates, on a device with 32 KiB.
#[test]
fn wgpu_kernels_agree_on_a_large_state() {
    let config = SabLstmConfig::new(2, 1200, true).with_k_top(2).with_k_trunc(2);
    Case::new(config.clone(), 1, 2).agree();
    let extent = |length| Extent { lengths: vec![length], resets: vec![vec![1]] };
    agree_on_rows(config, 3, &[extent(2), extent(3)]);
}

/// About as many rounds of loops as Mesa's software Vulkan goes through: what is planned for it has to end there
/// with the right numbers.
#[test]
fn wgpu_kernels_agree_on_the_longest_that_llvmpipe_runs() {
    let dot = SabLstmConfig::new(3, 128, true)
        .with_score(ScoreConfig::Dot { d_attention: 64 })
        .with_sparsifier(Sparsifier::Softmax)
        .with_k_top(5)
        .with_k_att(1);
    Case::new(dot.clone().with_k_trunc(82), 1, 82).agree();
    let Some(device) = wgpu() else { return };
    let longer = setup(&dot.with_strategy(Strategy::Fused), 1, 90, 5, DType::F32, &device);
    match longer.layer.coverage(longer.x.clone(), Some(longer.state.clone())) {
        Err(NotCovered::Iterations { most, .. }) => assert_eq!(most, 65_535),
        // A GPU runs it.
        covered => assert_eq!(covered, Ok(())),
    }
}

/// Every score is the same: the older slots win.
#[test]
fn wgpu_kernels_break_ties_by_age() {
    let Some(device) = wgpu() else { return };
    let run = |strategy, device: &Device| {
        let config = odd(ScoreConfig::Additive, Sparsifier::Softmax).with_strategy(strategy);
        let mut setup = setup(&config, 2, 21, 5, DType::F32, device);
        let burn_sab::Scorer::Additive(scorer) = &mut setup.layer.scorer else { unreachable!() };
        scorer.v = scorer.v.clone().map(|v| v.zeros_like());
        setup.run()
    };
    let (values, gradients) = run(Strategy::Reference, &Device::flex().autodiff());
    let (got_values, got_gradients) = run(Strategy::Fused, &device);
    assert_close("ties", &got_values, &values, BOUND);
    assert_close("ties", &got_gradients, &gradients, BOUND);
    let (_, slots) = got_values.iter().find(|(name, _)| name == "slots").expect("slots");
    assert_eq!(slots[slots.len() - 3..], [0.0, 1.0, 2.0], "the oldest, in their order");
}

/// Outputs of some steps, the last state and the slots.
#[test]
fn wgpu_kernels_agree_at_given_steps() {
    let config = odd(ScoreConfig::Dot { d_attention: 5 }, Sparsifier::Softmax);
    let at = |setup: &Setup| {
        let Setup { layer, x, state, up, .. } = setup;
        let (layer, x, state, up) = (layer.clone(), x.clone(), state.clone(), up.clone());
        Setup { layer, x, state, up, steps: Some(vec![2, 3, 9]) }.run()
    };
    Case::new(config, 2, 11).carried(1).agree_on(&[Strategy::Fused, Strategy::Primitives], at);
}

/// A gradient at the last step only: most windows have nothing to do. No gradient of x is asked for.
#[test]
fn wgpu_kernels_agree_on_a_gradient_at_the_last_step() {
    let run = |setup: &Setup| {
        let output = setup.layer.forward_with_reminders(setup.x.clone(), Some(setup.state.clone()));
        let [batch, time, hidden] = output.hidden.dims();
        let last = output.hidden.clone().slice([0..batch, time - 1..time, 0..hidden]);
        let up: Tensor<3> = setup.up.0.clone().slice([0..batch, 0..1, 0..hidden]);
        let grads = (last * up).sum().backward();
        let values = vec![("hidden".to_owned(), numbers("hidden", &output.hidden))];
        (values, parameter_gradients(&setup.layer, &grads))
    };
    for (score, hops) in scores().into_iter().zip([None, Some(1), Some(2)]) {
        let config = odd(score, Sparsifier::Softmax)
            .with_k_top(2)
            .with_k_trunc(2)
            .with_k_att(3)
            .with_max_hops(hops);
        Case::new(config, 2, 31).agree_on(&[Strategy::Fused], run);
    }
}

/// A number in f16 is off by at most this part of itself.
const ROUNDING: f64 = 1.0 / 2048.0;

/// Rounds parameters to f16 and back.
struct Half;

impl ModuleMapper for Half {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(half(param.val()))
    }
}

fn half<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    tensor.cast(DType::F16).cast(DType::F32).detach()
}

/// Numbers are stored in f16 and computed with in f32. Between an input and an output lie, per step, the
/// projected input, a gate, the cell and a slot as stored numbers, and as many on the way back: eight roundings,
/// of which those of other steps count less and less. The reference in f32 gets the inputs as f16 has them.
#[test]
fn wgpu_kernels_agree_in_half_precision() {
    const TIME: usize = 9;
    let Some(device) = wgpu() else { return };
    let flex = Device::flex().autodiff();
    let bound = 8.0 * ROUNDING;
    for ((score, sparsifier), hops) in
        scores().into_iter().zip(SPARSIFIERS).zip([None, Some(2), Some(1)])
    {
        let config = odd(score, sparsifier).with_max_hops(hops);
        let case = Case::new(config, 2, TIME).carried(2);
        let exact = |seed| case.setup(Strategy::Reference, seed, DType::F32, &flex);
        let rounded = |seed| {
            let Setup { layer, x, state, up, steps } = exact(seed);
            let slots = half(state.slots().expect("carried slots"));
            let step = state.step;
            let mut state =
                SabLstmState::new(half(state.cell), half(state.hidden)).with_slots(slots);
            state.step = step;
            let up = (half(up.0), half(up.1), half(up.2));
            Setup { layer: layer.map(&mut Half), x: half(x), state, up, steps }
        };
        // A score beside the selection boundary magnifies any rounding: not such a draw.
        let found = (5..300).find_map(|seed| {
            let (values, gradients) = rounded(seed).run();
            let (other_values, other_gradients) = exact(seed).run();
            let tame = largest_error(&values, &other_values) < bound / 4.0
                && largest_error(&gradients, &other_gradients) < bound / 4.0;
            tame.then_some((seed, values, gradients))
        });
        let (seed, values, gradients) = found.expect("a well-conditioned draw");
        let run = case.setup(Strategy::Fused, seed, DType::F16, &device);
        let hidden = run.layer.forward(run.x.clone(), Some(run.state.clone())).0;
        assert_eq!(hidden.dtype(), DType::F16);
        let (got_values, got_gradients) = run.run();
        let what = format!("f16, {}", case.config);
        println!(
            "{what}: values off by {:e}, gradients by {:e}, bound {bound:e}",
            largest_error(&got_values, &values),
            largest_error(&got_gradients, &gradients)
        );
        assert_close(&what, &got_values, &values, bound);
        assert_close(&what, &got_gradients, &gradients, bound);
        // The control: numbers that were not rounded to f16 would be closer.
        assert!(largest_error(&got_values, &values) > ROUNDING / 32.0, "{what}: not stored in f16");
    }
}

#[test]
fn wgpu_primitives_agree() {
    let primitives = [Strategy::Primitives];
    let config = SabLstmConfig::new(3, 6, true).with_k_top(2).with_k_trunc(3);
    Case::new(config, 3, 9).agree_on(&primitives, Setup::run);
    let limited =
        odd(ScoreConfig::Mlp { d_attention: 5 }, Sparsifier::Threshold).with_max_hops(Some(1));
    Case::new(limited, 2, 10).agree_on(&primitives, Setup::run);
}

/// What the kernels do not cover runs on primitives, unless the kernels were asked for.
#[test]
fn wgpu_falls_back_and_says_why() {
    let Some(device) = wgpu() else { return };
    let config = SabLstmConfig::new(1, 2, true).with_k_top(200).with_k_att(1);
    let run = |strategy| {
        let setup = setup(&config.clone().with_strategy(strategy), 1, 1, 5, DType::F32, &device);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let slots = normal(&mut rng, [1, 150, 2], 1.0, DType::F32, &device);
        let state = setup.state.with_slots(slots);
        numbers("hidden", &setup.layer.forward(setup.x, Some(state)).0)
    };
    assert_eq!(run(Strategy::Auto), run(Strategy::Primitives));
    // Beyond what the software adapter's loops allow, and nothing to a GPU: the numbers are right anyway.
    let long = SabLstmConfig::new(1, 128, true).with_k_top(2).with_k_att(50);
    let setup = setup(&long, 1, 150, 5, DType::F32, &device);
    let flex = common::setup(&long, 1, 150, 5, DType::F32, &Device::flex().autodiff());
    let hidden = |setup: &Setup| {
        let output = setup.layer.forward(setup.x.clone(), Some(setup.state.clone())).0;
        vec![("hidden".to_owned(), numbers("hidden", &output))]
    };
    assert_close("a long sequence", &hidden(&setup), &hidden(&flex), BOUND);
    let panic = std::panic::catch_unwind(|| run(Strategy::Fused)).expect_err("not covered");
    let message = panic.downcast_ref::<String>().expect("a message");
    assert!(message.contains("the kernels rank 128"), "{message}");
}
