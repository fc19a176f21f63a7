//! What happens to a run when the machine fails: killed processes, damaged files, a full or read-only disk.
//!
//! `SAB_TRIALS` is the number of kills, and of flipped bits in the files of a run; docs/src/faults.md has a long
//! form's figures.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::Instant;

use serde_json::Value;

/// A run of a second.
const TINY: &str = "train copying --hidden 8 --k-top 3 --k-trunc 4 --symbols 2 --alphabet 3 --delay 6 --batch 8 \
                    --updates 40 --evaluate-every 20 --checkpoint-every 20 --stop-at never --test-delays 6 \
                    --test-sequences 4 --threads 1";

/// Trials that were asked for, or else `short`.
fn trials(short: usize) -> usize {
    std::env::var("SAB_TRIALS").map_or(short, |trials| trials.parse().expect("SAB_TRIALS"))
}

fn command(folder: &Path, line: &str) -> Command {
    let mut command = common::sab(folder, line);
    command.stdin(Stdio::null());
    command
}

/// Runs `sab`, which must not panic, whatever it meets.
fn sab(folder: &Path, line: &str, what: &str) -> (Output, String) {
    let output = command(folder, line).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    for bad in ["panicked", "mistake of the program", "backtrace"] {
        assert!(!told.contains(bad), "{what}: {told}");
    }
    assert!(output.status.code().is_some(), "{what}: ended by a signal: {told}");
    (output, told)
}

fn succeed(folder: &Path, line: &str) {
    let (output, told) = sab(folder, line, line);
    assert!(output.status.success(), "{line}: {told}");
}

/// A generator that is good enough for moments and offsets (SplitMix64).
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(u64::from(std::process::id()))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// What a run found out: the report without times, and the files that have none.
#[derive(PartialEq)]
struct Found {
    report: Value,
    files: Vec<Vec<u8>>,
}

const CURVES: [&str; 2] = ["metrics.jsonl", "learning.svg"];

impl Found {
    fn of(run: &Path) -> Self {
        let text = fs::read_to_string(run.join("report.json")).unwrap();
        let mut report: Value = serde_json::from_str(&text).unwrap();
        without(&mut report, &["seconds", "training_seconds", "date", "checksum"]);
        let mut files = vec!["reminders.svg"];
        files.extend(CURVES);
        files.extend(run.join("tbptt").is_dir().then_some("tbptt/metrics.jsonl"));
        let files = files.iter().map(|file| fs::read(run.join(file)).unwrap()).collect();
        Self { report, files }
    }

    /// Without what depends on `metrics.jsonl`.
    fn without_curves(mut self) -> Self {
        without(&mut self.report, &["events"]);
        self.files.truncate(1);
        self
    }
}

fn without(value: &mut Value, keys: &[&str]) {
    match value {
        Value::Object(object) => {
            object.retain(|key, _| !keys.contains(&key.as_str()));
            object.values_mut().for_each(|value| without(value, keys));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| without(value, keys)),
        _ => {}
    }
}

/// All files below a folder, by their paths in it.
fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push(path.strip_prefix(folder).unwrap().to_owned()),
            }
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    for file in files_of(from) {
        let there = to.join(&file);
        fs::create_dir_all(there.parent().unwrap()).unwrap();
        fs::copy(from.join(file), there).unwrap();
    }
}

const DAMAGES: [&str; 6] =
    ["truncated", "one bit flipped", "zeroed", "a page zeroed", "emptied", "noise"];
const FLIPPED: &str = DAMAGES[1];

/// The contents with one kind of damage; `None` if they are the same with it.
fn damaged(contents: &[u8], damage: &str, random: &mut Random) -> Option<Vec<u8>> {
    let mut bytes = contents.to_vec();
    match damage {
        "truncated" => bytes.truncate(random.below(bytes.len())),
        "zeroed" => bytes.fill(0),
        "a page zeroed" => {
            let start = random.below(bytes.len()) / 512 * 512;
            let end = bytes.len().min(start + 512);
            bytes[start..end].fill(0);
        }
        "emptied" => bytes.clear(),
        "noise" => bytes.iter_mut().for_each(|byte| *byte = random.next() as u8),
        _ => {
            let place = random.below(bytes.len());
            bytes[place] ^= 1 << random.below(8);
        }
    }
    (bytes != contents).then_some(bytes)
}

