//! The program as its users meet it.

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;
#[cfg(unix)]
use std::{
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rstest::rstest;

/// A run of a second or two.
const TINY: &str = "--hidden 8 --k-top 3 --k-trunc 4 --symbols 2 --alphabet 3 --delay 6 --batch 8 --updates 40 \
                    --evaluate-every 20 --checkpoint-every 20 --stop-at never --test-delays 6,30 \
                    --test-sequences 4 --threads 1";

fn sab(folder: &Path, line: &str) -> Output {
    common::sab(folder, line).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn succeed(folder: &Path, line: &str) -> String {
    let output = sab(folder, line);
    assert!(output.status.success(), "{line}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[rstest]
#[case("train", "<TASK>")]
#[case("train juggling", "juggling")]
#[case("train copying --model perceptron", "perceptron")]
#[case("train copying --k-top 0", "k_top")]
#[case("train copying --k-trunc 0", "k_trunc")]
#[case("train copying --hidden 0", "d_hidden")]
#[case("train copying --k-top minus", "minus")]
#[case("train copying --lr -1", "lr is -1")]
#[case("train copying --lr nan", "lr is NaN")]
#[case("train copying --delay 0", "delay is 0")]
#[case("train copying --length 9", "--delay")]
#[case("train recall --keys 4", "keys is 4")]
#[case("train induction --symbols 3", "--symbols")]
#[case("train marked-symbol --distractors 0", "distractors is 0")]
#[case("train adding --delay 9", "--length")]
#[case("train adding --symbols 3", "--symbols")]
#[case("train copying --data somewhere", "--data")]
#[case("train copying --permuted", "--permuted")]
#[case("train mnist", "--data")]
#[case("train mnist --data missing", "t10k-images-idx3-ubyte")]
#[case("train cifar --data missing", "data_batch_1.bin")]
#[case("train text --data missing", "ptb.char.train.txt")]
#[case("train mnist --data missing --length 9", "--length")]
#[case("train mnist --data missing --curriculum grow", "curriculum")]
#[case("train copying --model transformer --hidden 6", "multiple of 4")]
#[case("train copying --score additive --attention 8", "--attention")]
#[case("train copying --max-hops many", "\"none\"")]
#[case("train copying --stop-at soon", "\"never\"")]
#[case("train copying --batch 4000000000", "64 GiB")]
#[case("train copying --updates 0", "updates is 0")]
#[case("train copying --threads 0", "--threads")]
#[case("train copying --test-delays 0", "--test-delays")]
#[case("train copying --backend abacus", "abacus")]
#[case("train copying --config missing.json", "missing.json")]
#[case("train --resume missing", "missing")]
#[case("train copying --resume somewhere", "--resume")]
#[case("walk", "walk")]
fn a_mistake_is_one_line_that_names_it(#[case] line: &str, #[case] named: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = sab(folder.path(), line);
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(named), "{told}");
    assert!(told.starts_with("error: "), "{told}");
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "something was left behind");
}

#[cfg(not(feature = "tch"))]
#[test]
fn a_backend_that_was_not_built_names_its_feature() {
    let folder = tempfile::tempdir().unwrap();
    let output = sab(folder.path(), "train copying --backend tch");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--features tch"), "{}", text(&output.stderr));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for out in ["file", "file/run"] {
        let output = sab(folder.path(), &format!("train copying {TINY} --out {out}"));
        let told = text(&output.stderr);
        assert!(!output.status.success());
        assert!(told.contains(out) && told.trim_end().lines().count() == 1, "{told}");
    }
}

#[test]
fn a_run_leaves_everything_it_promises() {
    let folder = tempfile::tempdir().unwrap();
    let told = succeed(folder.path(), &format!("train copying {TINY} --compare tbptt,lstm"));
    let run = folder.path().join("runs/copying-sab-1");
    for file in [
        "config.json",
        "metrics.jsonl",
        "report.html",
        "report.md",
        "report.json",
        "reminders.svg",
        "learning.svg",
        "checkpoint-00000040/model.bpk",
        "tbptt/metrics.jsonl",
        "lstm/checkpoint-00000040/state.json",
    ] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    assert!(told.contains("runs/copying-sab-1/reminders.svg"), "{told}");
    assert!(told.contains("for a browser: runs/copying-sab-1/report.html\n"), "{told}");
    let next = told.trim_end().lines().last().unwrap();
    assert_eq!(next, "to train longer: sab train --resume runs/copying-sab-1 --updates 80");
    for model in ["sab", "tbptt", "lstm"] {
        let verdict = told.lines().find(|line| {
            line.starts_with(&format!("{model} "))
                && line.contains(" the task: accuracy ")
                && line.contains(" % at delay 6, ")
                && line.ends_with(" % at delay 30 (chance 33.3 %)")
        });
        assert!(verdict.is_some(), "{model}: {told}");
    }
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    for text in ["<td>tbptt</td>", "<dt>train.layer.k_top</dt>", "was reminded of step 0 (symbol "]
    {
        assert!(page.contains(text), "{text} is missing in {page}");
    }
    assert_eq!(page.matches("<svg").count(), 3, "curves, the map and its scale");
    for row in ["sab ", "tbptt ", "lstm ", "(chance) "] {
        let row = told.lines().find(|line| line.starts_with(&format!("  {row}")));
        assert_eq!(row.unwrap_or_else(|| panic!("{told}")).matches('%').count(), 2, "{told}");
    }
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(run.join("report.json")).unwrap()).unwrap();
    assert_eq!(report["models"][0]["tests"][1]["span"], 30);
    assert_eq!(report["models"][1]["updates"], 40);
    assert_eq!(report["settings"]["train"]["seed"], 1);
    assert!(report["commit"].is_string());

    // The next run does not touch this one.
    let told = succeed(folder.path(), &format!("train copying {TINY} --compare none"));
    assert!(told.contains("runs/copying-sab-2"), "{told}");
    let output = sab(folder.path(), &format!("train copying {TINY} --out runs/copying-sab-1"));
    let told = text(&output.stderr);
    assert!(told.contains("--resume runs/copying-sab-1"), "{told}");
}

