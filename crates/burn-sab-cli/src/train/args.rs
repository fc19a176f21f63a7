//! What `sab train` is told.

use std::path::PathBuf;

use burn_sab::ScoreKind;
use clap::Parser;

use crate::backend::Backend;
use crate::flags::{self, SettingFlags};
use crate::values::{
    CompareName, CurriculumName, LevelOrNever, ModelName, Preset, TaskName, level_or_never,
};

/// Every flag that is left out keeps the value of --preset, of --config, or the default.
#[derive(Debug, Parser)]
// So that a flag can be appended to a line that has it; and "-1" is a wrong value, not an unknown flag.
#[command(args_override_self = true, allow_negative_numbers = true)]
pub struct TrainArgs {
    /// What to learn
    #[arg(required_unless_present_any = ["resume", "config"])]
    pub task: Option<TaskName>,

    /// Which network: SAB, an LSTM with full backpropagation, one with truncated backpropagation, one with
    /// full self-attention, a GRU, three layers of minGRU, or a small Transformer [default: sab]
    #[arg(long, value_enum, value_name = "MODEL")]
    pub model: Option<ModelName>,

    /// Also train these models, for as many updates, and compare; "none" for none
    /// [default: tbptt beside sab, none beside others]
    #[arg(long, value_name = "MODELS", value_delimiter = ',')]
    pub compare: Option<Vec<CompareName>>,

    /// Settings of the layer to start from
    #[arg(long, value_enum, help_heading = "Layer")]
    pub preset: Option<Preset>,
    /// Hidden units [default: 128]
    #[arg(long, value_name = "H", help_heading = "Layer")]
    pub hidden: Option<usize>,
    /// How slots are scored [default: dot]
    #[arg(long, value_parser = flags::score(), help_heading = "Layer")]
    pub score: Option<ScoreKind>,
    /// Attention size of dot and mlp scores [default: 64]
    #[arg(long, value_name = "A", help_heading = "Layer")]
    pub attention: Option<usize>,
    /// Factor on the initial weights of the scores [default: 2]
    #[arg(long, value_name = "X", help_heading = "Layer")]
    pub score_gain: Option<f64>,
    /// Added to the drawn biases of the forget gates [default: 0]
    #[arg(long, value_name = "X", help_heading = "Layer", allow_negative_numbers = true)]
    pub forget_bias: Option<f64>,
    #[command(flatten)]
    pub settings: SettingFlags,

