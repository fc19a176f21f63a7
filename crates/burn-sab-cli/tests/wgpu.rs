//! The program on wgpu: training is training on the CPU, up to rounding, and a device that cannot go on is one
//! line.

#![cfg(all(feature = "wgpu", feature = "flex"))]

use std::fs;
use std::path::Path;

mod common;
mod gpu;

use common::sab;
use gpu::has_gpu;
#[cfg(target_os = "linux")]
use gpu::{fails_without_a_driver, llvmpipe, told};

/// Small, at a learning rate that leaves rounding small: training magnifies differences.
const SETTINGS: &str = "train copying --hidden 8 --attention 4 --k-top 3 --k-trunc 4 --symbols 2 --alphabet 3 \
                        --delay 6 --batch 4 --updates 50 --lr 1e-3 --curriculum none --evaluate-every 50 \
                        --stop-at never --test-delays 6 --test-sequences 4 --compare none --seed 3";

/// Largest difference of two losses, relative: some fifty times what rounding leaves of these settings, 1.1e-7
/// between the CPU backends flex and ndarray, 2.2e-7 between flex and llvmpipe.
const BOUND: f64 = 1e-5;

/// Losses of all updates.
fn losses(folder: &Path, backend: &str) -> Vec<f64> {
    let line = format!("{SETTINGS} --backend {backend} --out {backend}");
    let output = sab(folder, &line).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut losses = Vec::new();
    let mut folders = vec![folder.join(backend)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.file_name().is_some_and(|name| name == "metrics.jsonl") {
                for line in fs::read_to_string(path).unwrap().lines() {
                    let event: serde_json::Value = serde_json::from_str(line).unwrap();
                    losses.extend(event["loss"].as_f64());
                }
            }
        }
    }
    losses
}

#[test]
fn wgpu_training_follows_the_cpu() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cpu = losses(folder.path(), "flex");
    assert_eq!(cpu.len(), 50);
    let gpu = losses(folder.path(), "wgpu");
    assert_eq!(gpu.len(), cpu.len());
    for (update, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
        assert!((cpu - gpu).abs() < BOUND * cpu, "update {}: {cpu} and {gpu}", update + 1);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn wgpu_without_a_driver_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    fails_without_a_driver(sab(folder.path(), &format!("{SETTINGS} --backend wgpu")));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

/// One sequence of the test is larger than what llvmpipe takes as one array, 128 MiB; those of the training
/// are not.
#[cfg(target_os = "linux")]
#[test]
fn wgpu_arrays_that_are_too_large_are_one_line() {
    let Some(software) = llvmpipe() else { return };
    let folder = tempfile::tempdir().unwrap();
    let line = "train copying --symbols 1 --alphabet 100000 --hidden 4 --attention 2 --k-top 1 --k-att 100 --batch 1 \
                --delay 1 --updates 1 --curriculum none --compare none --test-delays 400 --test-sequences 1 \
                --backend wgpu --out run";
    let mut command = sab(folder.path(), line);
    command.env("VK_DRIVER_FILES", &software).env("VK_ICD_FILENAMES", &software);
    let told = told(&mut command).pop().unwrap();
    assert!(told.starts_with("error: the device does not take an array of 16"), "{told}");
    for remedy in ["--batch", "--backend", "`sab train --resume run`"] {
        assert!(told.contains(remedy), "{remedy}: {told}");
    }
}
