use burn::tensor::Device;

use crate::data::Examples;
use crate::model::TaskModel;
use crate::stream::{DataStream, Purpose};
use crate::task::{Metrics, Tally};

/// Rows that are evaluated at once, and fewer where they have more steps than this in all: the slots of 32
/// sequences of 10,000 steps with 128 hidden units take 164 MB. More rows would be no faster, since a CPU
/// kernel is busy with far fewer.
const ROWS: usize = 32;
const STEPS: usize = 32 * 10_000;

/// The same for pairs of steps, where a network looks at all of them at once: the attention of 32 sequences
/// of 1,000 steps with four heads takes 512 MB.
const PAIRS: usize = 32 * 1_000_000;

/// Tries `model` on `sequences` held-out sequences with this span, or on as many as there are.
///
/// `model` should be without autodiff ([`valid`](burn::module::Module::valid)), and `device` likewise.
pub fn evaluate(
    model: &TaskModel,
    examples: &Examples,
    span: usize,
    sequences: usize,
    (seed, purpose): (u64, Purpose),
    device: &Device,
) -> Metrics {
    let task = examples.task();
    let sequences = examples.available(purpose, span).map_or(sequences, |all| all.min(sequences));
    let mut stream = DataStream::of_span(seed, purpose, span);
    let mut tally = Tally::default();
    let rows = rows_at_once(model, task.steps(span));
    for first in (0..sequences).step_by(rows) {
        let places = first..sequences.min(first + rows);
        let batch = examples.held_out_batch(purpose, &mut stream, span, places, device);
        tally.add(model.infer(batch.input, task.answers(span)), batch.target);
    }
    tally.metrics(&task)
}

fn rows_at_once(model: &TaskModel, steps: usize) -> usize {
    let rows = match model.looks_at_all_pairs() {
        true => PAIRS / steps.saturating_mul(steps),
        false => STEPS / steps,
    };
    rows.clamp(1, ROWS)
}
