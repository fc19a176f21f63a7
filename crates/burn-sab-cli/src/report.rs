//! What a run found out, for people and for programs.

use burn_sab_tasks::{Best, Ending, EventSum, Metrics, ModelKind, Task};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::page::{Body, Page, Section};
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
            Task::Digits { .. } => format!(
                "spoken digits, sample by sample: digits right (cross-entropy in nats) on test recordings, at most \
                 {sequences}"
            ),
            Task::Appliances => format!(
                "power of appliances, sample by sample: appliances right (cross-entropy in nats) on test series, at \
                 most {sequences}"
            ),
            task => format!(
                "{}: accuracy (cross-entropy in nats) on {sequences} held-out sequences",
                in_words(&task)
            ),
        }
    }

    /// A line for each model: whether it learned the task, at the length of its training, and what is left of that at
    /// the longest test.
    pub fn verdicts(&self) -> Vec<String> {
        self.models.iter().filter_map(|model| self.verdict(model)).collect()
    }

    fn verdict(&self, model: &ModelReport) -> Option<String> {
        let train = &self.settings.train;
        let trained = model.tests.iter().find(|test| test.span == train.span);
        let first = trained.or(model.tests.first())?;
        let longest = model.tests.iter().max_by_key(|test| test.span)?;
        let chance = chance(&train.task);
        let at = |test: &Test| {
            let (_, value) = figure(&test.metrics);
            format!("{value} at {} {}", train.task.span_name(), thousands(test.span))
        };
        let learned = learned(&first.metrics, &chance);
        let (what, value) = figure(&chance);
        let later =
            if longest.span > first.span { format!(", {}", at(longest)) } else { String::new() };
        let name = model.model.name();
        Some(format!("{name}{learned}: {what} {}{later} (chance {value})", at(first)))
    }

    /// The report as Markdown.
    pub fn markdown(&self, pictures: &[(String, &str)]) -> String {
        let mut text = format!("# {}\n\n", self.title());
        for verdict in self.verdicts() {
            text.push_str(&format!("- {verdict}\n"));
        }
        text.push_str(&format!("\n{}\n\n", self.lead()));
        text.push_str(&markdown_table(&self.rows()));
        text.push('\n');
        for model in &self.models {
            text.push_str(&format!("- {}\n", model.in_words()));
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
            self.settings.train.seed,
            self.settings.backend.name(),
            self.device,
            self.settings.threads.map_or_else(|| "one a core".to_owned(), |n| n.to_string()),
            self.version,
            self.commit,
        ));
        text
    }

    /// The report as a page, with the learning curves as SVG and the reminders, if there are any.
    ///
    /// # Errors
    ///
    /// If the settings cannot be written as JSON.
    pub fn page(&self, curves: &str, reminders: Option<Body>) -> serde_json::Result<Page> {
        let mut about: Vec<_> = self.verdicts().iter().map(|line| format!("{line}.")).collect();
        about.push(self.lead());
        about.extend(self.models.iter().map(|model| format!("{}.", model.in_words())));
        about.extend(self.data.iter().map(|data| format!("Data: {data}.")));
        let results =
            Section { heading: "Results".to_owned(), about, body: Some(Body::Table(self.rows())) };
        let mut sections = vec![results, Section::picture("Learning curves", curves)];
        sections.extend(reminders.map(|body| Section {
            heading: "Reminders".to_owned(),
            about: vec![
                "The sparse attention weights of one held-out sequence. A row is a step that was reminded; a cell in \
                 it is a slot that the step retrieved, at the step after which the slot was stored."
                    .to_owned(),
            ],
            body: Some(body),
        }));
        let term = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut terms = vec![
            term("date", &self.date),
            term("sab", &format!("{}, commit {}", self.version, self.commit)),
            term("device", &self.device),
            term("processor", &self.processor),
        ];
        flatten("", &serde_json::to_value(&self.settings)?, &mut terms);
        sections.push(Section {
            heading: "Settings".to_owned(),
            about: vec!["The names are those in `config.json`.".to_owned()],
            body: Some(Body::Terms(terms)),
        });
        Ok(Page { title: self.title(), sections })
    }

    fn title(&self) -> String {
        let train = &self.settings.train;
        format!("{} with {}", train.task.name(), train.model.name())
    }

    /// The caption as a sentence.
    fn lead(&self) -> String {
        let caption = self.caption();
        let (first, rest) = caption.split_at(1);
        format!("{}{rest}.", first.to_uppercase())
    }
}

