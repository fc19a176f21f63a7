//! Saving a training run so that it can go on exactly, and never leaving half a checkpoint behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::RecordError;
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::error::TrainError;
use crate::model::TaskModel;
use crate::progress::Progress;

const MODEL: &str = "model.bpk";
const BEST: &str = "best.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";

/// A checkpoint's folder is called this and the number of updates.
const PREFIX: &str = "checkpoint-";
/// A folder that is still being written is called this and the number of updates.
const UNFINISHED: &str = ".unfinished-checkpoint-";

/// What a checkpoint holds beside weights and optimiser.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedState {
    pub(crate) config: TrainConfig,
    pub(crate) progress: Progress,
}

/// Writes a checkpoint of `progress` into `folder` and removes the ones before it.
///
/// The files are written under another name that is then changed, so that whoever interrupts the
/// program, or runs out of disk space, still has the checkpoint before.
pub(crate) fn save(
    folder: &Path,
    state: &SavedState,
    model: &TaskModel,
    best: Option<&TaskModel>,
    optimizer: &ModuleOptimizer,
) -> Result<(), TrainError> {
    let name = format!("{:08}", state.progress.update);
    let finished = folder.join(format!("{PREFIX}{name}"));
    if finished.exists() {
        return Ok(());
    }
    // Those of an interrupted program.
    for (_, left_over) in list(folder, UNFINISHED)? {
        remove(&left_over)?;
    }
    let unfinished = folder.join(format!("{UNFINISHED}{name}"));
    fs::create_dir_all(&unfinished).map_err(at(&unfinished))?;
    record(&unfinished.join(MODEL), |path| model.clone().save_file(path))?;
    if let Some(best) = best {
        record(&unfinished.join(BEST), |path| best.clone().save_file(path))?;
    }
    record(&unfinished.join(OPTIMIZER), |path| optimizer.save(path))?;
    write_json(&unfinished.join(STATE), state)?;
    fs::rename(&unfinished, &finished).map_err(at(&finished))?;
    for (update, older) in list(folder, PREFIX)? {
        if update < state.progress.update {
            remove(&older)?;
        }
    }
    Ok(())
}

/// The latest checkpoint in `folder`.
pub(crate) fn latest(folder: &Path) -> Result<PathBuf, TrainError> {
    match list(folder, PREFIX)?.into_iter().max() {
        Some((_, path)) => Ok(path),
        None => Err(TrainError::Checkpoint {
            path: folder.to_owned(),
            reason: "there is no checkpoint in this folder".to_owned(),
        }),
    }
}

/// Whether `folder` has a checkpoint.
pub(crate) fn exists(folder: &Path) -> bool {
    list(folder, PREFIX).is_ok_and(|found| !found.is_empty())
}

pub(crate) fn load_state(checkpoint: &Path) -> Result<SavedState, TrainError> {
    let path = checkpoint.join(STATE);
    let text = fs::read_to_string(&path).map_err(at(&path))?;
    serde_json::from_str(&text).map_err(|error| damaged(&path, &error))
}

pub(crate) fn load_model(checkpoint: &Path, into: TaskModel) -> Result<TaskModel, TrainError> {
    record(&checkpoint.join(MODEL), |path| into.try_load_file(path))
}

pub(crate) fn load_best(checkpoint: &Path, into: TaskModel) -> Result<TaskModel, TrainError> {
    record(&checkpoint.join(BEST), |path| into.try_load_file(path))
}

pub(crate) fn load_optimizer(
    checkpoint: &Path,
    into: ModuleOptimizer,
) -> Result<ModuleOptimizer, TrainError> {
    record(&checkpoint.join(OPTIMIZER), |path| into.load(path))
}

/// The checkpoints in `folder` whose names begin with `prefix`, with their numbers of updates.
fn list(folder: &Path, prefix: &str) -> Result<Vec<(usize, PathBuf)>, TrainError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let path = entry.map_err(at(folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(update) = name.and_then(|name| name.strip_prefix(prefix)?.parse().ok()) {
            found.push((update, path));
        }
    }
    Ok(found)
}

fn remove(folder: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(folder)(error)),
        _ => Ok(()),
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), TrainError> {
    let write = || -> io::Result<()> {
        let mut file = File::create(path)?;
        serde_json::to_writer_pretty(&mut file, value)?;
        file.sync_all()
    };
    write().map_err(at(path))
}

fn at(path: &Path) -> impl Fn(io::Error) -> TrainError {
    move |source| TrainError::Io { path: path.to_owned(), source }
}

fn record<T>(
    path: &Path,
    action: impl FnOnce(&Path) -> Result<T, RecordError>,
) -> Result<T, TrainError> {
    action(path).map_err(|error| damaged(path, &error))
}

fn damaged(path: &Path, error: &dyn std::error::Error) -> TrainError {
    TrainError::Checkpoint { path: path.to_owned(), reason: error.to_string() }
}
