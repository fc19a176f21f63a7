//! Which step retrieved which stored step, as a heat map.

use std::collections::BTreeMap;
use std::ops::Range;

use burn_sab_tasks::{Moment, Reminder};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{DrawingError, FONT, INK, in_both_schemes};

/// Weights below this share of the largest one are not drawn: they could not be told from white.
const VISIBLE: f32 = 0.01;

/// A reminder that can be seen, as a cell of the picture.
#[derive(Debug)]
pub(crate) struct Cell {
    pub reminder: Reminder,
    /// The steps that its slot stands for; -1 is the initial state.
    pub columns: Range<isize>,
    /// Its share of the largest weight, from 0 to 1.
    pub share: f32,
}

/// The largest weight, without its sign.
pub(crate) fn largest(reminders: &[Reminder]) -> f32 {
    reminders.iter().map(|reminder| reminder.weight.abs()).fold(0.0, f32::max)
}

/// The reminders that can be seen, by their steps and the moments of which they remind.
pub(crate) fn cells(reminders: &[Reminder], k_att: usize) -> Vec<Cell> {
    let largest = largest(reminders);
    let visible = reminders.iter().filter(|reminder| reminder.weight.abs() > VISIBLE * largest);
    let mut cells: Vec<Cell> = visible
        .map(|reminder| Cell {
            reminder: *reminder,
            columns: match reminder.moment {
                Moment::Initial => -1..0,
                Moment::Step(step) => {
                    let end = step as isize + 1;
                    end - k_att as isize..end
                }
            },
            share: reminder.weight.abs() / largest,
        })
        .collect();
    cells.sort_by_key(|cell| (cell.reminder.step, cell.reminder.moment));
    cells
}

/// Cells on a side of the map: narrower ones would be less than three pixels wide.
pub(crate) const MOST_CELLS: usize = 250;

/// Draws `reminders` of a sequence of `steps` steps. A slot is drawn as wide as the `k_att` steps that it
/// stands for. In a long sequence a cell is several steps, and its weight is their mean. `marks` are steps before which
/// a line is drawn, with what begins there.
pub fn heat_map(
    reminders: &[Reminder],
    steps: usize,
    k_att: usize,
    title: &str,
    marks: &[(usize, &str)],
) -> Result<String, DrawingError> {
    let block = steps.div_ceil(MOST_CELLS).max(1);
    let blocks = blocks(reminders, block, k_att);
    let largest = blocks.values().copied().fold(0.0, f32::max);
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (900, 760)).into_drawing_area();
        root.fill(&WHITE)?;
        let (map, legend) = root.split_horizontally(790);
        let mut chart = ChartBuilder::on(&map)
            .caption(title, (FONT, 19).into_font().color(&INK))
            .margin(14)
            .x_label_area_size(46)
            .y_label_area_size(58)
            .build_cartesian_2d(-1.5..steps as f64 - 0.5, -0.5..steps as f64 - 0.5)?;
        chart
            .configure_mesh()
            .disable_mesh()
            .x_desc("stored step (-1: initial state)")
            .y_desc("step that retrieves")
            .axis_desc_style((FONT, 15).into_font().color(&INK))
            .label_style((FONT, 13).into_font().color(&INK))
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.0}"))
            .draw()?;
        let last = steps as f64 - 0.5;
        for (step, _) in marks {
            let at = *step as f64 - 0.5;
            let line = INK.mix(0.25).stroke_width(1);
            chart.draw_series(LineSeries::new([(at, -0.5), (at, last)], line))?;
            chart.draw_series(LineSeries::new([(-1.5, at), (last, at)], line))?;
        }
        let visible = blocks.iter().filter(|(_, weight)| **weight > VISIBLE * largest);
        chart.draw_series(visible.map(|((step, moment), weight)| {
            let (from, to) = match moment {
                Moment::Initial => (-1.5, -0.5),
                // The last step of a slot, or of a cell that is wider.
                Moment::Step(last) => {
                    ((last + 1) as f64 - k_att.max(block) as f64 - 0.5, *last as f64 + 0.5)
                }
            };
            let (y, height) = (*step as f64 - 0.5, block as f64);
            let color = shade(weight / largest);
            Rectangle::new([(from, y), (to, y + height)], color.filled())
        }))?;
        let side = TextStyle::from((FONT, 13).into_font())
            .color(&INK)
            .pos(Pos::new(HPos::Right, VPos::Bottom));
        for (step, begins) in marks {
            let label = format!("{begins} ▴");
            chart.draw_series([Text::new(label, (last, *step as f64 - 0.5), side.clone())])?;
        }
        color_bar(&legend, largest)?;
        root.present()?;
    }
    Ok(in_both_schemes(svg))
}

/// The mean weights of cells of `block` steps each way, by their first step and their moment. A slot that stands for
/// more steps than a cell is a cell of its own.
fn blocks(reminders: &[Reminder], block: usize, k_att: usize) -> BTreeMap<(usize, Moment), f32> {
    let mut cells = BTreeMap::new();
    for reminder in reminders {
        let moment = match reminder.moment {
            Moment::Step(step) if k_att < block => Moment::Step(step / block * block + block - 1),
            moment => moment,
        };
        let weight = cells.entry((reminder.step / block * block, moment)).or_insert(0.0);
        *weight += reminder.weight.abs() / block as f32;
    }
    cells
}

