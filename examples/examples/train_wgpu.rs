//! The program of `train_cpu` on any GPU that wgpu reaches (Vulkan, Metal, DX12).
//!
//! ```sh
//! cargo run --release --features wgpu --example train_wgpu
//! ```
//!
//! Expect: the numbers of `train_cpu` up to rounding. Without a GPU Mesa's software Vulkan does it,
//! very slowly: give it a few updates (`-- 3`), which show that it runs and learn nothing.

use std::process::ExitCode;

use burn::tensor::Device;
use burn_sab_examples::{compare, updates_or};

fn main() -> ExitCode {
    // `Device::wgpu` succeeds without any driver and panics at first use; this finds out now.
    let device = match Device::wgpu_options().init() {
        Ok(device) => device,
        Err(error) => {
            eprintln!(
                "no GPU for wgpu: {error}. Install a driver, or mesa-vulkan-drivers for software Vulkan."
            );
            return ExitCode::FAILURE;
        }
    };
    compare(updates_or(150), &device);
    ExitCode::SUCCESS
}
