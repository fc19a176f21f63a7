//! Saving a training run so that it can go on exactly. No damage to a checkpoint goes unnoticed.
//!
//! ```text
//! checkpoint-00003250/
//!   model.bpk       weights
//!   average.bpk     average of the weights, if one is kept
//!   best.bpk        weights of the best evaluation, if there was one
//!   optimizer.bpk   state of the optimiser
//!   state.json      settings, position in the data, curriculum
//!   manifest.json   length and CRC-32 of each of these; written last
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::ModuleOptimizer;
use burn::store::{ModuleRecord, RecordError};
use burn::tensor::Bytes;
use serde::{Deserialize, Serialize};

use crate::config::TrainConfig;
use crate::error::{Damage, TrainError};
use crate::model::TaskModel;
use crate::progress::Progress;

const MODEL: &str = "model.bpk";
const AVERAGE: &str = "average.bpk";
const BEST: &str = "best.bpk";
const OPTIMIZER: &str = "optimizer.bpk";
const STATE: &str = "state.json";
const MANIFEST: &str = "manifest.json";

/// A checkpoint's folder is called this and the number of updates.
const PREFIX: &str = "checkpoint-";
/// A folder that is still being written is called this and the number of updates.
const UNFINISHED: &str = ".unfinished-checkpoint-";
/// The format of the manifest that this version writes and reads.
const FORMAT: u32 = 1;

/// What a checkpoint holds beside weights and optimiser.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SavedState {
    pub(crate) config: TrainConfig,
    pub(crate) progress: Progress,
    /// Whether a manifest belongs to the checkpoint; those of earlier versions have none.
    #[serde(default)]
    pub(crate) has_manifest: bool,
}

/// The networks that a checkpoint holds.
#[derive(Clone, Copy)]
pub(crate) struct Networks<'a> {
    pub(crate) model: &'a TaskModel,
    pub(crate) average: Option<&'a TaskModel>,
    pub(crate) best: Option<&'a TaskModel>,
}

/// A checkpoint that has been read; if it has a manifest, every byte is as it was written.
pub(crate) struct Checkpoint {
    path: PathBuf,
    pub(crate) state: SavedState,
    model: Vec<u8>,
    average: Option<Vec<u8>>,
    best: Option<Vec<u8>>,
    optimizer: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    files: Vec<Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: String,
    bytes: u64,
    crc32: String,
}

impl Entry {
    fn of(file: &str, contents: &[u8]) -> Self {
        let crc32 = format!("{:08x}", crc32fast::hash(contents));
        Self { file: file.to_owned(), bytes: contents.len() as u64, crc32 }
    }
}

