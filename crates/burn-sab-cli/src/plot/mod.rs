//! Pictures as SVG: the style that all of them share, and the pictures of training runs.

mod cost;
mod curves;
mod learning;
mod models;
mod reminders;
mod scale;
mod transfer;

pub(crate) use cost::{Bar, cost_bars};
pub(crate) use curves::Curve;
pub(crate) use learning::learning_curves;
pub use models::looks;
pub(crate) use reminders::{Cell, MOST_CELLS, cells, heat_map, largest};
pub(crate) use scale::Scale;
pub(crate) use transfer::transfer_curves;

use plotters::drawing::DrawingAreaErrorKind;
use plotters::style::RGBColor;

/// The error of drawing into a string.
pub type DrawingError = DrawingAreaErrorKind<std::io::Error>;

/// The font of all text.
pub const FONT: &str = "sans-serif";
/// The colours of curves and bars: the colour-blind can tell them apart (Okabe and Ito). Those of models are in the
/// order of `models.rs`.
pub(crate) const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
];
/// Curves of different names that a picture can hold.
pub(crate) const MOST_CURVES: usize = COLORS.len();
/// The colour of text and axes.
pub const INK: RGBColor = RGBColor(40, 40, 40);

/// Light colours on a dark ground where the reader's scheme is dark, the hues as they were; only where the picture is a
/// document of its own, not a part of a page.
const DARK: &str = "<style>@media (prefers-color-scheme: dark) \
    { svg:root { filter: invert(0.9) hue-rotate(180deg) } }</style>";

/// Makes a picture follow the reader's colour scheme.
pub fn in_both_schemes(svg: String) -> String {
    match svg.find("<svg").and_then(|tag| Some(tag + svg[tag..].find('>')? + 1)) {
        Some(inside) => format!("{}{DARK}{}", &svg[..inside], &svg[inside..]),
        None => svg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_style_stands_inside_the_picture() {
        let svg = in_both_schemes("<?xml version=\"1.0\"?><svg width=\"9\"><g/></svg>".to_owned());
        assert_eq!(svg, format!("<?xml version=\"1.0\"?><svg width=\"9\">{DARK}<g/></svg>"));
    }
}