impl ModelReport {
    /// How the training ended.
    fn in_words(&self) -> String {
        let ending = match self.ending {
            Some(Ending::Reached) => "reached the level at which training stops",
            Some(Ending::BudgetSpent) => "made all its updates",
            None => "was interrupted",
        };
        let mut text = format!(
            "{}: {} weights, {ending} after {} updates",
            self.model.name(),
            thousands(self.parameters),
            thousands(self.updates),
        );
        if let Some(best) = self.best {
            text.push_str(&format!(
                ", tested with the weights of update {}",
                thousands(best.update)
            ));
        }
        if self.skipped > 0 {
            text.push_str(&format!("; {} updates skipped (not finite)", self.skipped));
        }
        text
    }
}

/// The values of JSON, by the names that lead to them: ("train.layer.k_top", "10"). Null is "none", as on the command
/// line.
fn flatten(name: &str, value: &Value, into: &mut Vec<(String, String)>) {
    let value = match value {
        Value::Object(object) => {
            for (key, value) in object {
                let separator = if name.is_empty() { "" } else { "." };
                flatten(&format!("{name}{separator}{key}"), value, into);
            }
            return;
        }
        Value::String(text) => text.clone(),
        Value::Null => "none".to_owned(),
        value => value.to_string(),
    };
    into.push((name.to_owned(), value));
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

/// How much of the way from chance to no error; `None` where no error is out of reach, as on a text.
fn mastery(metrics: &Metrics, chance: &Metrics) -> Option<f64> {
    match (metrics, chance) {
        (Metrics::Classes { accuracy, .. }, Metrics::Classes { accuracy: chance, .. }) => {
            Some((accuracy - chance) / (1.0 - chance))
        }
        (Metrics::Adding { mse }, Metrics::Adding { mse: chance }) => Some(1.0 - mse / chance),
        _ => None,
    }
}

/// The words of a verdict that say how well a task is learned. There are none for a text: no network predicts it without
/// error.
fn learned(metrics: &Metrics, chance: &Metrics) -> &'static str {
    match mastery(metrics, chance) {
        None => "",
        Some(0.95..) => " learned the task",
        Some(0.1..) => " learned a part of the task",
        Some(_) => " did not learn the task",
    }
}

/// The metric by which a task is judged: its name and its value.
fn figure(metrics: &Metrics) -> (&'static str, String) {
    match metrics {
        Metrics::Classes { accuracy, .. } => ("accuracy", format!("{:.1} %", 100.0 * accuracy)),
        Metrics::Text { bits_per_character, .. } => {
            ("bits per character", format!("{bits_per_character:.3}"))
        }
        Metrics::Adding { mse } => ("mean squared error", format!("{mse:.5}")),
    }
}

fn cell(metrics: &Metrics) -> String {
    let (_, value) = figure(metrics);
    match metrics {
        Metrics::Classes { cross_entropy, .. } => format!("{value} ({cross_entropy:.3})"),
        Metrics::Text { accuracy, .. } => format!("{value} ({:.1} %)", 100.0 * accuracy),
        Metrics::Adding { .. } => value,
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_task_is_learned_by_how_far_it_is_from_chance() {
        let classes = |accuracy| Metrics::Classes { accuracy, cross_entropy: 1.0 };
        let adding = |mse| Metrics::Adding { mse };
        let text = Metrics::Text { bits_per_character: 1.0, accuracy: 0.9 };
        for (metrics, chance, want) in [
            (classes(1.0), classes(0.125), " learned the task"),
            (classes(0.96), classes(0.125), " learned the task"),
            // 95 % of the answers, and 94 % of the way.
            (classes(0.95), classes(0.125), " learned a part of the task"),
            (classes(0.23), classes(0.125), " learned a part of the task"),
            (classes(0.2), classes(0.125), " did not learn the task"),
            (classes(0.05), classes(0.125), " did not learn the task"),
            (adding(0.008), adding(1.0 / 6.0), " learned the task"),
            (adding(0.009), adding(1.0 / 6.0), " learned a part of the task"),
            (adding(0.16), adding(1.0 / 6.0), " did not learn the task"),
            (adding(f64::NAN), adding(1.0 / 6.0), " did not learn the task"),
            (text, text, ""),
        ] {
            assert_eq!(learned(&metrics, &chance), want, "{metrics:?}");
        }
    }

    #[test]
    fn settings_are_named_by_their_paths() {
        let mut terms = Vec::new();
        let value =
            json!({"train": {"task": "adding", "lr": 0.005}, "compare": ["lstm"], "data": null});
        flatten("", &value, &mut terms);
        terms.sort();
        let expected = [
            ("compare", "[\"lstm\"]"),
            ("data", "none"),
            ("train.lr", "0.005"),
            ("train.task", "adding"),
        ];
        assert_eq!(terms, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
