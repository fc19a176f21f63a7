//! Training, testing, drawing and reporting: what happens in the folder of a run.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use burn_sab_tasks::{
    Ending, Event, Examples, ModelKind, Purpose, Task, TaskModel, TrainConfig, TrainError, Trainer,
    evaluate, reminders,
};

use crate::backend::device_name;
use crate::page::{Body, Map};
use crate::plot;
use crate::progress::{Progress, describe};
use crate::provenance::{COMMIT, processor};
use crate::report::{ModelReport, Report, Test};
use crate::run_folder::RunFolder;
use crate::sealed;
use crate::settings::Settings;
use crate::signals::Stop;
use crate::text::{duration, say, thousands, today, warn};

/// The picture shows a generated sequence or a window of text with at most this span; longer ones show the same.
const PICTURE_SPAN: usize = 200;

/// The report for programs; its presence says that a run is finished.
pub const REPORT_JSON: &str = "report.json";
pub const REMINDERS: &str = "reminders.svg";
/// The report for people.
const REPORT_HTML: &str = "report.html";
const REPORT: &str = "report.md";
const LEARNING: &str = "learning.svg";

/// A run and the folder that it leaves.
pub struct Session {
    pub settings: Settings,
    pub device: Device,
    pub folder: RunFolder,
    /// Stands before every line that is printed; empty for none.
    pub label: String,
    pub stop: Stop,
}

/// What a finished run has to show.
pub struct Finished {
    pub report: Report,
    /// Where the report for people is, as HTML and as Markdown.
    pub written: [PathBuf; 2],
    /// Files in the folder, and what they show.
    pub pictures: Vec<(String, &'static str)>,
}

/// The pictures of a run.
struct Drawn {
    /// Files in the folder, and what they show.
    pictures: Vec<(String, &'static str)>,
    /// The learning curves as SVG.
    curves: String,
    /// Their map, or its picture where a sequence has too many steps to point at.
    reminders: Option<Body>,
}

/// A network that has been trained, and what is known about it.
struct Trained {
    config: TrainConfig,
    examples: Arc<Examples>,
    model: TaskModel,
    report: ModelReport,
    events: Vec<Event>,
}

impl Session {
    /// Trains, from the last checkpoints if there are any, tests, draws, and writes the report.
    ///
    /// # Errors
    ///
    /// If the training diverges, if a file cannot be read or written, or with [`TrainError::Stopped`] if a signal asks
    /// for a stop.
    pub fn finish(&self) -> anyhow::Result<Finished> {
        let own = self.settings.train.model;
        let mut trained = vec![self.train(own, self.settings.train.updates)?];
        for model in &self.settings.compare {
            // As many updates as the run's own model needed, so that neither has an advantage.
            let budget = trained[0].report.updates;
            trained.push(self.train(*model, budget)?);
        }
        self.test(&mut trained)?;
        let Drawn { pictures, curves, reminders } = self.draw(&trained)?;
        let report = Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: COMMIT.to_owned(),
            device: match device_name(&self.device) {
                Some(name) => format!("{name}, {:?}", self.device),
                None => format!("{:?}", self.device),
            },
            processor: processor(),
            date: today(),
            settings: self.settings.clone(),
            data: trained[0].examples.origin().map(str::to_owned),
            models: trained.into_iter().map(|trained| trained.report).collect(),
        };
        let page = report.page(&curves, reminders)?.html()?;
        let written = [
            self.folder.write(REPORT_HTML, &page)?,
            self.folder.write(REPORT, &report.markdown(&pictures))?,
        ];
        // The last file: whoever finds it finds all of them.
        self.folder.write(REPORT_JSON, &sealed::to_text(&report)?)?;
        Ok(Finished { report, written, pictures })
    }

    fn say(&self, line: &str) {
        say(&format!("{}{line}", self.label));
    }

    /// Trains a model, from its last checkpoint if there is one.
    fn train(&self, model: ModelKind, updates: usize) -> anyhow::Result<Trained> {
        let own = self.settings.train.model;
        let folder = self.folder.of_model(model, own)?;
        let mut trainer = if Trainer::can_resume(folder.path()) {
            let mut trainer = Trainer::resume(folder.path(), &self.device)?;
            for damage in trainer.damage() {
                warn(&format!(
                    "{}{damage}; this checkpoint is passed over, and the run goes on from update {}",
                    self.label,
                    trainer.update()
                ));
            }
            trainer.extend(updates, self.settings.train.stop_at);
            trainer
        } else {
            let config = TrainConfig { model, updates, ..self.settings.train.clone() };
            Trainer::new(config, &self.device)?
        };
        trainer.stop_when(self.stop.flag());
        let (mut metrics, damage) = folder.metrics_after(trainer.update(), trainer.events())?;
        if let Some(damage) = damage {
            warn(&format!("{}{damage}", self.label));
        }
        let mut progress =
            Progress::new(&self.label, trainer.config(), trainer.update(), trainer.longest());
        let outcome = trainer.run(Some(folder.path()), |event| {
            metrics.add(event)?;
            progress.show(event);
            Ok(())
        });
        progress.finish();
        let ending = outcome?;
        self.tell(&trainer, ending);
        let best_model = trainer.best_model();
        let (events, sum) = folder.events(None)?;
        Ok(Trained {
            report: ModelReport {
                model,
                parameters: best_model.live_parameters(),
                updates: trainer.update(),
                skipped: trainer.skipped(),
                training_seconds: trainer.seconds(),
                ending: Some(ending),
                best: trainer.best(),
                longest_trained: trainer.longest_trained(),
                tests: Vec::new(),
                events: Some(sum),
            },
            config: trainer.config().clone(),
            examples: trainer.examples().clone(),
            model: best_model,
            events,
        })
    }

