//! Training on wgpu is training on the CPU, up to rounding; and a device that cannot go on is one line.

#![cfg(all(feature = "wgpu", feature = "flex"))]

use std::fs;
use std::path::Path;
use std::process::Command;

/// Small, at a learning rate that leaves rounding small: training magnifies differences.
const SETTINGS: &str = "train copying --hidden 8 --attention 4 --k-top 3 --k-trunc 4 --symbols 2 --alphabet 3 \
                        --delay 6 --batch 4 --updates 50 --lr 1e-3 --curriculum none --evaluate-every 50 \
                        --stop-at never --test-delays 6 --test-sequences 4 --compare none --seed 3";

fn sab(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sab"));
    command.args(line.split_whitespace()).current_dir(folder);
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

/// Losses of all updates, or what the program said.
fn losses(folder: &Path, backend: &str) -> Result<Vec<f64>, String> {
    let line = format!("{SETTINGS} --backend {backend} --out {backend}");
    let output = sab(folder, &line).output().unwrap();
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

/// What the program says when it fails, in the lines that are its own.
fn told(command: &mut Command) -> Vec<String> {
    let output = command.output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    // Mesa's EGL has a line of its own where there is no desktop.
    let own = told.lines().filter(|line| !line.contains("XDG_RUNTIME_DIR"));
    own.map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn wgpu_without_a_driver_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for line in [SETTINGS, "bench --batch 1", "bench"] {
        let mut command = sab(folder.path(), &format!("{line} --backend wgpu"));
        // Vulkan's drivers under both names, and OpenGL's, which wgpu takes where there is no Vulkan.
        for name in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES", "__EGL_VENDOR_LIBRARY_FILENAMES"] {
            command.env(name, "/there/is/no/driver");
        }
        let told = told(&mut command);
        assert_eq!(told.len(), 1, "{told:#?}");
        assert!(told[0].starts_with("error: there is no GPU that wgpu can use"), "{told:#?}");
        assert!(told[0].contains("--backend flex"), "{told:#?}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

/// One sequence of the test is larger than what llvmpipe takes as one array, 128 MiB; those of the training
/// are not.
#[cfg(target_os = "linux")]
#[test]
fn wgpu_arrays_that_are_too_large_are_one_line() {
    let drivers = fs::read_dir("/usr/share/vulkan/icd.d").into_iter().flatten();
    let software = drivers
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("lvp_icd"));
    let Some(software) = software else {
        assert!(std::env::var_os("SAB_REQUIRE_GPU").is_none(), "llvmpipe is not installed");
        eprintln!("SKIPPED: llvmpipe is not installed; install mesa-vulkan-drivers to run this");
        return;
    };
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
