//! The training loop.
//!
//! It is not Burn's `Learner`, whose runs resume by epochs and do not restore the order of the data:
//! here a run that is interrupted and resumed gives the numbers of one that was not.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::module::Module;
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};

use crate::average;
use crate::checkpoint::{self, Checkpoint, Networks, SavedState};
use crate::clip::{clip_by_global_norm, not_finite};
use crate::config::TrainConfig;
use crate::curriculum::Curriculum;
use crate::data::Examples;
use crate::error::{Damage, TrainError};
use crate::evaluate::evaluate;
use crate::event::{Event, EventSum};
use crate::model::TaskModel;
use crate::progress::{Best, Ending, Progress};
use crate::stream::Purpose;
use crate::task::Metrics;

/// After this many skipped updates in a row the run is given up. A single bad batch is survived; the
/// weights do not change while updates are skipped, so a hundred other batches say it is them.
const MOST_SKIPPED_IN_A_ROW: usize = 100;

/// Adam's epsilon as in the paper on Adam and in PyTorch. Burn's default, 1e-5, slows down weights with
/// small gradients.
const ADAM_EPSILON: f32 = 1e-8;

/// A training run: the network, its optimiser, and how far they are.
#[derive(Debug)]
pub struct Trainer {
    config: TrainConfig,
    examples: Arc<Examples>,
    /// Without autodiff.
    device: Device,
    model: TaskModel,
    /// The average of the weights, without autodiff; `None` if [`TrainConfig::weight_average`] is 0.
    average: Option<TaskModel>,
    /// The weights of the best evaluation, without autodiff.
    best_model: Option<TaskModel>,
    optimizer: Optimizer,
    progress: Progress,
    /// Checkpoints that were passed over.
    damage: Vec<Damage>,
    stop: Option<Arc<AtomicBool>>,
}

/// Burn's optimiser has no `Debug`.
struct Optimizer(ModuleOptimizer);

impl std::fmt::Debug for Optimizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Adam")
    }
}

impl Trainer {
    /// A new run on `device`.
    ///
    /// # Errors
    ///
    /// If a setting is out of its range, or if the task's files cannot be used.
    pub fn new(config: TrainConfig, device: &Device) -> Result<Self, TrainError> {
        config.validate()?;
        let examples = config.examples()?;
        let progress = Progress::new(&config);
        let model = TaskModel::new(&config, &device.clone().autodiff())?;
        Ok(Self {
            average: (config.weight_average > 0.0).then(|| model.valid()),
            model,
            best_model: None,
            optimizer: Optimizer(adam()),
            device: device.clone(),
            examples: Arc::new(examples),
            config,
            progress,
            damage: Vec::new(),
            stop: None,
        })
    }

    /// The run whose latest intact checkpoint is in `folder`, ready to go on. [`damage`](Self::damage) has what is
    /// wrong with later ones.
    ///
    /// Burn restores an optimiser's state on [`Device::default`] before moving it to `device`, so that
    /// default has to be usable.
    ///
    /// # Errors
    ///
    /// If there is no checkpoint, or if none is intact.
    pub fn resume(folder: &Path, device: &Device) -> Result<Self, TrainError> {
        let (trainer, damage) =
            checkpoint::latest(folder, |found| Self::from_checkpoint(found, device))?;
        Ok(Self { damage, ..trainer })
    }

    fn from_checkpoint(mut checkpoint: Checkpoint, device: &Device) -> Result<Self, TrainError> {
        let config = checkpoint.state.config.clone();
        config.validate()?;
        let examples = config.examples()?;
        let fresh = TaskModel::new(&config, &device.clone().autodiff())?;
        Ok(Self {
            average: checkpoint.load_average(fresh.valid())?,
            best_model: checkpoint.load_best(fresh.valid())?,
            model: checkpoint.load_model(fresh)?,
            optimizer: Optimizer(checkpoint.load_optimizer(adam())?),
            device: device.clone(),
            examples: Arc::new(examples),
            config,
            progress: checkpoint.state.progress,
            damage: Vec::new(),
            stop: None,
        })
    }

    /// Damaged checkpoints that [`resume`](Self::resume) passed over, the latest first. The run goes on from the one
    /// before them, and makes their updates again.
    pub fn damage(&self) -> &[Damage] {
        &self.damage
    }

    /// Length and CRC-32 of all events so far as JSON lines; `None` if an earlier version began the run.
    pub fn events(&self) -> Option<EventSum> {
        self.progress.events
    }

    /// Has [`run`](Self::run) stop once `flag` is true: after the current update, with a checkpoint if there is a
    /// folder, and with [`TrainError::Stopped`]. A run that is resumed goes on as if it had not been stopped.
    pub fn stop_when(&mut self, flag: Arc<AtomicBool>) {
        self.stop = Some(flag);
    }

