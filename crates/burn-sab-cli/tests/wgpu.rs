//! The program on wgpu: training is training on the CPU, up to rounding; the benchmark has what a GPU's
//! table needs; and a device that cannot go on is one line.

#![cfg(all(feature = "wgpu", feature = "flex"))]

use std::fs;
use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use burn::tensor::Device;

/// Small, at a learning rate that leaves rounding small: training magnifies differences.
const SETTINGS: &str = "train copying --hidden 8 --attention 4 --k-top 3 --k-trunc 4 --symbols 2 --alphabet 3 \
                        --delay 6 --batch 4 --updates 50 --lr 1e-3 --curriculum none --evaluate-every 50 \
                        --stop-at never --test-delays 6 --test-sequences 4 --compare none --seed 3";

/// Largest difference of two losses, relative: some fifty times what rounding leaves of these settings, 1.1e-7
/// between the CPU backends flex and ndarray, 2.2e-7 between flex and llvmpipe.
const BOUND: f64 = 1e-5;

fn sab(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sab"));
    command.args(line.split_whitespace()).current_dir(folder);
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

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

/// Whether there is a GPU to test on; says so if not, or fails where `SAB_REQUIRE_GPU` is set.
fn has_gpu() -> bool {
    // wgpu is set up once per process.
    static FOUND: OnceLock<Result<(), String>> = OnceLock::new();
    let found = FOUND
        .get_or_init(|| Device::wgpu_options().init().map(drop).map_err(|error| error.to_string()));
    if let Err(error) = found {
        assert!(std::env::var_os("SAB_REQUIRE_GPU").is_none(), "no adapter for wgpu: {error}");
        eprintln!("SKIPPED: no adapter for wgpu ({error}); install a Vulkan driver to run this");
    }
    found.is_ok()
}

/// The driver of Mesa's software adapter; as [`has_gpu`] if it is not there.
#[cfg(target_os = "linux")]
fn llvmpipe() -> Option<PathBuf> {
    let drivers = fs::read_dir("/usr/share/vulkan/icd.d").into_iter().flatten();
    let found = drivers
        .map(|entry| entry.unwrap().path())
        .find(|path| path.file_name().unwrap().to_string_lossy().starts_with("lvp_icd"));
    if found.is_none() {
        assert!(std::env::var_os("SAB_REQUIRE_GPU").is_none(), "llvmpipe is not installed");
        eprintln!("SKIPPED: llvmpipe is not installed; install mesa-vulkan-drivers to run this");
    }
    found
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

/// The lines that a benchmark prints with --json, and what it says beside them.
fn bench(command: &mut Command) -> (Vec<serde_json::Value>, String) {
    // There is nothing of the name: a run without PyTorch.
    let output = command.env("SAB_PYTHON", "no-such-python").output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{err}");
    (out.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), err)
}

#[test]
fn wgpu_benchmarks_have_what_the_table_needs() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let line = "bench --backend wgpu --json --runs 1 --threads 1 --batch 3 --time 9 --input 2 --hidden 8 --attention 4 \
                --k-top 2";
    let (lines, err) = bench(&mut sab(folder.path(), line));
    assert!(err.contains("without PyTorch"), "{err}");
    let peers: Vec<&str> = lines.iter().map(|line| line["peer"].as_str().unwrap()).collect();
    assert_eq!(peers, ["sab", "lstm"]);
    for line in &lines {
        assert_eq!(line["device"], "wgpu");
        for time in ["forward_ms", "backward_ms", "train_step_ms"] {
            assert!(line[time].as_f64().unwrap() > 0.0, "{time}: {line}");
        }
        for count in ["bytes_kept", "device_mib", "autodiff_nodes"] {
            assert!(line[count].as_u64().unwrap() > 0, "{count}: {line}");
        }
    }
    for rate in ["product_gflops", "copy_gb_s"] {
        assert!(lines[0][rate].as_f64().unwrap() > 0.0, "{rate}: {}", lines[0]);
        assert!(lines[1][rate].is_null());
    }
    for share in ["arithmetic_share", "bandwidth_share"] {
        assert!((0.0..1.0).contains(&lines[0][share].as_f64().unwrap()), "{share}: {}", lines[0]);
    }
    assert!(lines[0]["sgemm_gflops"].is_null());
}

/// 256 rows of 100,000 numbers fit into the 128 MiB that llvmpipe takes as one buffer, 512 do not.
#[cfg(target_os = "linux")]
#[test]
fn wgpu_benchmarks_find_the_largest_batch() {
    let Some(software) = llvmpipe() else { return };
    let folder = tempfile::tempdir().unwrap();
    let line = "bench --backend wgpu --model sab --fill --batch 128 --time 1 --input 100000 --hidden 1 --attention 1 \
                --k-top 1 --loss last --runs 1 --threads 1 --json";
    let mut command = sab(folder.path(), line);
    command.env("VK_DRIVER_FILES", &software).env("VK_ICD_FILENAMES", &software);
    let (lines, err) = bench(&mut command);
    let batches: Vec<_> = lines.iter().map(|line| line["batch"].as_u64().unwrap()).collect();
    assert_eq!(batches, [128, 256]);
    assert!(
        err.contains("B 512, T 1: not measured: ") && err.contains("allows 134217728"),
        "{err}"
    );
}

#[test]
fn wgpu_says_what_the_kernels_do_not_cover() {
    if !has_gpu() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let line = "bench --backend wgpu --model sab --batch 1 --time 300 --hidden 4 --attention 2 --k-top 200";
    let told = told(&mut sab(folder.path(), line)).pop().unwrap();
    assert!(told.starts_with("error: the kernels do not cover this: 200 slots"), "{told}");
    assert!(told.contains("--model primitives"), "{told}");
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
