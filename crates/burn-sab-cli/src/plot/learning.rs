//! How the networks learnt: the held-out metric over the updates.

use burn_sab_tasks::{Event, Metrics, Task};
use plotters::prelude::*;

use super::{COLORS, DrawingError, FONT, INK};
use crate::text::thousands;

/// Draws a curve for each model: its accuracy (copying) or mean squared error (adding) on held-out
/// sequences at the target span.
pub fn learning_curves(
    models: &[(&str, Vec<Event>)],
    task: &Task,
    title: &str,
) -> Result<String, DrawingError> {
    let curves: Vec<(&str, Vec<(f64, f64)>)> =
        models.iter().map(|(model, events)| (*model, curve(events))).collect();
    let updates =
        models.iter().flat_map(|(_, events)| events).map(Event::update).max().unwrap_or(1);
    let points = || curves.iter().flat_map(|(_, points)| points);
    let (top, label, chance) = match task {
        Task::Copying { alphabet, .. } => {
            (100.0, "symbols right on held-out sequences (%)", 100.0 / *alphabet as f64)
        }
        Task::Adding => {
            let most = points().map(|(_, error)| *error).fold(0.2, f64::max);
            (most, "mean squared error on held-out sequences", 1.0 / 6.0)
        }
    };
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 520)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(title, (FONT, 19).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..updates as f64, 0.0..top * 1.02)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(INK.mix(0.12))
            .x_desc("updates")
            .y_desc(label)
            .axis_desc_style((FONT, 15).into_font().color(&INK))
            .label_style((FONT, 13).into_font().color(&INK))
            .x_label_formatter(&|x| thousands(*x as usize))
            .draw()?;
        let ends = [(0.0, chance), (updates as f64, chance)];
        let dashed = DashedLineSeries::new(ends, 6, 4, INK.mix(0.6).stroke_width(1));
        chart
            .draw_series(dashed)?
            .label("knowing nothing")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], INK.mix(0.6).stroke_width(1)));
        for ((model, points), color) in curves.iter().zip(COLORS.iter().cycle()) {
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
                .label(*model)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::MiddleRight)
            .background_style(WHITE.mix(0.85))
            .border_style(INK.mix(0.3))
            .label_font((FONT, 14).into_font().color(&INK))
            .draw()?;
        root.present()?;
    }
    Ok(svg)
}

fn curve(events: &[Event]) -> Vec<(f64, f64)> {
    let point = |event: &Event| match event {
        Event::Evaluation { update, metrics, .. } => {
            let height = match metrics {
                Metrics::Copying { accuracy, .. } => 100.0 * accuracy,
                Metrics::Adding { mse } => *mse,
            };
            Some((*update as f64, height))
        }
        _ => None,
    };
    events.iter().filter_map(point).filter(|(_, height)| height.is_finite()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_has_a_named_curve() {
        let evaluation = |update, accuracy| Event::Evaluation {
            update,
            span: 5,
            metrics: Metrics::Copying { accuracy, cross_entropy: 1.0 },
            best: true,
            longest: 5,
        };
        let models = [
            ("sab", vec![evaluation(100, 0.2), evaluation(200, 0.9)]),
            ("tbptt", vec![evaluation(200, 0.1)]),
        ];
        let svg = learning_curves(&models, &Task::copying(), "learning").unwrap();
        for text in ["sab", "tbptt", "knowing nothing", "updates", "learning"] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }
}