#[test]
fn killed_runs_end_as_the_run_that_was_not() {
    let kills = trials(8);
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = format!("{TINY} --updates 300 --evaluate-every 60 --checkpoint-every 20");
    let started = Instant::now();
    succeed(folder, &format!("{line} --out whole"));
    let duration = started.elapsed();
    let whole = Found::of(&folder.join("whole"));
    let mut random = Random::new();
    let (mut killed, mut runs) = (0, 0);
    while killed < kills {
        let run = folder.join(format!("cut-{runs}"));
        let out = run.file_name().unwrap().to_str().unwrap().to_owned();
        // Some kills a run, then it may end.
        let most = kills.min(killed + 6);
        loop {
            let resume = run.join("config.json").is_file();
            let next = match resume {
                true => format!("train --resume {out}"),
                // Before its first file a run has nothing to go on from.
                false => {
                    let _ = fs::remove_dir_all(&run);
                    format!("{line} --out {out}")
                }
            };
            if killed >= most {
                let (output, told) = sab(folder, &next, "the last resumption");
                assert!(output.status.success() && !told.contains("warning"), "{told}");
                break;
            }
            let mut child =
                command(folder, &next).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            sleep(duration.mul_f64(random.below(1000) as f64 / 1000.0));
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success());
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
        }
        assert!(Found::of(&run) == whole, "{out} differs from the run that was not killed");
        runs += 1;
    }
    println!(
        "{killed} kills in {runs} runs, all of which ended bit for bit as the run never killed"
    );
}

