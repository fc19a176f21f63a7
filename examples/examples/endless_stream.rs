//! Training over a stream without end: chunk by chunk, with a carried state and a memory of few slots.
//!
//! ```sh
//! cargo run --release --example endless_stream             # or: -- 20000
//! ```
//!
//! Expect: the error of the forecast falls below that of the negative control, which is trained on the same chunks and
//! forgets its state after each. Resident memory stays where it was after the first tenth, within
//! 4 MiB, and the memory never holds 32 slots, twice its budget, however long the stream is.

use burn_sab_examples::forecast::Training;
use burn_sab_examples::resident::Resident;
use burn_sab_examples::{device, first_argument_or};

/// Enough for the comparison.
const CHUNKS: usize = 2_000;
/// Reports in all; the first tenth warms up.
const PARTS: usize = 10;

fn main() {
    let chunks = first_argument_or(CHUNKS).max(PARTS);
    let device = device();
    let carried = train("chunks", chunks, true, &device);
    let forgotten = train("without", chunks, false, &device);
    println!("mean squared error over the last tenth");
    println!("  state carried    {carried:.4}");
    println!("  state forgotten  {forgotten:.4}");
    if chunks >= CHUNKS {
        assert!(carried < forgotten, "not what this example promises");
    }
}

/// Trains over so many chunks and returns the mean loss of the last tenth.
fn train(name: &'static str, chunks: usize, carry: bool, device: &burn::tensor::Device) -> f32 {
    device.seed(1);
    let mut training = Training::new(device);
    let mut resident = Resident::new(name);
    let part = chunks / PARTS;
    let mut loss = 0.0;
    for report in 1..=PARTS {
        loss = 0.0;
        let mut most_slots = 0;
        for _ in 0..part {
            loss += training.update() / part as f32;
            most_slots = most_slots.max(training.state.as_ref().map_or(0, |s| s.num_slots()));
            if !carry {
                training.state = None;
            }
        }
        resident.report(report * part, &format!("error {loss:.4}, at most {most_slots} slots"));
        assert!(loss.is_finite() && most_slots < 32, "{most_slots} slots");
    }
    resident.assert_flat("the first tenth");
    loss
}
