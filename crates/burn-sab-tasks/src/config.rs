use std::path::PathBuf;

use burn_sab::{SabLstmConfig, SabSettings, Sparsifier};
use serde::{Deserialize, Serialize};

use crate::curriculum::Curriculum;
use crate::data::{DataError, Examples};
use crate::error::TrainError;
use crate::stream::Purpose;
use crate::task::Task;
use crate::transformer::HEADS;

/// Which network is trained. SAB, the LSTMs and the one with self-attention are the same layer, so that a
/// comparison of these compares nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelKind {
    /// Sparse Attentive Backtracking.
    Sab,
    /// An LSTM trained by backpropagation through the whole sequence: no slots, no truncation.
    Lstm,
    /// An LSTM trained by truncated backpropagation through time: no slots, windows of `k_trunc`.
    Tbptt,
    /// An LSTM with full self-attention, trained by backpropagation through the whole sequence: SAB that
    /// stores every state, retrieves all of them, and truncates nothing. Scores are those of the layer,
    /// weights their softmax over all states.
    Attention,
    /// A GRU trained by backpropagation through the whole sequence.
    Gru,
    /// Three layers of minGRU (Feng et al. 2024), trained by backpropagation through the whole sequence.
    MinGru,
    /// A small causal Transformer of the same hidden size.
    Transformer,
}

impl ModelKind {
    /// The name by which the model is called in run folders.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sab => "sab",
            Self::Lstm => "lstm",
            Self::Tbptt => "tbptt",
            Self::Attention => "attention",
            Self::Gru => "gru",
            Self::MinGru => "min-gru",
            Self::Transformer => "transformer",
        }
    }

    /// Whether it reads summaries of what it retrieved.
    pub fn retrieves(self) -> bool {
        matches!(self, Self::Sab | Self::Attention)
    }
}

/// Everything that determines a training run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainConfig {
    /// The task.
    pub task: Task,
    /// Where the task's files are, if it needs any: a folder, or a text file.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// The span to be learnt: the delay of the copying task, the length of a sequence in the others.
    pub span: usize,
    /// Which spans training uses on the way there.
    pub curriculum: Curriculum,
    /// Which network is trained.
    pub model: ModelKind,
    /// The layer. Its `d_input` has to be that of the task; the baselines switch its memory off. Of a file
    /// from before a setting was there, that setting has its default.
    pub layer: SabLstmConfig,
    /// Sequences per update.
    pub batch: usize,
    /// The budget: updates, skipped ones included.
    pub updates: usize,
    /// Learning rate of Adam at the beginning.
    pub lr: f64,
    /// The learning rate falls geometrically to this share of itself over the budget; 1 keeps it.
    pub lr_decay: f64,
    /// Standard deviation of Gaussian noise on the inputs of training sequences, which makes what a network keeps robust
    /// (Bishop 1995); 0 is none.
    #[serde(default)]
    pub input_noise: f64,
    /// Decay of an exponential moving average of the weights. Evaluations and the best network are of the average, which
    /// is more exact than weights that the last updates moved (Polyak and Juditsky 1992); 0 is none.
    #[serde(default)]
    pub weight_average: f64,
    /// Largest norm of the gradient of all weights together; larger ones are scaled down.
    pub clip_norm: f64,
    /// Seed of the weights and of the data.
    pub seed: u64,
    /// Updates between two evaluations on held-out sequences at the target span.
    pub evaluate_every: usize,
    /// Sequences per evaluation.
    pub evaluate_sequences: usize,
    /// Training ends when an evaluation reaches this accuracy (symbols and classes), or falls to this mean
    /// squared error (adding) or these bits per character (text); `None` spends the whole budget.
    pub stop_at: Option<f64>,
    /// Updates between two checkpoints.
    pub checkpoint_every: usize,
}

/// Sizes of a task that can be 1; of the others there have to be two to choose from.
const LEAST_ONE: [&str; 6] = ["symbols", "distractors", "pairs", "queries", "keys", "frame"];

/// Samples of a recording that are read: more than the longest of the Free Spoken Digit Dataset has, 18,262.
const LONGEST_RECORDING: usize = 20_000;

/// More slots than any sequence has; a round number in a configuration file.
pub(crate) const ALL: usize = u32::MAX as usize;

/// Steps that are handed to the layer at once when gradients are not needed. What the layer puts out
/// for a chunk is dropped before the next one, so a test at a delay of 10,000 needs little more memory
/// than its slots; at 1,000 steps the cost of carrying those over is far below that of the steps.
pub(crate) const CHUNK: usize = 1000;

/// Most bytes that an update or a test may take by the estimates below. Larger requests are almost surely slips of
/// the keyboard, and a refused allocation would end the process without a word.
const MOST_BYTES: u128 = 64 << 30;

