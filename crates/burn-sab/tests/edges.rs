//! Inputs at the edge: what does not fit is named, what is empty gives what is empty, and nothing goes on
//! silently.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::{LstmConfig, LstmState};
use burn::tensor::{DType, Device, Tensor};
use burn_sab::{
    ConfigError, InputError, NotCovered, SabLstm, SabLstmConfig, SabLstmState, ScoreConfig,
    Sparsifier, Strategy,
};
use common::{assert_close, cpu_devices, normal, numbers};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const STRATEGIES: [Strategy; 3] = [Strategy::Reference, Strategy::Primitives, Strategy::Auto];

const B: usize = 4;
const T: usize = 6;
const I: usize = 3;
const H: usize = 5;

/// What a call panics with; fails if it does not, or panics with something that is not a text.
fn panic_of<R>(call: impl FnOnce() -> R) -> String {
    let payload = catch_unwind(AssertUnwindSafe(call)).err().expect("a panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => (*other.downcast::<&str>().expect("a text")).to_owned(),
    }
}

fn layer(strategy: Strategy, device: &Device) -> SabLstm {
    SabLstmConfig::new(I, H, true).with_k_top(3).with_strategy(strategy).init(device)
}

fn zeros<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::zeros(shape, device)
}

/// A state, an input, or a device that does not fit is named, with its shape or type and what was expected, on
/// every path.
#[test]
fn what_does_not_fit_is_named() {
    for device in cpu_devices() {
        for strategy in STRATEGIES {
            let layer = layer(strategy, &device);
            let x = || zeros([B, T, I], &device);
            let state = || SabLstmState::initial([B, H], &device);
            let forward =
                |x: Tensor<3>, state: SabLstmState| panic_of(|| layer.forward(x, Some(state)));
            let told = [
                // Slots of another batch and another width.
                (
                    forward(x(), state().with_slots(zeros([2, 6, 64], &device))),
                    "state.slots has shape [2, 6, 64], expected [4, 6, 5]",
                ),
                (
                    forward(x(), SabLstmState::initial([B, 64], &device)),
                    "state.hidden has shape [4, 64], expected [4, 5]",
                ),
                (
                    {
                        let mut state = state();
                        state.cell = zeros([B, 9], &device);
                        forward(x(), state)
                    },
                    "state.cell has shape [4, 9], expected [4, 5]",
                ),
                (
                    forward(zeros([B, T, 7], &device), state()),
                    "x has shape [4, 6, 7], expected [4, 6, 3]",
                ),
                (
                    forward(x(), state().with_slots(zeros([B, 2, H], &device).cast(DType::F64))),
                    "state.slots (shape [4, 2, 5]) is F64, expected F32 as the weights",
                ),
                (
                    forward(x().cast(DType::F64), state()),
                    "x (shape [4, 6, 3]) is F64, expected F32",
                ),
            ];
            for (told, expected) in told {
                assert!(told.contains(expected), "{strategy:?}: {told}");
            }
        }
    }
}

/// A step checks what a sequence checks.
#[test]
fn a_step_checks_its_state() {
    for device in cpu_devices() {
        let layer = layer(Strategy::Auto, &device).valid();
        let device = device.clone().inner();
        let state = SabLstmState::initial([B, H], &device).with_slots(zeros([2, 6, H], &device));
        let told = panic_of(|| layer.step(zeros([B, I], &device), Some(state)));
        assert!(told.contains("state.slots has shape [2, 6, 5], expected [4, 6, 5]"), "{told}");
    }
}

/// Tensors of another backend are named; with one backend in the build there is nothing to mix.
#[test]
fn another_backend_is_named() {
    let devices = cpu_devices();
    for (device, other) in devices.iter().zip(devices.iter().skip(1)) {
        let layer = layer(Strategy::Auto, device);
        let told = panic_of(|| layer.forward(zeros([B, T, I], other), None));
        assert!(told.contains("x (shape [4, 6, 3]) is on") && told.contains("to_device"), "{told}");
    }
}

