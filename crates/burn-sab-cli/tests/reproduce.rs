//! `sab reproduce` as its users meet it: a tiny grid, interrupted, resumed, and changed.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rstest::rstest;

/// Two models and two seeds; an update takes a millisecond.
const GRID: &str = r#"
title = "A tiny grid"
about = "It learns next to nothing."
task = "copying"
models = ["sab", "attention"]
spans = [6]
seeds = [1, 2]
test-spans = [30, 40]
longest-test = { attention = 30 }

[settings]
symbols = 2
alphabet = 3
hidden = 8
attention = 4
batch = 8
updates = 400
evaluate-every = 40
checkpoint-every = 20
stop-at = "never"
test-sequences = 4

[[published]]
model = "SAB"
train-span = 6
test-span = 30
value = "99 %"
source = "nobody"
"#;

fn sab(folder: &Path, line: &str) -> Command {
    let mut command = common::sab(folder, line);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn succeed(folder: &Path, line: &str) -> String {
    let output = sab(folder, line).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{line}: {told}");
    String::from_utf8(output.stdout).unwrap()
}

fn rows(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_interrupted_grid_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("tiny.toml"), GRID).unwrap();
    succeed(folder, "reproduce --grid tiny.toml --out whole --threads 1");

    // Killed in the middle of the second run, as soon as that has a checkpoint.
    let begun = folder.join("cut/tiny/attention-6-1");
    let mut child = sab(folder, "reproduce --grid tiny.toml --out cut --threads 1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let has_checkpoint = || {
        fs::read_dir(&begun).is_ok_and(|entries| {
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            names.into_iter().any(|name| name.starts_with("checkpoint-"))
        })
    };
    while !has_checkpoint() {
        assert!(started.elapsed() < Duration::from_secs(120), "no checkpoint came");
        sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!begun.join("report.json").exists(), "the run was over before it could be interrupted");
    let first = folder.join("cut/tiny/sab-6-1/report.json");
    let finished = fs::metadata(&first).unwrap().modified().unwrap();

    let told = succeed(folder, "reproduce --grid tiny.toml --out cut --threads 1");
    assert!(told.contains("4 runs are declared, 3 are to be made now"), "{told}");
    assert_eq!(fs::metadata(&first).unwrap().modified().unwrap(), finished, "it was made again");
    for run in ["sab-6-1", "attention-6-1", "sab-6-2", "attention-6-2"] {
        let read = |out: &str| {
            fs::read_to_string(folder.join(out).join("tiny").join(run).join("metrics.jsonl"))
                .unwrap()
        };
        assert!(read("whole") == read("cut"), "{run} differs");
    }

    let results = folder.join("cut/results");
    let pictures = ["tiny-learning", "tiny-transfer", "tiny-cost", "tiny/sab-6-1-reminders"];
    for picture in pictures {
        let svg = fs::read_to_string(results.join(format!("{picture}.svg"))).unwrap();
        assert!(svg.contains("</svg>"), "{picture}");
    }
    let rows = rows(&results.join("tiny.jsonl"));
    assert_eq!(rows.len(), 2 * (3 + 3));
    for row in &rows {
        assert_eq!(row["task"], "copying");
        assert!(row["command"].as_str().unwrap().starts_with("sab train copying --model"));
        assert_eq!(row["config"]["span"], 6);
        if row["model"] == "attention" && row["test_delay"] == 40 {
            assert_eq!(row["without"], "too long for this model");
            continue;
        }
        assert_eq!((row["updates"].as_u64(), row["sequences"].as_u64()), (Some(400), Some(4)));
        let accuracy = row["accuracy"].as_f64().unwrap();
        assert!((0.0..=1.0).contains(&accuracy));
        for key in ["cross_entropy", "seconds", "update_seconds", "update_bytes"] {
            assert!(row[key].as_f64().unwrap() > 0.0, "{key}");
        }
        for key in ["commit", "device", "processor", "date"] {
            assert!(!row[key].as_str().unwrap().is_empty(), "{key}");
        }
    }
    let page = fs::read_to_string(results.join("tiny.md")).unwrap();
    for text in ["# A tiny grid", "| sab | 6 | 0 of 2 |", "too long", "nobody", "4 of 4 runs"] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }
    let html = fs::read_to_string(results.join("tiny.html")).unwrap();
    for text in ["<h1>A tiny grid", "<td>0 of 2</td>", "too long", "nobody", "4 of 4 runs"] {
        assert!(html.contains(text), "{text} is missing in {html}");
    }
    assert_eq!(html.matches("<svg").count(), page.matches("![").count());
}

