//! One run of a grid: where it is, how far it is, and taking it to its end.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use burn::tensor::Device;
use burn_sab_tasks::{Event, TrainConfig, TrainError};
use clap::Parser;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::args::ReproduceArgs;
use super::cost::{self, Cost};
use super::grid::{Cell, Grid, Role};
use crate::backend::Backend;
use crate::error::usage;
use crate::file;
use crate::report::Report;
use crate::run_folder::RunFolder;
use crate::sealed;
use crate::session::{REMINDERS, REPORT_JSON, Session};
use crate::settings::Settings;
use crate::signals::Stop;
use crate::train::args::TrainArgs;

const CONFIG: &str = "config.json";
const COST: &str = "cost.json";
const FAILED: &str = "failed.json";

/// One run of a grid.
#[derive(Debug)]
pub struct Run {
    pub cell: Cell,
    pub settings: Settings,
    /// The run folder, as `sab train` leaves it.
    pub path: PathBuf,
    /// The grid's folder in the results of earlier runs, which may have what this run found out.
    earlier: Option<PathBuf>,
}

/// How far a run is.
#[derive(Debug)]
pub enum State {
    /// Nothing has been done.
    Missing,
    /// There may be a checkpoint.
    Begun,
    Finished(Box<Finished>),
    /// It ended without a result, for this reason.
    Failed(String),
}

/// What a finished run found out; a file of the results, so that it outlives the run's folder.
#[derive(Debug, Serialize, Deserialize)]
pub struct Finished {
    pub report: Report,
    pub cost: Option<Cost>,
    /// What is drawn of the training: evaluations and the growth of the span.
    pub events: Vec<Event>,
}

#[derive(Serialize, Deserialize)]
struct Failure {
    error: String,
}

impl Run {
    /// The run of `cell` in the folder of its grid under `args.out`.
    ///
    /// # Errors
    ///
    /// If the cell's settings are not what `sab train` takes.
    pub fn new(
        cell: Cell,
        grid: &Grid,
        args: &ReproduceArgs,
        backend: Backend,
    ) -> anyhow::Result<Self> {
        let words = ["sab train"].into_iter().chain(cell.line.iter().map(String::as_str));
        let wrong = |what: &str| usage!("the grid {}, run {}: {what}", grid.name, cell.name);
        let flags = TrainArgs::try_parse_from(words)
            .map_err(|error| wrong(error.to_string().lines().next().unwrap_or_default()))?;
        let settings = Settings::from_args(&flags).map_err(|error| wrong(&error.to_string()))?;
        Ok(Self {
            path: args.out.join(&grid.name).join(&cell.name),
            earlier: args.earlier.as_ref().map(|results| results.join(&grid.name)),
            settings: Settings { backend, threads: args.threads, ..settings },
            cell,
        })
    }

    /// How far the run is.
    ///
    /// # Errors
    ///
    /// If its folder, or the results of earlier runs, have a run with other settings, or cannot be read.
    pub fn state(&self) -> anyhow::Result<State> {
        // Its settings are not known yet.
        if self.cell.role == Role::Waiting {
            return Ok(State::Missing);
        }
        let config = self.path.join(CONFIG);
        if !config.is_file() {
            return self.earlier_state();
        }
        let there = Settings::of_run(&config)?;
        if training(&there) != training(&self.settings) {
            return Err(usage!(
                "{} has a run with other settings; remove it, or keep the new runs elsewhere by --out",
                self.path.display()
            ));
        }
        if let Some(failure) = read_if_there::<Failure>(&self.path.join(FAILED))? {
            return Ok(State::Failed(failure.error));
        }
        let Some(report) = read_if_there::<Report>(&self.path.join(REPORT_JSON))? else {
            return Ok(State::Begun);
        };
        if asked(&report.settings) != asked(&self.settings) {
            return Ok(State::Begun);
        }
        let cost = read_if_there(&self.path.join(COST))?;
        let (folder, _) = RunFolder::open(&self.path)?;
        let own = self.settings.train.model;
        let sum = report.models.first().and_then(|model| model.events);
        let (mut events, _) = folder.of_model(own, own)?.events(sum)?;
        events.retain(|event| matches!(event, Event::Evaluation { .. } | Event::Grown { .. }));
        Ok(State::Finished(Box::new(Finished { report, cost, events })))
    }

