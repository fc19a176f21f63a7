//! What is computed and timed, with nothing left open.

use burn_sab::{SabLstmConfig, SabSettings, ScoreConfig, ScoreKind, Sparsifier};
use clap::ValueEnum;
use serde::{Serialize, Serializer};

use burn_sab_cli::backend::Backend;
use burn_sab_cli::error::usage;
use burn_sab_cli::flags::{Flags, setting_flags};
use burn_sab_cli::values::name;

/// The settings of the first case: those of the paper's copying experiment with dot scores. Windows begin at
/// multiples of `k_trunc`: shifted by one, as is the layer's default, a slot that is stored at the end of every
/// so many windows would be the first step of one, and reminders would replay next to nothing.
#[derive(Debug, Clone, Copy)]
pub struct OfBench;

impl Flags for OfBench {
    const HEADING: &'static str = "Case";

    fn defaults() -> SabSettings {
        SabSettings::default().with_k_top(5).with_k_trunc(5).with_truncation_offset(Some(0))
    }
}

/// What the gradient of a training step starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Loss {
    /// The mean of the outputs of all steps
    Mean,
    /// The mean of the last step's output
    Last,
}

/// One case, with nothing left open.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    pub batch: usize,
    /// Steps T; 1 for a stream.
    pub time: usize,
    pub input: usize,
    pub hidden: usize,
    #[serde(flatten)]
    pub settings: SabSettings,
    #[serde(serialize_with = "score_name")]
    pub score: ScoreKind,
    /// Without meaning for additive scores.
    pub attention: usize,
    #[serde(serialize_with = "as_named")]
    pub loss: Loss,
    /// Slots in memory where the case is a stream.
    pub slots: Option<usize>,
    /// Whether the slots are random numbers. If not, a sequence stores them.
    pub drawn_slots: bool,
    pub threads: usize,
    /// Told as the device of what was measured.
    #[serde(skip)]
    pub backend: Backend,
    /// Told as those that were made.
    #[serde(skip)]
    pub runs: usize,
}

fn score_name<S: Serializer>(score: &ScoreKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(score.name())
}

fn as_named<S: Serializer>(value: &impl ValueEnum, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&name(value.clone()))
}

/// Numbers that one array may have, 64 GiB of them: a larger case is a slip of the finger.
const MOST_NUMBERS: usize = 1 << 34;

impl Case {
    /// The case that the others are variations of: the paper's copying experiment with dot scores.
    pub fn main(backend: Backend, threads: usize, runs: usize) -> Self {
        Self {
            batch: 64,
            time: 120,
            input: 10,
            hidden: 128,
            settings: OfBench::defaults(),
            score: ScoreKind::Dot,
            attention: 64,
            loss: Loss::Mean,
            slots: None,
            drawn_slots: false,
            threads,
            backend,
            runs,
        }
    }

    /// The same case with another score and the sparsifier that goes with it.
    pub fn with_score(mut self, score: ScoreKind) -> Self {
        self.score = score;
        self.settings.sparsifier = match score {
            ScoreKind::Additive => Sparsifier::Threshold,
            _ => Sparsifier::Softmax,
        };
        self
    }

    /// The same case with other settings.
    pub fn with(mut self, change: impl FnOnce(&mut SabSettings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// The layer of the case.
    pub fn layer(&self) -> SabLstmConfig {
        let mut layer = SabLstmConfig::new(self.input, self.hidden, true);
        layer.settings = self.settings;
        layer.with_score(ScoreConfig::new(self.score, self.attention))
    }

    /// Numbers of a key: scores compare so many.
    pub fn attended(&self) -> usize {
        if self.score == ScoreKind::Additive { 1 } else { self.attention }
    }

    /// Whether gradient stops before step `t`.
    pub fn starts_window(&self, t: usize) -> bool {
        t > 0 && t.is_multiple_of(self.settings.k_trunc)
    }

    /// The flags that describe the case to another process: to this program, and those that PyTorch's
    /// peers know as well come first.
    pub fn flags(&self) -> (Vec<String>, Vec<String>) {
        let mut shared = vec![
            format!("--batch={}", self.batch),
            format!("--input={}", self.input),
            format!("--hidden={}", self.hidden),
            format!("--score={}", self.score.name()),
            format!("--threads={}", self.threads),
            format!("--runs={}", self.runs),
        ];
        if self.score != ScoreKind::Additive {
            shared.push(format!("--attention={}", self.attention));
        }
        shared.extend(match self.slots {
            Some(slots) => vec![format!("--step={slots}")],
            None => vec![format!("--time={}", self.time), format!("--loss={}", name(self.loss))],
        });
        let known = ["k_top", "k_att", "k_trunc", "sparsifier"];
        let known = known.into_iter().filter_map(|name| {
            Some(format!("--{}={}", name.replace('_', "-"), self.settings.get(name)?))
        });
        shared.extend(known);
        let mut own = setting_flags::<OfBench>(&self.settings);
        own.push(format!("--backend={}", self.backend.name()));
        own.extend(self.slots.filter(|_| self.drawn_slots).map(|slots| format!("--slots={slots}")));
        (shared, own)
    }

    /// Checks every size.
    ///
    /// # Errors
    ///
    /// The first that makes no sense, by its flag.
    pub fn validate(&self) -> anyhow::Result<()> {
        let sizes = [
            ("batch", self.batch),
            ("time", self.time),
            ("input", self.input),
            ("hidden", self.hidden),
            ("threads", self.threads),
            ("runs", self.runs),
            (if self.drawn_slots { "slots" } else { "step" }, self.slots.unwrap_or(1)),
        ];
        if let Some((flag, _)) = sizes.into_iter().find(|(_, size)| *size == 0) {
            return Err(usage!("--{flag} is 0, but it has to be at least 1"));
        }
        self.layer().validate().map_err(|error| usage!("{error}"))?;
        let steps = match self.slots {
            None => Some(self.time),
            Some(slots) if self.drawn_slots => Some(slots),
            Some(slots) => slots.checked_mul(self.settings.k_att),
        };
        let width = self.input.max(self.hidden).checked_mul(4);
        let numbers = width
            .zip(steps)
            .and_then(|(width, steps)| width.checked_mul(steps)?.checked_mul(self.batch));
        if numbers.is_none_or(|numbers| numbers > MOST_NUMBERS) {
            return Err(usage!(
                "the case needs arrays of more than 64 GiB; take smaller values for --batch, --time or \
                 --hidden"
            ));
        }
        Ok(())
    }
}