/// As `burn::nn::Lstm` does.
#[test]
fn no_rows_and_no_steps_give_empty_tensors() {
    for device in cpu_devices() {
        for strategy in STRATEGIES {
            for budget in [None, Some(2)] {
                let mut layer = layer(strategy, &device);
                layer.settings.slot_budget = budget;
                for (batch, time) in [(0, T), (B, 0), (0, 0)] {
                    let (hidden, state) = layer.forward(zeros([batch, time, I], &device), None);
                    assert_eq!(hidden.dims(), [batch, time, H]);
                    assert_eq!((state.hidden.dims(), state.step), ([batch, H], time));
                    let output =
                        layer.forward_with_reminders(zeros([batch, time, I], &device), None);
                    assert_eq!(output.summary.dims(), [batch, time, H]);
                    assert_eq!(output.slots.dims(), output.weights.dims());
                }
                // A sequence of no steps changes nothing.
                let (_, state) = layer.forward(zeros([B, T, I], &device), None);
                let (_, after) = layer.forward(zeros([B, 0, I], &device), Some(state.clone()));
                assert_eq!((after.num_slots(), after.step), (state.num_slots(), T));
            }
            let layer = layer(strategy, &device).valid();
            let x = zeros([0, I], &device.clone().inner());
            assert_eq!(layer.step(x, None).0.dims(), [0, H]);
        }
    }
}

#[test]
fn wrong_steps_are_told_as_they_were_given() {
    for device in cpu_devices() {
        for reverse in [false, true] {
            let config = SabLstmConfig::new(I, H, true).with_reverse(reverse);
            let layer = config.init(&device);
            for steps in [&[T][..], &[2, 1], &[]] {
                let told = panic_of(|| layer.forward_at(zeros([B, T, I], &device), steps, None));
                assert!(told.contains(&format!("steps {steps:?}")) && told.contains("6"), "{told}");
            }
        }
    }
}

#[test]
fn no_slots_are_no_memory() {
    for device in cpu_devices() {
        let layer = layer(Strategy::Auto, &device);
        let x = normal(&mut ChaCha8Rng::seed_from_u64(1), [B, T, I], 1.0, DType::F32, &device);
        let state = SabLstmState::initial([B, H], &device);
        let (want, _) = layer.forward(x.clone(), Some(state.clone()));
        // The initial slot is still there.
        let (got, _) = layer.forward(x, Some(state.with_slots(zeros([B, 0, H], &device))));
        assert_eq!(numbers("got", &got), numbers("want", &want));
    }
}

type Change = fn(&mut SabLstm);

/// Settings are public, and can be changed after `init`.
#[test]
fn a_setting_changed_to_zero_is_named() {
    for device in cpu_devices() {
        for strategy in STRATEGIES {
            let changes: [(Change, &str); 5] = [
                (|layer| layer.settings.k_top = 0, "k_top = 0"),
                (|layer| layer.settings.k_att = 0, "k_att = 0"),
                (|layer| layer.settings.k_trunc = 0, "k_trunc = 0"),
                (|layer| layer.settings.slot_budget = Some(0), "slot_budget = 0"),
                (|layer| layer.settings.n_probe = Some(0), "n_probe = 0"),
            ];
            for (change, expected) in changes {
                let mut layer = layer(strategy, &device);
                change(&mut layer);
                let told = panic_of(|| layer.forward(zeros([B, T, I], &device), None));
                assert!(told.contains(expected), "{told}");
            }
        }
    }
}

/// More ranks than there will ever be slots.
#[test]
fn a_step_may_retrieve_all_there_is() {
    let scores = [ScoreConfig::Additive, ScoreConfig::Dot { d_attention: 4 }];
    for device in cpu_devices() {
        for score in scores {
            // Not `Released`, which takes raw scores as weights while there are few slots: h grows without bound.
            for sparsifier in [Sparsifier::Threshold, Sparsifier::Softmax] {
                let config = SabLstmConfig::new(I, H, true)
                    .with_k_top(usize::MAX)
                    .with_score(score)
                    .with_sparsifier(sparsifier);
                let layer = config.init(&device).valid();
                let device = device.clone().inner();
                let mut rng = ChaCha8Rng::seed_from_u64(2);
                let x = normal(&mut rng, [2, 30, I], 1.0, DType::F32, &device);
                let (want, _) = layer.forward(x.clone(), None);
                let mut state = None;
                for t in 0..30 {
                    let (_, next) = layer.step(x.clone().narrow(1, t, 1).squeeze_dim(1), state);
                    state = Some(next);
                }
                let got = state.expect("thirty steps").hidden;
                let last = want.narrow(1, 29, 1).squeeze_dim(1);
                let named = |t: &Tensor<2>| vec![("hidden".to_owned(), numbers("hidden", t))];
                assert_close("steps", &named(&got), &named(&last), 1e-4);
            }
        }
    }
}

