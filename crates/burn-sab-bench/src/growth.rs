//! How time and memory grow with the length of the sequence.

use std::path::Path;

use burn_sab_cli::file::write;
use burn_sab_cli::text::MIB;

use crate::case::Case;
use crate::measured::{Measured, kept};
use crate::peer::{LSTM, SAB, TORCH_LSTM};
use crate::picture::{Line, growth};
use crate::sections::{Section, one_case, title, with_index};

/// The factors of the case's length in a picture. From 1,000 steps they reach 100,000.
pub const TIMES: [usize; 5] = [1, 3, 10, 30, 100];

/// The case at every length, beside a plain LSTM of Burn and of PyTorch, and beside the layer with an index.
pub fn section(case: &Case) -> Section {
    let longer = TIMES.iter().map(|times| Case { time: case.time * times, ..case.clone() });
    let rows = longer.flat_map(|case| {
        let mut rows = one_case(&case, None).remove(0).rows;
        rows.retain(|(peer, _)| [SAB, LSTM, TORCH_LSTM].contains(peer));
        let indexed = with_index(case.clone());
        if indexed != case && indexed.validate().is_ok() && !case.backend.is_gpu() {
            rows.push((SAB, indexed));
        }
        rows
    });
    let rows = rows.collect();
    Section { title: "Growth with the length of the sequence".to_owned(), rows, fill: false }
}

/// A line's name: the word of a model of this program, and whose.
fn name(one: &Measured) -> String {
    match one.peer {
        SAB => match one.case.settings.n_probe {
            Some(lists) => format!("sab, n_probe {lists}"),
            None => "sab".to_owned(),
        },
        TORCH_LSTM => "lstm, torch.nn.LSTM".to_owned(),
        _ => "lstm, burn::nn::Lstm".to_owned(),
    }
}

/// Draws what was measured of [`section`].
///
/// # Errors
///
/// If the file cannot be written.
pub fn draw(results: &[Measured], case: &Case, file: &Path) -> anyhow::Result<()> {
    let lines = |figure: fn(&Measured) -> Option<f64>| {
        let mut lines: Vec<Line> = Vec::new();
        for one in results {
            let (name, Some(figure)) = (name(one), figure(one)) else {
                continue;
            };
            let point = (one.case.time as f64, figure);
            match lines.iter_mut().find(|(other, _)| *other == name) {
                Some((_, points)) => points.push(point),
                None => lines.push((name, vec![point])),
            }
        }
        lines
    };
    let mib = |one: &Measured| Some(kept(one)? * (one.case.batch * one.case.time) as f64 / MIB);
    let panels = [
        ("training step, ms", lines(|one| one.figures.train_step_ms)),
        ("saved for backward, MiB", lines(mib)),
    ];
    let picture = growth(&title(case), &panels).map_err(|error| anyhow::anyhow!("{error}"))?;
    write(file, &picture)
}
