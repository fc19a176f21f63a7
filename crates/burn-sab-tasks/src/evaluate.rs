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
    let mut stream = DataStream::of_span(seed, purpose, span);
    let mut tally = Tally::default();
    let places = examples.places(purpose, span, sequences);
    let mut rest = places.as_slice();
    while let Some(longest) = rest.first() {
        let rows = rows_at_once(model, examples.steps(purpose, *longest, span));
        let (places, later) = rest.split_at(rows.min(rest.len()));
        let batch = examples.held_out_batch(purpose, &mut stream, span, places, device);
        tally.add(model.infer(&batch, task.answers(span)), batch.target);
        rest = later;
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