impl Manifest {
    fn to_text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// Writes a checkpoint of `progress` into `folder`, and keeps the latest intact one before it. Removes all others.
///
/// The files are written under another name, synced and read back. Only then the folder gets its own name. Whoever
/// interrupts the program, or runs out of disk space, still has the checkpoint before.
pub(crate) fn save(
    folder: &Path,
    state: &SavedState,
    networks: Networks<'_>,
    optimizer: &ModuleOptimizer,
) -> Result<(), TrainError> {
    let name = format!("{:08}", state.progress.update);
    let finished = folder.join(format!("{PREFIX}{name}"));
    if finished.exists() && read(&finished).is_ok() {
        return Ok(());
    }
    // Those of an interrupted program.
    for (_, left_over) in list(folder, UNFINISHED)? {
        remove(&left_over)?;
    }
    let unfinished = folder.join(format!("{UNFINISHED}{name}"));
    fs::create_dir_all(&unfinished).map_err(at(&unfinished))?;
    let written = write_all(&unfinished, state, networks, optimizer).and_then(|()| {
        // What is read back is what was written; a damaged folder of this name goes only now.
        read(&unfinished)?;
        remove(&finished)?;
        fs::rename(&unfinished, &finished).map_err(at(&finished))?;
        sync_folder(folder)
    });
    if let Err(error) = written {
        // A full disk gets its space back; the error that matters is the first.
        let _ = remove(&unfinished);
        return Err(error);
    }
    let mut others = list(folder, PREFIX)?;
    others.retain(|(update, _)| *update != state.progress.update);
    others.sort();
    let before = others
        .iter()
        .rposition(|(update, path)| *update < state.progress.update && read(path).is_ok());
    for (place, (_, other)) in others.iter().enumerate() {
        if Some(place) != before {
            remove(other)?;
        }
    }
    Ok(())
}

fn write_all(
    folder: &Path,
    state: &SavedState,
    networks: Networks<'_>,
    optimizer: &ModuleOptimizer,
) -> Result<(), TrainError> {
    let write = |name: &str, contents: &[u8]| -> Result<Entry, TrainError> {
        let path = folder.join(name);
        let write = || -> io::Result<()> {
            let mut file = File::create(&path)?;
            file.write_all(contents)?;
            file.sync_all()
        };
        write().map_err(at(&path))?;
        Ok(Entry::of(name, contents))
    };
    let record = |name: &str, bytes: Result<Bytes, RecordError>| -> Result<Entry, TrainError> {
        let path = folder.join(name);
        write(name, &bytes.map_err(|error| at(&path)(io::Error::other(error)))?)
    };
    let mut files = Vec::new();
    let Networks { model, average, best } = networks;
    for (name, network) in [(MODEL, Some(model)), (AVERAGE, average), (BEST, best)] {
        if let Some(network) = network {
            files.push(record(name, network.clone().into_record().into_bytes())?);
        }
    }
    files.push(record(OPTIMIZER, optimizer.into_bytes())?);
    let text = |name: &str, text: serde_json::Result<String>| -> Result<String, TrainError> {
        text.map_err(|error| at(&folder.join(name))(error.into()))
    };
    files.push(write(STATE, text(STATE, serde_json::to_string_pretty(state))?.as_bytes())?);
    let manifest = Manifest { format: FORMAT, files };
    write(MANIFEST, text(MANIFEST, manifest.to_text())?.as_bytes())?;
    sync_folder(folder)
}

/// Calls `build` with the latest intact checkpoint in `folder`. Returns its result and the damage of later checkpoints, the
/// latest first.
///
/// # Errors
///
/// If there is no checkpoint, if none is intact, or the first error of `build` other than damage.
pub(crate) fn latest<T>(
    folder: &Path,
    build: impl Fn(Checkpoint) -> Result<T, TrainError>,
) -> Result<(T, Vec<Damage>), TrainError> {
    let mut damage = Vec::new();
    for path in latest_first(folder)? {
        match read(&path).and_then(&build) {
            Ok(built) => return Ok((built, damage)),
            Err(TrainError::Checkpoint(found)) => damage.push(found),
            Err(error) => return Err(error),
        }
    }
    Err(match damage.is_empty() {
        true => TrainError::NoCheckpoint(folder.to_owned()),
        false => TrainError::NoIntactCheckpoint(damage),
    })
}

/// The checkpoints in `folder`, the latest first.
fn latest_first(folder: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut found = list(folder, PREFIX)?;
    found.sort();
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

/// Whether `folder` has a checkpoint.
pub(crate) fn exists(folder: &Path) -> bool {
    list(folder, PREFIX).is_ok_and(|found| !found.is_empty())
}

/// Reads a checkpoint, and compares it with its manifest.
///
/// # Errors
///
/// [`TrainError::Checkpoint`] names the damaged file.
pub(crate) fn read(checkpoint: &Path) -> Result<Checkpoint, TrainError> {
    let manifest = read_manifest(checkpoint)?;
    let file = |name: &str| -> Result<Vec<u8>, TrainError> {
        let path = checkpoint.join(name);
        let contents = fs::read(&path).map_err(|error| damaged(&path, &error))?;
        if let Some(manifest) = &manifest {
            let Some(entry) = manifest.files.iter().find(|entry| entry.file == name) else {
                return Err(damaged(&checkpoint.join(MANIFEST), &format!("it lacks {name}")));
            };
            let found = Entry::of(name, &contents);
            if found.bytes != entry.bytes {
                let reason = format!("it has {} bytes, not {}", found.bytes, entry.bytes);
                return Err(damaged(&path, &reason));
            }
            if found != *entry {
                let reason =
                    format!("its CRC-32 is {}, that of the manifest {}", found.crc32, entry.crc32);
                return Err(damaged(&path, &reason));
            }
        }
        Ok(contents)
    };
    let state = checkpoint.join(STATE);
    let state: SavedState =
        serde_json::from_slice(&file(STATE)?).map_err(|error| damaged(&state, &error))?;
    if state.has_manifest && manifest.is_none() {
        return Err(damaged(&checkpoint.join(MANIFEST), &"it is missing"));
    }
    Ok(Checkpoint {
        model: file(MODEL)?,
        average: (state.config.weight_average > 0.0).then(|| file(AVERAGE)).transpose()?,
        best: state.progress.best.map(|_| file(BEST)).transpose()?,
        optimizer: file(OPTIMIZER)?,
        path: checkpoint.to_owned(),
        state,
    })
}

/// The manifest; `None` if there is none, as in checkpoints of earlier versions.
fn read_manifest(checkpoint: &Path) -> Result<Option<Manifest>, TrainError> {
    let path = checkpoint.join(MANIFEST);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| damaged(&path, &error))?,
    };
    let manifest: Manifest = serde_json::from_str(&text).map_err(|error| damaged(&path, &error))?;
    if manifest.format != FORMAT {
        let reason = format!("its format is {}, and this version reads {FORMAT}", manifest.format);
        return Err(damaged(&path, &reason));
    }
    // So that no byte of it can change without a sign.
    if manifest.to_text().map_err(|error| damaged(&path, &error))? != text {
        return Err(damaged(&path, &"it is not as it was written"));
    }
    Ok(Some(manifest))
}

