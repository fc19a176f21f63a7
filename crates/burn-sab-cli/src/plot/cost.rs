//! Bars of the time and memory of an update, and of the training time until a level.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::models::looks;
use super::{DrawingError, FONT, INK, in_both_schemes};

/// A bar's name and its numbers.
#[derive(Debug, Clone)]
pub struct Bar {
    pub name: String,
    pub milliseconds: f64,
    /// `None` where it was not measured.
    pub mebibytes: Option<f64>,
    /// Time of the updates until the level; `None` unless every seed reached it.
    pub seconds: Option<f64>,
}

const ROW: i32 = 26;
const HEAD: i32 = 64;
/// Where the names end, how long the longest bar is, and how far apart two columns of bars begin.
const NAMES: i32 = 300;
const LENGTH: i32 = 190;
const COLUMN: i32 = 290;

/// Draws time and memory of an update, a line for each bar.
pub fn cost_bars(bars: &[Bar], title: &str) -> Result<String, DrawingError> {
    type Figure = fn(&Bar) -> Option<f64>;
    let columns: [(&str, Figure, usize); 3] = [
        ("ms per update", |bar| Some(bar.milliseconds), 0),
        ("MiB saved for the backward pass", |bar| bar.mebibytes, 1),
        ("s to the level: updates × time of one", |bar| bar.seconds, 0),
    ];
    let shown =
        columns.into_iter().filter(|(_, figure, _)| bars.iter().any(|bar| figure(bar).is_some()));
    let columns: Vec<_> = shown.collect();
    let height = HEAD + ROW * bars.len() as i32 + 14;
    let width = NAMES + 10 + COLUMN * columns.len() as i32 + 10;
    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (width as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let style = |size: i32, at: HPos| {
            let font = (FONT, size).into_font();
            TextStyle::from(font).color(&INK).pos(Pos::new(at, VPos::Center))
        };
        root.draw(&Text::new(title, (width / 2, 18), style(19, HPos::Center)))?;
        for (place, (what, ..)) in columns.iter().enumerate() {
            let x = NAMES + 10 + COLUMN * place as i32;
            root.draw(&Text::new(*what, (x, 46), style(14, HPos::Left)))?;
        }
        let names: Vec<&str> = bars.iter().map(|bar| bar.name.as_str()).collect();
        for (place, (bar, (name, color))) in bars.iter().zip(looks(&names)).enumerate() {
            let y = HEAD + ROW * place as i32 + ROW / 2;
            root.draw(&Text::new(name, (NAMES, y), style(14, HPos::Right)))?;
            for (column, (_, figure, digits)) in columns.iter().enumerate() {
                let Some(value) = figure(bar) else { continue };
                let longest = bars.iter().filter_map(figure).fold(f64::MIN_POSITIVE, f64::max);
                let label = format!("{value:.digits$}");
                let left = NAMES + 10 + COLUMN * column as i32;
                let right = left + (value / longest * f64::from(LENGTH)).round() as i32;
                let corners = [(left, y - 8), (right, y + 8)];
                root.draw(&Rectangle::new(corners, color.filled()))?;
                root.draw(&Text::new(label, (right + 6, y), style(13, HPos::Left)))?;
            }
        }
        root.present()?;
    }
    Ok(in_both_schemes(svg))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_has_its_name_and_numbers() {
        let bars = [
            Bar {
                name: "sab".to_owned(),
                milliseconds: 41.0,
                mebibytes: Some(23.4),
                seconds: Some(57.0),
            },
            Bar { name: "lstm".to_owned(), milliseconds: 30.0, mebibytes: None, seconds: None },
        ];
        let svg = cost_bars(&bars, "cost").unwrap();
        for text in ["SAB", "LSTM", "41", "30", "23.4", "57", "ms per update", "s to the level"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert_eq!(svg.matches("<rect").count(), 1 + 4, "the paper and four bars");
    }
}
