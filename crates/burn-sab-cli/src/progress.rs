//! What is shown while a network trains: a moving display on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use burn_sab_tasks::{Event, Metrics, TrainConfig};
use indicatif::{ProgressBar, ProgressStyle};

use crate::text::{duration, thousands};

/// Shows the events of one training run on standard error.
pub struct Progress {
    /// The model, after the label of the run.
    name: String,
    span_name: &'static str,
    updates: usize,
    started: Instant,
    /// Mean loss of recent updates: weights fall by a factor of e over 50 updates, the distance between
    /// two looks of the curriculum.
    loss: Option<f64>,
    longest: usize,
    skipped: usize,
    /// One sign an evaluation, the latest last.
    history: Vec<char>,
    evaluated: String,
    bar: Option<ProgressBar>,
}

const LOSS_MEMORY: f64 = 1.0 / 50.0;
const HISTORY: usize = 40;

impl Progress {
    /// A display for a run that has made `update` updates so far.
    /// `label` stands before every line.
    pub fn new(label: &str, config: &TrainConfig, update: usize, longest: usize) -> Self {
        let name = format!("{label}{}", config.model.name());
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(config.updates as u64).with_position(update as u64);
            bar.set_style(style());
            bar.set_prefix(name.clone());
            // Updates of an earlier process say nothing about the speed of this one.
            bar.tick();
            bar.reset_eta();
            bar
        });
        Self {
            name,
            span_name: config.task.span_name(),
            updates: config.updates,
            started: Instant::now(),
            loss: None,
            longest,
            skipped: 0,
            history: Vec::new(),
            evaluated: String::new(),
            bar,
        }
    }

    /// Shows what happened.
    pub fn show(&mut self, event: &Event) {
        match event {
            Event::Update { update, loss, .. } => {
                let mean = self.loss.get_or_insert(*loss);
                *mean += LOSS_MEMORY * (loss - *mean);
                if let Some(bar) = &self.bar {
                    bar.set_position(*update as u64);
                    bar.set_message(self.message());
                }
            }
            Event::Skipped { update, what, .. } => {
                self.skipped += 1;
                self.line(&format!(
                    "update {}: the {what} is not finite; the weights stay as they are",
                    thousands(*update)
                ));
            }
            Event::Grown { update, from, to, .. } => {
                self.longest = *to;
                self.line(&format!(
                    "update {}: masters a {} of {from}; training goes up to {to} from now on",
                    thousands(*update),
                    self.span_name
                ));
            }
            Event::Evaluation { update, span, metrics, .. } => {
                self.history.push(sign(metrics));
                self.evaluated =
                    format!("at {} {}: {}", self.span_name, thousands(*span), describe(metrics));
                if self.bar.is_none() {
                    let message = self.message();
                    self.line(&format!(
                        "update {} of at most {} ({}): {message}",
                        thousands(*update),
                        thousands(self.updates),
                        duration(self.started.elapsed().as_secs_f64()),
                    ));
                }
            }
        }
    }

    /// Takes the display away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }

    fn message(&self) -> String {
        let mut parts = vec![format!("loss {:.3}", self.loss.unwrap_or(f64::NAN))];
        parts.push(format!("{} up to {}", self.span_name, thousands(self.longest)));
        if !self.evaluated.is_empty() {
            parts.push(format!("held out {}", self.evaluated));
        }
        if self.skipped > 0 {
            parts.push(format!("{} updates skipped", self.skipped));
        }
        if self.bar.is_some() && !self.history.is_empty() {
            parts.push(self.history.iter().rev().take(HISTORY).rev().collect());
        }
        parts.join(", ")
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(format!("{} {text}", self.name)),
            // Nobody reading is no reason to stop training.
            None => drop(writeln!(std::io::stderr(), "{} {text}", self.name)),
        }
    }
}

/// The bar on a terminal, and below it the latest figures.
fn style() -> ProgressStyle {
    let template = "{prefix:6} {bar:32} {human_pos} of at most {human_len} updates, {elapsed} gone, at most {eta} \
                    left\n{wide_msg}";
    ProgressStyle::with_template(template).expect("a template without mistakes")
}

/// Metrics in words.
pub fn describe(metrics: &Metrics) -> String {
    match metrics {
        Metrics::Classes { accuracy, cross_entropy } => {
            format!("accuracy {:.1} %, {cross_entropy:.3} nats", 100.0 * accuracy)
        }
        Metrics::Text { bits_per_character, accuracy } => {
            format!(
                "{bits_per_character:.3} bits per character, accuracy {:.1} %",
                100.0 * accuracy
            )
        }
        Metrics::Adding { mse } => format!("mean squared error {mse:.5}"),
    }
}

/// Metrics as one sign, higher for better.
fn sign(metrics: &Metrics) -> char {
    const SIGNS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let good = match metrics {
        Metrics::Classes { accuracy, .. } | Metrics::Text { accuracy, .. } => *accuracy,
        // 1/6 is what a network has that knows nothing.
        Metrics::Adding { mse } => 1.0 - 6.0 * mse,
    };
    SIGNS[(good.clamp(0.0, 1.0) * 7.0).round() as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tests have no terminal: nothing else reads the template.
    #[test]
    fn the_bar_has_its_style() {
        style();
    }
}
