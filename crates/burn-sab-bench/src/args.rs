//! What a run of the benchmark measures.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::case::{Case, Loss, OfBench};
use burn_sab::ScoreKind;
use burn_sab_cli::backend::Backend;
use burn_sab_cli::error::usage;
use burn_sab_cli::flags::{SettingFlags, score};

/// Measure how fast the layer is, and how much it keeps, beside what one would use instead
///
/// Without a flag that describes a case the whole table is measured; a flag that is left out beside others
/// keeps the value of the table's first case.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "sab-bench",
    version,
    max_term_width = 100,
    args_override_self = true,
    allow_negative_numbers = true
)]
pub struct BenchArgs {
    /// Measure only this model [default: sab, and beside it what it is compared with]
    #[arg(long, value_enum, value_name = "MODEL", help_heading = "Case")]
    pub model: Option<Model>,
    /// Rows of the batch [default: 64; of a stream: 1]
    #[arg(long, value_name = "B", help_heading = "Case")]
    pub batch: Option<usize>,
    /// Steps of a sequence [default: 120]
    #[arg(long, value_name = "T", help_heading = "Case")]
    pub time: Option<usize>,
    /// Input features [default: 10]
    #[arg(long, value_name = "I", help_heading = "Case")]
    pub input: Option<usize>,
    /// Hidden units [default: 128]
    #[arg(long, value_name = "H", help_heading = "Case")]
    pub hidden: Option<usize>,
    /// How slots are scored [default: dot]
    #[arg(long, value_parser = score(), help_heading = "Case")]
    pub score: Option<ScoreKind>,
    /// Attention size of dot and mlp scores [default: 64]
    #[arg(long, value_name = "A", help_heading = "Case")]
    pub attention: Option<usize>,
    /// Left out, the sparsifier follows the score: threshold for additive scores, else softmax.
    #[command(flatten)]
    pub settings: SettingFlags<OfBench>,
    /// Outputs whose mean is the loss: of all steps, or of the last [default: mean]
    #[arg(long, value_enum, help_heading = "Case", conflicts_with = "step")]
    pub loss: Option<Loss>,
    /// A stream instead of sequences: one step at a time without gradients, from a memory of so many
    /// slots [default with --step: 1000]
    #[arg(
        long,
        value_name = "SLOTS",
        num_args = 0..=1,
        default_missing_value = "1000",
        help_heading = "Case",
        conflicts_with = "time"
    )]
    pub step: Option<usize>,
    /// With --step: measure memories of so many drawn slots, one after the other. They need no steps, so that a
    /// memory can be large
    #[arg(
        long,
        value_name = "N,..",
        value_delimiter = ',',
        requires = "step",
        help_heading = "Case"
    )]
    pub slots: Vec<usize>,

    /// Where to compute; a GPU has a table of its own
    /// [default: flex, if this build has it; the table: flex and ndarray]
    #[arg(long, value_enum, help_heading = "Measurement")]
    pub backend: Option<Backend>,
    /// Threads that compute
    #[arg(long, value_name = "N", default_value_t = 2, help_heading = "Measurement")]
    pub threads: usize,
    /// Times that each pass is run, after one that does not count; a slow pass less often, three times at least
    #[arg(long, value_name = "N", default_value_t = 7, help_heading = "Measurement")]
    pub runs: usize,
    /// One JSON object a run instead of tables
    #[arg(long, help_heading = "Measurement")]
    pub json: bool,
    /// Measure how time and memory grow with --time, and draw it into this SVG file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["step", "model"], help_heading = "Measurement")]
    pub plot: Option<PathBuf>,
    /// Draw into this SVG file how large hidden states become within 100 times --time steps, at random initial
    /// weights: of the case, of the same with summary_scale 1, and of an LSTM
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["step", "model", "plot", "fill", "json"],
        help_heading = "Measurement"
    )]
    pub plot_states: Option<PathBuf>,
    /// Measure the layer also with the largest batch that fits a GPU, found by doubling --batch
    #[arg(long, conflicts_with_all = ["step", "plot"], help_heading = "Measurement")]
    pub fill: bool,
    /// A Python with PyTorch [default: $SAB_PYTHON, else python3]
    #[arg(long, value_name = "PATH", help_heading = "Measurement")]
    pub python: Option<PathBuf>,

    /// What this process does for the one that started it
    #[arg(long, value_enum, hide = true)]
    pub worker: Option<Worker>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// The layer, on the fastest implementation that the backend has
    Sab,
    /// Burn's own Lstm with full backpropagation, on the same backend
    Lstm,
    /// `FusedLstm` of the crate bunsen in a loop over the steps, with full backpropagation, on the same backend. It has
    /// as many input features as hidden units
    Bunsen,
    /// The layer's readable twin under Burn's own autodiff
    Reference,
    /// The layer in backend primitives with the hand-written backward pass
    Primitives,
}

