//! What an update costs: time, and memory that waits for the backward pass.

use std::time::Instant;

use burn::tensor::Device;
use burn_sab_tasks::{Curriculum, DataStream, Event, Purpose, TaskModel, TrainConfig, Trainer};
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::memory::heap_growth;
use crate::settings::Settings;
use crate::statistics::median;

/// Updates that are timed; one more goes before them, for caches and threads to warm up.
const TIMED: usize = 5;

/// The cost of an update at the span to be learnt.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Seconds from one update to the next: data, forward, backward, optimiser. The median.
    pub seconds: f64,
    /// Bytes that the forward pass leaves on the heap until backward; `None` where they are not there.
    pub bytes: Option<isize>,
}

/// Measures an update of the network of `settings` before its training.
pub fn measure(settings: &Settings, device: &Device) -> anyhow::Result<Cost> {
    let config = TrainConfig {
        curriculum: Curriculum::None,
        updates: TIMED + 1,
        evaluate_every: TIMED + 1,
        evaluate_sequences: 1,
        stop_at: None,
        ..settings.train.clone()
    };
    let on_heap = matches!(settings.backend, Backend::Flex | Backend::Ndarray);
    let bytes = if on_heap { Some(kept(&config, device)?) } else { None };
    let mut trainer = Trainer::new(config, device)?;
    let mut times = Vec::new();
    trainer.run(None, |event| {
        if matches!(event, Event::Update { .. } | Event::Skipped { .. }) {
            times.push(Instant::now());
        }
        Ok(())
    })?;
    let mut seconds: Vec<f64> =
        times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
    Ok(Cost { seconds: median(&mut seconds), bytes })
}

fn kept(config: &TrainConfig, device: &Device) -> anyhow::Result<isize> {
    let device = device.clone().autodiff();
    let model = TaskModel::new(config, &device)?;
    let mut stream = DataStream::new(config.seed, Purpose::Training);
    let examples = config.examples()?;
    let batch = examples.training_batch(&mut stream, config.span, config.batch, &device);
    // What earlier runs of this program left for the next would not be counted.
    burn_sab::op::release_memory();
    let (_loss, bytes) = heap_growth(|| {
        let answers = model.answer(&batch, config.task.answers(config.span));
        config.task.loss(answers, batch.target.clone())
    });
    Ok(bytes)
}