/// A NaN ranks below every number, on every path: a slot that holds one is not retrieved while there are
/// enough others.
#[test]
fn a_slot_that_is_not_a_number_ranks_last() {
    for device in cpu_devices() {
        for score in [
            ScoreConfig::Mlp { d_attention: 4 },
            ScoreConfig::Dot { d_attention: 4 },
            ScoreConfig::Additive,
        ] {
            for sparsifier in [Sparsifier::Threshold, Sparsifier::Softmax] {
                let mut rng = ChaCha8Rng::seed_from_u64(3);
                let slots = normal(&mut rng, [2, 6, H], 1.0, DType::F64, &device);
                let nan = slots.clone().narrow(1, 2, 1) * f64::NAN;
                let slots =
                    Tensor::cat(vec![slots.clone().narrow(1, 0, 2), nan, slots.narrow(1, 3, 3)], 1);
                let config = SabLstmConfig::new(I, H, true)
                    .with_k_top(3)
                    .with_k_att(100)
                    .with_score(score)
                    .with_sparsifier(sparsifier);
                let setup = common::setup(&config, 2, T, 4, DType::F64, &device);
                let outputs = STRATEGIES.map(|strategy| {
                    let mut layer = setup.layer.clone();
                    layer.settings.strategy = strategy;
                    let state = setup.state.clone().with_slots(slots.clone());
                    let output = layer.forward_with_reminders(setup.x.clone(), Some(state));
                    // Finite, or `numbers` fails.
                    (
                        numbers("hidden", &output.hidden),
                        output.slots.into_data().iter::<i64>().collect::<Vec<_>>(),
                    )
                });
                for (hidden, slots) in &outputs {
                    assert!(!slots.contains(&2), "{score:?} {sparsifier:?}: {slots:?}");
                    assert_eq!(slots, &outputs[0].1, "{score:?} {sparsifier:?}");
                    let off = hidden.iter().zip(&outputs[0].0).map(|(a, b)| (a - b).abs());
                    assert!(off.fold(0.0, f64::max) < 1e-10);
                }
            }
        }
    }
}

/// What rules a strategy out may come from the `Lstm`.
#[test]
fn a_conversion_checks_what_it_copies() {
    for device in cpu_devices() {
        let lstm = LstmConfig::new(I, H, true).with_clip(Some(0.5)).init(&device);
        let config = SabLstmConfig::new(1, 1, true).with_strategy(Strategy::Primitives);
        let error = config.try_init_from(lstm.clone()).expect_err("clip is not covered");
        assert!(matches!(error, ConfigError::NotCovered { option: "clip", .. }), "{error}");
        // Settings of the configuration that the Lstm replaces do not count.
        let config = SabLstmConfig::new(1, 1, true).with_clip(Some(2.0));
        assert_eq!(config.try_init_from(lstm).expect("covered").clip, Some(0.5));
    }
}

/// Whether the kernel covers a call is a typed answer.
#[test]
fn coverage_is_answered_by_a_reason() {
    for device in cpu_devices() {
        let layer = layer(Strategy::Auto, &device);
        let x = || zeros([B, T, I], &device);
        assert_eq!(layer.coverage(x(), None), Ok(()));
        let mut clipped = layer.clone();
        clipped.clip = Some(1.0);
        let reason = clipped.coverage(x(), None).expect_err("clip");
        assert_eq!(reason, NotCovered::Option { option: "clip" });
    }
    #[cfg(feature = "flex")]
    {
        let device = Device::flex();
        let half = layer(Strategy::Auto, &device).map(&mut common::Cast(DType::F16));
        let x = zeros::<3>([B, T, I], &device).cast(DType::F16);
        let reason = half.coverage(x, None).expect_err("a type that the kernel has not");
        assert!(matches!(reason, NotCovered::DataType { dtype: DType::F16, .. }), "{reason}");
    }
}

