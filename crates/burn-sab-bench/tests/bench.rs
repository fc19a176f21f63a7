//! `sab-bench` as its users meet it, on cases of a moment.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use rstest::rstest;
use serde_json::Value;

const TINY: &str =
    "--batch 3 --time 9 --input 2 --hidden 8 --attention 4 --k-top 2 --runs 1 --threads 1";

fn bench(folder: &Path, line: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sab-bench"))
        .args(line.split_whitespace())
        .current_dir(folder)
        .env_remove("RUST_BACKTRACE")
        .env_remove("RUST_LOG")
        // There is nothing of the name: a run without PyTorch.
        .env("SAB_PYTHON", "no-such-python")
        .output()
        .unwrap()
}

fn succeed(line: &str) -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), line);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{line}: {err}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
    (out, err)
}

/// The one line of a run with --json.
fn json(line: &str) -> Value {
    let (out, _) = succeed(&format!("{line} --json"));
    assert_eq!(out.trim_end().lines().count(), 1, "{out}");
    serde_json::from_str(&out).unwrap()
}

#[rstest]
#[case("--batch 0", "--batch is 0")]
#[case("--time 0", "--time is 0")]
#[case("--input 0", "--input is 0")]
#[case("--hidden 0", "--hidden is 0")]
#[case("--threads 0", "--threads is 0")]
#[case("--runs 0", "--runs is 0")]
#[case("--step 0", "--step is 0")]
#[case("--step --slots 5,0", "--slots is 0")]
#[case("--slots 5", "--step")]
#[case("--n-probe 4 --score additive", "n_probe = 4")]
#[case("--k-top 0", "k_top = 0")]
#[case("--k-att 0", "k_att = 0")]
#[case("--k-trunc 0", "k_trunc = 0")]
#[case("--attention 0", "d_attention = 0")]
#[case("--batch 4000000000", "64 GiB")]
#[case("--time 18446744073709551615", "64 GiB")]
#[case("--batch many", "many")]
#[case("--max-hops few", "\"none\"")]
#[case("--loss median", "median")]
#[case("--model gru", "gru")]
#[case("--score additive --attention 4", "--attention")]
#[case("--step 5 --time 9", "--step")]
#[case("--step 5 --loss last", "--step")]
#[case("--backend abacus", "abacus")]
#[case("--fill", "--fill")]
#[case("--python missing/python --runs 1", "missing/python")]
fn a_mistake_is_one_line_that_names_it(#[case] line: &str, #[case] named: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), line);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(output.stdout.is_empty());
    assert!(told.contains(named) && told.starts_with("error: "), "{told}");
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
}

#[rstest]
fn a_line_has_every_figure(
    #[values("flex", "ndarray")] backend: &str,
    #[values("sab", "lstm", "reference", "primitives")] model: &str,
    #[values("mean", "last")] loss: &str,
) {
    let line = json(&format!("{TINY} --backend {backend} --model {model} --loss {loss}"));
    for (name, value) in [("batch", 3), ("time", 9), ("input", 2), ("hidden", 8), ("k_top", 2)] {
        assert_eq!(line[name], value, "{name}");
    }
    assert_eq!((&line["k_att"], &line["k_trunc"]), (&1.into(), &5.into()));
    assert_eq!((&line["runs"], &line["threads"]), (&1.into(), &1.into()));
    assert_eq!((line["peer"].as_str(), line["device"].as_str()), (Some(model), Some(backend)));
    assert_eq!((line["score"].as_str(), line["loss"].as_str()), (Some("dot"), Some(loss)));
    for time in ["forward_ms", "backward_ms", "train_step_ms"] {
        let spread = &line[time.replace("_ms", "_spread_ms")];
        assert!(line[time].as_f64().unwrap() > 0.0, "{time}: {line}");
        assert_eq!((&spread[0], &spread[1]), (&line[time], &line[time]), "one run has no spread");
    }
    for count in ["bytes_kept", "allocations", "autodiff_nodes"] {
        assert!(line[count].as_u64().unwrap() > 0, "{count}: {line}");
    }
    let is_sab = model == "sab";
    assert_eq!(line["sgemm_gflops"].is_number(), is_sab && loss == "mean");
    assert_eq!(line["sgemm_share_train"].is_number(), is_sab && loss == "mean");
    assert_eq!(line["reached_steps"].is_number(), model != "lstm" && loss == "last");
    assert_eq!(line["peak_rss_mib"].is_number(), cfg!(target_os = "linux"));
    assert_eq!(line["torch"], Value::Null);
}

/// A stream can begin with random slots. It reports the size of its state, which contains at least slots and keys.
#[test]
fn a_stream_begins_from_drawn_slots() {
    let of =
        |flags: &str| json(&format!("{TINY} --step --model sab {flags}").replace("--time 9", ""));
    for flags in ["--slots 300", "--slots 300 --n-probe 2"] {
        let line = of(flags);
        assert_eq!((&line["slots"], &line["drawn_slots"]), (&300.into(), &true.into()));
        assert!(line["forward_ms"].as_f64().unwrap() > 0.0, "{line}");
        let bytes = line["bytes_a_slot"].as_u64().unwrap();
        assert!((4 * (8 + 1)..4000).contains(&bytes), "{line}");
    }
    let (out, _) =
        succeed(&format!("{TINY} --step --slots 20,300 --model sab").replace("--time 9", ""));
    assert!(out.contains("from 20 slots") && out.contains("from 300 slots"), "{out}");
}

