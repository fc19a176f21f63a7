//! How the networks learnt: the held-out metric over the updates.

use burn_sab_tasks::{Event, Metrics, Task};
use plotters::prelude::*;

use super::DrawingError;
use super::curves::{Curve, Words, draw};
use crate::text::thousands;

/// Draws a curve for each run: its accuracy, mean squared error or bits per character on held-out
/// sequences at the target span. Runs of one name share a colour.
pub fn learning_curves(
    runs: &[(String, Vec<Event>)],
    task: &Task,
    title: &str,
) -> Result<String, DrawingError> {
    let curves: Vec<Curve> = runs
        .iter()
        .map(|(name, events)| Curve { name: name.clone(), points: points(events) })
        .collect();
    let updates = runs.iter().flat_map(|(_, events)| events).map(Event::update).max().unwrap_or(1);
    let scale = Scale::of(task, &curves);
    let y = format!("{} on held-out sequences", scale.label);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 520)).into_drawing_area();
        let words = Words { title, x: "updates", y: &y };
        let ends = (0.0, updates as f64);
        draw(
            &root,
            &words,
            (ends.0..ends.1, scale.top * 1.02),
            ends,
            scale.nothing,
            &curves,
            &|x| thousands(*x as usize),
        )?;
    }
    Ok(svg)
}

/// The upright axis of a task's metric.
pub struct Scale {
    pub top: f64,
    pub label: &'static str,
    /// What a network has that knows nothing.
    pub nothing: f64,
}

impl Scale {
    /// The axis on which `curves` fit.
    pub fn of(task: &Task, curves: &[Curve]) -> Self {
        match task {
            Task::Text { characters } => {
                let nothing = (*characters as f64).log2();
                Self { top: nothing, label: "bits per character", nothing }
            }
            Task::Adding => {
                let heights = curves.iter().flat_map(|curve| &curve.points).map(|point| point.1);
                let top = heights.fold(0.2, f64::max);
                Self { top, label: "mean squared error", nothing: 1.0 / 6.0 }
            }
            Task::Copying { .. } | Task::PixelMnist { .. } | Task::PixelCifar => Self {
                top: 100.0,
                label: if task.has_one_span() { "images right (%)" } else { "symbols right (%)" },
                nothing: 100.0 / task.d_output() as f64,
            },
        }
    }

    /// Where metrics stand on the axis.
    pub fn height(metrics: &Metrics) -> f64 {
        match metrics {
            Metrics::Classes { accuracy, .. } => 100.0 * accuracy,
            Metrics::Text { bits_per_character, .. } => *bits_per_character,
            Metrics::Adding { mse } => *mse,
        }
    }
}

fn points(events: &[Event]) -> Vec<(f64, f64)> {
    let point = |event: &Event| match event {
        Event::Evaluation { update, metrics, .. } => Some((*update as f64, Scale::height(metrics))),
        _ => None,
    };
    events.iter().filter_map(point).filter(|(_, height)| height.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_once_in_the_legend() {
        let evaluation = |update, accuracy| Event::Evaluation {
            update,
            span: 5,
            metrics: Metrics::Classes { accuracy, cross_entropy: 1.0 },
            best: true,
            longest: 5,
        };
        let runs = [
            ("sab".to_owned(), vec![evaluation(100, 0.2), evaluation(200, 0.9)]),
            ("tbptt".to_owned(), vec![evaluation(200, 0.1)]),
            ("sab".to_owned(), vec![evaluation(100, 0.3)]),
        ];
        let svg = learning_curves(&runs, &Task::copying(), "learning").unwrap();
        for text in ["tbptt", "knowing nothing", "updates", "learning"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert_eq!(svg.matches("\nsab\n").count(), 1, "{svg}");
    }
}
