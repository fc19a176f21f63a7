//! A run that is interrupted and resumed is the run that was not interrupted, bit for bit.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_sab_tasks::{
    Curriculum, Ending, Event, EventSum, Metrics, ModelKind, Purpose, Task, TaskModel, TrainConfig,
    TrainError, Trainer, evaluate,
};
use rstest::rstest;
use tempfile::TempDir;

/// Small, but with everything in it: a curriculum, noise, an average, evaluations, a falling learning rate, checkpoints.
fn tiny(task: Task, model: ModelKind) -> TrainConfig {
    let mut config = TrainConfig {
        model,
        span: 14,
        curriculum: Curriculum::Grow,
        batch: 8,
        updates: 60,
        lr: 5e-3,
        lr_decay: 0.5,
        input_noise: 0.1,
        weight_average: 0.9,
        evaluate_every: 10,
        evaluate_sequences: 8,
        checkpoint_every: 20,
        stop_at: None,
        ..TrainConfig::new(task)
    };
    config.layer.d_hidden = 8;
    config.layer = config.layer.with_k_top(3).with_k_trunc(4);
    config
}

fn run_to_the_end(mut trainer: Trainer, folder: &Path) -> (Vec<String>, Trainer) {
    let mut lines = Vec::new();
    let ending = trainer.run(Some(folder), |event| {
        lines.push(serde_json::to_string(event)?);
        Ok(())
    });
    assert_eq!(ending.unwrap(), Ending::BudgetSpent);
    (lines, trainer)
}

#[rstest]
#[case(Task::Copying { symbols: 2, alphabet: 3 }, ModelKind::Sab)]
#[case(Task::Copying { symbols: 2, alphabet: 3 }, ModelKind::Tbptt)]
#[case(Task::Copying { symbols: 2, alphabet: 3 }, ModelKind::Attention)]
#[case(Task::Copying { symbols: 2, alphabet: 3 }, ModelKind::Transformer)]
#[case(Task::Copying { symbols: 2, alphabet: 3 }, ModelKind::Gru)]
#[case(Task::Copying { symbols: 2, alphabet: 3 }, ModelKind::MinGru)]
#[case(Task::SelectiveCopying { symbols: 2, alphabet: 3, distractors: 2 }, ModelKind::Sab)]
#[case(Task::MarkedSymbol { alphabet: 3, distractors: 2 }, ModelKind::Sab)]
#[case(Task::Induction { vocabulary: 3 }, ModelKind::Sab)]
#[case(Task::Recall { pairs: 2, queries: 1, keys: 2, values: 2, distractors: 2 }, ModelKind::Sab)]
#[case(Task::Adding, ModelKind::Sab)]
fn a_resumed_run_is_the_uninterrupted_one(#[case] task: Task, #[case] model: ModelKind) {
    let device = Device::flex();
    let config = tiny(task, model);
    let whole_folder = tempfile::tempdir().unwrap();
    let fresh = Trainer::new(config.clone(), &device).unwrap();
    let (whole, whole_trainer) = run_to_the_end(fresh, whole_folder.path());

    // Interrupted after update 47: the last checkpoint is that of update 40.
    let folder = tempfile::tempdir().unwrap();
    let mut interrupted = Trainer::new(config, &device).unwrap();
    let mut lines = Vec::new();
    let outcome = interrupted.run(Some(folder.path()), |event| {
        if event.update() > 47 {
            return Err(io::Error::other("interrupted"));
        }
        if event.update() <= 40 {
            lines.push(serde_json::to_string(event)?);
        }
        Ok(())
    });
    assert!(matches!(outcome, Err(TrainError::Observer(_))));
    drop(interrupted);
    let resumed = Trainer::resume(folder.path(), &device).unwrap();
    assert_eq!(resumed.update(), 40);
    let (rest, resumed_trainer) = run_to_the_end(resumed, folder.path());
    lines.extend(rest);
    assert_eq!(lines, whole);

    assert_eq!(resumed_trainer.best(), whole_trainer.best());
    let tried = |trainer: &Trainer| {
        let data = (9, Purpose::Test);
        evaluate(&trainer.best_model(), trainer.examples(), 20, 16, data, &device)
    };
    assert_eq!(tried(&resumed_trainer), tried(&whole_trainer));
}

