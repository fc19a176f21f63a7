//! What an update costs: bars side by side.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::models::looks;
use super::{DrawingError, FONT, INK};

/// A bar's name and its two numbers.
#[derive(Debug, Clone)]
pub struct Bar {
    pub name: String,
    pub milliseconds: f64,
    /// `None` where it was not measured.
    pub megabytes: Option<f64>,
}

const ROW: i32 = 26;
const HEAD: i32 = 64;
/// Where the names end, where the bars begin, and how long the longest is.
const NAMES: i32 = 300;
const LENGTH: i32 = 190;
const SECOND: i32 = 290;

/// Draws time and memory of an update, a line for each bar.
pub fn cost_bars(bars: &[Bar], title: &str) -> Result<String, DrawingError> {
    let most = |values: Vec<f64>| values.into_iter().fold(f64::MIN_POSITIVE, f64::max);
    let slowest = most(bars.iter().map(|bar| bar.milliseconds).collect());
    let largest = most(bars.iter().filter_map(|bar| bar.megabytes).collect());
    let height = HEAD + ROW * bars.len() as i32 + 14;
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let style = |size: i32, at: HPos| {
            let font = (FONT, size).into_font();
            TextStyle::from(font).color(&INK).pos(Pos::new(at, VPos::Center))
        };
        root.draw(&Text::new(title, (450, 18), style(19, HPos::Center)))?;
        for (x, what) in
            [(NAMES + 10, "ms per update"), (NAMES + 10 + SECOND, "MB saved for the backward pass")]
        {
            root.draw(&Text::new(what, (x, 46), style(14, HPos::Left)))?;
        }
        let names: Vec<&str> = bars.iter().map(|bar| bar.name.as_str()).collect();
        for (place, (bar, (name, color))) in bars.iter().zip(looks(&names)).enumerate() {
            let y = HEAD + ROW * place as i32 + ROW / 2;
            root.draw(&Text::new(name, (NAMES, y), style(14, HPos::Right)))?;
            let numbers = [
                Some((bar.milliseconds, slowest, format!("{:.0}", bar.milliseconds))),
                bar.megabytes.map(|size| (size, largest, format!("{size:.1}"))),
            ];
            for (column, number) in numbers.into_iter().enumerate() {
                let Some((value, longest, label)) = number else { continue };
                let left = NAMES + 10 + SECOND * column as i32;
                let right = left + (value / longest * f64::from(LENGTH)).round() as i32;
                let corners = [(left, y - 8), (right, y + 8)];
                root.draw(&Rectangle::new(corners, color.filled()))?;
                root.draw(&Text::new(label, (right + 6, y), style(13, HPos::Left)))?;
            }
        }
        root.present()?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_name_and_numbers() {
        let bars = [
            Bar { name: "sab".to_owned(), milliseconds: 41.0, megabytes: Some(23.4) },
            Bar { name: "lstm".to_owned(), milliseconds: 30.0, megabytes: None },
        ];
        let svg = cost_bars(&bars, "cost").unwrap();
        for text in ["SAB", "LSTM", "41", "30", "23.4", "ms per update"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert_eq!(svg.matches("<rect").count(), 1 + 3, "the paper and three bars");
    }
}
