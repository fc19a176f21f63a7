//! Numbers at the edge of their type: infinities, NaN, denormals, equal scores and huge ones, on every path. The
//! table "Special values" of the algorithm's chapter says the same in words.

mod common;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sab::{SabLstm, SabLstmConfig, SabLstmState, ScoreConfig, Sparsifier, Strategy};
use common::{cpu_devices, normal, setup};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const STRATEGIES: [Strategy; 3] = [Strategy::Reference, Strategy::Primitives, Strategy::Auto];
const SPARSIFIERS: [Sparsifier; 3] =
    [Sparsifier::Threshold, Sparsifier::Softmax, Sparsifier::Released];
const SCORES: [ScoreConfig; 3] = [
    ScoreConfig::Additive,
    ScoreConfig::Mlp { d_attention: 4 },
    ScoreConfig::Dot { d_attention: 4 },
];

const B: usize = 3;
const T: usize = 9;
const I: usize = 3;
const H: usize = 5;
const K_TOP: usize = 3;

/// Calls `test` with every configuration, CPU backend and float type.
fn every_path(test: impl Fn(&SabLstmConfig, DType, &Device, &str)) {
    for device in cpu_devices() {
        for dtype in [DType::F32, DType::F64] {
            for score in SCORES {
                for sparsifier in SPARSIFIERS {
                    let config = SabLstmConfig::new(I, H, true)
                        .with_k_top(K_TOP)
                        .with_k_att(1)
                        .with_score(score)
                        .with_sparsifier(sparsifier);
                    let name = format!("{device:?} {dtype:?} {score:?} {sparsifier:?}");
                    test(&config, dtype, &device, &name);
                }
            }
        }
    }
}

fn raw<const D: usize>(tensor: &Tensor<D>) -> Vec<f64> {
    tensor.to_data().iter::<f64>().collect()
}

/// What one implementation makes of an input.
struct Seen {
    name: String,
    /// `[B, T, H]`
    hidden: Vec<f64>,
    summary: Vec<f64>,
    /// `[B, T, K]`
    slots: Vec<i64>,
    weights: Vec<f64>,
}

/// The three strategies under autodiff, the kernel without autodiff, and single steps, which return hidden states
/// alone.
fn on_every_strategy(layer: &SabLstm, x: &Tensor<3>, state: &SabLstmState) -> Vec<Seen> {
    let mut seen = Vec::new();
    for tracked in [true, false] {
        for strategy in STRATEGIES {
            let mut layer = if tracked { layer.clone() } else { layer.valid() };
            layer.settings.strategy = strategy;
            let (x, state) = match tracked {
                true => (x.clone(), state.clone()),
                false => (x.clone().inner(), state.clone().valid()),
            };
            let output = layer.forward_with_reminders(x, Some(state));
            seen.push(Seen {
                name: format!("{strategy:?}, tracked: {tracked}"),
                hidden: raw(&output.hidden),
                summary: raw(&output.summary),
                slots: output.slots.to_data().iter::<i64>().collect(),
                weights: raw(&output.weights),
            });
        }
    }
    let (layer, x) = (layer.valid(), x.clone().inner());
    let mut state = state.clone().valid();
    let mut steps = Vec::new();
    for step in x.iter_dim(1) {
        let (hidden, next) = layer.step(step.squeeze_dim(1), Some(state));
        steps.push(hidden);
        state = next;
    }
    seen.push(Seen {
        name: "steps".to_owned(),
        hidden: raw::<3>(&Tensor::stack(steps, 1)),
        summary: vec![],
        slots: vec![],
        weights: vec![],
    });
    seen
}

/// Asserts that the hidden states are those of the reference, NaN where it has NaN.
fn assert_agree(name: &str, seen: &[Seen], bound: f64) {
    let want = &seen[0].hidden;
    let largest =
        want.iter().filter(|value| value.is_finite()).fold(1.0, |most: f64, v| most.max(v.abs()));
    for other in &seen[1..] {
        assert_eq!(other.hidden.len(), want.len(), "{name}, {}", other.name);
        for (place, (got, want)) in other.hidden.iter().zip(want).enumerate() {
            let same = got == want || got.is_nan() && want.is_nan();
            assert!(
                same || (got - want).abs() <= bound * largest,
                "{name}, {}: {got} at {place}, and {want} in the reference",
                other.name
            );
        }
    }
}

fn tolerance(dtype: DType) -> f64 {
    if dtype == DType::F32 { 1e-4 } else { 1e-10 }
}

