//! The picture of what grows with the length of the sequence.

use burn_sab_cli::plot::{DrawingError, FONT, INK, in_both_schemes, looks};
use burn_sab_cli::text::thousands;
use plotters::prelude::*;

/// A model's word, what it is a variant of after a comma, and for each length a figure.
pub type Line = (String, Vec<(f64, f64)>);

/// Draws panels side by side: what they show, and their lines. Both axes are logarithmic.
pub fn growth(title: &str, panels: &[(&str, Vec<Line>)]) -> Result<String, DrawingError> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (980, 460)).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(title, (FONT, 17).into_font().color(&INK))?;
        for (area, (label, lines)) in root.split_evenly((1, panels.len())).iter().zip(panels) {
            panel(area, label, lines)?;
        }
        root.present()?;
    }
    Ok(in_both_schemes(svg))
}

fn panel<'a>(
    area: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    label: &str,
    lines: &[Line],
) -> Result<(), DrawingError> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let range = |of: fn(&(f64, f64)) -> f64, margin: f64| {
        let (low, high) =
            points().map(of).fold((f64::MAX, 0.0f64), |(low, high), x| (low.min(x), high.max(x)));
        low / margin..high * margin
    };
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
        range(|point| point.0, 1.15).log_scale(),
        range(|point| point.1, 1.5).log_scale(),
    )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(INK.mix(0.12))
        .x_desc("steps T")
        .y_desc(label)
        .axis_desc_style((FONT, 14).into_font().color(&INK))
        .label_style((FONT, 12).into_font().color(&INK))
        .x_label_formatter(&|x| thousands(*x as usize))
        .y_label_formatter(&|y| if *y < 1.0 { y.to_string() } else { thousands(*y as usize) })
        .draw()?;
    let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
    for ((_, points), (name, color)) in lines.iter().zip(looks(&names)) {
        chart
            .draw_series(
                LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3),
            )?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(INK.mix(0.3))
        .label_font((FONT, 13).into_font().color(&INK))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_named() {
        let line =
            |name: &str, step: f64| (name.to_owned(), vec![(120.0, step), (480.0, 5.0 * step)]);
        let panels = [
            ("milliseconds", vec![line("sab", 20.0), line("lstm, torch.nn.LSTM", 200.0)]),
            ("MiB", vec![line("sab", 3.0), line("lstm", 90.0)]),
        ];
        let svg = growth("growth", &panels).unwrap();
        for text in ["SAB", "LSTM, torch.nn.LSTM", "milliseconds", "MiB", "steps T", "growth"] {
            assert!(svg.contains(text), "{text} is missing");
        }
    }
}