#[test]
fn a_resumed_run_has_the_lines_and_results_of_an_uninterrupted_one() {
    let folder = tempfile::tempdir().unwrap();
    succeed(folder.path(), &format!("train copying {TINY} --out whole"));
    // Stopping early and extending stands for the interruption; lines of updates after the last
    // checkpoint stand for what an interrupted run has written after it.
    succeed(folder.path(), &format!("train copying {TINY} --out cut --updates 20"));
    let metrics = folder.path().join("cut/metrics.jsonl");
    let mut lines = fs::read_to_string(&metrics).unwrap();
    lines.push_str("{\"kind\":\"update\",\"update\":21,\"span\":6,\"loss\":9.0,\"gradient_norm\":1.0,\"lr\":1.0}\n{\"ki");
    fs::write(&metrics, lines).unwrap();
    succeed(folder.path(), "train --resume cut --updates 40");
    for file in ["metrics.jsonl", "tbptt/metrics.jsonl", "reminders.svg", "learning.svg"] {
        let read = |run: &str| fs::read_to_string(folder.path().join(run).join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs");
    }
    let output = sab(folder.path(), "train --resume cut --hidden 9");
    assert!(text(&output.stderr).contains("--hidden"), "{}", text(&output.stderr));
}

#[test]
fn a_run_can_be_repeated_from_its_configuration() {
    let folder = tempfile::tempdir().unwrap();
    succeed(
        folder.path(),
        "train adding --hidden 8 --batch 4 --updates 20 --length 12 --seed 5 --out first --compare none",
    );
    succeed(folder.path(), "train --config first/config.json --out second");
    let read =
        |run: &str| fs::read_to_string(folder.path().join(run).join("metrics.jsonl")).unwrap();
    assert_eq!(read("first"), read("second"));
    assert!(read("first").contains("\"mse\""));
}

#[test]
fn a_misspelt_setting_in_a_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    succeed(path, &format!("train copying {TINY} --compare none --out run"));
    let config = fs::read_to_string(path.join("run/config.json")).unwrap();
    for (setting, misspelt, named) in [
        ("\"k_top\"", "\"k_topp\"", "train.layer.k_topp"),
        ("\"summary_scale\"", "\"sumary_scale\"", "train.layer.sumary_scale"),
        ("\"test_steps\"", "\"test_step\"", "test_step;"),
        ("\"alphabet\": 3", "\"alphabet\": 3, \"symbol\": 2", "train.task.copying.symbol;"),
    ] {
        assert!(config.contains(setting), "{setting}");
        fs::write(path.join("mine.json"), config.replacen(setting, misspelt, 1)).unwrap();
        let output = sab(path, "train --config mine.json --out other");
        let told = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains("mine.json") && told.contains(named), "{told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    }
    // A setting that is changed by hand is a setting, with a warning because sab wrote another.
    fs::write(path.join("mine.json"), config.replace("\"seed\": 1", "\"seed\": 2")).unwrap();
    let output = sab(path, "train --config mine.json --out other");
    let told = text(&output.stderr);
    assert!(
        output.status.success() && told.starts_with("warning: mine.json was changed"),
        "{told}"
    );
    // In the folder of a run it is damage.
    fs::copy(path.join("mine.json"), path.join("run/config.json")).unwrap();
    let output = sab(path, "train --resume run");
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("run/config.json: damaged") && told.contains("--config"), "{told}");
}

/// Starts a run that lasts some seconds, and returns once it has written a few hundred lines.
#[cfg(unix)]
fn long_run(folder: &Path, command: &str, metrics: &str) -> Child {
    let child =
        common::sab(folder, command).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let started = Instant::now();
    while fs::read_to_string(folder.join(metrics)).map_or(0, |text| text.lines().count()) < 300 {
        assert!(started.elapsed() < Duration::from_secs(120), "the run did not begin");
        sleep(Duration::from_millis(2));
    }
    child
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
}

