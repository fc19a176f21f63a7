//! Curves, their colours and their legend: what pictures with curves share.

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::models::looks;
use super::scale::Scale;
use super::{DrawingError, FONT, INK};
use crate::statistics::spread;

/// A curve of a picture.
#[derive(Debug, Clone)]
pub struct Curve {
    /// What the legend calls it. Curves of one name are drawn as their mean, in a band from the smallest to the
    /// largest.
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
    let lines = lines(curves);
    let names: Vec<&str> = lines.iter().map(|line| line.name).collect();
    let looks = looks(&names);
    // Below every line, also those of other names.
    for (Line { points, .. }, (_, color)) in lines.iter().zip(&looks) {
        let upper = points.iter().map(|point| (point.x, point.largest));
        let lower = points.iter().rev().map(|point| (point.x, point.smallest));
        if points.iter().any(|point| point.smallest < point.largest) {
            let band: Vec<_> = upper.chain(lower).collect();
            chart.draw_series([Polygon::new(band, color.mix(0.18).filled())])?;
        }
    }
    for (Line { points, .. }, (written, color)) in lines.iter().zip(&looks) {
        let stroke = color.stroke_width(2);
        let means = || points.iter().map(|point| (point.x, point.mean));
        chart
            .draw_series(LineSeries::new(means(), stroke))?
            .label(written)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], stroke));
        if points.len() <= FEW {
            chart.draw_series(means().map(|mean| Circle::new(mean, 3, color.filled())))?;
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

/// The curves of one name.
struct Line<'a> {
    name: &'a str,
    points: Vec<Point>,
}

#[derive(Debug, PartialEq)]
struct Point {
    x: f64,
    mean: f64,
    smallest: f64,
    largest: f64,
}

/// The curves of each name as one line. A curve that has ended, as training that reached its level, keeps its last
/// height; one that has not begun is left out.
fn lines(curves: &[Curve]) -> Vec<Line<'_>> {
    let mut lines: Vec<(&str, Vec<&Curve>)> = Vec::new();
    for curve in curves {
        match lines.iter_mut().find(|(name, _)| *name == curve.name) {
            Some((_, of_name)) => of_name.push(curve),
            None => lines.push((&curve.name, vec![curve])),
        }
    }
    let line = |(name, curves): (_, Vec<&Curve>)| {
        let mut xs: Vec<f64> = curves.iter().flat_map(|c| &c.points).map(|point| point.0).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let point = |x: f64| {
            let at = |curve: &&Curve| {
                Some(curve.points[..curve.points.partition_point(|point| point.0 <= x)].last()?.1)
            };
            let (mean, smallest, largest) =
                spread(&curves.iter().filter_map(at).collect::<Vec<_>>())?;
            Some(Point { x, mean, smallest, largest })
        };
        Line { name, points: xs.into_iter().filter_map(point).collect() }
    };
    lines.into_iter().map(line).collect()
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
    fn curves_of_one_name_are_a_mean_and_a_band() {
        let curve = |name: &str, points: &[(f64, f64)]| Curve {
            name: name.into(),
            points: points.to_vec(),
        };
        let curves = [
            curve("a", &[(1.0, 2.0), (2.0, 6.0)]),
            curve("b", &[(1.0, 9.0)]),
            curve("a", &[(1.0, 4.0), (2.0, 8.0), (3.0, 10.0)]),
            curve("a", &[(2.0, 1.0)]),
        ];
        let lines = lines(&curves);
        assert_eq!(lines.iter().map(|line| line.name).collect::<Vec<_>>(), ["a", "b"]);
        let point = |x, mean, smallest, largest| Point { x, mean, smallest, largest };
        let expected = [
            point(1.0, 3.0, 2.0, 4.0),
            point(2.0, 5.0, 1.0, 8.0),
            point(3.0, 17.0 / 3.0, 1.0, 10.0),
        ];
        assert_eq!(lines[0].points, expected);
        assert_eq!(lines[1].points, [point(1.0, 9.0, 9.0, 9.0)]);
    }

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