#[cfg(unix)]
#[test]
fn a_signal_stops_a_grid_with_a_line_that_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("tiny.toml"), GRID).unwrap();
    let line = "reproduce --grid tiny.toml --models sab --seeds 1 --threads 1";
    let child = sab(folder, line).spawn().unwrap();
    let metrics = folder.join("runs/reproduce/tiny/sab-6-1/metrics.jsonl");
    let started = Instant::now();
    while fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 50 {
        assert!(started.elapsed() < Duration::from_secs(120), "the run did not begin");
        sleep(Duration::from_millis(1));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{told}");
    let last = told.trim_end().lines().last().unwrap();
    assert!(last.starts_with("SIGTERM: ") && last.contains("the same command goes on"), "{told}");
    assert!(succeed(folder, line).contains("1 are to be made now"));
    let lines = fs::read_to_string(metrics).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"kind\":\"update\"")).count(), 400);
}

#[test]
fn parts_of_a_grid_can_be_run_and_only_told() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("tiny.toml"), GRID.replace("updates = 400", "updates = 20")).unwrap();
    let told = succeed(
        folder,
        "reproduce --grid tiny.toml --models sab --seeds 2 --results tables --threads 1",
    );
    assert!(told.contains("4 runs are declared, 1 are to be made now"), "{told}");
    let all = rows(&folder.join("tables/tiny.jsonl"));
    assert_eq!(all.iter().filter(|row| row["without"] == "not run").count(), 3);
    fs::remove_dir_all(folder.join("tables")).unwrap();
    let told = succeed(folder, "reproduce --grid tiny.toml --tables-only --results tables");
    assert!(told.contains("0 are to be made now"), "{told}");
    let page = fs::read_to_string(folder.join("tables/tiny.md")).unwrap();
    assert!(page.contains("0 of 1, 1 not run") && page.contains("not run |"), "{page}");

    // Costs are measured again, and nothing else happens.
    let run = folder.join("runs/reproduce/tiny/sab-6-2");
    let made = |file: &str| fs::metadata(run.join(file)).unwrap().modified().unwrap();
    let (report, cost) = (made("report.json"), made("cost.json"));
    let told = succeed(folder, "reproduce --grid tiny.toml --costs-only --threads 1");
    assert!(told.contains("4 runs are declared, 1 are to be measured now"), "{told}");
    assert_eq!(made("report.json"), report);
    assert!(made("cost.json") > cost);

    // More updates go on from the checkpoint; another hidden size is another run.
    fs::write(folder.join("tiny.toml"), GRID.replace("updates = 400", "updates = 40")).unwrap();
    let line = "reproduce --grid tiny.toml --models sab --seeds 2 --threads 1";
    assert!(succeed(folder, line).contains("1 are to be made now"));
    let metrics = folder.join("runs/reproduce/tiny/sab-6-2/metrics.jsonl");
    let lines = fs::read_to_string(metrics).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"kind\":\"update\"")).count(), 40);
    fs::write(folder.join("tiny.toml"), GRID.replace("hidden = 8", "hidden = 9")).unwrap();
    let output = sab(folder, line).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("other settings") && told.contains("--out"), "{told}");
}

