use burn_sab::SabLstmConfig;
use serde::{Deserialize, Serialize};

use crate::curriculum::Curriculum;
use crate::error::TrainError;
use crate::task::Task;

/// Which network is trained. All are the same layer, so that a comparison compares nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Sparse Attentive Backtracking.
    Sab,
    /// An LSTM trained by backpropagation through the whole sequence: no slots, no truncation.
    Lstm,
    /// An LSTM trained by truncated backpropagation through time: no slots, windows of `k_trunc`.
    Tbptt,
}

impl ModelKind {
    /// The name by which the model is called in run folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sab => "sab",
            Self::Lstm => "lstm",
            Self::Tbptt => "tbptt",
        }
    }
}

/// Everything that determines a training run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The task.
    pub task: Task,
    /// The span to be learnt: the delay of the copying task, the length of the adding task.
    pub span: usize,
    /// Which spans training uses on the way there.
    pub curriculum: Curriculum,
    /// Which network is trained.
    pub model: ModelKind,
    /// The layer. Its `d_input` has to be that of the task; the baselines switch its memory off.
    pub layer: SabLstmConfig,
    /// Sequences per update.
    pub batch: usize,
    /// The budget: updates, skipped ones included.
    pub updates: usize,
    /// Learning rate of Adam at the beginning.
    pub lr: f64,
    /// The learning rate falls geometrically to this share of itself over the budget; 1 keeps it.
    pub lr_decay: f64,
    /// Largest norm of the gradient of all weights together; larger ones are scaled down.
    pub clip_norm: f64,
    /// Seed of the weights and of the data.
    pub seed: u64,
    /// Updates between two evaluations on held-out sequences at the target span.
    pub evaluate_every: usize,
    /// Sequences per evaluation.
    pub evaluate_sequences: usize,
    /// Training ends when an evaluation reaches this accuracy (copying) or falls to this mean squared
    /// error (adding); `None` spends the whole budget.
    pub stop_at: Option<f64>,
    /// Updates between two checkpoints.
    pub checkpoint_every: usize,
}

/// Most bytes that one batch may take by the estimate in [`TrainConfig::validate`]. Larger requests are
/// almost surely slips of the keyboard, and a refused allocation would end the process without a word.
const MOST_BATCH_BYTES: u128 = 64 << 30;

impl TrainConfig {
    /// The settings that train well on `task`, SAB with the layer's own defaults.
    ///
    /// Batch, hidden size, learning rate, clipping and curriculum are those of the best trials on the
    /// copying task with a delay of 100.
    pub fn new(task: Task) -> Self {
        let (curriculum, stop_at) = match task {
            Task::Copying { .. } => (Curriculum::Grow, 0.99),
            Task::Adding => (Curriculum::None, 0.001),
        };
        Self {
            task,
            span: 100,
            curriculum,
            model: ModelKind::Sab,
            layer: SabLstmConfig::new(task.d_input(), 128, true),
            batch: 64,
            updates: 10_000,
            lr: 2e-3,
            lr_decay: 1.0,
            clip_norm: 1.0,
            seed: 1,
            evaluate_every: 100,
            evaluate_sequences: 64,
            stop_at: Some(stop_at),
            checkpoint_every: 500,
        }
    }

    /// The layer that the model uses.
    pub fn effective_layer(&self) -> SabLstmConfig {
        let layer = self.layer.clone();
        match self.model {
            ModelKind::Sab => layer,
            ModelKind::Lstm => layer.without_memory().full_backpropagation(),
            ModelKind::Tbptt => layer.without_memory(),
        }
    }

    /// The learning rate of an update (counted from 1).
    pub fn lr_at(&self, update: usize) -> f64 {
        self.lr * self.lr_decay.powf((update - 1) as f64 / self.updates as f64)
    }