/// The legend: which colour is which weight.
fn color_bar<DB: DrawingBackend>(
    area: &DrawingArea<DB, plotters::coord::Shift>,
    largest: f32,
) -> Result<(), DrawingAreaErrorKind<DB::ErrorType>> {
    const SHADES: i32 = 60;
    let (left, top, height, width) = (10, 90, 480, 22);
    for i in 0..SHADES {
        let share = (SHADES - 1 - i) as f32 / (SHADES - 1) as f32;
        let corners =
            [(left, top + i * height / SHADES), (left + width, top + (i + 1) * height / SHADES)];
        area.draw(&Rectangle::new(corners, shade(share).filled()))?;
    }
    area.draw(&Rectangle::new([(left, top), (left + width, top + height)], INK.stroke_width(1)))?;
    let style =
        TextStyle::from((FONT, 13).into_font()).color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    for quarter in 0..=4 {
        let share = quarter as f32 / 4.0;
        let y = top + height - (share * height as f32) as i32;
        area.draw(&Text::new(
            format!("{:.2}", share * largest),
            (left + width + 6, y),
            style.clone(),
        ))?;
    }
    area.draw(&Text::new("weight", (left, top - 16), style))
}

/// White for 0, through blue, to nearly black for 1: readable in grey and by the colour-blind.
fn shade(share: f32) -> RGBColor {
    const STOPS: [(f32, [f32; 3]); 4] = [
        (0.0, [255.0, 255.0, 255.0]),
        (0.25, [158.0, 202.0, 225.0]),
        (0.6, [33.0, 113.0, 181.0]),
        (1.0, [8.0, 24.0, 60.0]),
    ];
    let share = share.clamp(0.0, 1.0);
    let upper = STOPS.iter().position(|(at, _)| share <= *at).unwrap_or(STOPS.len() - 1).max(1);
    let ((from, a), (to, b)) = (STOPS[upper - 1], STOPS[upper]);
    let part = (share - from) / (to - from);
    let mix = |i: usize| (a[i] + part * (b[i] - a[i])).round() as u8;
    RGBColor(mix(0), mix(1), mix(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_axes_a_legend_and_a_cell_for_every_visible_reminder() {
        let reminders = [
            Reminder { step: 3, moment: Moment::Initial, weight: 0.25 },
            Reminder { step: 5, moment: Moment::Step(1), weight: 0.5 },
            Reminder { step: 5, moment: Moment::Step(2), weight: 0.0001 },
        ];
        let svg = heat_map(&reminders, 8, 1, "a title", &[(4, "recall")]).unwrap();
        for text in ["a title", "stored step", "step that retrieves", "weight", "recall", "0.50"] {
            assert!(svg.contains(text), "{text} is missing");
        }
        let dark = format!("#{:02X}{:02X}{:02X}", shade(1.0).0, shade(1.0).1, shade(1.0).2);
        // One cell and the end of the colour bar.
        assert_eq!(svg.matches(&dark).count(), 2);
    }

    #[test]
    fn a_long_sequence_is_drawn_in_cells_of_mean_weights() {
        let reminder =
            |step, stored, weight| Reminder { step, moment: Moment::Step(stored), weight };
        let reminders = [
            reminder(8, 1, 0.5),
            reminder(9, 2, 0.25),
            reminder(11, 3, 0.25),
            reminder(12, 3, 1.0),
            Reminder { step: 8, moment: Moment::Initial, weight: 1.0 },
        ];
        let step = Moment::Step(3);
        let found: Vec<_> = blocks(&reminders, 4, 1).into_iter().collect();
        assert_eq!(found, [((8, Moment::Initial), 0.25), ((8, step), 0.25), ((12, step), 0.25)]);
        // Slots of four steps and more keep their place.
        assert_eq!(blocks(&reminders, 4, 4).len(), 5);
        let many: Vec<_> = (1..4_000).map(|step| reminder(step, step - 1, 1.0)).collect();
        let svg = heat_map(&many, 4_000, 1, "long", &[]).unwrap();
        assert!(svg.len() < 200_000, "{} bytes", svg.len());
    }

    #[test]
    fn a_sequence_without_reminders_is_drawn_empty() {
        assert!(heat_map(&[], 8, 1, "nothing", &[]).unwrap().contains("</svg>"));
    }

    #[test]
    fn shades_run_from_white_to_dark() {
        assert_eq!(shade(0.0), RGBColor(255, 255, 255));
        assert_eq!(shade(f32::NAN.max(0.0)), RGBColor(255, 255, 255));
        let dark = |share| {
            let RGBColor(r, g, b) = shade(share);
            u32::from(r) + u32::from(g) + u32::from(b)
        };
        assert!((0..100).all(|i| dark(i as f32 / 100.0) >= dark((i + 1) as f32 / 100.0)));
    }
}
