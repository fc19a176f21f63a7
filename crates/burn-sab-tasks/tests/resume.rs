//! A run that is interrupted and resumed is the run that was not interrupted, bit for bit.

use std::io;
use std::path::Path;

use burn::module::Module;
use burn::tensor::Device;
use burn_sab_tasks::{
    Curriculum, Ending, Event, ModelKind, Purpose, Task, TrainConfig, TrainError, Trainer, evaluate,
};
use rstest::rstest;

/// Small, but with everything in it: a curriculum, evaluations, a falling learning rate, checkpoints.
fn tiny(task: Task, model: ModelKind) -> TrainConfig {
    let mut config = TrainConfig {
        model,
        span: 14,
        curriculum: Curriculum::Grow,
        batch: 8,
        updates: 60,
        lr: 5e-3,
        lr_decay: 0.5,
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
fn only_the_latest_checkpoint_is_kept_and_leftovers_do_no_harm() {
    let device = Device::flex();
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".unfinished-checkpoint-00000033")).unwrap();
    let task = Task::Copying { symbols: 2, alphabet: 3 };
    let fresh = Trainer::new(tiny(task, ModelKind::Sab), &device).unwrap();
    run_to_the_end(fresh, folder.path());
    let left: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(left, ["checkpoint-00000060"]);
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
    let model = folder.path().join("checkpoint-00000060/model.bpk");
    std::fs::write(&model, b"not a record").unwrap();
    let error = Trainer::resume(folder.path(), &device).unwrap_err().to_string();
    assert!(error.contains("model.bpk"), "{error}");
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
    assert!(matches!(outcome, Err(TrainError::Diverged { .. })), "{outcome:?}");
    assert!(skipped >= 99, "{skipped}");
    assert_eq!(trainer.skipped(), skipped + 1);
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