    /// Whether `folder` has a checkpoint that [`resume`](Self::resume) would look at.
    pub fn can_resume(folder: &Path) -> bool {
        checkpoint::exists(folder)
    }

    /// Changes the budget and the level at which to stop, to go on with a run that has ended.
    pub fn extend(&mut self, updates: usize, stop_at: Option<f64>) {
        if (updates, stop_at) != (self.config.updates, self.config.stop_at) {
            self.config.updates = updates;
            self.config.stop_at = stop_at;
            self.progress.ending = None;
        }
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// The sequences of the task.
    pub fn examples(&self) -> &Arc<Examples> {
        &self.examples
    }

    /// Updates so far.
    pub fn update(&self) -> usize {
        self.progress.update
    }

    /// Updates so far that were skipped because something was not finite.
    pub fn skipped(&self) -> usize {
        self.progress.skipped
    }

    /// The longest span of the curriculum so far: training batches reach up to it.
    pub fn longest(&self) -> usize {
        self.progress.longest
    }

    /// The longest span of the training batches so far.
    pub fn longest_trained(&self) -> usize {
        self.progress.longest_trained
    }

    /// Seconds spent in [`run`](Self::run), over all resumptions.
    pub fn seconds(&self) -> f64 {
        self.progress.seconds
    }

    /// How the run ended, if it has.
    pub fn ending(&self) -> Option<Ending> {
        self.progress.ending
    }

    /// The best evaluation so far.
    pub fn best(&self) -> Option<Best> {
        self.progress.best
    }

    /// The network of the best evaluation so far, or else the network as it is; without autodiff.
    pub fn best_model(&self) -> TaskModel {
        self.best_model.clone().unwrap_or_else(|| self.network())
    }

    /// The network as it is: the average of the weights where one is kept. Without autodiff.
    fn network(&self) -> TaskModel {
        self.average.clone().unwrap_or_else(|| self.model.valid())
    }

    /// Trains until the run ends, telling `observe` what happens.
    ///
    /// With a folder, checkpoints are kept there: the latest one and the one before it, each with the best weights so
    /// far in it.
    ///
    /// # Errors
    ///
    /// If `observe` fails, if a checkpoint cannot be written, if the training diverges, or if it is stopped. The last
    /// checkpoint is intact in all these cases.
    pub fn run(
        &mut self,
        checkpoints: Option<&Path>,
        mut observe: impl FnMut(&Event) -> io::Result<()>,
    ) -> Result<Ending, TrainError> {
        let started = Instant::now();
        let earlier = self.progress.seconds;
        loop {
            if let Some(ending) = self.progress.ending {
                return Ok(ending);
            }
            if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                if let Some(folder) = checkpoints {
                    self.save(folder)?;
                }
                return Err(TrainError::Stopped { update: self.progress.update });
            }
            if self.progress.update >= self.config.updates {
                self.progress.ending = Some(Ending::BudgetSpent);
            } else {
                self.next_update(&mut observe)?;
            }
            self.progress.seconds = earlier + started.elapsed().as_secs_f64();
            let due = self.progress.update.is_multiple_of(self.config.checkpoint_every);
            if let Some(folder) = checkpoints
                && (due || self.progress.ending.is_some())
            {
                self.save(folder)?;
            }
        }
    }

    /// One update, and the looks and evaluations that are due after it.
    fn next_update(
        &mut self,
        observe: &mut impl FnMut(&Event) -> io::Result<()>,
    ) -> Result<(), TrainError> {
        self.progress.update += 1;
        let update = self.progress.update;
        let event = self.descend()?;
        self.tell(&event, observe)?;
        let growing = self.progress.longest < self.config.span;
        if growing
            && update.is_multiple_of(Curriculum::LOOK_EVERY)
            && let Some(event) = self.look()
        {
            self.tell(&event, observe)?;
        }
        let last = update == self.config.updates;
        if last || update.is_multiple_of(self.config.evaluate_every) {
            let event = self.evaluate();
            self.tell(&event, observe)?;
        }
        if last && self.progress.ending.is_none() {
            self.progress.ending = Some(Ending::BudgetSpent);
        }
        Ok(())
    }

    /// Passes an event on.
    fn tell(
        &mut self,
        event: &Event,
        observe: &mut impl FnMut(&Event) -> io::Result<()>,
    ) -> Result<(), TrainError> {
        if let Some(sum) = &mut self.progress.events {
            sum.add(&event.to_line().map_err(TrainError::Observer)?);
        }
        observe(event).map_err(TrainError::Observer)
    }