impl TrainConfig {
    /// The settings that train well on `task`, SAB with the layer's own defaults.
    ///
    /// Batch, hidden size, learning rate, clipping and curriculum are those of the best trials on the
    /// copying task with a delay of 100.
    pub fn new(task: Task) -> Self {
        let (curriculum, stop_at) = match task {
            Task::Adding => (Curriculum::None, Some(0.001)),
            _ if task.needs_files() => (Curriculum::None, None),
            _ => (Curriculum::Grow, Some(0.99)),
        };
        // A few hundred images tell 90 % from 91 %; a window of text has as many answers as steps.
        let (span, evaluate_sequences) = match task {
            Task::PixelMnist { .. } | Task::PixelCifar => (task.shortest_span(), 500),
            Task::Induction { .. } | Task::Recall { .. } => (256, 64),
            // All that are held out.
            Task::Digits { .. } => (LONGEST_RECORDING, 300),
            Task::Appliances => (task.shortest_span(), 20),
            _ => (100, 64),
        };
        Self {
            task,
            data: None,
            span,
            curriculum,
            model: ModelKind::Sab,
            layer: SabLstmConfig::new(task.d_input(), 128, true),
            batch: 64,
            updates: 10_000,
            lr: 5e-3,
            lr_decay: 1.0,
            input_noise: 0.0,
            weight_average: 0.0,
            clip_norm: 1.0,
            seed: 1,
            evaluate_every: 100,
            evaluate_sequences,
            stop_at,
            checkpoint_every: 500,
        }
    }

    /// The sequences of the task, read from its files if it has any.
    ///
    /// # Errors
    ///
    /// If the files cannot be used, or have no sequence of this span for training or for choosing the best
    /// network.
    pub fn examples(&self) -> Result<Examples, TrainError> {
        let examples = Examples::load(self.task, self.data.as_deref())?;
        for (purpose, name) in
            [(Purpose::Training, "training"), (Purpose::Validation, "validation")]
        {
            if examples.available(purpose, self.span) == Some(0) {
                let what = format!("there is no sequence of {} steps for {name}", self.span);
                let path = self.data.clone().unwrap_or_default();
                return Err(DataError::Wrong { path, what }.into());
            }
        }
        Ok(examples)
    }

