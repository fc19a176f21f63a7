//! How the networks learnt: the held-out metric over the updates.

use burn_sab_tasks::{Event, Task};
use plotters::prelude::*;

use super::curves::{Curve, Words, draw, heights};
use super::scale::Scale;
use super::{DrawingError, in_both_schemes};
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
    let scale = Scale::of(task, heights(&curves));
    let y = format!("{} on held-out sequences", scale.label);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 520)).into_drawing_area();
        let words = Words { title, x: "updates", y: &y };
        let ends = (0.0, updates as f64);
        draw(&root, &words, (ends.0..ends.1, &scale), ends, &curves, &|x| thousands(*x as usize))?;
    }
    Ok(in_both_schemes(svg))
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
    use burn_sab_tasks::Metrics;

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
        for text in ["LSTM, truncated", "chance", "updates", "learning"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert_eq!(svg.matches("\nSAB\n").count(), 1, "{svg}");
    }
}
