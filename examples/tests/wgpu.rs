//! The example that trains gives the CPU's losses on wgpu, up to rounding.

#![cfg(all(feature = "wgpu", feature = "flex"))]

use burn::tensor::Device;
use burn_sab_examples::{sab, train};

const UPDATES: usize = 50;

/// Most nats by which losses may differ: some twenty times what separates the CPU backends flex and ndarray,
/// which is rounding alone. SAB learns the task within these updates, at a learning rate where the loss jumps
/// now and then, and each jump magnifies what rounding left: 4.7e-4 at most between flex and ndarray, 1.2e-3
/// between flex and llvmpipe. Truncated backpropagation stays where it is: 4.8e-7 and 7.2e-7.
const BY_SAB: f32 = 1e-2;
const BY_TRUNCATED: f32 = 1e-5;

#[test]
fn wgpu_losses_follow_the_cpu() {
    let wgpu = match Device::wgpu_options().init() {
        Ok(device) => device,
        Err(error) if std::env::var_os("SAB_REQUIRE_GPU").is_none() => {
            eprintln!(
                "SKIPPED: no adapter for wgpu ({error}); install a Vulkan driver to run this"
            );
            return;
        }
        Err(error) => panic!("SAB_REQUIRE_GPU is set and there is no adapter for wgpu: {error}"),
    };
    // With the published factor on the summary these few updates learn the task.
    let published = sab().with_summary_scale(1.0);
    let truncated = sab().without_memory();
    for (name, config, most) in [("SAB", published, BY_SAB), ("truncated", truncated, BY_TRUNCATED)]
    {
        let on = |device: &Device| train(name, &config, UPDATES, device).losses;
        let (cpu, gpu) = (on(&Device::flex()), on(&wgpu));
        assert_eq!((cpu.len(), gpu.len()), (UPDATES, UPDATES));
        for (at, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
            let update = at + 1;
            assert!((cpu - gpu).abs() < most, "{name}, update {update}: {cpu} and {gpu}");
        }
        // Far apart where something was learnt: it is not one number that is compared with itself.
        let learnt = cpu[0] > 10.0 * cpu[UPDATES - 1];
        assert_eq!(learnt, name == "SAB", "{name}: {cpu:?}");
    }
}