#[test]
fn damaged_files_of_a_run_are_noticed_or_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    succeed(folder, &format!("{TINY} --compare none --out run"));
    let run = folder.join("run");
    let again = folder.join("again");
    let resume = "train --resume again --updates 60";
    copy(&run, &again);
    succeed(folder, resume);
    let whole = Found::of(&again);
    let whole_without_curves = Found::of(&again).without_curves();

    let files = files_of(&run);
    assert_eq!(files.len(), 7 + 2 * 5, "{files:?}");
    let mut plan: Vec<(&PathBuf, &str)> = Vec::new();
    for file in &files {
        plan.extend(DAMAGES.iter().map(|damage| (file, *damage)));
    }
    plan.extend((0..trials(0)).map(|trial| (&files[trial % files.len()], FLIPPED)));
    let mut random = Random::new();
    let (mut refused, mut warned, mut made_again) = (0, 0, 0);
    for (file, damage) in plan {
        copy(&run, &again);
        let name = file.display().to_string();
        let path = again.join(file);
        let Some(bytes) = damaged(&fs::read(&path).unwrap(), damage, &mut random) else { continue };
        fs::write(&path, bytes).unwrap();
        let what = format!("{name}, {damage}");
        let (output, told) = sab(folder, resume, &what);
        let in_last = name.starts_with("checkpoint-00000040");
        // A checkpoint has one damaged file; which one is told from the manifest, which may be it.
        let named = match in_last {
            true => told.contains("again/checkpoint-00000040/"),
            false => told.contains(&format!("again/{name}")),
        };
        if !output.status.success() {
            assert!(name == "config.json", "{what}: a run could not go on: {told}");
            assert!(named && told.contains("; ") && told.contains("from a copy"), "{what}: {told}");
            assert_eq!(told.trim_end().lines().count(), 1, "{what}: {told}");
            refused += 1;
            continue;
        }
        let found = Found::of(&again);
        if name == "metrics.jsonl" {
            assert!(named && told.contains("warning"), "{what}: {told}");
            assert!(found.without_curves() == whole_without_curves, "{what}");
            warned += 1;
            continue;
        }
        assert!(found == whole, "{what}: another result");
        if in_last {
            assert!(
                named && told.contains("warning") && told.contains("update 20"),
                "{what}: {told}"
            );
            warned += 1;
        } else {
            // Nothing reads these: the checkpoint before, and what is drawn and written at the end of a run.
            let is_written_anew = name.starts_with("report.") || name.ends_with(".svg");
            assert!(
                is_written_anew || name.starts_with("checkpoint-00000020/"),
                "{what}: went unnoticed"
            );
            assert!(!told.contains("warning"), "{what}: {told}");
            made_again += 1;
        }
    }
    println!(
        "damaged files of a run: {refused} refused, {warned} gone on with a warning, {made_again} not needed and \
         made again, 0 unnoticed"
    );

    // Both checkpoints: nothing is left to go on from.
    copy(&run, &again);
    for checkpoint in ["checkpoint-00000020", "checkpoint-00000040"] {
        let path = again.join(checkpoint).join("model.bpk");
        let bytes = damaged(&fs::read(&path).unwrap(), FLIPPED, &mut random).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let (output, told) = sab(folder, resume, "both checkpoints");
    assert_eq!(output.status.code(), Some(1), "{told}");
    for words in
        ["00000020/model.bpk", "00000040/model.bpk", "`sab train --config again/config.json`"]
    {
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn damaged_files_of_a_grid_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let grid = "title = \"One\"\nabout = \"One run.\"\ntask = \"copying\"\nmodels = [\"sab\"]\nspans = [6]\nseeds = [1]\n\
                test-spans = [6]\n[settings]\nsymbols = 2\nalphabet = 3\nhidden = 8\nbatch = 8\nupdates = 20\n\
                evaluate-every = 20\nstop-at = \"never\"\ntest-sequences = 4\n";
    fs::write(folder.join("one.toml"), grid).unwrap();
    let line = "reproduce --grid one.toml --threads 1";
    succeed(folder, line);
    let run = folder.join("runs/reproduce/one/sab-6-1");
    let mut random = Random::new();
    let mut refused = 0;
    for file in ["report.json", "metrics.jsonl", "cost.json", "config.json"] {
        let contents = fs::read(run.join(file)).unwrap();
        for damage in DAMAGES {
            let Some(bytes) = damaged(&contents, damage, &mut random) else { continue };
            fs::write(run.join(file), bytes).unwrap();
            let (output, told) = sab(folder, line, file);
            assert!(!output.status.success(), "{file}, {damage}: went unnoticed");
            assert!(
                told.contains(file) && told.contains("from a copy"),
                "{file}, {damage}: {told}"
            );
            refused += 1;
        }
        fs::write(run.join(file), contents).unwrap();
    }
    succeed(folder, line);
    println!("damaged files of a grid: {refused} refused, 0 unnoticed");
}

#[test]
fn damaged_inputs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Images in MNIST's format, ten of each digit.
    let size = |n: usize| (n as u32).to_be_bytes();
    let images = [&[0, 0, 8, 3], &size(60)[..], &size(28), &size(28), &[7u8; 60 * 784]].concat();
    let labels: Vec<u8> =
        [0, 0, 8, 1].into_iter().chain(size(60)).chain((0..60).map(|n| n % 10)).collect();
    let case = "crates/burn-sab-cli/conformance/cases";
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(case);
    let case = files_of(&cases)
        .into_iter()
        .find(|file| file.extension().is_some_and(|end| end == "safetensors"));
    let case = fs::read(cases.join(case.unwrap())).unwrap();
    succeed(folder, &format!("{TINY} --compare none --out run"));
    let config = fs::read(folder.join("run/config.json")).unwrap();
    fs::create_dir(folder.join("cases")).unwrap();

    let mnist = "train mnist --data . --hidden 8 --batch 4 --updates 1 --evaluate-every 1 --threads 1 --compare none \
                 --test-sequences 1 --out images";
    let text = "train text --data some.txt --length 12 --hidden 8 --batch 4 --updates 1 --threads 1 --compare none \
                --test-sequences 1 --out text";
    let inputs = [
        ("t10k-images-idx3-ubyte", images, mnist),
        ("t10k-labels-idx1-ubyte", labels, mnist),
        ("cases/case.safetensors", case, "conformance cases --dtype f64"),
        ("mine.json", config, "train --config mine.json --out mine"),
        ("some.txt", b"the cat sat on the mat. ".repeat(100), text),
    ];
    for (file, contents, _) in &inputs {
        fs::write(folder.join(file), contents).unwrap();
    }
    let mut random = Random::new();
    let (mut refused, mut used) = (0, 0);
    for (file, contents, line) in &inputs {
        for damage in DAMAGES {
            let Some(bytes) = damaged(contents, damage, &mut random) else { continue };
            fs::write(folder.join(file), bytes).unwrap();
            for out in ["images", "text", "mine"] {
                let _ = fs::remove_dir_all(folder.join(out));
            }
            let what = format!("{file}, {damage}");
            let (output, told) = sab(folder, line, &what);
            let told = told + &String::from_utf8_lossy(&output.stdout);
            // Without a checksum of its own, a file with other pixels, characters or values is another file.
            let is_another = *file == "some.txt" || [FLIPPED, "a page zeroed"].contains(&damage);
            if output.status.success() {
                assert!(is_another, "{what}: went unnoticed: {told}");
                assert!(
                    *file != "mine.json" || told.contains("warning: mine.json"),
                    "{what}: {told}"
                );
                used += 1;
            } else {
                let name = file.rsplit('/').next().unwrap().trim_end_matches(".safetensors");
                assert!(told.contains(name), "{what}: {told}");
                refused += 1;
            }
        }
        fs::write(folder.join(file), contents).unwrap();
    }
    println!("damaged inputs: {refused} refused, {used} valid as another input of the same form");
}