#[test]
fn what_an_earlier_machine_finished_is_not_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let grid = GRID
        .replace("updates = 400", "updates = 40")
        .replace("[settings]", "level = 0.01\n[settings]");
    fs::write(folder.join("tiny.toml"), &grid).unwrap();
    succeed(folder, "reproduce --grid tiny.toml --seeds 1 --results results --threads 1");
    fs::remove_dir_all(folder.join("runs")).unwrap();

    let line = "reproduce --grid tiny.toml --earlier results --results again --threads 1";
    assert!(succeed(folder, line).contains("4 runs are declared, 2 are to be made now"));
    assert!(!folder.join("runs/reproduce/tiny/sab-6-1").exists(), "it was made again");
    for file in ["tiny/sab-6-1.json", "tiny/sab-6-1-reminders.svg"] {
        let read = |results: &str| fs::read(folder.join(results).join(file)).unwrap();
        assert!(read("results") == read("again"), "{file} differs");
    }
    let first = |file: &str| rows(&folder.join(file))[0].clone();
    assert_eq!(first("results/tiny.jsonl"), first("again/tiny.jsonl"));
    let page = fs::read_to_string(folder.join("again/tiny.md")).unwrap();
    for text in ["4 of 4 runs", "| updates to 1 % | then at 1 % |", "| sab | 6 | 2 of 2 | 40 |"] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }

    // A baseline is the same run whatever the memory of SAB is.
    let baseline = grid.replace("\"sab\", ", "").replace("[settings]", "[settings]\nmax-hops = 1");
    fs::write(folder.join("tiny.toml"), baseline).unwrap();
    let told = succeed(folder, "reproduce --grid tiny.toml --earlier again --out y --tables-only");
    assert!(told.contains("2 runs are declared"), "{told}");
    let table = rows(&folder.join("y/results/tiny.jsonl"));
    assert!(table.iter().all(|row| row["without"] != "not run"), "{table:?}");

    // More updates are another training; another hidden size is another run.
    fs::write(folder.join("tiny.toml"), grid.replace("updates = 40", "updates = 60")).unwrap();
    let told = succeed(folder, "reproduce --grid tiny.toml --earlier again --out x --tables-only");
    assert!(told.contains("4 runs are declared, 0 are to be made now"), "{told}");
    let table = rows(&folder.join("x/results/tiny.jsonl"));
    assert!(table.iter().all(|row| row["without"] == "not run"), "{table:?}");
    fs::write(folder.join("tiny.toml"), grid.replace("hidden = 8", "hidden = 9")).unwrap();
    let output =
        sab(folder, "reproduce --grid tiny.toml --earlier again --out x").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("other settings") && told.contains("--earlier"), "{told}");
}

