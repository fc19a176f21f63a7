//! `sab-bench` on wgpu: it has what a GPU's table needs, and a device that cannot go on is one line.

#[cfg(target_os = "linux")]
use std::fs;
use std::path::Path;
use std::process::Command;

#[path = "../../burn-sab-cli/tests/gpu/mod.rs"]
mod gpu;

#[cfg(target_os = "linux")]
use gpu::{fails_without_a_driver, llvmpipe};
use gpu::{has_gpu, told};

fn sab_bench(folder: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sab-bench"));
    command.args(line.split_whitespace()).current_dir(folder);
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    command
}

/// The lines that a benchmark prints with --json, and what it says beside them.
fn results(command: &mut Command) -> (Vec<serde_json::Value>, String) {
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
    let line = "--backend wgpu --json --runs 1 --threads 1 --batch 3 --time 9 --input 2 --hidden 8 --attention 4 \
                --k-top 2";
    let (lines, err) = results(&mut sab_bench(folder.path(), line));
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
    let line = "--backend wgpu --model sab --fill --batch 128 --time 1 --input 100000 --hidden 1 --attention 1 \
                --k-top 1 --loss last --runs 1 --threads 1 --json";
    let mut command = sab_bench(folder.path(), line);
    command.env("VK_DRIVER_FILES", &software).env("VK_ICD_FILENAMES", &software);
    let (lines, err) = results(&mut command);
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
    let line =
        "--backend wgpu --model sab --batch 1 --time 300 --hidden 4 --attention 2 --k-top 200";
    let told = told(&mut sab_bench(folder.path(), line)).pop().unwrap();
    assert!(told.starts_with("error: the kernels do not cover this: 200 slots"), "{told}");
    assert!(told.contains("--model primitives"), "{told}");
}

#[cfg(target_os = "linux")]
#[test]
fn wgpu_benchmarks_without_a_driver_are_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for line in ["--backend wgpu --batch 1", "--backend wgpu"] {
        fails_without_a_driver(sab_bench(folder.path(), line));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}
