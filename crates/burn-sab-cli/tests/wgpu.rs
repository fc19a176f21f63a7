//! Training on wgpu is training on the CPU, up to rounding.

#![cfg(all(feature = "wgpu", feature = "flex"))]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Small, at a learning rate that leaves rounding small: training magnifies differences.
const SETTINGS: &str = "train copying --hidden 8 --attention 4 --k-top 3 --k-trunc 4 --symbols 2 --alphabet 3 \
                        --delay 6 --batch 4 --updates 50 --lr 1e-3 --curriculum none --evaluate-every 50 \
                        --stop-at never --test-delays 6 --test-sequences 4 --compare none --seed 3";

/// Losses of all updates, or what the program said.
fn losses(folder: &Path, backend: &str) -> Result<Vec<f64>, String> {
    let output = Command::new(env!("CARGO_BIN_EXE_sab"))
        .args(SETTINGS.split_whitespace())
        .args(["--backend", backend, "--out", backend])
        .current_dir(folder)
        .env_remove("RUST_LOG")
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
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
    Ok(losses)
}

#[test]
fn wgpu_training_follows_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let cpu = losses(folder.path(), "flex").unwrap();
    assert_eq!(cpu.len(), 50);
    match losses(folder.path(), "wgpu") {
        Ok(gpu) => {
            assert_eq!(gpu.len(), cpu.len());
            for (update, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
                assert!((cpu - gpu).abs() < 1e-3 * cpu, "update {}: {cpu} and {gpu}", update + 1);
            }
        }
        Err(error) if std::env::var_os("SAB_REQUIRE_GPU").is_none() => {
            assert!(error.contains("there is no GPU that wgpu can use"), "{error}");
            eprintln!("SKIPPED: {error}");
        }
        Err(error) => panic!("SAB_REQUIRE_GPU is set: {error}"),
    }
}