#[test]
fn the_two_latest_checkpoints_are_kept_and_leftovers_do_no_harm() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".unfinished-checkpoint-00000033")).unwrap();
    let task = Task::Copying { symbols: 2, alphabet: 3 };
    let fresh = Trainer::new(tiny(task, ModelKind::Sab), &device).unwrap();
    run_to_the_end(fresh, folder.path());
    assert_eq!(names(folder.path()), ["checkpoint-00000040", "checkpoint-00000060"]);
}

/// What is in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A run of [`tiny`] that has ended, with its events.
fn ended() -> (TempDir, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let task = Task::Copying { symbols: 2, alphabet: 3 };
    let fresh = Trainer::new(tiny(task, ModelKind::Sab), &Device::flex()).unwrap();
    let (lines, _) = run_to_the_end(fresh, folder.path());
    (folder, lines)
}

const LAST: &str = "checkpoint-00000060";
const FILES: [&str; 6] =
    ["average.bpk", "best.bpk", "manifest.json", "model.bpk", "optimizer.bpk", "state.json"];

/// What the run in `folder` does next: ten updates depend on every weight and on the optimiser's state. (Files of
/// two runs cannot be compared: identities of parameters are random, and the optimiser's have no order.)
fn next_events(folder: &Path) -> Vec<String> {
    let mut trainer = Trainer::resume(folder, &Device::flex()).unwrap();
    assert!(trainer.damage().is_empty());
    trainer.extend(70, None);
    let mut lines = Vec::new();
    trainer
        .run(None, |event| {
            lines.push(serde_json::to_string(event)?);
            Ok(())
        })
        .unwrap();
    lines
}

#[test]
fn a_flipped_bit_is_noticed_wherever_it_is_and_the_run_goes_on_from_the_checkpoint_before() {
    // In the long form every trial is made to the end, in the short form every eleventh, so that each file
    // has its turn: the end takes much longer than to notice.
    let (trials, every): (usize, usize) = match std::env::var("SAB_TRIALS") {
        Ok(trials) => (trials.parse().expect("SAB_TRIALS"), 1),
        Err(_) => (66, 11),
    };
    let device = Device::flex();
    let (folder, whole) = ended();
    let folder = folder.path();
    assert_eq!(names(&folder.join(LAST)), FILES);
    let intact = next_events(folder);
    let mut random = Random(u64::from(std::process::id()));
    for trial in 0..trials {
        let file = folder.join(LAST).join(FILES[trial % FILES.len()]);
        let before = fs::read(&file).unwrap();
        let (place, bit) = (random.below(before.len()), random.below(8));
        let mut damaged = before.clone();
        damaged[place] ^= 1 << bit;
        fs::write(&file, damaged).unwrap();
        let what = format!("{}, byte {place}, bit {bit}", file.display());
        let resumed = Trainer::resume(folder, &device).unwrap();
        assert_eq!(resumed.update(), 40, "went unnoticed: {what}");
        let [damage] = resumed.damage() else { panic!("{what}: {:?}", resumed.damage()) };
        assert!(damage.path.starts_with(folder.join(LAST)), "{what}: {damage}");
        if trial % every == 0 {
            let (lines, _) = run_to_the_end(resumed, folder);
            assert!(whole.ends_with(&lines) && !lines.is_empty(), "{what}");
            assert!(next_events(folder) == intact, "{what}");
        } else {
            fs::write(&file, before).unwrap();
        }
    }
    println!(
        "{trials} of {trials} flipped bits noticed; {} runs went on and ended bit for bit as the undamaged one",
        trials.div_ceil(every)
    );
}

/// A generator that is good enough for offsets (SplitMix64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % end as u64) as usize
    }
}

#[test]
fn a_missing_file_is_noticed_and_so_is_a_missing_manifest() {
    let device = Device::flex();
    let (folder, _) = ended();
    let folder = folder.path();
    for file in FILES {
        let path = folder.join(LAST).join(file);
        let contents = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let resumed = Trainer::resume(folder, &device).unwrap();
        assert_eq!(resumed.update(), 40);
        assert_eq!(resumed.damage()[0].path, path);
        fs::write(&path, contents).unwrap();
    }
}

