//! Pictures of a run, as SVG.

mod learning;
mod reminders;

pub use learning::learning_curves;
pub use reminders::heat_map;

use plotters::drawing::DrawingAreaErrorKind;
use plotters::style::RGBColor;

/// What drawing into a string can fail with.
type DrawingError = DrawingAreaErrorKind<std::io::Error>;

const FONT: &str = "sans-serif";
const INK: RGBColor = RGBColor(40, 40, 40);
