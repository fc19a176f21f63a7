//! Kernel launches of a forward and a backward pass on wgpu. Alone in its program: it reads the log of all
//! launches that the process makes.

#![cfg(all(feature = "wgpu", feature = "flex"))]

mod common;

use std::path::Path;
use std::time::Duration;

use burn::tensor::{DType, Device, Tensor};
use burn_cubecl::cubecl::config::{
    CubeClRuntimeConfig, RuntimeConfig, profiling::ProfilingLogLevel,
};
use burn_sab::{SabLstmConfig, ScoreConfig, Segments, Strategy};
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

/// Launches of the layer's forward and of its backward pass, with the gradient of x. What computes the loss and
/// hands its gradient down is measured by itself, on a tensor in the place of the hidden states, and taken off.
/// With `segments`, of rows that differ.
fn count(
    config: &SabLstmConfig,
    time: usize,
    segments: Option<&Segments>,
    log: &Path,
    device: &Device,
) -> [usize; 2] {
    let setup = setup(config, 2, time, 5, DType::F32, device);
    let (weight, other, _) = setup.up.clone();
    // A product of a row and a column: elementwise operations and sums would fuse with what is around them.
    let loss = |hidden: Tensor<3>| {
        let len = hidden.dims().iter().product();
        hidden.reshape([1, len]).matmul(weight.clone().reshape([len, 1]))
    };
    let start = launches(log, device).len();
    let alone = other.require_grad();
    let grads = loss(alone.clone()).backward();
    let _ = alone.grad(&grads).expect("a gradient");
    let of_loss = launches(log, device).len() - start;

    let x = setup.x.clone().require_grad();
    let (layer, state) = (&setup.layer, Some(setup.state.clone()));
    let output = match segments {
        None => layer.forward_with_reminders(x.clone(), state),
        Some(segments) => layer.forward_segments(x.clone(), segments, state),
    };
    let forward = launches(log, device).len() - start - of_loss;
    let grads = loss(output.hidden).backward();
    let _ = x.grad(&grads).expect("a gradient of x");
    let all = launches(log, device);
    for line in &all[start..] {
        println!("T {time}: {}", line.chars().take(80).collect::<String>());
    }
    let rest = all.len() - start - of_loss - forward;
    println!(
        "T {time}: {of_loss} launches of the loss, {forward} forward, {rest} backward and loss"
    );
    [forward, rest - of_loss]
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
    // Forward: the sum of the two biases, the projection of the inputs, the packing, the kernel. Backward: the
    // kernel, the gradients of x and of all weights of the cell, those of the score's matrices, one each, and the
    // sum over the batch of those of its vectors.
    for (score, most) in [
        (ScoreConfig::Additive, [4, 4]),
        (ScoreConfig::Mlp { d_attention: 64 }, [4, 6]),
        (ScoreConfig::Dot { d_attention: 64 }, [4, 5]),
    ] {
        let config = SabLstmConfig::new(10, 128, true)
            .with_k_top(3)
            .with_score(score)
            .with_strategy(Strategy::Fused);
        let short = count(&config, 8, None, &log, &device);
        let long = count(&config, 16, None, &log, &device);
        println!("{score:?}: forward {}, backward {} launches", short[0], short[1]);
        assert_eq!(short, long, "{score:?}");
        let segments = Segments::new(2, 8).with_lengths(&[8, 4]).unwrap();
        let segments = segments.with_resets(&[vec![2, 5], vec![]]).unwrap();
        let of_rows = count(&config, 8, Some(&segments), &log, &device);
        assert_eq!(short, of_rows, "{score:?}, rows that differ");
        // A log that lost lines would show fewer than the two kernels and the projection.
        let enough = short[0] >= 2 && short[1] >= 2;
        assert!(enough && short[0] <= most[0] && short[1] <= most[1], "{score:?}: {short:?}");
    }
}
