//! What a run found out, for people and for programs.

use burn_sab_tasks::{Best, Ending, EventSum, Metrics, ModelKind, Task};
use serde::{Deserialize, Serialize};

use crate::settings::Settings;
use crate::text::{duration, markdown_table, thousands};

/// What a run found out; `report.json` of its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub version: String,
    /// The commit of the sources, "-dirty" if they were changed; "unknown" without a repository.
    pub commit: String,
    /// The backend's device, in Burn's words, after a GPU's own name.
    pub device: String,
    /// The processor, in the system's words; "unknown processor" where it does not tell.
    pub processor: String,
    /// When the run was finished, as year-month-day in UTC.
    pub date: String,
    pub settings: Settings,
    /// What the task's files hold, and how they are split.
    #[serde(default)]
    pub data: Option<String>,
    pub models: Vec<ModelReport>,
}

/// What became of one model.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ModelReport {
    pub model: ModelKind,
    /// Weights that are trained. Reports of earlier versions count the unused scorer of a baseline, too.
    pub parameters: usize,
    pub updates: usize,
    /// Updates among them that were skipped because something was not finite.
    pub skipped: usize,
    pub training_seconds: f64,
    pub ending: Option<Ending>,
    pub best: Option<Best>,
    /// The longest span of its training sequences.
    pub longest_trained: usize,
    pub tests: Vec<Test>,
    /// Of the events in `metrics.jsonl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub events: Option<EventSum>,
}

/// A test on held-out sequences, with the weights of the best evaluation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Test {
    pub span: usize,
    pub sequences: usize,
    pub metrics: Metrics,
    pub seconds: f64,
}

impl Report {
    /// The results side by side: a row a model, and one for a network that knows nothing.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let train = &self.settings.train;
        let span_name = train.task.span_name();
        let mut header = vec![
            "model".to_owned(),
            "parameters".to_owned(),
            "updates".to_owned(),
            "time".to_owned(),
            format!("trained on {span_name}"),
        ];
        header.extend(
            self.settings.test_spans.iter().map(|span| format!("{span_name} {}", thousands(*span))),
        );
        let mut rows = vec![header];
        for model in &self.models {
            let mut row = vec![
                model.model.name().to_owned(),
                thousands(model.parameters),
                thousands(model.updates),
                duration(model.training_seconds),
                format!("up to {}", thousands(model.longest_trained)),
            ];
            row.extend(model.tests.iter().map(|test| cell(&test.metrics)));
            rows.push(row);
        }
        let mut nothing = vec![String::new(); 5];
        nothing[0] = "(chance)".to_owned();
        nothing.extend(self.settings.test_spans.iter().map(|_| cell(&chance(&train.task))));
        rows.push(nothing);
        rows
    }

    /// What the cells of [`rows`](Self::rows) are.
    pub fn caption(&self) -> String {
        let sequences = self.settings.sequences_in_words();
        match self.settings.train.task {
            Task::Adding => format!("adding: mean squared error on {sequences} held-out sequences"),
            Task::PixelMnist { permuted } => format!(
                "{} pixels of MNIST one by one: accuracy (cross-entropy in nats) on test images, at most \
                 {sequences}",
                if permuted { "permuted" } else { "the" }
            ),
            Task::PixelCifar => format!(
                "the pixels of CIFAR-10 one by one: accuracy (cross-entropy in nats) on test images, at \
                 most {sequences}"
            ),
            Task::Text { .. } => format!(
                "next characters of a text: bits per character (accuracy) on test windows, at most \
                 {sequences}"
            ),
            task => format!(
                "{}: accuracy (cross-entropy in nats) on {sequences} held-out sequences",
                in_words(&task)
            ),
        }
    }

    /// The report as Markdown.
    pub fn markdown(&self, pictures: &[(String, &str)]) -> String {
        let train = &self.settings.train;
        let mut text = format!("# {} with {}\n\n", train.task.name(), train.model.name());
        let caption = self.caption();
        let (first, rest) = caption.split_at(1);
        text.push_str(&format!("{}{rest}.\n\n", first.to_uppercase()));
        text.push_str(&markdown_table(&self.rows()));
        text.push('\n');
        for model in &self.models {
            let ending = match model.ending {
                Some(Ending::Reached) => "reached the level at which training stops",
                Some(Ending::BudgetSpent) => "made all its updates",
                None => "was interrupted",
            };
            text.push_str(&format!(
                "- {}: {} weights, {ending} after {} updates",
                model.model.name(),
                thousands(model.parameters),
                thousands(model.updates),
            ));
            if let Some(best) = model.best {
                text.push_str(&format!(
                    ", tested with the weights of update {}",
                    thousands(best.update)
                ));
            }
            if model.skipped > 0 {
                text.push_str(&format!("; {} updates skipped (not finite)", model.skipped));
            }
            text.push('\n');
        }
        if let Some(data) = &self.data {
            text.push_str(&format!("\nData: {data}.\n"));
        }
        for (file, what) in pictures {
            text.push_str(&format!("\n![{what}]({file})\n"));
        }
        text.push_str(&format!(
            "\nseed {}, backend {} ({}), threads {}, sab {}, commit {}; every setting is in `config.json`, \
             every number in `report.json`, every update in `metrics.jsonl`.\n",
            train.seed,
            self.settings.backend.name(),
            self.device,
            self.settings.threads.map_or_else(|| "one a core".to_owned(), |n| n.to_string()),
            self.version,
            self.commit,
        ));
        text
    }
}

/// A task of generated symbols with its sizes; the name of another.
pub fn in_words(task: &Task) -> String {
    match task {
        Task::Copying { symbols, alphabet } => {
            format!("copying {symbols} symbols out of {alphabet}")
        }
        Task::SelectiveCopying { symbols, alphabet, distractors } => format!(
            "copying {symbols} symbols out of {alphabet} from among {distractors} distractors"
        ),
        Task::MarkedSymbol { alphabet, distractors } => {
            format!("naming one symbol out of {alphabet} among {distractors} distractors")
        }
        Task::Induction { vocabulary } => format!("induction with {vocabulary} tokens"),
        Task::Recall { pairs, queries, keys, values, .. } => {
            format!("recall of {queries} out of {pairs} pairs of {keys} keys and {values} values")
        }
        _ => task.name().to_owned(),
    }
}

fn cell(metrics: &Metrics) -> String {
    match metrics {
        Metrics::Classes { accuracy, cross_entropy } => {
            format!("{:.1} % ({cross_entropy:.3})", 100.0 * accuracy)
        }
        Metrics::Text { bits_per_character, accuracy } => {
            format!("{bits_per_character:.3} ({:.1} %)", 100.0 * accuracy)
        }
        Metrics::Adding { mse } => format!("{mse:.5}"),
    }
}

/// What a network has that always gives the best answer without looking; of images and characters, if all
/// were equally frequent.
pub fn chance(task: &Task) -> Metrics {
    let classes = task.d_output() as f64;
    match task {
        Task::Adding => Metrics::Adding { mse: 1.0 / 6.0 },
        Task::Text { .. } => {
            Metrics::Text { bits_per_character: classes.log2(), accuracy: 1.0 / classes }
        }
        _ => Metrics::Classes { accuracy: 1.0 / classes, cross_entropy: classes.ln() },
    }
}