    /// The layer that the model uses.
    pub fn effective_layer(&self) -> SabLstmConfig {
        let layer = self.layer.clone();
        match self.model {
            ModelKind::Sab => layer,
            ModelKind::Lstm | ModelKind::Gru | ModelKind::MinGru | ModelKind::Transformer => {
                layer.without_memory().full_backpropagation()
            }
            ModelKind::Tbptt => layer.without_memory(),
            ModelKind::Attention => layer
                .with_k_top(ALL)
                .with_k_att(1)
                .with_sparsifier(Sparsifier::Softmax)
                .with_max_hops(None)
                .with_slot_budget(None)
                .with_n_probe(None)
                .full_backpropagation(),
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
        let mut task = self.task;
        for (setting, size) in task.sizes() {
            let least = if LEAST_ONE.contains(&setting) { 1 } else { 2 };
            if !(least..=1 << 20).contains(size) {
                let rule = match least {
                    1 => "it has to be from 1 to 1048576",
                    _ => "it has to be from 2 to 1048576",
                };
                return refuse(setting, size, rule);
            }
        }
        if let Task::Recall { pairs, queries, keys, .. } = self.task {
            if keys < pairs {
                return refuse("keys", &keys, "it has to be at least pairs: all keys differ");
            }
            if queries > pairs {
                return refuse(
                    "queries",
                    &queries,
                    "it has to be at most pairs: all queries differ",
                );
            }
        }
        let one_length = || {
            let rule = match self.task {
                Task::Appliances => "a series of appliances has 1460 steps",
                _ => "an image has as many steps as pixels",
            };
            refuse("length", &self.span, rule)
        };
        if !(self.task.shortest_span()..=1 << 31).contains(&self.span) {
            let rule = match self.task {
                task if task.has_one_span() => return one_length(),
                Task::Recall { .. } => "it has to be at least 2 * pairs + queries",
                Task::Induction { .. } => "it has to be at least 3",
                Task::Adding => "it has to be at least 2",
                _ => "it has to be at least 1",
            };
            return refuse(self.task.span_name(), &self.span, rule);
        }
        if self.task.has_one_span() && self.span != self.task.shortest_span() {
            return one_length();
        }
        if self.curriculum == Curriculum::Grow && self.task.needs_files() {
            return refuse("curriculum", &"grow", "sequences from files do not grow");
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
        if !(self.input_noise >= 0.0 && self.input_noise.is_finite()) {
            return refuse("input-noise", &self.input_noise, "it has to be at least 0 and finite");
        }
        if !(0.0..1.0).contains(&self.weight_average) {
            let rule = "it has to be at least 0 and less than 1";
            return refuse("weight-average", &self.weight_average, rule);
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
        if self.model == ModelKind::Transformer && !self.layer.d_hidden.is_multiple_of(HEADS) {
            return refuse(
                "hidden",
                &self.layer.d_hidden,
                "a Transformer of four heads needs a multiple of 4",
            );
        }
        fits(
            "an update",
            self.training_bytes(),
            "take a smaller batch, fewer steps, fewer hidden units, or a smaller max_hops",
        )
    }

    /// Bytes that an update takes at least, in f32.
    fn training_bytes(&self) -> u128 {
        let layer = self.effective_layer();
        let SabSettings { k_top, k_att, max_hops, .. } = layer.settings;
        let [steps, rows] = [self.task.steps(self.span), self.batch].map(|n| n as u128);
        // Inputs, gates, hidden states, summaries and slots: about 8 elements per hidden unit and step.
        let linear = 4 * (layer.d_input as u128 + 8 * layer.d_hidden as u128) * steps;
        let slots = steps / k_att as u128 + 1;
        let pairs = match self.model {
            // Per layer and head: scores, weights, and a gradient of each.
            ModelKind::Transformer => 2 * HEADS as u128 * 4 * 4 * steps * steps,
            // Per step and retrieved slot: its number and its weight. Per lane and slot: a place.
            _ => 8 * steps * slots.min(k_top as u128) + 4 * lanes(max_hops, steps) * slots,
        };
        rows.saturating_mul(linear.saturating_add(pairs))
    }

    /// Checks that a test at `span` fits into memory, one sequence at a time.
    ///
    /// # Errors
    ///
    /// If the span is shorter than the task allows, or takes more than 64 GiB.
    pub fn check_test_span(&self, span: usize) -> Result<(), TrainError> {
        if span < self.task.shortest_span() || span > 1 << 31 {
            let least = self.task.shortest_span();
            return Err(TrainError::TestSpan { span, least });
        }
        let layer = self.effective_layer();
        let SabSettings { k_top, k_att, slot_budget, .. } = layer.settings;
        let steps = self.task.steps(span) as u128;
        let slots = steps / k_att as u128 + 1;
        let slots = slot_budget.map_or(slots, |budget| slots.min(2 * budget as u128));
        let attention = layer.score.d_attention().unwrap_or(1) as u128;
        let input = 4 * layer.d_input as u128 * steps;
        let memory = 4 * slots * (layer.d_hidden as u128 + attention);
        let pairs = match self.model {
            ModelKind::Transformer => HEADS as u128 * 2 * 4 * steps * steps,
            // A test goes in chunks: only one chunk's retrievals are there at a time.
            _ => 8 * steps.min(CHUNK as u128) * slots.min(k_top as u128),
        };
        fits(
            "a test of one sequence",
            input.saturating_add(memory).saturating_add(pairs),
            "test at shorter spans, or set slot_budget or a larger k_att",
        )
    }
}

/// Gradients that the backward pass of `steps` steps keeps side by side.
fn lanes(max_hops: Option<usize>, steps: u128) -> u128 {
    max_hops.map_or(1, |hops| (hops as u128 + 1).min(steps))
}

/// Refuses `what` where it takes more than [`MOST_BYTES`].
fn fits(what: &'static str, bytes: u128, remedy: &'static str) -> Result<(), TrainError> {
    if bytes > MOST_BYTES {
        return Err(TrainError::Memory { what, gib: gib(bytes), most: gib(MOST_BYTES), remedy });
    }
    Ok(())
}

fn gib(bytes: u128) -> u128 {
    bytes >> 30
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn the_defaults_are_valid_and_survive_json() {
        let images = Task::PixelMnist { permuted: true };
        for task in [
            Task::copying(),
            Task::selective_copying(),
            Task::marked_symbol(),
            Task::induction(),
            Task::recall(),
            Task::Adding,
            images,
            Task::PixelCifar,
            Task::Text { characters: 3 },
            Task::Digits { frame: 1 },
            Task::Appliances,
        ] {
            let config = TrainConfig::new(task);
            config.validate().unwrap();
            let json = serde_json::to_string(&config).unwrap();
            let back: TrainConfig = serde_json::from_str(&json).unwrap();
            assert_eq!(serde_json::to_string(&back).unwrap(), json);
        }
    }

    #[test]
    fn a_setting_that_a_file_does_not_know_has_its_default() {
        let config = TrainConfig::new(Task::Adding);
        let mut json = serde_json::to_value(&config).unwrap();
        json["layer"].as_object_mut().unwrap().remove("summary_scale");
        json["layer"]["k_top"] = 3.into();
        let back: TrainConfig = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(
            (back.layer.settings.summary_scale, back.layer.settings.k_top),
            (config.layer.settings.summary_scale, 3)
        );
        json["layer"]["k_top"] = "many".into();
        assert!(serde_json::from_value::<TrainConfig>(json).is_err());
    }

    fn recall(pairs: usize, queries: usize, keys: usize) -> Task {
        Task::Recall { pairs, queries, keys, values: 2, distractors: 1 }
    }

    #[rstest]
    #[case("symbols", |c: &mut TrainConfig| c.task = Task::Copying { symbols: 0, alphabet: 8 })]
    #[case("alphabet", |c: &mut TrainConfig| c.task = Task::Copying { symbols: 10, alphabet: 1 })]
    #[case("delay", |c: &mut TrainConfig| c.span = 0)]
    #[case("length", |c: &mut TrainConfig| { c.task = Task::Adding; c.span = 1 })]
    #[case("length", |c: &mut TrainConfig| { *c = TrainConfig::new(Task::PixelCifar); c.span = 784 })]
    #[case("1460 steps", |c: &mut TrainConfig| { *c = TrainConfig::new(Task::Appliances); c.span = 784 })]
    #[case("frame is 0", |c: &mut TrainConfig| *c = TrainConfig::new(Task::Digits { frame: 0 }))]
    #[case("distractors is 0", |c: &mut TrainConfig| c.task = Task::MarkedSymbol { alphabet: 4, distractors: 0 })]
    #[case("vocabulary is 1,", |c: &mut TrainConfig| c.task = Task::Induction { vocabulary: 1 })]
    #[case("keys is 7", |c: &mut TrainConfig| c.task = recall(8, 4, 7))]
    #[case("queries is 9", |c: &mut TrainConfig| c.task = recall(8, 9, 16))]
    #[case("pairs is 0", |c: &mut TrainConfig| c.task = recall(0, 0, 16))]
    #[case("2 * pairs + queries", |c: &mut TrainConfig| { c.task = recall(8, 4, 8); c.span = 19 })]
    #[case("at least 3", |c: &mut TrainConfig| { c.task = Task::induction(); c.span = 2 })]
    #[case("curriculum", |c: &mut TrainConfig| { *c = TrainConfig::new(Task::PixelCifar); c.curriculum = Curriculum::Grow })]
    #[case("batch", |c: &mut TrainConfig| c.batch = 0)]
    #[case("64 GiB", |c: &mut TrainConfig| c.batch = 1 << 40)]
    #[case("max_hops", |c: &mut TrainConfig| { c.span = 100_000; c.layer.settings.max_hops = Some(90_000) })]
    // 64 rows, a number and a weight for each of 20,020² pairs: 191 GiB; and 5 GiB of states.
    #[case("196 GiB", |c: &mut TrainConfig| { c.model = ModelKind::Attention; c.span = 20_000 })]
    #[case("GiB", |c: &mut TrainConfig| { c.model = ModelKind::Transformer; c.span = 20_000 })]
    #[case("updates", |c: &mut TrainConfig| c.updates = 0)]
    #[case("lr is -1", |c: &mut TrainConfig| c.lr = -1.0)]
    #[case("lr is NaN", |c: &mut TrainConfig| c.lr = f64::NAN)]
    #[case("clip-norm is 0", |c: &mut TrainConfig| c.clip_norm = 0.0)]
    #[case("lr-decay is 1.5", |c: &mut TrainConfig| c.lr_decay = 1.5)]
    #[case("hidden is 6", |c: &mut TrainConfig| { c.model = ModelKind::Transformer; c.layer.d_hidden = 6 })]
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
        config.layer.settings.k_trunc = 0;
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains("k_trunc"), "{error}");
    }

    #[test]
    fn tests_that_do_not_fit_are_refused() {
        let mut config = TrainConfig::new(Task::copying());
        for span in [1, 100, 1_000_000] {
            config.check_test_span(span).unwrap();
        }
        assert!(config.check_test_span(0).unwrap_err().to_string().contains("at least 1"));
        let long = config.check_test_span(1 << 30).unwrap_err().to_string();
        assert!(long.contains("slot_budget"), "{long}");
        config.layer = config.layer.with_slot_budget(Some(64));
        config.check_test_span(1 << 27).unwrap();
        config.model = ModelKind::Transformer;
        assert!(config.check_test_span(1_000_000).is_err());
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
