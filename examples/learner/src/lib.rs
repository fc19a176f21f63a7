//! `SabLstm` in Burn's `Learner`: a network that names spoken digits, on one device or on several.

pub mod digits;
pub mod network;

#[cfg(doctest)]
mod book;

use std::path::Path;

use burn::data::dataloader::DataLoaderBuilder;
use burn::data::dataset::InMemDataset;
use burn::grad_clipping::GradientClippingConfig;
use burn::optim::AdamConfig;
use burn::tensor::{Device, Int, Tensor};
use burn::train::metric::store::{Aggregate, Direction, Split};
use burn::train::metric::{AccuracyMetric, LossMetric};
use burn::train::{
    ExecutionStrategy, Learner, LearningResult, MetricEarlyStoppingStrategy, StoppingCondition,
    SupervisedTraining,
};

use crate::digits::{Batches, Recordings};
use crate::network::SpokenDigits;

/// How long to train, and how much at a time.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most passes over the data.
    pub epochs: usize,
    /// Recordings of an update, on each device.
    pub batch: usize,
    /// Hidden units.
    pub d_hidden: usize,
    /// Learning rate.
    pub learning_rate: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { epochs: 20, batch: 32, d_hidden: 64, learning_rate: 3e-3 }
    }
}

/// Trains a network on the devices of a strategy, which have autodiff, and returns it without autodiff. Checkpoints and
/// logs go into `folder`. Training ends early where the loss of the test's recordings has not fallen for five epochs.
///
/// With several devices each takes its share of the recordings. `MultiDevice` adds up their gradients: the learning rate
/// is divided by their number, so that the step is that of the mean.
pub fn train(
    recordings: Recordings,
    settings: Settings,
    folder: &Path,
    strategy: ExecutionStrategy,
) -> LearningResult<SpokenDigits> {
    let main = strategy.main_device().clone();
    let loader = |recordings, seed: Option<u64>| {
        let loader =
            DataLoaderBuilder::new(Batches).batch_size(settings.batch).set_device(main.clone());
        let loader = seed.into_iter().fold(loader, |loader, seed| loader.shuffle(seed));
        loader.build(InMemDataset::new(recordings))
    };
    let patience = MetricEarlyStoppingStrategy::new(
        &LossMetric::new(),
        Aggregate::Mean,
        Direction::Lowest,
        Split::Valid,
        StoppingCondition::NoImprovementSince { n_epochs: 5 },
    );
    main.seed(1);
    let network = SpokenDigits::new(settings.d_hidden, &main);
    let clipping = GradientClippingConfig::Norm(1.0);
    let optimizer = AdamConfig::new().with_grad_clipping(Some(clipping)).init();
    let summed = match &strategy {
        ExecutionStrategy::MultiDevice(devices, _) => devices.len(),
        _ => 1,
    };
    let rate = settings.learning_rate / summed as f64;
    SupervisedTraining::new(
        folder,
        loader(recordings.train, Some(1)),
        loader(recordings.test, None),
    )
    .metrics((AccuracyMetric::new(), LossMetric::new()))
    .with_default_checkpointers()
    .early_stopping(patience)
    .num_epochs(settings.epochs)
    .with_training_strategy(strategy.into())
    .summary()
    .launch(Learner::new(network, optimizer, rate))
}

/// Training on every CUDA device of this machine by distributed data parallelism (DDP): each has a copy of the network
/// and its share of the recordings, and NCCL averages the gradients between them.
///
/// # Errors
///
/// If there is no CUDA device.
#[cfg(feature = "cuda")]
pub fn ddp() -> Result<ExecutionStrategy, String> {
    use burn::tensor::DeviceType;
    use burn::tensor::distributed::{DistributedConfig, ReduceOperation};

    let devices = Device::enumerate(DeviceType::Cuda).autodiff().into_vec();
    if devices.is_empty() {
        return Err("there is no CUDA device; leave --ddp out to train on another".to_owned());
    }
    let config = DistributedConfig { all_reduce_op: ReduceOperation::Mean };
    Ok(ExecutionStrategy::ddp(devices, config))
}

/// The share of recordings whose digit is named, 0 to 1.
pub fn accuracy(
    network: &SpokenDigits,
    recordings: Vec<digits::Recording>,
    device: &Device,
) -> f64 {
    use burn::data::dataloader::batcher::Batcher;

    let count = recordings.len();
    let mut right = 0;
    for part in recordings.chunks(64) {
        let digits::Batch { features, last, digits } = Batches.batch(part.to_vec(), device);
        let answers: Tensor<1, Int> = network.forward(features, last).argmax(1).squeeze_dim(1);
        right += answers.equal(digits).int().sum().into_scalar::<i64>();
    }
    right as f64 / count.max(1) as f64
}
