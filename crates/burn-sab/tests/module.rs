//! What any module of Burn does: display, records, `valid`, `fork`, devices, configuration files.

mod common;

use burn::config::Config;
use burn::module::{Initializer, Module, Param};
use burn::tensor::{DType, Tensor};
use burn_sab::{
    ConfigError, InitialSlot, SabLstm, SabLstmConfig, SabSettings, ScoreConfig, Sparsifier,
    Strategy,
};
use common::{cpu_devices, normal, numbers};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn output(layer: &SabLstm) -> Vec<f64> {
    let device = layer.weight_ih.device();
    let x = normal(&mut ChaCha8Rng::seed_from_u64(1), [2, 9, 3], 1.0, DType::F32, &device);
    numbers("hidden", &layer.forward(x, None).0)
}

#[test]
fn display() {
    for device in cpu_devices() {
        let layer = SabLstmConfig::new(3, 5, true).init(&device);
        assert_eq!(
            layer.to_string(),
            "SabLstm {d_input: 3, d_hidden: 5, bias: true, k_top: 10, k_att: 1, k_trunc: 20, \
             score: Dot { d_attention: 64 }, sparsifier: Softmax, params: 840}"
        );
    }
}

#[rstest::rstest]
fn record(
    #[values(ScoreConfig::Additive, ScoreConfig::Mlp { d_attention: 4 }, ScoreConfig::Dot { d_attention: 4 })]
    score: ScoreConfig,
    #[values(false, true)] learned_gain: bool,
) {
    let folder = tempfile::tempdir().unwrap();
    for device in cpu_devices() {
        let config =
            SabLstmConfig::new(3, 5, true).with_score(score).with_learned_gain(learned_gain);
        let mut layer = config.init(&device);
        let trained = |gain: Param<Tensor<1>>| gain.map(|gain| gain * 0.3);
        layer.summary_gain = layer.summary_gain.map(trained);
        let path = folder.path().join("layer.bpk");
        layer.clone().into_record().save(&path).unwrap();
        let other = config.init(&device);
        assert_ne!(output(&other), output(&layer), "two random layers");
        let record = burn::store::ModuleRecord::load(&path).unwrap();
        let loaded = other.load_record(record);
        assert_eq!(output(&loaded), output(&layer));
    }
}

#[test]
fn valid_fork_and_to_device() {
    for device in cpu_devices() {
        let layer = SabLstmConfig::new(3, 5, true).init(&device);
        assert_eq!(output(&layer.valid()), output(&layer));
        assert_eq!(output(&layer.clone().fork(&device)), output(&layer));
        for other in cpu_devices() {
            let moved = layer.clone().to_device(&other);
            for (got, want) in output(&moved).iter().zip(output(&layer)) {
                assert!((got - want).abs() < 1e-5, "{got} instead of {want}");
            }
        }
    }
}

#[test]
fn config_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.json");
    let config =
        SabLstmConfig::released(3, 5).with_max_hops(Some(2)).with_strategy(Strategy::Reference);
    config.save(&path).unwrap();
    assert_eq!(SabLstmConfig::load(&path).unwrap().to_string(), config.to_string());
}

#[test]
fn presets() {
    let paper = SabLstmConfig::paper(3, 5);
    assert_eq!(
        (
            paper.settings.k_top,
            paper.settings.k_att,
            paper.settings.k_trunc,
            paper.settings.truncation_offset
        ),
        (5, 1, 5, Some(0))
    );
    assert_eq!(
        (paper.score, paper.settings.sparsifier),
        (ScoreConfig::Additive, Sparsifier::Threshold)
    );
    let released = SabLstmConfig::released(3, 5);
    assert_eq!(
        (released.settings.truncation_offset, released.settings.sparsifier),
        (Some(1), Sparsifier::Released)
    );
}

/// A slot is the last step of its window, so that gradient which enters it reaches the whole window, unless an
/// offset is given.
#[test]
fn windows_end_with_slots() {
    let offset = |config: SabLstmConfig| config.settings.truncation_offset();
    let base = || SabLstmConfig::new(3, 5, true);
    assert_eq!(offset(base()), 1);
    assert_eq!(offset(base().with_k_att(20).with_k_trunc(20)), 0);
    assert_eq!(offset(base().with_k_att(20).with_truncation_offset(Some(3))), 3);
    // The baseline has the windows of the layer.
    assert_eq!(offset(base().without_memory()), 1);
    assert_eq!(offset(base().with_k_att(20).without_memory()), 0);
}

