//! The folder that a run leaves.
//!
//! ```text
//! runs/copying-sab-1/
//!   config.json            everything that determines the run
//!   metrics.jsonl          what happened, one event a line
//!   checkpoint-00003250/   weights, best weights, optimiser, and how far the run is
//!   tbptt/                 the same two for each model that is compared
//!   report.md, report.json, reminders.svg, learning.svg
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn_sab_tasks::{Event, ModelKind};

use crate::error::usage;
use crate::file;
use crate::settings::Settings;

/// The folder that a run leaves.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
}

/// Where runs go that were not told where to go.
const RUNS: &str = "runs";
const CONFIG: &str = "config.json";
const METRICS: &str = "metrics.jsonl";

impl RunFolder {
    /// A new folder for a run with these settings: `out`, or else the first free number under `runs/`.
    ///
    /// # Errors
    ///
    /// If `out` holds anything already, or if the folder cannot be made.
    pub fn create(out: Option<&Path>, settings: &Settings) -> anyhow::Result<Self> {
        let path = match out {
            Some(path) => {
                if path.is_file() {
                    return Err(usage!("{} is a file; name a folder with --out", path.display()));
                }
                if fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
                    return Err(usage!(
                        "{0} is not empty; go on with it by --resume {0}, or name another folder with --out",
                        path.display()
                    ));
                }
                fs::create_dir_all(path).with_context(|| {
                    format!("{} cannot be made; choose another --out", path.display())
                })?;
                path.to_owned()
            }
            None => {
                let name =
                    format!("{}-{}", settings.train.task.name(), settings.train.model.name());
                next_free(&name).with_context(|| {
                    format!("no folder can be made under {RUNS}; choose one with --out")
                })?
            }
        };
        let folder = Self { path };
        folder.write_settings(settings)?;
        Ok(folder)
    }

    /// Writes `config.json`.
    pub fn write_settings(&self, settings: &Settings) -> anyhow::Result<()> {
        self.write(CONFIG, &serde_json::to_string_pretty(settings)?)?;
        Ok(())
    }

    /// The folder of an earlier run, and its settings.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Settings)> {
        if !path.is_dir() {
            return Err(usage!("{} is not a folder; name the folder of a run", path.display()));
        }
        let settings = Settings::read(&path.join(CONFIG))?;
        Ok((Self { path: path.to_owned() }, settings))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file of the run in one piece; see [`file::write`].
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        file::write(&path, text)?;
        Ok(path)
    }

    /// The folder in which the trainer of `model` keeps metrics and checkpoints: this one for the run's
    /// own model, one in it for each model that is compared.
    pub fn of_model(&self, model: ModelKind, own: ModelKind) -> anyhow::Result<ModelFolder> {
        let path = if model == own { self.path.clone() } else { self.path.join(model.name()) };
        fs::create_dir_all(&path).with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(ModelFolder { path })
    }
}

/// Where the trainer of one model keeps metrics and checkpoints.
#[derive(Debug)]
pub struct ModelFolder {
    path: PathBuf,
}

impl ModelFolder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens `metrics.jsonl` to go on after `update` updates; what was written after them, by a run that
    /// was interrupted before its next checkpoint, is dropped.
    pub fn metrics_after(&self, update: usize) -> anyhow::Result<MetricsLog> {
        let path = self.path.join(METRICS);
        let open = || -> io::Result<File> {
            let text = match fs::read_to_string(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                text => text?,
            };
            let valid: u64 = text
                .split_inclusive('\n')
                .take_while(|line| {
                    let event = serde_json::from_str::<Event>(line);
                    line.ends_with('\n') && event.is_ok_and(|event| event.update() <= update)
                })
                .map(|line| line.len() as u64)
                .sum();
            let file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.set_len(valid)?;
            Ok(file)
        };
        let file = open().with_context(|| format!("{} cannot be written", path.display()))?;
        Ok(MetricsLog { file, path })
    }

    /// The events in `metrics.jsonl`.
    pub fn events(&self) -> anyhow::Result<Vec<Event>> {
        let path = self.path.join(METRICS);
        let text = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let events = text.lines().map(serde_json::from_str).collect::<Result<_, _>>();
        events.with_context(|| format!("{} is damaged", path.display()))
    }
}

/// An open `metrics.jsonl`.
#[derive(Debug)]
pub struct MetricsLog {
    file: File,
    path: PathBuf,
}

impl MetricsLog {
    /// Adds a line. It is with the system before the next update, so that no checkpoint is ahead of it.
    pub fn add(&mut self, event: &Event) -> io::Result<()> {
        let line = format!("{}\n", serde_json::to_string(event)?);
        self.file.write_all(line.as_bytes()).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        })
    }
}

/// Makes `runs/<name>-<n>` with the smallest free n.
fn next_free(name: &str) -> io::Result<PathBuf> {
    fs::create_dir_all(RUNS)?;
    for n in 1.. {
        let path = Path::new(RUNS).join(format!("{name}-{n}"));
        match fs::create_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(path),
        }
    }
    unreachable!("there are more numbers than folders")
}