impl Checkpoint {
    pub(crate) fn load_model(&mut self, into: TaskModel) -> Result<TaskModel, TrainError> {
        load(&self.path.join(MODEL), std::mem::take(&mut self.model), into)
    }

    /// The average of the weights, if one is kept.
    pub(crate) fn load_average(
        &mut self,
        into: TaskModel,
    ) -> Result<Option<TaskModel>, TrainError> {
        let path = self.path.join(AVERAGE);
        self.average.take().map(|bytes| load(&path, bytes, into)).transpose()
    }

    /// The weights of the best evaluation, if there was one.
    pub(crate) fn load_best(&mut self, into: TaskModel) -> Result<Option<TaskModel>, TrainError> {
        let path = self.path.join(BEST);
        self.best.take().map(|bytes| load(&path, bytes, into)).transpose()
    }

    /// The network to use: the best one, or else the average, or else the weights themselves.
    pub(crate) fn load_network(&mut self, into: TaskModel) -> Result<TaskModel, TrainError> {
        if let Some(best) = self.load_best(into.clone())? {
            return Ok(best);
        }
        if let Some(average) = self.load_average(into.clone())? {
            return Ok(average);
        }
        self.load_model(into)
    }

    pub(crate) fn load_optimizer(
        &mut self,
        into: ModuleOptimizer,
    ) -> Result<ModuleOptimizer, TrainError> {
        let bytes = Bytes::from_bytes_vec(std::mem::take(&mut self.optimizer));
        into.from_bytes(bytes).map_err(|error| damaged(&self.path.join(OPTIMIZER), &error))
    }
}

fn load(path: &Path, bytes: Vec<u8>, into: TaskModel) -> Result<TaskModel, TrainError> {
    ModuleRecord::from_bytes(Bytes::from_bytes_vec(bytes))
        .and_then(|record| into.try_load_record(record))
        .map_err(|error| damaged(path, &error))
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

/// Has the names in a folder written to the disk.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<(), TrainError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

/// Other systems do not open folders.
#[cfg(not(unix))]
fn sync_folder(_: &Path) -> Result<(), TrainError> {
    Ok(())
}

fn at(path: &Path) -> impl Fn(io::Error) -> TrainError {
    move |source| TrainError::Io { path: path.to_owned(), source }
}

fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> TrainError {
    TrainError::Checkpoint(Damage { path: path.to_owned(), reason: reason.to_string() })
}