#[test]
fn invalid_settings_say_what_to_change() {
    let base = || SabLstmConfig::new(3, 5, true);
    let message = |config: SabLstmConfig| config.validate().unwrap_err().to_string();
    assert!(message(SabLstmConfig::new(0, 5, true)).contains("d_input = 0"));
    assert!(message(SabLstmConfig::new(3, 0, true)).contains("d_hidden = 0"));
    assert!(message(base().with_k_top(0)).contains("without_memory()"));
    assert!(message(base().with_k_att(0)).contains("without_memory()"));
    assert!(message(base().with_k_trunc(0)).contains("full_backpropagation()"));
    assert!(
        message(base().with_score(ScoreConfig::Dot { d_attention: 0 })).contains("d_attention = 0")
    );
    assert!(message(base().with_score_gain(f64::NAN)).contains("score_gain = NaN"));
    assert!(message(base().with_forget_bias(f64::INFINITY)).contains("forget_bias = inf"));
    assert!(message(base().with_summary_scale(-0.5)).contains("summary_scale = -0.5"));
    assert!(message(base().with_clip(Some(-1.0))).contains("clip = -1"));
    let uncovered = base().with_strategy(Strategy::Primitives).with_input_forget(true);
    assert!(matches!(
        uncovered.validate(),
        Err(ConfigError::NotCovered { option: "input_forget", .. })
    ));
    assert!(message(uncovered).contains("use Auto or Reference"));
}

#[test]
#[should_panic(expected = "k_trunc = 0: it has to be at least 1")]
fn init_panics_clearly() {
    SabLstmConfig::new(3, 5, true).with_k_trunc(0).init(&cpu_devices()[0]);
}

#[test]
#[should_panic(
    expected = "SabLstm: x has shape [2, 4, 7], expected [2, 4, 3] ([batch, time, d_input])"
)]
fn wrong_input_panics_clearly() {
    let device = &cpu_devices()[0];
    SabLstmConfig::new(3, 5, true).init(device).forward(Tensor::zeros([2, 4, 7], device), None);
}

/// A file of before the settings had a struct of their own: they stand beside the others, and a later setting has
/// its default.
#[test]
fn an_old_config_file_loads() {
    let old = r#"{
        "d_input": 3, "d_hidden": 5, "bias": true, "max_hops": 2, "slot_budget": null, "clip": null,
        "k_top": 7, "k_att": 2, "k_trunc": 4, "truncation_offset": 0, "score": {"Dot": {"d_attention": 6}},
        "score_gain": 2.0, "sparsifier": "Threshold", "initial_slot": "None", "summary_scale": 0.5,
        "initializer": {"XavierNormal": {"gain": 1.0}}, "batch_first": true, "reverse": false,
        "input_forget": false, "gate_activation": "Sigmoid", "cell_activation": "Tanh",
        "hidden_activation": "Tanh", "recompute": "Auto", "strategy": "Auto"
    }"#;
    let want = SabLstmConfig::new(3, 5, true)
        .with_max_hops(Some(2))
        .with_k_top(7)
        .with_k_att(2)
        .with_k_trunc(4)
        .with_truncation_offset(Some(0))
        .with_score(ScoreConfig::Dot { d_attention: 6 })
        .with_sparsifier(Sparsifier::Threshold)
        .with_initial_slot(InitialSlot::None)
        .with_summary_scale(0.5);
    let loaded = SabLstmConfig::load_binary(old.as_bytes()).unwrap();
    assert_eq!(loaded.to_string(), want.to_string());
    let older = old.replace("\"summary_scale\": 0.5,", "").replace("\"slot_budget\": null,", "");
    let loaded = SabLstmConfig::load_binary(older.as_bytes()).unwrap();
    let scale = SabSettings::default().summary_scale;
    assert_eq!(loaded.to_string(), want.with_summary_scale(scale).to_string());
    // Sizes have no default.
    let error = SabLstmConfig::load_binary(b"{}").unwrap().validate().unwrap_err().to_string();
    assert!(error.contains("d_input = 0"), "{error}");
}

#[test]
fn the_forget_gate_alone_gets_the_forget_bias() {
    for device in cpu_devices() {
        let config = SabLstmConfig::new(3, 4, true)
            .with_initializer(Initializer::Constant { value: 0.25 })
            .with_forget_bias(2.0);
        let layer = config.init(&device);
        let bias = layer.bias_ih.unwrap().val() + layer.bias_hh.unwrap().val();
        let expected: Vec<f64> = (0..16).map(|at| if at / 4 == 1 { 2.5 } else { 0.5 }).collect();
        assert_eq!(numbers("bias", &bias), expected);
    }
}