    /// Steps between the symbols and their recall (copying); distractors in a sequence (selective-copying,
    /// marked-symbol) [default: 100]
    #[arg(long, value_name = "D", help_heading = "Task")]
    pub delay: Option<usize>,
    /// Steps of a sequence (induction, recall, adding, text); samples that are heard of a longer recording (digits)
    /// [default: induction, recall: 256; digits: 20000, more than any has; others: 100]
    #[arg(long, value_name = "T", help_heading = "Task")]
    pub length: Option<usize>,
    /// Where the files are: a folder with those of mnist, cifar, the Penn Treebank, text8, digits or appliances, or any
    /// text file
    #[arg(long, value_name = "PATH", help_heading = "Task")]
    pub data: Option<PathBuf>,
    /// Whether the pixels come in an order drawn once and for all (mnist)
    #[arg(long, help_heading = "Task")]
    pub permuted: bool,
    /// Samples that are one step (digits) [default: 1]
    #[arg(long, value_name = "N", help_heading = "Task")]
    pub frame: Option<usize>,
    /// Symbols to be remembered (copying, selective-copying) [default: 10]
    #[arg(long, value_name = "S", help_heading = "Task")]
    pub symbols: Option<usize>,
    /// How many different symbols there are (copying, selective-copying, marked-symbol)
    /// [default: marked-symbol: 4; others: 8]
    #[arg(long, value_name = "K", help_heading = "Task")]
    pub alphabet: Option<usize>,
    /// How many different distractors there are (selective-copying, marked-symbol, recall) [default: 8]
    #[arg(long, value_name = "K", help_heading = "Task")]
    pub distractors: Option<usize>,
    /// How many different tokens there are (induction) [default: 16]
    #[arg(long, value_name = "K", help_heading = "Task")]
    pub vocabulary: Option<usize>,
    /// Pairs of a key and its value in a sequence (recall) [default: 8]
    #[arg(long, value_name = "N", help_heading = "Task")]
    pub pairs: Option<usize>,
    /// Keys whose values are asked for in a sequence (recall) [default: 4]
    #[arg(long, value_name = "N", help_heading = "Task")]
    pub queries: Option<usize>,
    /// How many different keys there are (recall) [default: 16]
    #[arg(long, value_name = "K", help_heading = "Task")]
    pub keys: Option<usize>,
    /// How many different values there are (recall) [default: 16]
    #[arg(long, value_name = "K", help_heading = "Task")]
    pub values: Option<usize>,
    /// Delays or lengths at which the trained networks are tested
    /// [default: the delay, 10 and 100 times the delay; induction, recall: the length and 10 times the length; others:
    /// the length]
    #[arg(
        long,
        visible_alias = "test-lengths",
        value_name = "LIST",
        value_delimiter = ',',
        help_heading = "Task"
    )]
    pub test_delays: Option<Vec<usize>>,
    /// Sequences per test, or as many as the files have
    /// [default: mnist, cifar: 10000; text: 1000; digits, appliances: all; others: 64]
    #[arg(long, value_name = "N", help_heading = "Task")]
    pub test_sequences: Option<usize>,
    /// Most steps of a test, those of all sequences together: tests at long delays take fewer sequences,
    /// one at least [default: no limit]
    #[arg(long, value_name = "N", help_heading = "Task")]
    pub test_steps: Option<usize>,

    /// Whether the delay or length grows during training [default: adding and tasks with --data: none;
    /// others: grow]
    #[arg(long, value_enum, help_heading = "Training")]
    pub curriculum: Option<CurriculumName>,
    /// Sequences per update [default: 64]
    #[arg(long, value_name = "B", help_heading = "Training")]
    pub batch: Option<usize>,
    /// Most updates [default: 10000]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub updates: Option<usize>,
    /// Stop when held-out sequences reach this accuracy, or fall to this mean squared error (adding) or these bits
    /// per character (text), or "never" [default: adding: 0.001; tasks with --data: never; others: 0.99]
    #[arg(long, value_name = "X", help_heading = "Training", value_parser = level_or_never)]
    pub stop_at: Option<LevelOrNever>,
    /// Learning rate of Adam [default: 0.005]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub lr: Option<f64>,
    /// Share of itself to which the learning rate falls over all updates [default: 1]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub lr_decay: Option<f64>,
    /// Standard deviation of Gaussian noise on the inputs in training [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub input_noise: Option<f64>,
    /// Decay of a moving average of the weights, which is what is tested; 0.99 averages some 100 updates [default: 0]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub weight_average: Option<f64>,
    /// Largest norm of the whole gradient [default: 1]
    #[arg(long, value_name = "X", help_heading = "Training")]
    pub clip_norm: Option<f64>,
    /// Seed of weights and data [default: 1]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub seed: Option<u64>,
    /// Updates between two evaluations [default: 100]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub evaluate_every: Option<usize>,
    /// Updates between two checkpoints [default: 500]
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub checkpoint_every: Option<usize>,

    /// Where to compute [default: flex, if this build has it]
    #[arg(long, value_enum, help_heading = "Run")]
    pub backend: Option<Backend>,
    /// Threads that compute [default: one a core]
    #[arg(long, value_name = "N", help_heading = "Run")]
    pub threads: Option<usize>,
    /// The run folder, which must be new or empty; its report.html shows what the run found out [default: a new one under runs/]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    pub out: Option<PathBuf>,
    /// Go on with the run in this folder; of the settings only --updates, --stop-at, --test-delays,
    /// --test-sequences, --test-steps, --backend and --threads can change
    #[arg(long, value_name = "RUN", help_heading = "Run", conflicts_with_all = ["out", "config", "task"])]
    pub resume: Option<PathBuf>,
    /// Start from the config.json of an earlier run; flags given beside it win
    #[arg(long, value_name = "FILE", help_heading = "Run")]
    pub config: Option<PathBuf>,
}
