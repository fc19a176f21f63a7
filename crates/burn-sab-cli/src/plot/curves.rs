//! Curves, their colours and their legend: what pictures with curves share.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::models::looks;
use super::scale::Scale;
use super::{DrawingError, FONT, INK};

/// A curve of a picture.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What the legend calls it. Curves of one name have one colour and one line in the legend.
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// How high the points of the curves are.
pub fn heights(curves: &[Curve]) -> impl Iterator<Item = f64> + Clone {
    curves.iter().flat_map(|curve| &curve.points).map(|point| point.1)
}

/// What is written around a picture.
pub struct Words<'a> {
    pub title: &'a str,
    pub x: &'a str,
    pub y: &'a str,
}

/// Draws the curves, and a dashed line at chance.
pub fn draw<X>(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    words: &Words,
    (x, scale): (X, &Scale),
    ends: (f64, f64),
    curves: &[Curve],
    label_x: &dyn Fn(&f64) -> String,
) -> Result<(), DrawingError>
where
    X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    root.fill(&WHITE)?;
    let mut chart: ChartContext<'_, _, Cartesian2d<X::CoordDescType, RangedCoordf64>> =
        ChartBuilder::on(root)
            .caption(words.title, (FONT, 19).into_font().color(&INK))
            .margin(14)
            // Half of the last number under the axis stands beyond its end.
            .margin_right(38)
            .x_label_area_size(46)
            .y_label_area_size(62)
            .build_cartesian_2d(x, scale.bottom..scale.top)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .bold_line_style(INK.mix(0.12))
        .x_desc(words.x)
        .y_desc(words.y)
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .label_style((FONT, 13).into_font().color(&INK))
        .x_label_formatter(label_x)
        .y_label_formatter(&|y| scale.written(*y))
        .draw()?;
    if scale.nothing <= scale.top {
        let dashed = [(ends.0, scale.nothing), (ends.1, scale.nothing)];
        chart
            .draw_series(DashedLineSeries::new(dashed, 6, 4, INK.mix(0.6).stroke_width(1)))?
            .label("chance")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], INK.mix(0.6).stroke_width(1)));
    }
    let mut names: Vec<&str> = Vec::new();
    for Curve { name, .. } in curves {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let looks = looks(&names);
    let mut in_legend = vec![false; names.len()];
    for Curve { name, points } in curves {
        let place = names.iter().position(|known| known == name).expect("every name is there");
        let (written, color) = &looks[place];
        let stroke = color.stroke_width(2);
        let few = points.len() <= FEW;
        let drawn = chart.draw_series(LineSeries::new(points.iter().copied(), stroke))?;
        if !std::mem::replace(&mut in_legend[place], true) {
            drawn
                .label(written)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], stroke));
        }
        if few {
            let dot = |point: &(f64, f64)| Circle::new(*point, 3, color.filled());
            chart.draw_series(points.iter().map(dot))?;
        }
    }
    chart
        .configure_series_labels()
        .position(emptiest(curves, (scale.bottom, scale.top)))
        .background_style(WHITE.mix(0.85))
        .border_style(INK.mix(0.3))
        .label_font((FONT, 14).into_font().color(&INK))
        .draw()?;
    root.present()
}

/// Where on the right the legend hides the fewest points: above, in the middle or below.
fn emptiest(curves: &[Curve], (bottom, top): (f64, f64)) -> SeriesLabelPosition {
    let mut points = [0; 3];
    for Curve { points: of_curve, .. } in curves {
        for (_, y) in &of_curve[of_curve.len() * 2 / 3..] {
            points[((3.0 * (y - bottom) / (top - bottom)) as usize).min(2)] += 1;
        }
    }
    let [below, middle, above] = points;
    match middle.min(below).min(above) {
        fewest if middle == fewest => SeriesLabelPosition::MiddleRight,
        fewest if below == fewest => SeriesLabelPosition::LowerRight,
        _ => SeriesLabelPosition::UpperRight,
    }
}

/// Points that are marked one by one: more would run into each other.
const FEW: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_legend_stands_where_no_curve_ends() {
        let curve =
            |y: f64| Curve { name: "a".into(), points: vec![(0.0, 0.5), (1.0, 0.5), (2.0, y)] };
        let of = |ends: &[f64]| {
            emptiest(&ends.iter().map(|y| curve(*y)).collect::<Vec<_>>(), (0.0, 1.0))
        };
        assert!(matches!(of(&[0.9, 0.1]), SeriesLabelPosition::MiddleRight));
        assert!(matches!(of(&[0.9, 0.5]), SeriesLabelPosition::LowerRight));
        assert!(matches!(of(&[0.1, 0.5]), SeriesLabelPosition::UpperRight));
    }
}
