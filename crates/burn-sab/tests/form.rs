//! The form of the layer: factors on the summary that are learned, and scores that are constants to the states.

mod common;

use burn::module::Param;
use burn::nn::LstmConfig;
use burn::tensor::{DType, Tensor};
use burn_sab::{SabLstm, SabLstmConfig, ScoreConfig, Sparsifier, Strategy};
use common::{Named, assert_close, cpu_devices, normal, numbers, setup};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const STRATEGIES: [Strategy; 3] = [Strategy::Reference, Strategy::Primitives, Strategy::Auto];

const F64: f64 = 1e-10;

fn config() -> SabLstmConfig {
    SabLstmConfig::new(2, 5, true).with_k_top(3).with_k_trunc(4)
}

/// The list of this name.
fn of<'a>(named: &'a Named, name: &str) -> &'a [f64] {
    &named.iter().find(|(other, _)| other == name).expect("a list of this name").1
}

fn is_zero(values: &[f64]) -> bool {
    values.iter().all(|value| *value == 0.0)
}

/// Factors that are all the same are the constant. The gradient of the constant is the sum of theirs.
#[test]
fn equal_factors_are_the_constant() {
    for device in cpu_devices() {
        for strategy in STRATEGIES {
            for scale in [0.0, 0.4, 1.0] {
                let config = config().with_strategy(strategy).with_summary_scale(scale);
                let fixed = setup(&config, 3, 11, 5, DType::F64, &device);
                let mut learned = setup(&config, 3, 11, 5, DType::F64, &device);
                let gain = Tensor::full([config.d_hidden], scale, (&device, DType::F64));
                learned.layer.summary_gain = Some(Param::from_tensor(gain));
                let (values, gradients) = fixed.run();
                let (got_values, mut got_gradients) = learned.run();
                let what = format!("{strategy:?}, {scale}, {device:?}");
                let of_gain = of(&got_gradients, "summary_gain").iter().sum::<f64>();
                got_gradients.retain(|(name, _)| name != "summary_gain");
                assert_close(&what, &got_values, &values, F64);
                assert_close(&what, &got_gradients, &gradients, F64);

                let loss = |scale: f64| {
                    let mut at = setup(&config, 3, 11, 5, DType::F64, &device);
                    at.layer.settings = at.layer.settings.with_summary_scale(scale);
                    // The gradient of the whole sequence, as a difference has it.
                    at.layer.settings =
                        at.layer.settings.with_k_trunc(100).with_truncation_offset(Some(0));
                    let output =
                        at.layer.forward_with_reminders(at.x.clone(), Some(at.state.clone()));
                    at.loss(&output).into_scalar::<f64>()
                };
                if scale > 0.0 {
                    learned.layer.settings =
                        learned.layer.settings.with_k_trunc(100).with_truncation_offset(Some(0));
                    let whole = of(&learned.run().1, "summary_gain").iter().sum::<f64>();
                    let step = 1e-6;
                    let difference = (loss(scale + step) - loss(scale - step)) / (2.0 * step);
                    let error = (whole - difference).abs() / difference.abs().max(1.0);
                    assert!(error < 1e-5, "{what}: {whole}, by difference {difference}");
                    assert!(whole != of_gain, "{what}: the windows cut nothing");
                }
            }
        }
    }
}

/// A layer whose factors begin at 0 is an LSTM that can learn to use its memory.
#[test]
fn a_converted_lstm_begins_as_it_was() {
    for device in cpu_devices() {
        let lstm = LstmConfig::new(4, 5, true).init(&device);
        let layer = SabLstm::from(lstm.clone());
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let x = normal(&mut rng, [3, 17, 4], 1.0, DType::F32, &device);
        let (want, _) = lstm.forward(x.clone(), None);
        let (hidden, state) = layer.forward(x, None);
        let named = |tensor| vec![("hidden".to_owned(), numbers("hidden", tensor))];
        assert_close("converted", &named(&hidden), &named(&want), 1e-6);
        assert_eq!(state.num_slots(), 18, "the memory is there");
        let grads = hidden.sum().backward();
        let gain = layer.summary_gain.as_ref().expect("factors that are learned").val();
        let gain = numbers("gain", &gain.grad(&grads).expect("a gradient"));
        assert!(gain.iter().all(|grad| *grad != 0.0), "{gain:?}");
    }
}