/// `x` with a number in place of feature 0, and another in place of feature 1, of row 1 at step 4.
fn with(x: &Tensor<3>, first: f64, second: Option<f64>) -> Tensor<3> {
    let mut values = raw(x);
    let place = (T + 4) * I;
    values[place] = first;
    if let Some(second) = second {
        values[place + 1] = second;
    }
    Tensor::from_data(TensorData::new(values, [B, T, I]), (&x.device(), x.dtype()))
}

/// A NaN is not spread to other rows, to steps before it, or to other rows' gradients.
#[test]
fn not_a_number_stays_in_its_row() {
    every_path(|config, dtype, device, name| {
        let setup = setup(config, B, T, 1, dtype, device);
        let clean = on_every_strategy(&setup.layer, &setup.x, &setup.state);
        // A NaN; and two infinities, whose products with weights of two signs add up to NaN in some units, and in
        // all units one step later.
        for (first, second, since) in [(f64::NAN, None, 4), (f64::INFINITY, Some(f64::INFINITY), 5)]
        {
            let x = with(&setup.x, first, second);
            let seen = on_every_strategy(&setup.layer, &x, &setup.state);
            for (seen, clean) in seen.iter().zip(&clean) {
                for (place, (got, want)) in seen.hidden.iter().zip(&clean.hidden).enumerate() {
                    let (row, step) = (place / (T * H), place / H % T);
                    let told = format!("{name}, {}: row {row}, step {step}: {got}", seen.name);
                    if row == 1 && step >= 4 {
                        assert!(got.is_nan() || step < since, "{told}");
                    } else {
                        assert!((got - want).abs() <= tolerance(dtype), "{told}, not {want}");
                    }
                }
            }
        }
    });
}

/// The loss of the other rows has finite gradients in their inputs.
#[test]
fn not_a_number_reaches_no_gradient_of_another_row() {
    every_path(|config, dtype, device, name| {
        let setup = setup(config, B, T, 1, dtype, device);
        for strategy in STRATEGIES {
            let mut layer = setup.layer.clone();
            layer.settings.strategy = strategy;
            let gradient = |x: Tensor<3>| {
                let x = x.require_grad();
                let (hidden, _) = layer.forward(x.clone(), Some(setup.state.clone()));
                raw(&x.grad(&hidden.sum().backward()).expect("a gradient"))
            };
            let (got, want) = (gradient(with(&setup.x, f64::NAN, None)), gradient(setup.x.clone()));
            for (place, (got, want)) in got.iter().zip(&want).enumerate() {
                let row = place / (T * I);
                assert!(
                    row == 1 || (got - want).abs() <= 10.0 * tolerance(dtype),
                    "{name}, {strategy:?}: row {row}: {got}, not {want}"
                );
            }
        }
    });
}

/// One infinite feature saturates the gates: sigmoid and tanh have limits. All paths agree, and stay finite.
#[test]
fn an_infinite_feature_saturates_the_gates() {
    every_path(|config, dtype, device, name| {
        let setup = setup(config, B, T, 1, dtype, device);
        for value in [f64::INFINITY, f64::NEG_INFINITY] {
            let x = with(&setup.x, value, None);
            let seen = on_every_strategy(&setup.layer, &x, &setup.state);
            assert!(seen[0].hidden.iter().all(|value| value.is_finite()), "{name}");
            assert_agree(name, &seen, tolerance(dtype));
        }
    });
}

/// Gives all score parameters one value.
struct Filled(f64);

impl ModuleMapper for Filled {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(param.val().detach().full_like(self.0))
    }
}

/// Of equal scores the oldest slots are retrieved.
#[test]
fn of_equal_scores_the_oldest_are_retrieved() {
    every_path(|config, dtype, device, name| {
        let setup = setup(config, B, T, 1, dtype, device);
        let mut layer = setup.layer.clone();
        layer.scorer = layer.scorer.map(&mut Filled(0.0));
        let seen = on_every_strategy(&layer, &setup.x, &setup.state);
        assert_agree(name, &seen, tolerance(dtype));
        for seen in seen.iter().filter(|seen| !seen.slots.is_empty()) {
            for (place, step) in (0..B).flat_map(|_| 0..T).enumerate() {
                let told = format!("{name}, {}: step {step}", seen.name);
                // The initial slot, and one of every step.
                let (slots, live) = (step + 1, K_TOP.min(step + 1));
                let share = match config.settings.sparsifier {
                    Sparsifier::Softmax => 1.0 / live as f64,
                    // Each is as good as the last of the ranked.
                    Sparsifier::Threshold if slots <= K_TOP => 1.0 / live as f64,
                    _ => 0.0,
                };
                let weights = &seen.weights[place * K_TOP..][..live];
                let right = weights.iter().all(|weight| (weight - share).abs() < 1e-6);
                assert!(right, "{told}: {weights:?}, not {share}");
                if share > 0.0 {
                    let retrieved = &seen.slots[place * K_TOP..][..live];
                    assert!((0..).zip(retrieved).all(|(want, got)| want == *got), "{told}");
                } else {
                    let summary = &seen.summary[place * H..][..H];
                    assert!(summary.iter().all(|value| *value == 0.0), "{told}");
                }
            }
        }
    });
}