#[test]
fn pilots_choose_learning_rates_and_parts_share_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let pilots = "pilots = { lr = [0.0001, 0.01], updates = 20 }\n[settings]";
    let parts = "[[parts]]\nname = \"a\"\n[[parts]]\nname = \"b\"\ntask = \"selective-copying\"\n";
    let grid = GRID.replace("updates = 400", "updates = 40").replace("[settings]", pilots) + parts;
    fs::write(folder.join("tiny.toml"), grid).unwrap();
    let told = succeed(folder, "reproduce --grid tiny.toml --tasks copying --threads 1");
    // Two rates for each of two models; then two seeds of each.
    let made = "16 runs are declared, 4 are to be made now";
    assert_eq!(told.matches(made).count(), 2, "{told}");

    let runs = folder.join("runs/reproduce");
    let table = rows(&runs.join("results/tiny-a.jsonl"));
    for model in ["sab", "attention"] {
        let held_out = |lr: &str| {
            let path = runs.join(format!("tiny-a/{model}-6-lr-{lr}/report.json"));
            let text = fs::read_to_string(path).unwrap();
            let report: serde_json::Value = serde_json::from_str(&text).unwrap();
            let best = &report["models"][0]["best"]["metrics"];
            (best["accuracy"].as_f64().unwrap(), -best["cross_entropy"].as_f64().unwrap())
        };
        let chosen = if held_out("0.01") > held_out("0.0001") { 0.01 } else { 0.0001 };
        let of_model = || table.iter().filter(|row| row["model"] == model);
        let pilots = of_model().filter(|row| row["pilot"] == true);
        assert_eq!(pilots.map(|row| &row["updates"]).collect::<Vec<_>>(), [20, 20]);
        for row in of_model().filter(|row| row["pilot"].is_null()) {
            assert_eq!(
                (&row["config"]["lr"], &row["config"]["updates"]),
                (&chosen.into(), &40.into())
            );
            assert!(row["command"].as_str().unwrap().contains(&format!("--lr {chosen}")));
        }
    }
    let waiting = rows(&runs.join("results/tiny-b.jsonl"));
    let without: Vec<_> = waiting.iter().map(|row| row["without"].as_str().unwrap()).collect();
    let waits = "waits for the choice of its learning rate";
    assert_eq!(without, [["not run"; 4], [waits; 4]].concat());
    let page = fs::read_to_string(runs.join("results/tiny-a.md")).unwrap();
    for text in ["learning rate", "4 of 4 runs", "parameters", "in a run of 20 updates"] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }

    let line = "reproduce --grid tiny.toml --threads 1";
    assert_eq!(succeed(folder, line).matches(made).count(), 2);
    assert!(succeed(folder, line).contains(" 0 are to be made now"));
    let page = fs::read_to_string(runs.join("results/tiny.md")).unwrap();
    for text in ["[A tiny grid](tiny-a.md) | [A tiny grid](tiny-b.md)", "| sab | ", "40: "] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }
}

#[rstest]
#[case("reproduce juggling", "juggling")]
#[case("reproduce --quick --full", "--full")]
#[case("reproduce --grid missing.toml", "missing.toml")]
#[case("reproduce copying --grid tiny.toml", "--grid")]
#[case("reproduce --grid tiny.toml", "no-such-flag")]
#[case("reproduce mnist", "--data")]
#[case("reproduce cifar --data .", "there is no ./cifar")]
#[case("reproduce copying --threads 0", "--threads")]
#[case("reproduce suite --tasks juggling", "juggling")]
#[case("reproduce ablation --variants no-such", "no-such")]
#[case("reproduce copying --earlier nowhere", "nowhere is not a folder")]
fn a_mistake_is_one_line_that_names_it(#[case] line: &str, #[case] named: &str) {
    let folder = tempfile::tempdir().unwrap();
    let grid = GRID.replace("hidden = 8", "no-such-flag = 8");
    fs::write(folder.path().join("tiny.toml"), grid).unwrap();
    let output = sab(folder.path(), line).output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains(named) && told.starts_with("error: "), "{told}");
    assert_eq!(told.trim_end().lines().count(), 1, "{told}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "something was left behind");
}

#[test]
fn every_grid_of_the_program_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    // Texts have to be there to tell how many characters they have.
    for data in ["mnist", "cifar", "text", "ptb", "fsdd", "acsf1"] {
        fs::create_dir(folder.path().join(data)).unwrap();
    }
    for part in ["train", "valid", "test"] {
        let file = folder.path().join(format!("ptb/ptb.char.{part}.txt"));
        fs::write(file, "s o m e _ c h a r a c t e r s\n").unwrap();
    }
    fs::write(folder.path().join("text/tinyshakespeare.txt.gz"), "some characters").unwrap();
    let told = succeed(folder.path(), "reproduce ablation --variants max_hops-0 --seeds 9");
    assert!(told.contains(" 0 are to be made now"), "{told}");
    for size in ["--quick", "", "--full"] {
        let told = succeed(folder.path(), &format!("reproduce all {size} --data . --tables-only"));
        assert_eq!(told.lines().filter(|line| line.starts_with("table: ")).count(), 25, "{told}");
    }
}
