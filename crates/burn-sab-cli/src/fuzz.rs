//! Entries for fuzzing: one function for each format that the program reads, and for the settings. Each reads the
//! bytes of a file as the program does. None may panic, whatever the bytes are; the book, chapter "Fuzzing and
//! soak", says what else must hold. The formats of data files are in [`burn_sab_tasks::fuzz`].

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
#[cfg(feature = "flex")]
use burn::tensor::{Device, Tensor};
#[cfg(feature = "flex")]
use burn_sab::{SabLstm, SabLstmState, ScoreConfig};
use burn_sab::{SabLstmConfig, SabSettings};
use clap::Parser;
use tempfile::TempDir;

use crate::conformance::case::Case;
use crate::reproduce::args::Size;
use crate::reproduce::grid::{Chosen, Grid};
use crate::run_folder::RunFolder;
use crate::settings::Settings;
use crate::train::args::TrainArgs;

/// A run's folder, and what is needed to read it.
struct Run {
    folder: TempDir,
    run: RunFolder,
    settings: Settings,
    resume: TrainArgs,
}

impl Run {
    fn new() -> anyhow::Result<Self> {
        let line = |words: &[&str]| TrainArgs::try_parse_from(["sab train"].iter().chain(words));
        let settings = Settings::from_args(&line(&["copying", "--compare", "tbptt,lstm"])?)?;
        // Where files are memory, if there is such a place.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir())?;
        let run = RunFolder::create(Some(folder.path()), &settings)?;
        Ok(Self { run, settings, folder, resume: line(&["--resume", "run"])? })
    }

    fn with<T>(work: impl FnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        thread_local! {
            static RUN: anyhow::Result<Run> = Run::new();
        }
        RUN.with(|run| match run {
            Ok(run) => work(run),
            Err(error) => panic!("no folder for the files: {error:#}"),
        })
    }

    /// Writes the file `name` of the run.
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }
}

/// A `config.json`, and the checks of a run that is resumed.
///
/// # Errors
///
/// What the program says about such a file.
pub fn config(bytes: &[u8]) -> anyhow::Result<()> {
    Run::with(|run| {
        let settings = Settings::read(&run.write("fuzzed.json", bytes))?;
        let settings = settings.for_resumption(&run.resume)?;
        settings.test_spans.iter().for_each(|span| _ = settings.sequences_at(*span));
        settings.sequences_in_words();
        serde_json::to_string_pretty(&settings)?;
        Ok(())
    })
}

/// A valid `config.json`.
///
/// # Errors
///
/// If no folder can be made for it.
pub fn valid_config() -> anyhow::Result<String> {
    Run::with(|run| Ok(serde_json::to_string_pretty(&run.settings)?))
}

/// The events of a run, `metrics.jsonl`: all of them, and those that a resumed run keeps.
///
/// # Errors
///
/// As [`config`].
pub fn events(bytes: &[u8]) -> anyhow::Result<()> {
    Run::with(|run| {
        run.write("metrics.jsonl", bytes);
        let model = run.settings.train.model;
        let folder = run.run.of_model(model, model)?;
        let events = folder.events(None);
        folder.metrics_after(3, None)?;
        events.map(drop)
    })
}

/// A conformance case.
///
/// # Errors
///
/// As [`config`].
pub fn case(bytes: &[u8]) -> anyhow::Result<()> {
    let case = Case::parse(bytes)?;
    case.config.validate()?;
    case.gradients();
    case.values("out.h");
    Ok(())
}

/// A grid of `sab reproduce`, in all its sizes.
///
/// # Errors
///
/// As [`config`].
pub fn grid(bytes: &[u8]) -> anyhow::Result<()> {
    let text = std::str::from_utf8(bytes)?;
    for size in [Size::Quick, Size::Standard, Size::Full] {
        for grid in Grid::read("fuzzed", text, size)? {
            // A grid of several lists has as many runs as their lengths multiply to.
            let seeds = grid.variants.iter().flat_map(|variant| variant.seeds.iter().flatten());
            let lists = [
                grid.models.len(),
                grid.spans.len(),
                grid.seeds.len() + seeds.count(),
                grid.variants.len().max(1),
                grid.pilots.as_ref().map_or(1, |pilots| pilots.lr.len()),
            ];
            if lists.iter().product::<usize>() <= 100 {
                grid.pilots(None);
                grid.cells(None, &Chosen::new());
            }
        }
    }
    Ok(())
}

/// A `SabLstmConfig` as JSON, and its check.
///
/// # Errors
///
/// As [`config`].
pub fn layer(bytes: &[u8]) -> anyhow::Result<()> {
    let config: SabLstmConfig = serde_json::from_slice(bytes)?;
    config.validate()?;
    serde_json::to_string(&config)?;
    Ok(())
}

/// A stored session: it is read, split into rows and joined again, and goes on by a step where it fits the layer
/// that it was made with.
///
/// # Errors
///
/// If it is no session.
#[cfg(feature = "flex")]
pub fn session(bytes: &[u8]) -> anyhow::Result<()> {
    thread_local! {
        static LAYER: SabLstm = session_layer();
    }
    Run::with(|run| {
        let device = Device::flex();
        let state = SabLstmState::load_file(run.write("session.bpk", bytes), &device)?;
        let rows = state.batch();
        let joined = SabLstmState::cat(&state.split(&vec![1; rows]))?;
        LAYER.with(|layer| {
            let float = joined.hidden.dtype();
            if joined.hidden.dims()[1] == layer.d_hidden && float == layer.weight_hh.val().dtype() {
                layer.step(Tensor::zeros([rows, 1], &device), Some(joined));
            }
        });
        state.into_record();
        Ok(())
    })
}

/// Stored sessions of several ages: without a slot, with keys, and with slots that were dropped.
///
/// # Errors
///
/// If no folder can be made for them.
#[cfg(feature = "flex")]
pub fn valid_sessions() -> anyhow::Result<Vec<Vec<u8>>> {
    Run::with(|run| {
        let (device, layer) = (Device::flex(), session_layer());
        let session = |steps: usize| {
            let first = SabLstmState::initial([2, layer.d_hidden], &device);
            let next = |state, _| layer.step(Tensor::ones([2, 1], &device), Some(state)).1;
            let path = run.write("session.bpk", &[]);
            (0..steps).fold(first, next).save_file(&path)?;
            Ok(fs::read(path)?)
        };
        [0, 2, 9].into_iter().map(session).collect()
    })
}

#[cfg(feature = "flex")]
fn session_layer() -> SabLstm {
    let config = SabLstmConfig::new(1, 3, true).with_slot_budget(Some(3));
    config.with_score(ScoreConfig::Dot { d_attention: 2 }).init(&Device::flex())
}

/// Settings of the memory as texts: a line for each, its name, a blank and its value.
///
/// # Errors
///
/// As [`config`].
pub fn settings(bytes: &[u8]) -> anyhow::Result<()> {
    let mut settings = SabSettings::default();
    for line in std::str::from_utf8(bytes)?.lines() {
        let (name, value) = line.split_once(' ').context("no value")?;
        settings.set(name, value)?;
        let text = settings.get(name).context("a setting that was set")?;
        let mut again = settings;
        again.set(name, &text)?;
        assert_eq!(again.get(name), Some(text), "a value is read back from its text");
    }
    settings.validate()?;
    Ok(())
}