/// Gives all score parameters a factor.
struct Scaled(f64);

impl ModuleMapper for Scaled {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(param.val().mul_scalar(self.0).detach())
    }
}

/// Scores around 1e30: weights and gradients are finite, and weights sum to 1. `Released` takes the raw scores as
/// weights while there are few slots, and is left out.
#[test]
fn huge_scores_stay_finite() {
    every_path(|config, dtype, device, name| {
        if config.settings.sparsifier == Sparsifier::Released {
            return;
        }
        let setup = setup(config, B, T, 1, dtype, device);
        let mut layer = setup.layer.clone();
        // The dot score is a product of two projections.
        let factor = if matches!(config.score, ScoreConfig::Dot { .. }) { 1e15 } else { 1e30 };
        layer.scorer = match config.score {
            // Within its tanh an mlp score would saturate, so that only the output is scaled.
            ScoreConfig::Mlp { .. } => {
                let burn_sab::Scorer::Mlp(mut mlp) = layer.scorer else { panic!("an mlp score") };
                mlp.v = Scaled(factor).map_float(mlp.v);
                burn_sab::Scorer::Mlp(mlp)
            }
            _ => layer.scorer.map(&mut Scaled(factor)),
        };
        let seen = on_every_strategy(&layer, &setup.x, &setup.state);
        assert_agree(name, &seen, tolerance(dtype));
        for seen in seen.iter().filter(|seen| !seen.weights.is_empty()) {
            assert!(seen.hidden.iter().all(|value| value.is_finite()), "{name}, {}", seen.name);
            for weights in seen.weights.chunks(K_TOP) {
                // ε is lost beside an excess of 1e30, and shows beside the one of a single slot, 1.
                let right = (weights.iter().sum::<f64>() - 1.0).abs() < 1e-6;
                assert!(right, "{name}, {}: {weights:?}", seen.name);
            }
        }
        for strategy in STRATEGIES {
            layer.settings.strategy = strategy;
            let x = setup.x.clone().require_grad();
            let (hidden, _) = layer.forward(x.clone(), Some(setup.state.clone()));
            let gradients = hidden.sum().backward();
            let gradient = raw(&x.grad(&gradients).expect("a gradient"));
            let finite = gradient.iter().all(|value| value.is_finite());
            assert!(finite, "{name}, {strategy:?}: {gradient:?}");
        }
    });
}

/// Inputs, states and slots below the smallest normal number. Without biases every output is as small; it is
/// computed, or flushed to zero.
#[test]
fn denormal_inputs_agree() {
    every_path(|config, dtype, device, name| {
        let mut config = config.clone();
        config.bias = false;
        let setup = setup(&config, B, T, 1, dtype, device);
        let (tiny, smallest) = match dtype {
            DType::F32 => (1e-40, f64::from(f32::MIN_POSITIVE)),
            _ => (1e-310, f64::MIN_POSITIVE),
        };
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut draw = |shape: [usize; 3]| {
            let values: Vec<f64> = raw(&normal(&mut rng, shape, 1.0, DType::F64, device))
                .iter()
                .map(|v| v * tiny)
                .collect();
            Tensor::<3>::from_data(TensorData::new(values, shape), (device, dtype))
        };
        let x = draw([B, T, I]);
        let state =
            SabLstmState::new(draw([B, 1, H]).squeeze_dim(1), draw([B, 1, H]).squeeze_dim(1));
        let state = state.with_slots(draw([B, 4, H]));
        let seen = on_every_strategy(&setup.layer, &x, &state);
        for other in &seen {
            for (got, want) in other.hidden.iter().zip(&seen[0].hidden) {
                assert!(got.abs() <= 100.0 * smallest, "{name}, {}: {got:e}", other.name);
                assert!(
                    (got - want).abs() <= smallest,
                    "{name}, {}: {got:e}, {want:e}",
                    other.name
                );
            }
        }
        for strategy in STRATEGIES {
            let mut layer = setup.layer.clone();
            layer.settings.strategy = strategy;
            let x = x.clone().require_grad();
            let (hidden, _) = layer.forward(x.clone(), Some(state.clone()));
            let gradient = raw(&x.grad(&hidden.sum().backward()).expect("a gradient"));
            assert!(gradient.iter().all(|value| value.is_finite()), "{name}, {strategy:?}");
        }
    });
}
