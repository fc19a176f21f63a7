//! Kernel launches of a forward and a backward pass on wgpu. Alone in its program: it reads the log of all
//! launches that the process makes.

#![cfg(all(feature = "wgpu", feature = "flex"))]

mod common;

use std::path::Path;
use std::time::Duration;

use burn::tensor::{DType, Device};
use burn_cubecl::cubecl::config::{
    CubeClRuntimeConfig, RuntimeConfig, profiling::ProfilingLogLevel,
};
use burn_sab::{SabLstmConfig, ScoreConfig, Strategy};
use common::setup;

/// The launches in the log so far; waits until the thread that writes it has caught up.
fn launches(log: &Path, device: &Device) -> Vec<String> {
    device.sync().expect("a working device");
    let mut lines = Vec::new();
    loop {
        std::thread::sleep(Duration::from_millis(300));
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let now: Vec<String> =
            text.lines().filter(|line| line.contains("Executing")).map(str::to_owned).collect();
        if now.len() == lines.len() {
            return now;
        }
        lines = now;
    }
}

/// Forward, backward.
fn count(config: &SabLstmConfig, time: usize, log: &Path, device: &Device) -> [usize; 2] {
    let setup = setup(config, 2, time, 5, DType::F32, device);
    let x = setup.x.clone().require_grad();
    let before = launches(log, device).len();
    let output = setup.layer.forward_with_reminders(x.clone(), Some(setup.state.clone()));
    let forward = launches(log, device).len();
    // The sum is not the layer's; its one launch, and the constant that it hands down, are counted.
    let grads = output.hidden.sum().backward();
    let _ = x.grad(&grads).expect("a gradient of x");
    let backward = launches(log, device);
    for line in &backward[before..] {
        println!("T {time}: {line}");
    }
    [forward - before, backward.len() - forward]
}

#[test]
fn wgpu_launches_do_not_grow_with_the_length() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("launches.log");
    let mut settings = CubeClRuntimeConfig::default();
    settings.profiling.logger.level = ProfilingLogLevel::Minimal;
    settings.profiling.logger.file = Some(log.clone());
    CubeClRuntimeConfig::set(settings);
    let device = match Device::wgpu_options().init() {
        Ok(device) => device.autodiff(),
        Err(error) if std::env::var_os("SAB_REQUIRE_GPU").is_none() => {
            eprintln!(
                "SKIPPED: no adapter for wgpu ({error}); install a Vulkan driver to run this"
            );
            return;
        }
        Err(error) => panic!("SAB_REQUIRE_GPU is set and there is no adapter for wgpu: {error}"),
    };
    for score in [
        ScoreConfig::Additive,
        ScoreConfig::Mlp { d_attention: 64 },
        ScoreConfig::Dot { d_attention: 64 },
    ] {
        let config = SabLstmConfig::new(10, 128, true)
            .with_k_top(3)
            .with_score(score)
            .with_strategy(Strategy::Fused);
        let short = count(&config, 8, &log, &device);
        let long = count(&config, 16, &log, &device);
        println!("{score:?}: forward {}, backward {} launches", short[0], short[1]);
        assert_eq!(short, long, "{score:?}");
        // The control: a step on primitives launches more than all of this.
        assert!(short[0] > 0 && short[0] + short[1] <= 20, "{score:?}: {short:?}");
    }
}