    /// How far the run is, if nothing of it is in its folder.
    fn earlier_state(&self) -> anyhow::Result<State> {
        let Some(folder) = &self.earlier else { return Ok(State::Missing) };
        let path = folder.join(self.cell.results_file());
        let Some(mut finished) = read_if_there::<Finished>(&path)? else {
            return Ok(State::Missing);
        };
        // The data may be elsewhere on another machine.
        let elsewhere = |settings: &Settings| {
            let mut settings = settings.clone();
            settings.train.data = None;
            training(&settings)
        };
        if elsewhere(&finished.report.settings) != elsewhere(&self.settings) {
            return Err(usage!(
                "{} is of a run with other settings; remove it, or name other results with --earlier",
                path.display()
            ));
        }
        if asked(&finished.report.settings) != asked(&self.settings) {
            return Ok(State::Missing);
        }
        if let Some(cost) = read_if_there(&self.path.join(COST))? {
            finished.cost = Some(cost);
        }
        Ok(State::Finished(Box::new(finished)))
    }

    /// The picture of which moment reminded which, if there is one.
    pub fn reminders(&self) -> Option<PathBuf> {
        let earlier = self.earlier.as_ref().map(|folder| folder.join(self.cell.reminders_file()));
        let places = [Some(self.path.join(REMINDERS)), earlier];
        places.into_iter().flatten().find(|path| path.is_file())
    }

    /// Measures what an update of the run costs, and keeps it in its folder.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn measure_cost(&self, device: &Device) -> anyhow::Result<()> {
        let cost = cost::measure(&self.settings, device)?;
        fs::create_dir_all(&self.path)
            .with_context(|| format!("{} cannot be made", self.path.display()))?;
        file::write(&self.path.join(COST), &sealed::to_text(&cost)?)
    }

    /// Takes the run to its end, from its last checkpoint if there is one. A training that diverges is
    /// an end, too.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or written, or if a signal asks for a stop.
    pub fn finish(&self, label: &str, device: &Device, stop: &Stop) -> anyhow::Result<()> {
        let folder = if self.path.join(CONFIG).is_file() {
            let (folder, _) = RunFolder::open(&self.path)?;
            folder.write_settings(&self.settings)?;
            folder
        } else {
            // What an interruption left before the settings were written.
            if self.path.is_dir() {
                fs::remove_dir_all(&self.path)
                    .with_context(|| format!("{} cannot be removed", self.path.display()))?;
            }
            RunFolder::create(Some(&self.path), &self.settings)?
        };
        let session = Session {
            settings: self.settings.clone(),
            device: device.clone(),
            folder,
            label: label.to_owned(),
            stop: stop.clone(),
        };
        if !self.path.join(COST).is_file() {
            self.measure_cost(device)?;
        }
        match session.finish() {
            Err(error) if matches!(error.downcast_ref(), Some(TrainError::Diverged { .. })) => {
                let failure = Failure { error: error.to_string() };
                session.folder.write(FAILED, &sealed::to_text(&failure)?)?;
                Ok(())
            }
            Err(error) => Err(match error.downcast_ref() {
                Some(TrainError::NoIntactCheckpoint(_)) => {
                    anyhow!("{error}: remove {} to have the run made again", self.path.display())
                }
                _ => error,
            }),
            Ok(_) => Ok(()),
        }
    }
}

/// What decides how a network is trained, but for how long. Settings of a memory are none of a baseline.
fn training(settings: &Settings) -> Value {
    let layer = settings.train.effective_layer();
    let train = TrainConfig { layer, ..settings.train.clone() };
    let mut train = serde_json::to_value(&train).unwrap_or_default();
    if let Some(train) = train.as_object_mut() {
        train.remove("updates");
        train.remove("stop_at");
    }
    train
}

/// How long a network is trained, and the spans and sequences of its tests.
fn asked(settings: &Settings) -> (usize, Option<f64>, Vec<(usize, usize)>) {
    let train = &settings.train;
    let tests = settings.test_spans.iter().map(|&span| (span, settings.sequences_at(span)));
    (train.updates, train.stop_at, tests.collect())
}

fn read_if_there<T: Serialize + for<'de> Deserialize<'de>>(
    path: &Path,
) -> anyhow::Result<Option<T>> {
    if !path.is_file() {
        return Ok(None);
    }
    sealed::read(path, "restore it from a copy, or remove it to have it made again").map(Some)
}