#[test]
fn a_checkpoint_of_an_earlier_version_loads() {
    let device = Device::flex();
    let (folder, _) = ended();
    let folder = folder.path();
    // As it was without a manifest and what came with it.
    let state = folder.join(LAST).join("state.json");
    let mut value: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(&state).unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("has_manifest").unwrap();
    value["progress"].as_object_mut().unwrap().remove("events").unwrap();
    fs::write(&state, value.to_string()).unwrap();
    fs::remove_file(folder.join(LAST).join("manifest.json")).unwrap();
    let mut resumed = Trainer::resume(folder, &device).unwrap();
    assert_eq!((resumed.update(), resumed.damage(), resumed.events()), (60, &[][..], None));
    resumed.extend(70, None);
    run_to_the_end(resumed, folder);
    assert!(folder.join("checkpoint-00000070/manifest.json").is_file());
}

#[test]
fn a_run_that_is_told_to_stop_saves_a_checkpoint_and_goes_on_as_if_it_had_not() {
    let device = Device::flex();
    let (whole_folder, whole) = ended();
    let folder = tempfile::tempdir().unwrap();
    let task = Task::Copying { symbols: 2, alphabet: 3 };
    let mut trainer = Trainer::new(tiny(task, ModelKind::Sab), &device).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    trainer.stop_when(stop.clone());
    let mut lines = Vec::new();
    let outcome = trainer.run(Some(folder.path()), |event| {
        stop.store(event.update() == 33, Ordering::Relaxed);
        lines.push(serde_json::to_string(event)?);
        Ok(())
    });
    assert!(matches!(outcome, Err(TrainError::Stopped { update: 33 })), "{outcome:?}");
    let resumed = Trainer::resume(folder.path(), &device).unwrap();
    assert_eq!(resumed.update(), 33);
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert_eq!(resumed.events(), Some(EventSum::of(text.as_bytes())));
    lines.extend(run_to_the_end(resumed, folder.path()).0);
    assert_eq!(lines, whole);
    assert_eq!(next_events(folder.path()), next_events(whole_folder.path()));
}

#[test]
fn a_run_that_has_ended_can_be_extended() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let task = Task::Copying { symbols: 2, alphabet: 3 };
    let fresh = Trainer::new(tiny(task, ModelKind::Sab), &device).unwrap();
    run_to_the_end(fresh, folder.path());
    let mut trainer = Trainer::resume(folder.path(), &device).unwrap();
    assert_eq!(trainer.ending(), Some(Ending::BudgetSpent));
    trainer.extend(70, None);
    let (lines, trainer) = run_to_the_end(trainer, folder.path());
    assert_eq!(trainer.update(), 70);
    let updates = lines.iter().filter(|line| line.contains("\"update\",")).count();
    assert_eq!(updates, 10);
}

#[test]
fn missing_and_damaged_checkpoints_are_errors() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let error = Trainer::resume(folder.path(), &device).unwrap_err().to_string();
    assert!(error.contains("no checkpoint"), "{error}");

    let task = Task::Copying { symbols: 2, alphabet: 3 };
    let fresh = Trainer::new(tiny(task, ModelKind::Sab), &device).unwrap();
    run_to_the_end(fresh, folder.path());
    fs::write(folder.path().join("checkpoint-00000060/model.bpk"), b"not a record").unwrap();
    assert_eq!(Trainer::resume(folder.path(), &device).unwrap().update(), 40);
    fs::remove_file(folder.path().join("checkpoint-00000040/optimizer.bpk")).unwrap();
    let error = Trainer::resume(folder.path(), &device).unwrap_err().to_string();
    for words in ["00000060/model.bpk", "00000040/optimizer.bpk", "from a copy"] {
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn the_network_of_a_run_is_read_without_its_data() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("some.txt");
    fs::write(&text, "hello ".repeat(1000)).unwrap();
    let task = Task::Text { characters: 5 };
    let config = TrainConfig {
        data: Some(text.clone()),
        curriculum: Curriculum::None,
        ..tiny(task, ModelKind::Sab)
    };
    let fresh = Trainer::new(config, &device).unwrap();
    let (_, trainer) = run_to_the_end(fresh, folder.path());
    fs::remove_file(&text).unwrap();
    assert!(matches!(Trainer::resume(folder.path(), &device), Err(TrainError::Data(_))));
    let (config, network) = TaskModel::of_run(folder.path(), &device).unwrap();
    assert_eq!((config.task, config.span), (task, 14));
    assert!(network.step(Tensor::zeros([1, 5], &device), None).is_some(), "it has no autodiff");
    let tried = |network: &TaskModel| {
        evaluate(network, trainer.examples(), 14, 8, (9, Purpose::Test), &device)
    };
    assert_eq!(tried(&network), tried(&trainer.best_model()));
    let fresh = TaskModel::new(&config, &device).unwrap();
    assert_ne!(tried(&network), tried(&fresh), "training should matter");
}

