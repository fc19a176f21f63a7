//! The layer on wgpu, with Burn's fusion where the build has it: the same numbers as the reference on the CPU.
//!
//! Without an adapter these tests say so and pass; with `SAB_REQUIRE_GPU` set, as CI has it, they fail. Kept
//! tiny: on a software adapter most of the time goes into compiling shaders.

#![cfg(all(feature = "wgpu", feature = "flex"))]

mod common;

use std::sync::OnceLock;

use burn::tensor::{DType, Device};
use burn_sab::{SabLstmConfig, ScoreConfig, Sparsifier, Strategy};
use common::{assert_close, setup};

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

fn agree(config: &SabLstmConfig, batch: usize, time: usize) {
    let Some(device) = wgpu() else { return };
    let run = |strategy, device: &Device| {
        let config = config.clone().with_strategy(strategy);
        setup(&config, batch, time, 5, DType::F32, device).run()
    };
    let (values, gradients) = run(Strategy::Reference, &Device::flex().autodiff());
    let (got_values, got_gradients) = run(Strategy::Auto, &device);
    let what = format!("wgpu {config}");
    assert_close(&what, &got_values, &values, 1e-4);
    assert_close(&what, &got_gradients, &gradients, 1e-4);
}

#[test]
fn wgpu_agrees_on_dot_scores_with_softmax() {
    agree(&SabLstmConfig::new(3, 6, true).with_k_top(2).with_k_trunc(3), 3, 9);
}

#[test]
fn wgpu_agrees_on_mlp_scores_with_threshold_and_limited_hops() {
    let config = SabLstmConfig::new(3, 6, true)
        .with_k_top(2)
        .with_k_att(2)
        .with_k_trunc(3)
        .with_score(ScoreConfig::Mlp { d_attention: 5 })
        .with_sparsifier(Sparsifier::Threshold)
        .with_max_hops(Some(1));
    agree(&config, 2, 10);
}

#[test]
fn wgpu_agrees_on_the_released_settings() {
    agree(&SabLstmConfig::released(1, 8), 2, 12);
}