/// With weights that sum to 1 and |ĥ| < 1, |h| < 1 / (1 - summary_scale) at every step. Drawn weights, noise, all slots
/// kept; a small score, as the time grows with the square of the steps.
#[test]
fn the_hidden_state_is_bounded_for_100_000_steps() {
    let device = &cpu_devices()[0];
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    let mut largest = |config: SabLstmConfig, steps: usize| {
        let layer: SabLstm = config.with_score(ScoreConfig::Dot { d_attention: 4 }).init(device);
        let x = normal(&mut rng, [1, steps, 2], 1.0, DType::F32, device);
        let (hidden, _) = layer.forward(x, None);
        let largest = hidden.abs().max().into_scalar::<f64>();
        assert!(largest.is_finite());
        largest
    };
    let config = SabLstmConfig::new(2, 16, true);
    let bound = 1.0 / (1.0 - config.settings.summary_scale);
    assert!(largest(config.clone(), 100_000) < bound);
    // The published factor bounds nothing.
    assert!(largest(config.with_summary_scale(1.0), 2_000) > bound);
}

#[test]
fn presets_have_the_published_form() {
    for config in [SabLstmConfig::paper(2, 3), SabLstmConfig::released(2, 3)] {
        assert!(!config.settings.learned_gain && !config.settings.detach_scores);
        assert_eq!(config.settings.summary_scale, 1.0);
    }
    let device = &cpu_devices()[0];
    let plain = config().with_learned_gain(true).without_memory().init(device);
    assert!(plain.summary_gain.is_none(), "factors on a summary that is always zero");
}

/// A loss on summaries alone, with slots as constants, reaches states through scores only. Where scores are
/// detached it reaches none, and the parameters of the score have the gradient that they have anyway.
#[rstest::rstest]
fn detached_scores_train_their_parameters_alone(
    #[values(ScoreConfig::Additive, ScoreConfig::Mlp { d_attention: 4 }, ScoreConfig::Dot { d_attention: 4 })]
    score: ScoreConfig,
    #[values(Sparsifier::Threshold, Sparsifier::Released, Sparsifier::Softmax)]
    sparsifier: Sparsifier,
) {
    for device in cpu_devices() {
        for strategy in STRATEGIES {
            // Without a factor on the summary, no state depends on what an earlier step retrieved.
            let config = config()
                .with_score(score)
                .with_sparsifier(sparsifier)
                .with_strategy(strategy)
                .with_summary_scale(0.0)
                .with_max_hops(Some(0));
            let run = |detach_scores: bool| {
                let config = config.clone().with_detach_scores(detach_scores);
                let setup = setup(&config, 3, 11, 5, DType::F64, &device);
                let x = setup.x.clone().require_grad();
                let output = setup.layer.forward_with_reminders(x.clone(), Some(setup.state));
                let grads = (setup.up.1 * output.summary.clone()).sum().backward();
                let mut gradients = common::parameter_gradients(&setup.layer, &grads);
                gradients.push(("x".to_owned(), common::gradient("x", &x, &grads)));
                (numbers("summary", &output.summary), gradients)
            };
            let ((values, attached), (same_values, detached)) = (run(false), run(true));
            let what = format!("{score:?} {sparsifier:?} {strategy:?} {device:?}");
            assert_eq!(values, same_values, "{what}");
            let of_scorer = |named: &Named| -> Named {
                let is = |name: &str| name.starts_with("scorer");
                named.iter().filter(|(name, _)| is(name)).cloned().collect()
            };
            assert!(!of_scorer(&attached).iter().all(|(_, grad)| is_zero(grad)), "{what}");
            assert_close(&what, &of_scorer(&detached), &of_scorer(&attached), F64);
            for name in ["x", "weight_hh", "bias_ih"] {
                assert!(is_zero(of(&detached, name)), "{what}: {name} has gradient");
            }
            // The query of additive scores is in all of them, and cancels but for rounding.
            let reached = of(&attached, "x").iter().any(|grad| grad.abs() > 1e-9);
            let expected = score != ScoreConfig::Additive || sparsifier == Sparsifier::Released;
            assert_eq!(reached, expected, "{what}");
        }
    }
}

/// What is retrieved still carries gradient to the moment that stored it.
#[test]
fn detached_scores_leave_credit_to_values() {
    for device in cpu_devices() {
        for strategy in STRATEGIES {
            let config = config().with_strategy(strategy).with_detach_scores(true);
            let setup = setup(&config.with_k_trunc(1), 1, 9, 5, DType::F64, &device);
            let x = setup.x.clone().require_grad();
            let output = setup.layer.forward_with_reminders(x.clone(), Some(setup.state));
            let grads = output.summary.narrow(1, 8, 1).sum().backward();
            let gradient = common::gradient("x", &x, &grads);
            assert!(!is_zero(&gradient), "{strategy:?} {device:?}");
        }
    }
}