/// A file system of its own for a test, where root may mount one.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={size}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        let mounted = mount.is_ok_and(|mount| mount.status.success());
        if !mounted {
            println!("left out: this user may not mount a tmpfs");
        }
        mounted.then(|| Self(path.to_owned()))
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(
            Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success()
        );
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let Some(disk) = Disk::mount(&folder.join("disk"), "1m") else { return };
    let line = format!("{TINY} --compare none --updates 100");
    succeed(folder, &format!("{line} --out whole"));
    let whole = Found::of(&folder.join("whole"));
    let mut full = 0;
    // KiB that are free: none for anything, or for the first files, or for one or two checkpoints.
    for free in [0, 8, 24, 48, 72, 96, 120, 144] {
        let _ = fs::remove_dir_all(disk.0.join("run"));
        fs::write(disk.0.join("filler"), vec![1; (1020 - free) << 10]).unwrap();
        let (output, told) = sab(folder, &format!("{line} --out disk/run"), "a full disk");
        if output.status.success() {
            fs::remove_file(disk.0.join("filler")).unwrap();
            continue;
        }
        full += 1;
        let last = told.trim_end().lines().last().unwrap();
        assert!(last.starts_with("error: ") && last.contains("disk/run"), "{free} KiB: {told}");
        assert!(last.contains("No space left") && last.contains("; "), "{free} KiB: {told}");
        fs::remove_file(disk.0.join("filler")).unwrap();
        let go_on = match disk.0.join("run/config.json").is_file() {
            true => "train --resume disk/run".to_owned(),
            false => format!("{line} --out disk/run"),
        };
        let (output, told) = sab(folder, &go_on, "space again");
        assert!(output.status.success() && !told.contains("warning"), "{free} KiB: {told}");
        assert!(Found::of(&disk.0.join("run")) == whole, "{free} KiB");
    }
    assert!(full >= 3, "the disk was full {full} times only");
    println!("{full} full disks, after which the run ended bit for bit as on a free one");
}

#[test]
fn a_read_only_folder_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let Some(disk) = Disk::mount(&folder.join("disk"), "4m") else { return };
    succeed(folder, &format!("{TINY} --compare none --out disk/run"));
    disk.remount("ro");
    for line in ["train --resume disk/run --updates 60", &format!("{TINY} --out disk/other")] {
        let (output, told) = sab(folder, line, line);
        assert!(!output.status.success() && told.contains("disk/"), "{line}: {told}");
        assert!(told.contains("Read-only"), "{line}: {told}");
        assert_eq!(told.trim_end().lines().count(), 1, "{line}: {told}");
    }
    disk.remount("rw");
    succeed(folder, "train --resume disk/run --updates 60");
}
