//! The results of a grid as a page, in Markdown and in HTML.

use std::collections::BTreeSet;

use burn_sab_tasks::{Metrics, Task};

use super::grid::Grid;
use super::group::{Group, held};
use super::pictures::Picture;
use super::run::{Finished, Run, State};
use crate::page::{Body, Page, Section};
use crate::report::in_words;
use crate::statistics::spread;
use crate::text::{MIB, duration, markdown_table, thousands};

/// What the page of a grid says.
pub struct Contents {
    title: String,
    about: String,
    results: Vec<Vec<String>>,
    /// The columns of the results, and what they mean.
    legend: Vec<(String, String)>,
    /// Values of others, if there are any, under a header.
    published: Option<Vec<Vec<String>>>,
    /// Files that the runs learnt from, and runs without a result.
    notes: Vec<String>,
    /// Where the numbers come from.
    origin: String,
    /// The file of the rows.
    rows: String,
}

impl Contents {
    /// What there is to say about these runs of a grid.
    pub fn of(grid: &Grid, runs: &[(&Run, State)]) -> Self {
        let groups = Group::of(grid, runs);
        let task = runs[0].0.settings.train.task;
        let data: BTreeSet<&String> = groups
            .iter()
            .flat_map(|group| group.finished().filter_map(|run| run.report.data.as_ref()))
            .collect();
        let failed = runs.iter().filter_map(|(run, state)| match state {
            State::Failed(why) => Some(format!("{} failed: {why}", run.cell.name)),
            _ => None,
        });
        let data = data.into_iter().map(|data| format!("Data: {data}."));
        Self {
            title: grid.title.clone(),
            about: grid.about.trim().to_owned(),
            results: lines(grid, &groups, &test_spans(runs), &task),
            legend: legend(grid, &task, runs),
            published: (!grid.published.is_empty()).then(|| published(grid)),
            notes: data.chain(failed).collect(),
            origin: origin(runs),
            rows: format!("{}.jsonl", grid.name),
        }
    }

    /// The page in Markdown. `pictures` are files beside it.
    pub fn markdown(&self, pictures: &[Picture]) -> String {
        let mut text = format!("# {}\n\n{}\n\n", self.title, self.about);
        text.push_str(&markdown_table(&self.results));
        text.push('\n');
        let legend = self.legend.iter().map(|(term, meaning)| format!("*{term}*: {meaning}."));
        text.push_str(&legend.collect::<Vec<_>>().join(" "));
        text.push('\n');
        for Picture { file, what, .. } in pictures {
            text.push_str(&format!("\n![{what}]({file})\n"));
        }
        if let Some(published) = &self.published {
            text.push_str(&format!("\n{}", markdown_table(published)));
        }
        for note in &self.notes {
            text.push_str(&format!("\n{note}\n"));
        }
        text.push_str(&format!(
            "\n{} Every test with its configuration is a line of [{rows}]({rows}), with the `sab train` command that \
             repeats it.\n",
            self.origin,
            rows = self.rows,
        ));
        text
    }

    /// The page in HTML.
    pub fn page(self, pictures: &[Picture]) -> Page {
        let results = Section {
            heading: "Results".to_owned(),
            about: self.about.split("\n\n").map(str::to_owned).collect(),
            body: Some(Body::Table(self.results)),
        };
        let columns = Section {
            heading: "The columns".to_owned(),
            about: Vec::new(),
            body: Some(Body::Terms(self.legend)),
        };
        let mut sections = vec![results, columns];
        sections.extend(pictures.iter().map(|Picture { what, svg, .. }| {
            let (first, rest) = what.split_at(1);
            Section::picture(&format!("{}{rest}", first.to_uppercase()), svg)
        }));
        sections.extend(self.published.map(|rows| Section {
            heading: "Published".to_owned(),
            about: Vec::new(),
            body: Some(Body::Table(rows)),
        }));
        let mut about = self.notes;
        about.push(format!(
            "{} Every test with its configuration is a line of `{}` beside this page.",
            self.origin, self.rows
        ));
        sections.push(Section { heading: "Origin".to_owned(), about, body: None });
        Page { title: self.title, sections }
    }
}

/// The values of others.
fn published(grid: &Grid) -> Vec<Vec<String>> {
    let head = ["published", "trained at", "tested at", "", "source"].map(str::to_owned);
    let mut rows = vec![head.to_vec()];
    rows.extend(grid.published.iter().map(|published| {
        vec![
            published.model.clone(),
            thousands(published.train_span),
            thousands(published.test_span),
            published.value.clone(),
            published.source.clone(),
        ]
    }));
    rows
}

