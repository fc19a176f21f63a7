use burn::tensor::Device;

use crate::model::TaskModel;
use crate::stream::DataStream;
use crate::task::{Metrics, Tally, Task};

/// Rows that are evaluated at once. The slots of 32 sequences of 10,000 steps with 128 hidden units take
/// 164 MB; more rows would be no faster, since a CPU kernel is busy with far fewer.
const ROWS: usize = 32;

/// Tries `model` on `sequences` sequences of `task` with this span, drawn from `stream`.
///
/// `model` should be without autodiff ([`valid`](burn::module::Module::valid)), and `device` likewise.
pub fn evaluate(
    model: &TaskModel,
    task: &Task,
    span: usize,
    sequences: usize,
    mut stream: DataStream,
    device: &Device,
) -> Metrics {
    let mut tally = Tally::default();
    for first in (0..sequences).step_by(ROWS) {
        let batch = task.batch(&mut stream, span, ROWS.min(sequences - first), device);
        tally.add(model.infer(batch.input, task.answers()), batch.target);
    }
    tally.metrics(task)
}