/// Work that has a process of its own: it leaves peak memory and threads as it finds them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Worker {
    /// Compare the model with the readable twin
    Check,
    /// Measure one model
    Measure,
}

impl BenchArgs {
    /// Whether a flag describes a case; else it is the whole table that is asked for.
    pub fn describes_a_case(&self) -> bool {
        let sizes = [self.batch, self.time, self.input, self.hidden, self.attention, self.step];
        sizes.iter().any(Option::is_some)
            || self.model.is_some()
            || self.settings.first().is_some()
            || self.score.is_some()
            || self.loss.is_some()
    }

    /// The cases that the flags describe, checked: one, or one for each number of drawn slots.
    pub fn cases(&self) -> anyhow::Result<Vec<Case>> {
        if self.slots.is_empty() {
            return Ok(vec![self.case_of(None)?]);
        }
        self.slots.iter().map(|slots| self.case_of(Some(*slots))).collect()
    }

    /// The first of the cases.
    pub fn case(&self) -> anyhow::Result<Case> {
        self.case_of(self.slots.first().copied())
    }

    /// The case with this number of drawn slots, if there are any.
    fn case_of(&self, drawn: Option<usize>) -> anyhow::Result<Case> {
        let backend = self.backend.map_or_else(Backend::preferred, Ok)?;
        let base = Case::main(backend, self.threads, self.runs);
        let score = self.score.unwrap_or(base.score);
        if score == ScoreKind::Additive && self.attention.is_some() {
            return Err(usage!("--attention has no meaning for additive scores; leave it out"));
        }
        let case = Case {
            batch: self.batch.unwrap_or(if self.step.is_some() { 1 } else { base.batch }),
            time: self.time.unwrap_or(if self.step.is_some() { 1 } else { base.time }),
            input: self.input.unwrap_or(base.input),
            hidden: self.hidden.unwrap_or(base.hidden),
            attention: self.attention.unwrap_or(base.attention),
            loss: self.loss.unwrap_or(base.loss),
            slots: drawn.or(self.step),
            drawn_slots: drawn.is_some(),
            ..base
        }
        .with_score(score)
        .with(|settings| self.settings.apply(settings));
        case.validate()?;
        if self.model == Some(Model::Bunsen) && case.input != case.hidden {
            return Err(usage!(
                "bunsen has as many input features as hidden units, and the case has {} and {}; add --input {}",
                case.input,
                case.hidden,
                case.hidden
            ));
        }
        Ok(case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_sab::Sparsifier;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        BenchArgs::command().debug_assert();
    }

    fn args(line: &str) -> BenchArgs {
        let words = ["sab-bench"].into_iter().chain(line.split_whitespace());
        BenchArgs::try_parse_from(words).unwrap()
    }

    #[test]
    fn only_a_flag_of_the_case_takes_the_table_away() {
        assert!(!args("--threads 1 --runs 3 --json --backend flex").describes_a_case());
        for line in ["--batch 2", "--model lstm", "--max-hops none", "--loss last", "--step"] {
            assert!(args(line).describes_a_case(), "{line}");
        }
    }

    #[test]
    fn a_case_survives_its_flags() {
        for line in [
            "",
            "--score additive --loss last --max-hops 2 --time 7",
            "--score mlp --attention 3 --sparsifier released --threads 1",
            "--step --k-att 4",
            "--step 9 --batch 3",
            "--step --slots 9 --n-probe 4",
        ] {
            let case = args(line).case().unwrap();
            let (shared, own) = case.flags();
            assert_eq!(args(&[shared, own].concat().join(" ")).case().unwrap(), case, "{line}");
        }
    }

    #[test]
    fn every_number_of_drawn_slots_is_a_case() {
        let cases = args("--step --slots 9,90 --n-probe 4").cases().unwrap();
        let slots: Vec<_> = cases.iter().map(|case| (case.slots, case.drawn_slots)).collect();
        assert_eq!(slots, [(Some(9), true), (Some(90), true)]);
        assert!(cases.iter().all(|case| case.settings.n_probe == Some(4)));
        let cases = args("--step 7").cases().unwrap();
        assert_eq!((cases.len(), cases[0].slots, cases[0].drawn_slots), (1, Some(7), false));
    }

    #[test]
    fn bunsen_has_as_many_input_features_as_hidden_units() {
        let error = args("--model bunsen").case().unwrap_err().to_string();
        assert!(error.contains("10 and 128; add --input 128"), "{error}");
        args("--model bunsen --input 128").case().unwrap();
    }

    #[test]
    fn the_sparsifier_follows_the_score() {
        let sparsifier = |line: &str| args(line).case().unwrap().settings.sparsifier;
        assert_eq!(sparsifier("--score additive"), Sparsifier::Threshold);
        assert_eq!(sparsifier("--score mlp"), Sparsifier::Softmax);
        assert_eq!(sparsifier("--score additive --sparsifier softmax"), Sparsifier::Softmax);
    }
}