/// The spans at which something of the grid is tested.
pub fn test_spans(runs: &[(&Run, State)]) -> BTreeSet<usize> {
    let of = |run: &Run| {
        let spans = run.settings.test_spans.iter().chain(&run.cell.too_long);
        spans.copied().collect::<Vec<_>>()
    };
    runs.iter().flat_map(|(run, _)| of(run)).collect()
}

fn lines(grid: &Grid, groups: &[Group], spans: &BTreeSet<usize>, task: &Task) -> Vec<Vec<String>> {
    let span_name = task.span_name();
    let mut head = vec![if grid.variants.is_empty() { "model" } else { "" }.to_owned()];
    if grid.pilots.is_some() {
        head.push("learning rate".to_owned());
    }
    head.extend(
        [
            &format!("trained at {span_name}"),
            "reached",
            "updates",
            "training",
            "parameters",
            "ms an update",
            "MiB saved",
        ]
        .map(|text| text.to_string()),
    );
    if let Some(level) = grid.level {
        let level = shown_level(task, level);
        head.extend([format!("updates to {level}"), format!("then at {level}")]);
    }
    head.extend(spans.iter().map(|span| format!("{span_name} {}", thousands(*span))));
    let mut rows = vec![head];
    for group in groups {
        let mut row = vec![group.name.clone()];
        if grid.pilots.is_some() {
            let lr = group.finished().next().map(|run| run.report.settings.train.lr.to_string());
            row.push(lr.unwrap_or_else(|| "–".to_owned()));
        }
        row.push(thousands(group.span));
        row.push(learnt(group, grid.level));
        let updates = group.values(|run| Some(run.report.models[0].updates as f64));
        row.push(with_spread(&updates, |x| thousands(x.round() as usize)));
        row.push(with_spread(
            &group.values(|run| Some(run.report.models[0].training_seconds)),
            duration,
        ));
        row.push(parameters(group));
        let milliseconds = group.values(|run| Some(1e3 * run.cost?.seconds));
        row.push(mean(&milliseconds, |x| format!("{x:.0}")));
        let mebibytes = group.values(|run| Some(run.cost?.bytes? as f64 / MIB));
        row.push(mean(&mebibytes, |x| format!("{x:.1}")));
        if let Some(level) = grid.level {
            let held = group.finished().filter_map(|run| held(&run.events, level));
            let (first, share): (Vec<f64>, Vec<f64>) =
                held.map(|(first, share)| (first as f64, share)).unzip();
            row.push(with_spread(&first, |x| thousands(x.round() as usize)));
            row.push(with_spread(&share, |x| format!("{:.0} %", 100.0 * x)));
        }
        for &span in spans {
            let tests = group.tests(span);
            row.push(match tests.first() {
                Some(_) => tested(&tests),
                None if group.is_too_long(span) => "too long".to_owned(),
                None => "–".to_owned(),
            });
        }
        rows.push(row);
    }
    rows
}

/// "2 of 3", with what is missing.
pub fn learnt(group: &Group, level: Option<f64>) -> String {
    let finished = group.finished().count();
    if finished + group.failed() == 0 {
        return "not run".to_owned();
    }
    let mut text = format!("{} of {}", group.learnt(level), finished + group.failed());
    if group.failed() > 0 {
        text.push_str(&format!(", {} failed", group.failed()));
    }
    let missing = group.runs.len() - finished - group.failed();
    if missing > 0 {
        text.push_str(&format!(", {missing} not run"));
    }
    text
}

/// Trained parameters.
pub fn parameters(group: &Group) -> String {
    let parameters = group.values(|run| Some(run.report.models[0].parameters as f64));
    mean(&parameters, |x| thousands(x.round() as usize))
}

/// The metric of some tests.
pub fn tested(tests: &[Metrics]) -> String {
    let values: Vec<f64> = tests.iter().map(headline).collect();
    match tests[0] {
        Metrics::Classes { .. } => with_spread(&values, |x| format!("{:.1} %", 100.0 * x)),
        Metrics::Text { .. } => with_spread(&values, |x| format!("{x:.3}")),
        Metrics::Adding { .. } => with_spread(&values, |x| format!("{x:.5}")),
    }
}

/// The metric that tables show: accuracy, mean squared error, or bits per character.
pub fn headline(metrics: &Metrics) -> f64 {
    metrics.named()[0].1
}