    fn tell(&self, trainer: &Trainer, ending: Ending) {
        let best = trainer.best().map_or_else(String::new, |best| {
            format!(
                ", best on held-out sequences at {} {}: {}",
                self.settings.train.task.span_name(),
                thousands(self.settings.train.span),
                describe(&best.metrics)
            )
        });
        let how = match ending {
            Ending::Reached => "reached the target",
            Ending::BudgetSpent => "made all its updates",
        };
        self.say(&format!(
            "{}: {how} ({} updates, {}){best}",
            trainer.config().model.name(),
            thousands(trainer.update()),
            duration(trainer.seconds()),
        ));
    }

    /// Tries every network at every span of the tests.
    fn test(&self, trained: &mut [Trained]) -> Result<(), TrainError> {
        let task = self.settings.train.task;
        for span in &self.settings.test_spans {
            let sequences = self.settings.sequences_at(*span);
            for Trained { config, examples, model, report, .. } in trained.iter_mut() {
                if self.stop.is_asked_for() {
                    return Err(TrainError::Stopped { update: report.updates });
                }
                let started = Instant::now();
                let data = (config.seed, Purpose::Test);
                let metrics = evaluate(model, examples, *span, sequences, data, &self.device);
                // Files may have fewer.
                let sequences = examples
                    .available(Purpose::Test, *span)
                    .map_or(sequences, |available| available.min(sequences));
                let seconds = started.elapsed().as_secs_f64();
                self.say(&format!(
                    "{}: tested at {} {}: {} ({})",
                    report.model.name(),
                    task.span_name(),
                    thousands(*span),
                    describe(&metrics),
                    duration(seconds),
                ));
                report.tests.push(Test { span: *span, sequences, metrics, seconds });
            }
        }
        Ok(())
    }

    /// Draws the pictures.
    fn draw(&self, trained: &[Trained]) -> anyhow::Result<Drawn> {
        let task = self.settings.train.task;
        let mut pictures = Vec::new();
        let mut reminders = None;
        let sab = trained.iter().find(|trained| trained.report.model == ModelKind::Sab);
        if let Some(sab) = sab {
            reminders = Some(self.draw_reminders(sab)?);
            pictures.push((REMINDERS.to_owned(), "which step retrieved which"));
        }
        let curves: Vec<_> = trained
            .iter()
            .map(|trained| (trained.report.model.name().to_owned(), trained.events.clone()))
            .collect();
        let title = format!(
            "Learning {} ({} {})",
            task.name(),
            task.span_name(),
            thousands(self.settings.train.span)
        );
        let curves =
            plot::learning_curves(&curves, &task, &title).context("the learning curves")?;
        self.folder.write(LEARNING, &curves)?;
        pictures.push((LEARNING.to_owned(), "learning curves"));
        Ok(Drawn { pictures, curves, reminders })
    }

    fn draw_reminders(&self, sab: &Trained) -> anyhow::Result<Body> {
        let task = self.settings.train.task;
        let Trained { config, examples, model, .. } = sab;
        let span = match task {
            // A recording or an appliance from its beginning to its end.
            Task::Digits { .. } => config.span,
            _ => config.span.min(PICTURE_SPAN.max(task.shortest_span())),
        };
        let found = reminders(model, &config.layer, examples, span, config.seed, &self.device);
        let title = format!(
            "Which step retrieved which: {}, {} {span}, one held-out sequence",
            task.name(),
            task.span_name()
        );
        let steps = examples.steps(Purpose::Test, 0, span);
        let recall = (steps - task.answers(span), "recall");
        let marks = match task {
            Task::Copying { symbols, .. } => vec![(symbols, "delay"), recall],
            Task::Adding | Task::Text { .. } | Task::Digits { .. } => Vec::new(),
            task if task.has_one_span() => Vec::new(),
            _ => vec![recall],
        };
        let k_att = config.layer.settings.k_att;
        let svg = plot::heat_map(&found.reminders, steps, k_att, &title, &marks)
            .context("the heat map")?;
        self.folder.write(REMINDERS, &svg)?;
        Ok(match steps {
            ..=plot::MOST_CELLS => Body::Reminders(Map::new(&found, k_att, &marks)),
            _ => Body::picture(&svg),
        })
    }
}