    /// Checks every setting.
    ///
    /// # Errors
    ///
    /// The first setting that is out of its range, with the range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let refuse = |setting, value: &dyn ToString, rule| {
            Err(TrainError::Setting { setting, value: value.to_string(), rule })
        };
        if let Task::Copying { symbols, alphabet } = self.task {
            if symbols == 0 {
                return refuse("symbols", &symbols, "there has to be at least 1 to remember");
            }
            if !(2..=1 << 20).contains(&alphabet) {
                return refuse("alphabet", &alphabet, "it has to be from 2 to 1048576");
            }
        }
        if !(self.task.shortest_span()..=1 << 31).contains(&self.span) {
            return match self.task {
                Task::Copying { .. } => refuse("delay", &self.span, "it has to be at least 1"),
                Task::Adding => refuse("length", &self.span, "it has to be at least 2"),
            };
        }
        for (setting, value) in [
            ("batch", self.batch),
            ("updates", self.updates),
            ("evaluate-every", self.evaluate_every),
            ("evaluate-sequences", self.evaluate_sequences),
            ("checkpoint-every", self.checkpoint_every),
        ] {
            if value == 0 {
                return refuse(setting, &value, "it has to be at least 1");
            }
        }
        for (setting, value) in [("lr", self.lr), ("clip-norm", self.clip_norm)] {
            if !(value > 0.0 && value.is_finite()) {
                return refuse(setting, &value, "it has to be greater than 0 and finite");
            }
        }
        if !(self.lr_decay > 0.0 && self.lr_decay <= 1.0) {
            return refuse("lr-decay", &self.lr_decay, "it has to be greater than 0 and at most 1");
        }
        if let Some(level) = self.stop_at
            && !(level > 0.0 && level.is_finite())
        {
            return refuse("stop-at", &level, "it has to be greater than 0 and finite");
        }
        if self.layer.d_input != self.task.d_input() {
            return refuse("d_input of the layer", &self.layer.d_input, "the task has another");
        }
        if !self.layer.batch_first || self.layer.reverse {
            return refuse(
                "batch_first or reverse of the layer",
                &"changed",
                "batches are [batch, time, features], in order",
            );
        }
        self.layer.validate()?;
        // Input, gates, hidden states, summaries and slots, in f32: about 8 numbers per hidden unit.
        let per_step = (self.layer.d_input as u128) + 8 * self.layer.d_hidden as u128;
        let steps = self.task.steps(self.span) as u128;
        if 4 * per_step * steps * self.batch as u128 > MOST_BATCH_BYTES {
            return refuse(
                "batch",
                &self.batch,
                "with this many steps and hidden units an update would need more than 64 GiB",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_defaults_are_valid_and_survive_json() {
        for task in [Task::copying(), Task::Adding] {
            let config = TrainConfig::new(task);
            config.validate().unwrap();
            let json = serde_json::to_string(&config).unwrap();
            let back: TrainConfig = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), json);
        }
    }

    #[rstest]
    #[case("symbols", |c: &mut TrainConfig| c.task = Task::Copying { symbols: 0, alphabet: 8 })]
    #[case("alphabet", |c: &mut TrainConfig| c.task = Task::Copying { symbols: 10, alphabet: 1 })]
    #[case("delay", |c: &mut TrainConfig| c.span = 0)]
    #[case("length", |c: &mut TrainConfig| { c.task = Task::Adding; c.span = 1 })]
    #[case("batch", |c: &mut TrainConfig| c.batch = 0)]
    #[case("64 GiB", |c: &mut TrainConfig| c.batch = 1 << 40)]
    #[case("updates", |c: &mut TrainConfig| c.updates = 0)]
    #[case("lr is -1", |c: &mut TrainConfig| c.lr = -1.0)]
    #[case("lr is NaN", |c: &mut TrainConfig| c.lr = f64::NAN)]
    #[case("clip-norm is 0", |c: &mut TrainConfig| c.clip_norm = 0.0)]
    #[case("lr-decay is 1.5", |c: &mut TrainConfig| c.lr_decay = 1.5)]
    #[case("stop-at is -0.5", |c: &mut TrainConfig| c.stop_at = Some(-0.5))]
    fn a_wrong_setting_is_named(#[case] named: &str, #[case] change: fn(&mut TrainConfig)) {
        let mut config = TrainConfig::new(Task::copying());
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }

    #[test]
    fn a_wrong_setting_of_the_layer_is_named() {
        let mut config = TrainConfig::new(Task::copying());
        config.layer.k_trunc = 0;
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("k_trunc"), "{error}");
    }

    #[test]
    fn the_learning_rate_falls_to_its_share_over_the_budget() {
        let config =
            TrainConfig { lr: 0.1, lr_decay: 0.01, updates: 100, ..TrainConfig::new(Task::Adding) };
        assert_eq!(config.lr_at(1), 0.1);
        assert!((config.lr_at(51) - 0.01).abs() < 1e-12);
        assert!((config.lr_at(101) - 0.001).abs() < 1e-12);
    }
}