    /// Draws a batch and moves the weights along its gradient.
    fn descend(&mut self) -> Result<Event, TrainError> {
        let Self { config, progress, examples, .. } = self;
        let update = progress.update;
        let task = config.task;
        let span = config.curriculum.draw(&mut progress.stream, &task, progress.longest);
        progress.longest_trained = progress.longest_trained.max(span);
        let device = self.device.clone().autodiff();
        let mut batch = examples.training_batch(&mut progress.stream, span, config.batch, &device);
        if config.input_noise > 0.0 {
            let shape = batch.input.shape();
            let noise = (0..shape.num_elements()).map(|_| progress.stream.normal()).collect();
            let noise = Tensor::from_data(TensorData::new(noise, shape), &device);
            batch.input = batch.input + noise * config.input_noise;
        }
        let answers = self.model.answer(&batch, task.answers(span));
        let loss_tensor = task.loss(answers, batch.target);
        let mut grads = GradientsParams::from_grads(loss_tensor.backward(), &self.model);
        let gradient_norm = clip_by_global_norm(&mut grads, &self.model, config.clip_norm);
        // Read after the backward pass is queued: a GPU would wait for the answer in between.
        let loss = loss_tensor.into_scalar::<f64>();
        if !loss.is_finite() {
            return self.skip(span, "loss".to_owned());
        }
        if !gradient_norm.is_finite() {
            let what = match not_finite(&grads, &self.model) {
                Some(path) => format!("gradient of {path}"),
                None => "norm of the gradient".to_owned(),
            };
            return self.skip(span, what);
        }
        let lr = config.lr_at(update);
        self.model = self.optimizer.0.step(lr, self.model.clone(), grads);
        progress.skipped_in_a_row = 0;
        self.average = self
            .average
            .take()
            .map(|average| average::follow(average, &self.model, config.weight_average, update));
        Ok(Event::Update { update, span, loss, gradient_norm, lr })
    }

    fn skip(&mut self, span: usize, what: String) -> Result<Event, TrainError> {
        let progress = &mut self.progress;
        progress.skipped += 1;
        progress.skipped_in_a_row += 1;
        if progress.skipped_in_a_row == MOST_SKIPPED_IN_A_ROW {
            return Err(TrainError::Diverged {
                update: progress.update,
                skipped: MOST_SKIPPED_IN_A_ROW,
                what,
            });
        }
        Ok(Event::Skipped { update: progress.update, span, what })
    }

    /// Looks whether the longest span is mastered, and grows it if so.
    fn look(&mut self) -> Option<Event> {
        let from = self.progress.longest;
        // Not of the average, which lags behind.
        let model = self.model.valid();
        let metrics = self.try_out(&model, from, Curriculum::LOOK_SEQUENCES, Purpose::Curriculum);
        Curriculum::mastered(&metrics).then(|| {
            let to = Curriculum::grown(from, self.config.span);
            self.progress.longest = to;
            Event::Grown { update: self.progress.update, metrics, from, to }
        })
    }

    /// Tries the network at the target span, and keeps it if it is the best so far. One whose metrics are not finite is
    /// never the best.
    fn evaluate(&mut self) -> Event {
        let span = self.config.span;
        let network = self.network();
        let sequences = self.config.evaluate_sequences;
        let metrics = self.try_out(&network, span, sequences, Purpose::Validation);
        let update = self.progress.update;
        // Whatever is compared with NaN is not better, so that NaN would stay the best.
        let best = metrics.is_finite()
            && self.progress.best.is_none_or(|best| metrics.is_better_than(&best.metrics));
        if best {
            self.progress.best = Some(Best { update, metrics });
            self.best_model = Some(network);
        }
        if self.config.stop_at.is_some_and(|level| metrics.reaches(level)) {
            self.progress.ending = Some(Ending::Reached);
        }
        Event::Evaluation { update, span, metrics, best, longest: self.progress.longest }
    }

    fn try_out(
        &self,
        network: &TaskModel,
        span: usize,
        sequences: usize,
        purpose: Purpose,
    ) -> Metrics {
        let data = (self.config.seed, purpose);
        evaluate(network, &self.examples, span, sequences, data, &self.device)
    }

    fn save(&self, folder: &Path) -> Result<(), TrainError> {
        let state = SavedState {
            config: self.config.clone(),
            progress: self.progress.clone(),
            has_manifest: true,
        };
        let networks = Networks {
            model: &self.model,
            average: self.average.as_ref(),
            best: self.best_model.as_ref(),
        };
        checkpoint::save(folder, &state, networks, &self.optimizer.0)
    }
}

fn adam() -> ModuleOptimizer {
    AdamConfig::new().with_epsilon(ADAM_EPSILON).init()
}