#[cfg(unix)]
#[rstest]
#[case("INT", 130)]
#[case("TERM", 143)]
fn a_signal_saves_and_stops_and_the_run_goes_on_as_if_there_had_been_none(
    #[case] name: &str,
    #[case] status: i32,
) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let line = format!(
        "train copying {TINY} --compare none --updates 3000 --evaluate-every 1000 --checkpoint-every 1000"
    );
    succeed(path, &format!("{line} --out whole"));
    let child = long_run(path, &format!("{line} --out cut"), "cut/metrics.jsonl");
    signal(&child, name);
    let output = child.wait_with_output().unwrap();
    let told = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{told}");
    let last = told.trim_end().lines().last().unwrap();
    assert!(last.starts_with(&format!("SIG{name}: stopped after update ")), "{told}");
    assert!(last.contains("`sab train --resume cut` goes on"), "{told}");
    let update = last.split(' ').find_map(|word| word.trim_end_matches(';').parse::<usize>().ok());
    assert!(path.join(format!("cut/checkpoint-{:08}", update.unwrap())).is_dir(), "{told}");

    succeed(path, "train --resume cut");
    for file in ["metrics.jsonl", "reminders.svg", "learning.svg"] {
        let read = |run: &str| fs::read_to_string(path.join(run).join(file)).unwrap();
        assert!(read("whole") == read("cut"), "{file} differs");
    }
}

#[cfg(unix)]
#[test]
fn a_second_signal_stops_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    // Evaluations of many seconds, so that the first signal is still waiting for its update.
    let line = format!(
        "train copying {TINY} --compare none --updates 400 --evaluate-every 301 --out run --test-delays 6"
    );
    succeed(path, &format!("{line} --updates 1"));
    let config = fs::read_to_string(path.join("run/config.json")).unwrap();
    let slow = config
        .replace("\"evaluate_sequences\": 64", "\"evaluate_sequences\": 20000000")
        .replace("\"updates\": 1,", "\"updates\": 400,");
    assert_ne!(config, slow);
    fs::write(path.join("slow.json"), slow).unwrap();
    let child = long_run(path, "train --config slow.json --out slow", "slow/metrics.jsonl");
    // The evaluation begins after update 301.
    sleep(Duration::from_millis(300));
    signal(&child, "TERM");
    sleep(Duration::from_millis(300));
    let signalled = Instant::now();
    signal(&child, "INT");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(signalled.elapsed() < Duration::from_secs(3));
}

/// `count` images in MNIST's format: the digit n is a light stroke at the n-th of ten places.
fn write_images(folder: &Path, count: usize) {
    let size = |n: usize| (n as u32).to_be_bytes();
    let mut images = [&[0, 0, 8, 3], &size(count)[..], &size(28), &size(28)].concat();
    for n in 0..count {
        images.extend((0..784).map(|pixel| if pixel / 78 == n % 10 { 255u8 } else { 0 }));
    }
    let mut labels = [&[0, 0, 8, 1], &size(count)[..]].concat();
    labels.extend((0..count).map(|n| (n % 10) as u8));
    fs::write(folder.join("t10k-images-idx3-ubyte"), images).unwrap();
    fs::write(folder.join("t10k-labels-idx1-ubyte"), labels).unwrap();
}

#[test]
fn images_and_texts_are_learnt_from_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    write_images(path, 60);
    fs::write(path.join("some.txt"), "the cat sat on the mat. ".repeat(200)).unwrap();
    let rest = "--hidden 8 --batch 4 --updates 3 --evaluate-every 3 --threads 1 --compare lstm";
    let told = succeed(path, &format!("train mnist --permuted --data . --out images {rest}"));
    assert!(told.contains("permuted pixels of MNIST"), "{told}");
    let told = succeed(path, &format!("train text --data some.txt --length 12 --out text {rest}"));
    assert!(told.contains("\nsab: bits per character ") && told.contains(" (chance "), "{told}");
    for (run, data, metric) in [
        ("images", "images in MNIST's format, 49 / 5 / 6 of its test images", "accuracy"),
        ("text", "some.txt, 4320 / 240 / 240 bytes", "bits_per_character"),
    ] {
        let report = fs::read_to_string(path.join(run).join("report.json")).unwrap();
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        assert!(report["data"].as_str().unwrap().starts_with(data), "{}", report["data"]);
        let tests = &report["models"][0]["tests"][0];
        assert!(tests["metrics"][metric].as_f64().unwrap() >= 0.0);
    }
    for run in ["images", "text"] {
        assert!(path.join(run).join("reminders.svg").exists(), "{run}");
    }
    let page = |run: &str| fs::read_to_string(path.join(run).join("report.html")).unwrap();
    // An image has too many steps for a map of cells to point at.
    assert!(
        !page("images").contains("id=\"map\"") && page("text").contains("character &#x27;t&#x27;")
    );
}