/// Shapes instead of all elements.
#[test]
fn the_debug_form_of_a_state_is_short() {
    for device in cpu_devices() {
        let layer = layer(Strategy::Auto, &device).valid();
        let device = device.clone().inner();
        let mut state =
            SabLstmState::initial([8, H], &device).with_slots(zeros([8, 1000, H], &device));
        assert!(format!("{state:?}").len() < 200, "{state:?}");
        state = layer.step(zeros([8, I], &device), Some(state)).1;
        let text = format!("{state:?}");
        assert!(text.len() < 200 && text.contains("1001"), "{text}");
    }
}

/// A state that training left serves a layer without autodiff, and leaves the graph behind.
#[test]
fn a_state_of_training_can_be_served() {
    for device in cpu_devices() {
        let layer = layer(Strategy::Auto, &device);
        let x = normal(&mut ChaCha8Rng::seed_from_u64(5), [B, T, I], 1.0, DType::F32, &device);
        let (_, trained) = layer.forward(x, None);
        assert!(trained.hidden.is_tracked());
        let served = layer.valid();
        let x = zeros([B, I], &device.clone().inner());
        let slots = trained.num_slots();
        for state in [trained.clone(), trained.clone().detach(), trained.clone().valid()] {
            let (hidden, next) = served.step(x.clone(), Some(state.clone()));
            assert!(!hidden.is_autodiff() && !next.cell.is_autodiff());
            assert_eq!(next.num_slots(), slots + 1);
            let (hidden, next) = served.forward(x.clone().unsqueeze_dim(1), Some(state));
            let slots = next.slots().expect("some");
            assert!(!hidden.is_autodiff() && !next.hidden.is_autodiff() && !slots.is_autodiff());
        }
        let moved = trained.valid().to_device(&device.clone().inner());
        assert_eq!((moved.num_slots(), moved.step), (slots, T));
    }
}

/// Under autodiff a step would keep all slots for its own backward pass: T² of them in all.
#[test]
fn a_tracked_step_is_refused() {
    for device in cpu_devices() {
        let layer = layer(Strategy::Auto, &device);
        let told = panic_of(|| layer.step(zeros([B, I], &device), None));
        assert!(
            told.contains("the layer is tracked") && told.contains("SabLstm::forward"),
            "{told}"
        );
        let frozen = layer.no_grad();
        let x = zeros::<2>([B, I], &device).require_grad();
        let told = panic_of(|| frozen.step(x, None));
        assert!(told.contains("x is tracked"), "{told}");
        // Nothing is tracked: it runs.
        assert_eq!(frozen.step(zeros([B, I], &device), None).0.dims(), [B, H]);
    }
}

/// The swap from `burn::nn::Lstm` is the names of the types.
#[test]
fn the_state_begins_as_that_of_burn() {
    for device in cpu_devices() {
        let theirs = LstmState::initial([B, H], &device);
        let ours = SabLstmState::initial([B, H], &device);
        assert_eq!(ours.cell.dims(), theirs.cell.dims());
        let error = InputError::Steps { steps: vec![3], time: 2 }.to_string();
        assert!(error.contains("[3]"), "{error}");
    }
}

/// Parts of a sequence with a budget are a tree of slices: four times the steps take a little more than four times
/// as long backward, where parts sliced from the whole took sixteen.
#[test]
fn a_budget_costs_no_square_of_the_length() {
    let device = common::cpu();
    let config = SabLstmConfig::new(4, 4, true)
        .with_slot_budget(Some(4))
        .with_k_top(2)
        .with_score(ScoreConfig::Dot { d_attention: 2 });
    let layer = config.init(&device);
    let time_of = |steps: usize| {
        let x = zeros::<3>([16, steps, 4], &device).require_grad();
        let loss = layer.forward(x, None).0.sum();
        let start = Instant::now();
        let _gradients = loss.backward();
        start.elapsed()
    };
    // The least of each, in turns: other work on the machine lengthens a time, and shortens none.
    let (mut short, mut long, mut times) = (Duration::MAX, Duration::MAX, f64::INFINITY);
    for round in 0..10 {
        short = short.min(time_of(2_000));
        long = long.min(time_of(8_000));
        times = long.as_secs_f64() / short.as_secs_f64();
        if round >= 2 && times < 9.0 {
            break;
        }
    }
    assert!(times < 9.0, "{times:.1} times as long: {short:?}, {long:?}");
}