/// 100 times as many steps: the case's states stay within 1 / (1 - summary_scale), those of scale 1 do not.
#[test]
fn states_are_drawn_and_printed() {
    let folder = tempfile::tempdir().unwrap();
    let output = bench(folder.path(), &format!("{TINY} --batch 1 --plot-states states.svg"));
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{err}");
    let rows: Vec<Vec<f64>> = out
        .lines()
        .skip(1)
        .map(|line| line.replace(',', "").split_whitespace().map(|x| x.parse().unwrap()).collect())
        .collect();
    assert_eq!((rows[0][0], rows.last().unwrap()[0]), (1.0, 562.0), "{out}");
    for row in &rows {
        assert!(row[1] < 1.0 && row[2] <= 1.12, "{out}");
    }
    assert!(rows.last().unwrap()[3] > 1.12, "{out}");
    let svg = fs::read_to_string(folder.path().join("states.svg")).unwrap();
    for text in ["LSTM", "SAB, summary_scale 0.1", "SAB, summary_scale 1", "largest |h| so far"] {
        assert!(svg.contains(text), "{text} is missing");
    }
}

/// What backward needs, counted: a sequence is one node whatever its length, and costs memory in
/// proportion to it; the readable twin has nodes for every step.
#[test]
fn counts_tell_implementations_apart() {
    let of = |model: &str, time: usize| json(&format!("{TINY} --model {model} --time {time}"));
    let count = |line: &Value, name: &str| line[name].as_u64().unwrap();
    let [short, long] = [20, 40].map(|time| of("sab", time));
    assert_eq!(count(&short, "autodiff_nodes"), count(&long, "autodiff_nodes"));
    let growth = count(&long, "bytes_kept") as f64 / count(&short, "bytes_kept") as f64;
    assert!((1.5..2.5).contains(&growth), "{growth}");
    let readable = of("reference", 20);
    assert!(count(&readable, "autodiff_nodes") > 20 * 20);
    assert!(count(&readable, "bytes_kept") > 3 * count(&short, "bytes_kept"));
    // Counts repeat.
    assert_eq!(count(&of("sab", 20), "bytes_kept"), count(&short, "bytes_kept"));
}

/// By hand: windows begin at steps 2 and 4; slots are the initial state and that after step 3. From the last
/// step, 5, gradient reaches 4, and through the slot steps 3 and 2; nothing lies before the other slot.
#[test]
fn reached_steps_are_counted() {
    let case = "--batch 1 --time 6 --k-att 4 --k-trunc 2 --k-top 2 --loss last --model sab";
    let reached =
        |hops: &str| json(&format!("{TINY} {case} --max-hops {hops}"))["reached_steps"].clone();
    assert_eq!(["0", "1", "none"].map(reached), [2, 4, 4].map(Value::from));
}

#[test]
fn a_stream_is_measured_step_by_step() {
    let stream = "--batch 1 --hidden 8 --attention 4 --runs 1 --threads 1 --step 30";
    for model in ["sab", "lstm"] {
        let line = json(&format!("{stream} --model {model}"));
        assert_eq!((&line["slots"], &line["time"]), (&30.into(), &1.into()));
        assert!(line["forward_ms"].as_f64().unwrap() > 0.0);
        assert_eq!(line["train_step_ms"], Value::Null);
    }
}

#[test]
fn a_case_is_shown_beside_its_peers() {
    let (out, err) = succeed(TINY);
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains("without PyTorch") && err.contains("SAB_PYTHON"), "{err}");
    for row in ["sab, dot softmax", "lstm (", "reference, dot softmax"] {
        let rows: Vec<&str> =
            out.lines().filter(|line| line.trim_start().starts_with(row)).collect();
        assert_eq!(rows.len(), 2, "times and counts of {row}: {out}");
    }
    assert!(out.contains("÷ reference") && out.contains("kept, bytes a step and row"), "{out}");
    // All of them with --json, a line each.
    let (out, _) = succeed(&format!("{TINY} --json"));
    let peers: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["peer"].clone())
        .collect();
    assert_eq!(peers, ["sab", "lstm", "reference"]);
}

/// The same fields from PyTorch, where this machine has it.
#[test]
fn pytorch_gives_the_same_fields() {
    let Some(python) = std::env::var_os("SAB_PYTHON") else {
        eprintln!("SAB_PYTHON names no Python with PyTorch: nothing is tested");
        return;
    };
    let output = Command::new(env!("CARGO_BIN_EXE_sab-bench"))
        .args(format!("{TINY} --json").split_whitespace())
        .env("SAB_PYTHON", python)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let peers: Vec<&str> = lines.iter().map(|line| line["peer"].as_str().unwrap()).collect();
    assert_eq!(peers, ["sab", "lstm", "reference", "torch-lstm", "torch-cell", "torch-sab"]);
    let names = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    for line in &lines {
        assert_eq!(names(line), names(&lines[0]));
        assert!(line["bytes_kept"].as_u64().unwrap() > 0 && line["backward_ms"].is_number());
    }
}
