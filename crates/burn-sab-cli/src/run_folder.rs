//! The folder that a run leaves.
//!
//! ```text
//! runs/copying-sab-1/
//!   config.json            everything that determines the run
//!   metrics.jsonl          what happened, one event a line
//!   checkpoint-00003250/   weights, best weights, optimiser, and how far the run is; a manifest with checksums
//!   checkpoint-00002750/   the one before
//!   tbptt/                 the same two for each model that is compared
//!   report.html            what the run found out, on one page with its pictures; needs no other file
//!   report.md, report.json, reminders.svg, learning.svg
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use burn_sab_tasks::{Event, EventSum, ModelKind};

use crate::error::usage;
use crate::file;
use crate::sealed;
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
        self.write(CONFIG, &sealed::to_text(settings)?)?;
        Ok(())
    }

    /// The folder of an earlier run, and its settings.
    ///
    /// # Errors
    ///
    /// If there is no run, or if its `config.json` is not as it was written.
    pub fn open(path: &Path) -> anyhow::Result<(Self, Settings)> {
        if !path.is_dir() {
            return Err(usage!("{} is not a folder; name the folder of a run", path.display()));
        }
        let settings = Settings::of_run(&path.join(CONFIG))?;
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

    /// Opens `metrics.jsonl` to go on after `update` updates, of which the trainer knows `sum`; what was written after
    /// them, by a run that was interrupted before its next checkpoint, is dropped.
    ///
    /// If the lines are not those that were written, returns what is wrong with them as well. Those that can be read
    /// are kept: the training does not depend on them.
    pub fn metrics_after(
        &self,
        update: usize,
        sum: Option<EventSum>,
    ) -> anyhow::Result<(MetricsLog, Option<String>)> {
        let path = self.path.join(METRICS);
        let cannot = || format!("{} cannot be written", path.display());
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            bytes => bytes.with_context(|| format!("{} cannot be read", path.display()))?,
        };
        let written = |sum: EventSum| {
            let length = usize::try_from(sum.bytes).ok()?;
            bytes.get(..length).filter(|lines| EventSum::of(lines) == sum)
        };
        let is_before = |line: &[u8]| {
            let event = serde_json::from_slice::<Event>(line);
            line.ends_with(b"\n") && event.is_ok_and(|event| event.update() <= update)
        };
        let lines = || bytes.split_inclusive(|byte| *byte == b'\n');
        let (kept, damage) = match sum {
            Some(sum) => match written(sum) {
                Some(lines) => (lines.to_vec(), None),
                None => {
                    let kept: Vec<u8> =
                        lines().filter(|line| is_before(line)).flatten().copied().collect();
                    let damage = format!(
                        "{}: its {} bytes up to update {update} are not those that were written; the training is \
                         not affected and goes on, the learning curve may lack points or have wrong ones; restore \
                         the file from a copy if there is one",
                        path.display(),
                        sum.bytes
                    );
                    (kept, Some(damage))
                }
            },
            // A run of an earlier version.
            None => (lines().take_while(|line| is_before(line)).flatten().copied().collect(), None),
        };
        if damage.is_some() {
            let text = String::from_utf8(kept).context("events are text")?;
            file::write(&path, &text)?;
        } else {
            let open = OpenOptions::new().create(true).append(true).open(&path);
            open.and_then(|file| file.set_len(kept.len() as u64)).with_context(cannot)?;
        }
        let file = OpenOptions::new().append(true).open(&path).with_context(cannot)?;
        Ok((MetricsLog { file, path }, damage))
    }

    /// The events in `metrics.jsonl`, and the length and checksum of the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or if it is not that of `sum`, where there is one.
    pub fn events(&self, sum: Option<EventSum>) -> anyhow::Result<(Vec<Event>, EventSum)> {
        let path = self.path.join(METRICS);
        let bytes =
            fs::read(&path).with_context(|| format!("{} cannot be read", path.display()))?;
        let there = EventSum::of(&bytes);
        let damaged = |what: &dyn std::fmt::Display| {
            usage!(
                "{} is damaged ({what}); restore it from a copy, or remove the folder to have the run made again",
                path.display()
            )
        };
        if sum.is_some_and(|sum| sum != there) {
            return Err(damaged(&"its checksum is not that in the report"));
        }
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events = lines.map(serde_json::from_slice).collect::<Result<_, _>>();
        Ok((events.map_err(|error| damaged(&error))?, there))
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
        let line = event.to_line()?;
        self.file.write_all(&line).map_err(|error| {
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