#[test]
fn training_stops_at_the_level_that_was_asked_for() {
    let device = Device::flex();
    let task = Task::Copying { symbols: 1, alphabet: 2 };
    // Any accuracy will do, so the first evaluation ends the run.
    let config = TrainConfig { stop_at: Some(0.01), ..tiny(task, ModelKind::Sab) };
    let mut trainer = Trainer::new(config, &device).unwrap();
    assert_eq!(trainer.run(None, |_| Ok(())).unwrap(), Ending::Reached);
    assert_eq!(trainer.update(), 10);
}

#[test]
fn updates_that_are_not_finite_are_skipped_and_then_given_up() {
    let device = Device::flex();
    let task = Task::Copying { symbols: 2, alphabet: 3 };
    // The first step throws the weights so far away that everything after it overflows.
    let config =
        TrainConfig { lr: 1e38, updates: 1000, evaluate_every: 1000, ..tiny(task, ModelKind::Sab) };
    let mut trainer = Trainer::new(config, &device).unwrap();
    let mut skipped = 0;
    let outcome = trainer.run(None, |event| {
        skipped += usize::from(matches!(event, Event::Skipped { .. }));
        Ok(())
    });
    let Err(error @ TrainError::Diverged { update, .. }) = outcome else { panic!("{outcome:?}") };
    let told = error.to_string();
    assert!(told.starts_with(&format!("update {update}: the ")), "{told}");
    assert!(told.contains("loss is not finite") || told.contains("gradient of network."), "{told}");
    assert!(skipped >= 99, "{skipped}");
    assert_eq!(trainer.skipped(), skipped + 1);
}

#[test]
fn a_run_whose_evaluations_are_not_finite_can_be_saved_and_resumed() {
    let device = Device::flex();
    let task = Task::Copying { symbols: 2, alphabet: 3 };
    let config = TrainConfig { lr: 1e38, ..tiny(task, ModelKind::Sab) };
    let folder = tempfile::tempdir().unwrap();
    let fresh = Trainer::new(config, &device).unwrap();
    let (lines, _) = run_to_the_end(fresh, folder.path());
    let evaluation = lines.iter().rfind(|line| line.contains("\"evaluation\"")).unwrap();
    let Event::Evaluation { metrics: Metrics::Classes { cross_entropy, .. }, best, .. } =
        serde_json::from_str(evaluation).unwrap()
    else {
        panic!("{evaluation}")
    };
    assert!(cross_entropy.is_nan() && !best, "{evaluation}");
    let resumed = Trainer::resume(folder.path(), &device).unwrap();
    assert_eq!((resumed.update(), resumed.damage(), resumed.best()), (60, &[][..], None));
}

#[test]
fn one_tiny_copying_task_is_learnt() {
    let device = Device::flex();
    let config = TrainConfig {
        span: 3,
        batch: 16,
        updates: 400,
        lr: 1e-2,
        lr_decay: 1.0,
        curriculum: Curriculum::None,
        evaluate_every: 50,
        evaluate_sequences: 64,
        stop_at: Some(0.95),
        ..tiny(Task::Copying { symbols: 1, alphabet: 2 }, ModelKind::Sab)
    };
    let mut trainer = Trainer::new(config, &device).unwrap();
    assert!(trainer.best_model().num_params() > 0);
    assert_eq!(trainer.run(None, |_| Ok(())).unwrap(), Ending::Reached, "{:?}", trainer.best());
}
