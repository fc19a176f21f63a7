//! The results of a grid as lines of JSON.

use burn_sab_tasks::{Ending, Metrics, TrainConfig};
use serde::Serialize;

use super::grid::{Grid, Role};
use super::run::{Run, State};

/// One test of one run, or what stands in its place.
#[derive(Debug, Serialize)]
pub struct Row<'a> {
    pub task: &'a str,
    pub model: &'a str,
    pub variant: Option<&'a str>,
    pub train_delay: usize,
    pub test_delay: usize,
    pub seed: u64,
    /// Whether the run chose a learning rate and is no result.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pilot: bool,
    /// Why there are no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
    #[serde(flatten)]
    pub result: Option<Outcome<'a>>,
    /// The run as a line of `sab train`.
    pub command: String,
    pub config: &'a TrainConfig,
}

/// What a test found.
#[derive(Debug, Serialize)]
pub struct Outcome<'a> {
    /// `accuracy` and `cross_entropy` (nats), `bits_per_character` and `accuracy`, or `mse`.
    #[serde(flatten)]
    pub metrics: Metrics,
    pub sequences: usize,
    pub updates: usize,
    /// The update whose weights were tested: those of the best evaluation.
    pub best_update: Option<usize>,
    pub skipped_updates: usize,
    pub ending: Option<Ending>,
    pub longest_trained: usize,
    pub parameters: usize,
    /// Of training.
    pub seconds: f64,
    pub test_seconds: f64,
    /// Of one update at `train_delay`, and what its forward pass keeps.
    pub update_seconds: Option<f64>,
    pub update_bytes: Option<isize>,
    pub device: &'a str,
    pub processor: &'a str,
    pub date: &'a str,
    pub version: &'a str,
    pub commit: &'a str,
}

/// The rows of a grid; runs that were not made have one row that says so.
pub fn rows<'a>(grid: &'a Grid, runs: &'a [(&'a Run, State)]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for (run, state) in runs {
        let cell = &run.cell;
        // What was run, where it was: a baseline may be older than the memory's settings of its grid.
        let config = match state {
            State::Finished(finished) => &finished.report.settings.train,
            _ => &run.settings.train,
        };
        let row = |test_delay, without: Option<&str>, result| Row {
            task: &grid.task,
            model: &cell.model,
            variant: cell.variant.as_deref(),
            train_delay: cell.span,
            test_delay,
            seed: cell.seed,
            pilot: matches!(cell.role, Role::Pilot(_)),
            without: without.map(str::to_owned),
            result,
            command: format!("sab train {}", cell.line.join(" ")),
            config,
        };
        match state {
            State::Missing if cell.role == Role::Waiting => {
                rows.push(row(cell.span, Some("waits for the choice of its learning rate"), None))
            }
            State::Missing => rows.push(row(cell.span, Some("not run"), None)),
            State::Begun => rows.push(row(cell.span, Some("not finished"), None)),
            State::Failed(why) => rows.push(row(cell.span, Some(why), None)),
            State::Finished(finished) => {
                let report = &finished.report;
                let model = &report.models[0];
                for test in &model.tests {
                    let outcome = Outcome {
                        metrics: test.metrics,
                        sequences: test.sequences,
                        updates: model.updates,
                        best_update: model.best.map(|best| best.update),
                        skipped_updates: model.skipped,
                        ending: model.ending,
                        longest_trained: model.longest_trained,
                        parameters: model.parameters,
                        seconds: model.training_seconds,
                        test_seconds: test.seconds,
                        update_seconds: finished.cost.map(|cost| cost.seconds),
                        update_bytes: finished.cost.and_then(|cost| cost.bytes),
                        device: &report.device,
                        processor: &report.processor,
                        date: &report.date,
                        version: &report.version,
                        commit: &report.commit,
                    };
                    rows.push(row(test.span, None, Some(outcome)));
                }
                for &span in &cell.too_long {
                    rows.push(row(span, Some("too long for this model"), None));
                }
            }
        }
    }
    rows
}
