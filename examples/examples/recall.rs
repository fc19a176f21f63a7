//! What a trained network retrieves, and how well it answers, with an index over its slots.
//!
//! ```sh
//! sab train induction --out run
//! cargo run --release --example recall -- run 1000 10000
//! ```
//!
//! The first argument is the folder of a run, the others are spans to test at. For each span and number of lists it
//! prints the share of the slots of exact selection that the index finds, and the accuracy of both. A network whose
//! memory is searched in part should answer as well as one that scores every slot.

use std::path::Path;

use burn::module::Module;
use burn_sab_examples::{device, end};
use burn_sab_tasks::{DataStream, Metrics, Purpose, TaskModel, Trainer, evaluate, recall};

/// Lists that a step searches.
const PROBES: [usize; 4] = [1, 4, 8, 16];
/// Steps at which retrieved slots are compared.
const SAMPLES: usize = 50;
/// Sequences that are answered, and of which retrieved slots are compared.
const SEQUENCES: usize = 32;
const COMPARED: usize = 4;
/// Of another stream than the tests of `sab train`.
const SEED: u64 = 77;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let spans = |text: String| text.parse().unwrap_or_else(|_| end(&format!("{text}: not a span")));
    let Some(folder) = arguments.next() else { end("name the folder of a run of sab train") };
    let spans: Vec<usize> = arguments.map(spans).collect();
    let device = device();
    let trainer = Trainer::resume(Path::new(&folder), &device)
        .unwrap_or_else(|error| end(&error.to_string()));
    let mut model = trainer.best_model().valid();
    let examples = trainer.examples();
    println!("{folder}");
    for span in if spans.is_empty() { vec![trainer.longest_trained()] } else { spans } {
        let answers = |model: &TaskModel| {
            let from = (SEED, Purpose::Test);
            told(&evaluate(model, examples, span, SEQUENCES, from, &device))
        };
        println!("span {span}: {} where every slot is scored", answers(&model));
        let mut stream = DataStream::of_span(SEED, Purpose::Test, span);
        let rows: Vec<usize> = (0..COMPARED).collect();
        let x = examples.held_out_batch(Purpose::Test, &mut stream, span, &rows, &device).input;
        let samples = SAMPLES.min(x.dims()[1]);
        for n_probe in PROBES {
            let Some(layer) = model.layer_mut() else { end("the run's model has no slots") };
            let found = recall(layer, &x, n_probe, samples);
            layer.settings.n_probe = Some(n_probe);
            let answers = answers(&model);
            println!("  n_probe {n_probe:2}: {:5.1} % of the slots, {answers}", 100.0 * found);
        }
        if let Some(layer) = model.layer_mut() {
            layer.settings.n_probe = None;
        }
    }
}

/// How well a network answers.
fn told(metrics: &Metrics) -> String {
    match metrics {
        Metrics::Classes { accuracy, .. } | Metrics::Text { accuracy, .. } => {
            format!("accuracy {:.1} %", 100.0 * accuracy)
        }
        Metrics::Adding { mse } => format!("mean squared error {mse:.4}"),
    }
}