/// The mean of some values.
pub fn mean(values: &[f64], show: impl Fn(f64) -> String) -> String {
    spread(values).map_or_else(|| "–".to_owned(), |(mean, ..)| show(mean))
}

/// The mean, and the smallest and largest of several values where they differ.
fn with_spread(values: &[f64], show: impl Fn(f64) -> String) -> String {
    let Some((mean, from, to)) = spread(values) else { return "–".to_owned() };
    let (mean, from, to) = (show(mean), show(from), show(to));
    if from == to {
        return mean;
    }
    // One unit is enough.
    let (from, to) = (from.trim_end_matches(" %"), to.trim_end_matches(" %"));
    format!("{mean} ({from}–{to})")
}

/// A level of the metric as columns name it.
fn shown_level(task: &Task, level: f64) -> String {
    match task {
        Task::Adding | Task::Text { .. } => level.to_string(),
        _ => format!("{} %", 100.0 * level),
    }
}

/// The columns, and what they mean.
fn legend(grid: &Grid, task: &Task, runs: &[(&Run, State)]) -> Vec<(String, String)> {
    let settings = &runs[0].0.settings;
    let span_name = task.span_name();
    let what = match task {
        Task::Adding => "mean squared error (always answering 1: 0.167)".to_owned(),
        Task::PixelMnist { .. } | Task::PixelCifar => "accuracy (chance 10 %)".to_owned(),
        Task::Text { .. } => "bits per character".to_owned(),
        Task::Digits { .. } => "accuracy on recordings (chance 10 %)".to_owned(),
        Task::Appliances => "accuracy on series (chance 10 %)".to_owned(),
        _ => {
            format!("accuracy, {} (chance {:.1} %)", in_words(task), 100.0 / task.d_output() as f64)
        }
    };
    let mut legend = vec![
        (
            span_name.to_owned(),
            format!(
                "tests: {what}, on {} held-out sequences each (or as many as there are), with the weights of the best \
                 evaluation; mean over seeds (smallest–largest)",
                settings.sequences_in_words(),
            ),
        ),
        (
            "reached".to_owned(),
            "runs that reached the level at which training stops, of those that were run"
                .to_owned(),
        ),
        ("training".to_owned(), "seconds of training with its evaluations".to_owned()),
        (
            "ms an update, MiB saved".to_owned(),
            format!(
                "one update at the trained {span_name} before training, and the activations that its forward pass saves for the \
                 backward pass"
            ),
        ),
    ];
    if let Some(level) = grid.level {
        let level = shown_level(task, level);
        legend.push((
            format!("updates to {level}"),
            "until an evaluation on held-out sequences first reached it".to_owned(),
        ));
        legend.push((
            format!("then at {level}"),
            "the share of the evaluations from that one on that did, of the runs that did"
                .to_owned(),
        ));
    }
    if let Some(pilots) = &grid.pilots {
        let rates: Vec<_> = pilots.lr.iter().map(f64::to_string).collect();
        legend.push((
            "learning rate".to_owned(),
            format!(
                "of {}, the one with the best metric on held-out sequences in a run of {} updates with the first \
                 seed; those runs are lines of the rows, too",
                rates.join(", "),
                thousands(pilots.updates)
            ),
        ));
    }
    legend
}

/// Where the numbers come from.
fn origin(runs: &[(&Run, State)]) -> String {
    let finished: Vec<&Finished> = runs
        .iter()
        .filter_map(|(_, state)| match state {
            State::Finished(finished) => Some(&**finished),
            _ => None,
        })
        .collect();
    let all = |of: fn(&Finished) -> String| -> String {
        let different: BTreeSet<String> = finished.iter().map(|finished| of(finished)).collect();
        let different: Vec<String> = different.into_iter().collect();
        if different.is_empty() { "none".to_owned() } else { different.join(", ") }
    };
    format!(
        "{} of {} runs are finished. Dates {}; {}; backend {}; commits {}.",
        finished.len(),
        runs.len(),
        all(|run| run.report.date.clone()),
        all(|run| run.report.processor.clone()),
        all(|run| run.report.settings.backend.name()),
        all(|run| run.report.commit.chars().take(7).collect()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_shown_where_there_is_one() {
        let percent = |x: f64| format!("{:.1} %", 100.0 * x);
        assert_eq!(with_spread(&[0.5, 0.75, 1.0], percent), "75.0 % (50.0–100.0)");
        assert_eq!(with_spread(&[1.0, 1.0], percent), "100.0 %");
        assert_eq!(with_spread(&[], percent), "–");
    }
}
