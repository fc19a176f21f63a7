//! How large hidden states become, at random initial weights.

use std::path::Path;

use burn::tensor::Tensor;
use burn_sab_cli::file::write;
use burn_sab_cli::text::{say, table, thousands};

use crate::case::Case;
use crate::growth::TIMES;
use crate::picture::growth;
use crate::run::{SEED, normal};

/// Points of a line from a number of steps to ten times as many.
const POINTS: i32 = 4;

/// Draws the largest |h| of all steps so far, against steps, and prints it: of an LSTM, of the case's layer, and of the
/// same layer with a `summary_scale` of 1. All have the same weights of the cell and the same noise as input.
///
/// # Errors
///
/// If the longest case is too large, if its backend is not to be had, or if the file cannot be written.
pub fn draw(case: &Case, file: &Path) -> anyhow::Result<()> {
    let case = Case { time: case.time * TIMES[TIMES.len() - 1], ..case.clone() };
    case.validate()?;
    let device = case.backend.device()?;
    device.seed(SEED);
    let x = normal([case.batch, case.time, case.input], &device);
    let own = case.settings.summary_scale;
    let layers = [
        ("lstm".to_owned(), case.layer().without_memory()),
        (format!("sab, summary_scale {own}"), case.layer()),
        ("sab, summary_scale 1".to_owned(), case.layer().with_summary_scale(1.0)),
    ];
    let mut lines = Vec::new();
    for (name, layer) in layers {
        // The same weights for all.
        device.seed(SEED);
        let (hidden, _) = layer.try_init(&device)?.forward(x.clone(), None);
        lines.push((name, largest_so_far(hidden)));
    }

    let header = ["steps".to_owned()].into_iter().chain(lines.iter().map(|(name, _)| name.clone()));
    let mut rows = vec![header.collect::<Vec<_>>()];
    for (place, (steps, _)) in lines[0].1.iter().enumerate() {
        let largest = lines.iter().map(|(_, points)| format!("{:.2}", points[place].1));
        rows.push([thousands(*steps as usize)].into_iter().chain(largest).collect());
    }
    table(&rows).iter().for_each(|line| say(line));
    let settings = case.settings;
    let title = format!(
        "Hidden states at random initial weights, noise as input: I {}, H {}, k_top {}, k_att {}",
        case.input, case.hidden, settings.k_top, settings.k_att
    );
    let picture = growth(&title, &[("largest |h| so far", lines)]);
    write(file, &picture.map_err(|error| anyhow::anyhow!("{error}"))?)
}

/// From hidden states `[B, T, H]`, for some numbers of steps the largest |h| within them.
fn largest_so_far(hidden: Tensor<3>) -> Vec<(f64, f64)> {
    let largest = hidden.abs().max_dim(2).max_dim(0).into_data();
    let mut so_far = 0.0f64;
    let so_far = largest.iter::<f64>().map(|largest| {
        so_far = so_far.max(largest);
        so_far
    });
    let place = |power: i32| 10f64.powf(f64::from(power) / f64::from(POINTS)).round();
    let mut power = 0;
    let mut points = Vec::new();
    for (step, largest) in so_far.enumerate() {
        let steps = (step + 1) as f64;
        if steps >= place(power) {
            points.push((steps, largest));
        }
        while place(power) <= steps {
            power += 1;
        }
    }
    points
}
