//! Pictures, as SVG.

mod cost;
mod curves;
mod growth;
mod learning;
mod reminders;
mod scale;
mod transfer;

pub use cost::{Bar, cost_bars};
pub use curves::Curve;
pub use growth::{Line, growth};
pub use learning::learning_curves;
pub use reminders::heat_map;
pub use scale::Scale;
pub use transfer::transfer_curves;

use plotters::drawing::DrawingAreaErrorKind;
use plotters::style::RGBColor;

/// What drawing into a string can fail with.
type DrawingError = DrawingAreaErrorKind<std::io::Error>;

const FONT: &str = "sans-serif";
/// Colours that the colour-blind can tell apart (Okabe and Ito).
const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(110, 110, 110),
];
/// Curves of different names that a picture can hold.
pub const MOST_CURVES: usize = COLORS.len();
const INK: RGBColor = RGBColor(40, 40, 40);
