//! Training over a stream without end: chunk by chunk, with a carried state and a memory of few slots.
//!
//! ```sh
//! cargo run --release --example endless_stream             # or: -- 20000
//! ```
//!
//! Three networks are trained on the same chunks:
//!
//! - one reads a stream without end, and a slot budget bounds its memory;
//! - one reads documents that are packed in the stream: each row starts anew where a document begins, in the middle of a
//!   chunk or not, and the end of a document bounds the memory;
//! - the negative control forgets its state after each chunk.
//!
//! Expect: the error of the forecast falls below that of the negative control in both. Resident memory stays where it was
//! after the first tenth, within 4 MiB, and the memory never holds more slots than its bound, however long the stream is.

use burn::tensor::Device;
use burn_sab_examples::forecast::{SEGMENT, Training};
use burn_sab_examples::resident::Resident;
use burn_sab_examples::{device, first_argument_or};

/// Enough for the comparison.
const CHUNKS: usize = 2_000;
/// Reports in all; the first tenth warms up.
const PARTS: usize = 10;
/// A slot budget of 16 is thinned when it reaches twice as many.
const OF_BUDGET: usize = 31;
/// A document stores its first state and that of every step.
const OF_DOCUMENT: usize = SEGMENT + 1;

fn main() {
    let chunks = first_argument_or(CHUNKS).max(PARTS);
    let device = device();
    let new = |make: fn(&Device) -> Training| {
        device.seed(1);
        make(&device)
    };
    let without_end = train("chunks", chunks, new(Training::new), true, OF_BUDGET);
    let documents = train("documents", chunks, new(Training::of_documents), true, OF_DOCUMENT);
    let forgotten = train("forgotten", chunks, new(Training::new), false, OF_BUDGET);
    println!("mean squared error over the last tenth");
    println!("  stream without end  {without_end:.4}");
    println!("  documents           {documents:.4}");
    println!("  state forgotten     {forgotten:.4}");
    if chunks >= CHUNKS {
        assert!(without_end.max(documents) < forgotten, "not what this example promises");
    }
}

/// Trains over so many chunks and returns the mean loss of the last tenth.
fn train(
    name: &'static str,
    chunks: usize,
    mut training: Training,
    carry: bool,
    most_slots: usize,
) -> f32 {
    let mut resident = Resident::new(name);
    let part = chunks / PARTS;
    let mut loss = 0.0;
    for report in 1..=PARTS {
        loss = 0.0;
        let mut slots = 0;
        for _ in 0..part {
            loss += training.update() / part as f32;
            slots = slots.max(training.state.as_ref().map_or(0, |state| state.num_slots()));
            if !carry {
                training.state = None;
            }
        }
        resident.report(report * part, &format!("error {loss:.4}, at most {slots} slots"));
        assert!(loss.is_finite() && slots <= most_slots, "{slots} slots");
    }
    resident.assert_flat("the first tenth");
    loss
}
