//! How trained networks do on longer sequences: the metric over the span of the test.

use burn_sab_tasks::Task;
use plotters::prelude::*;

use super::curves::{Curve, Words, draw, heights};
use super::scale::Scale;
use super::{DrawingError, in_both_schemes};
use crate::text::thousands;

/// Draws a curve for each run, from the span that it learnt to the longest test; the lower axis is
/// logarithmic. Points are (span, [`Scale::height`]).
pub fn transfer_curves(curves: &[Curve], task: &Task, title: &str) -> Result<String, DrawingError> {
    let spans = || curves.iter().flat_map(|curve| &curve.points).map(|point| point.0);
    let ends = (spans().fold(f64::INFINITY, f64::min), spans().fold(1.0, f64::max));
    let scale = Scale::of(task, heights(curves));
    let x = format!("{} of the test", task.span_name());
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 520)).into_drawing_area();
        let words = Words { title, x: &x, y: scale.label };
        draw(&root, &words, ((ends.0..ends.1).log_scale(), &scale), ends, curves, &|x| {
            thousands(x.round() as usize)
        })?;
    }
    Ok(in_both_schemes(svg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_reaches_the_longest_test() {
        let curve = |name: &str, points: Vec<(f64, f64)>| Curve { name: name.to_owned(), points };
        let curves = [
            curve("sab", vec![(100.0, 99.0), (1000.0, 99.0), (10_000.0, 98.0)]),
            curve("lstm", vec![(100.0, 98.0), (1000.0, 20.0)]),
        ];
        let svg = transfer_curves(&curves, &Task::copying(), "far").unwrap();
        for text in ["far", "SAB", "LSTM", "10,000", "delay of the test"] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }
}
