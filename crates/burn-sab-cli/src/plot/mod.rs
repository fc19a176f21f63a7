//! Pictures of runs, as SVG.

mod cost;
mod curves;
mod learning;
mod reminders;
mod transfer;

pub use cost::{Bar, cost_bars};
pub use curves::Curve;
pub use learning::{Scale, learning_curves};
pub use reminders::heat_map;
pub use transfer::transfer_curves;

use plotters::drawing::DrawingAreaErrorKind;
use plotters::style::RGBColor;

/// What drawing into a string can fail with.
type DrawingError = DrawingAreaErrorKind<std::io::Error>;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
