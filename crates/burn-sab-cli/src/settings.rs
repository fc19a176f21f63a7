//! From the command line to everything that determines a run.

use std::fs;
use std::path::Path;

use burn_sab::{SabLstmConfig, ScoreConfig, ScoreKind};
use burn_sab_tasks::{DataError, Examples, ModelKind, Task, TrainConfig};
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::backend::Backend;
use crate::error::usage;
use crate::sealed::{self, Seal};
use crate::text::{thousands, warn};
use crate::train::args::TrainArgs;
use crate::values::{LevelOrNever, Preset, TaskName, name};

/// Everything that determines a run; `config.json` of its folder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Settings {
    /// The version of sab that made the run.
    pub version: String,
    /// Task, model and training.
    pub train: TrainConfig,
    /// Models that are trained for comparison, with as many updates.
    pub compare: Vec<ModelKind>,
    /// Spans of the final tests.
    pub test_spans: Vec<usize>,
    /// Sequences per test.
    pub test_sequences: usize,
    /// Most steps of a test, those of all sequences together; `None` for no limit.
    #[serde(default)]
    pub test_steps: Option<usize>,
    /// Where to compute.
    pub backend: Backend,
    /// Threads that compute; `None` for one a core.
    pub threads: Option<usize>,
}

/// Attention size where a score needs one and none is given: that of the best trials.
const ATTENTION: usize = 64;

impl Settings {
    /// The settings that `args` asks for, checked.
    pub fn from_args(args: &TrainArgs) -> anyhow::Result<Self> {
        let mut settings = match &args.config {
            Some(path) => Self::read(path)?,
            None => Self::defaults(args)?,
        };
        settings.version = env!("CARGO_PKG_VERSION").to_owned();
        settings.apply_task(args)?;
        settings.apply_layer(args)?;
        settings.apply_training(args);
        settings.apply_comparison(args);
        settings.apply_run(args);
        settings.validate()?;
        Ok(settings)
    }

    /// The settings of a run that is resumed, with the few changes that are possible, checked.
    pub fn for_resumption(mut self, args: &TrainArgs) -> anyhow::Result<Self> {
        if let Some(flag) = fixed_flag(args) {
            return Err(usage!(
                "--{flag} cannot be changed by --resume: leave it out, or start a new run with --config"
            ));
        }
        self.train.updates = args.updates.unwrap_or(self.train.updates);
        if let Some(LevelOrNever(level)) = args.stop_at {
            self.train.stop_at = level;
        }
        if let Some(spans) = &args.test_delays {
            self.test_spans.clone_from(spans);
        }
        self.apply_run(args);
        self.validate()?;
        Ok(self)
    }

    /// Reads a file that is named with `--config`. It may be written by hand; every key has to be a setting.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).map_err(|error| {
            usage!("{}: {error}; name the config.json of a run", path.display())
        })?;
        let wrong = |error| {
            usage!(
                "{}: {error}; it should be the config.json of a run of this version",
                path.display()
            )
        };
        let (given, seal) = sealed::parse(&text).map_err(wrong)?;
        let settings: Self = serde_json::from_value(given.clone()).map_err(wrong)?;
        let known = serde_json::to_value(&settings)?;
        if let Some((key, names)) = sealed::unknown_key(&given, &known) {
            return Err(usage!(
                "{}: there is no setting {key}; correct or remove it, the settings there are {names}",
                path.display()
            ));
        }
        if seal == Seal::Broken {
            warn(&format!(
                "{} was changed since sab wrote it; if not by you, restore it from a copy",
                path.display()
            ));
        }
        Ok(settings)
    }

    /// Reads the `config.json` of a run.
    ///
    /// # Errors
    ///
    /// If it is not as it was written.
    pub fn of_run(path: &Path) -> anyhow::Result<Self> {
        let remedy = format!(
            "name the folder of a run, or restore the file from a copy; if it was changed on purpose, \
             `sab train --config {}` starts a new run with it",
            path.display()
        );
        sealed::read(path, &remedy)
    }

    /// Sequences of a test at `span`.
    pub fn sequences_at(&self, span: usize) -> usize {
        let steps = self.train.task.steps(span);
        let most = self.test_steps.map_or(usize::MAX, |all| (all / steps).max(1));
        self.test_sequences.min(most)
    }

    /// What stands before "held-out sequences".
    pub fn sequences_in_words(&self) -> String {
        let most = self.test_sequences;
        match self.test_steps {
            None => most.to_string(),
            Some(steps) => {
                format!("{most} (fewer where all have more than {} steps)", thousands(steps))
            }
        }
    }

    fn defaults(args: &TrainArgs) -> anyhow::Result<Self> {
        let task = task_of(args, None, args.data.as_deref())?;
        Ok(Self {
            version: String::new(),
            train: TrainConfig::new(task),
            compare: Vec::new(),
            test_spans: Vec::new(),
            test_sequences: test_sequences(&task),
            test_steps: None,
            backend: Backend::preferred()?,
            threads: None,
        })
    }

    fn apply_task(&mut self, args: &TrainArgs) -> anyhow::Result<()> {
        let data = args.data.clone().or_else(|| self.train.data.clone());
        let task = task_of(args, Some(self.train.task), data.as_deref())?;
        if task.name() != self.train.task.name() {
            // Nothing of another task's training carries over but the layer.
            let layer = self.train.layer.clone();
            self.train = TrainConfig { layer, ..TrainConfig::new(task) };
            self.test_spans.clear();
            self.test_sequences = test_sequences(&task);
        }
        if args.data.is_some() && !task.needs_files() {
            return Err(usage!("--data has no meaning for {}; leave it out", task.name()));
        }
        self.train.data = data.filter(|_| task.needs_files());
        self.train.task = task;
        self.train.layer.d_input = task.d_input();
        let spans = [("delay", args.delay), ("length", args.length)];
        let of_task = |name: &str| name == task.span_name() && !task.has_one_span();
        if let Some((flag, _)) = spans.iter().find(|(name, span)| span.is_some() && !of_task(name))
        {
            return Err(match task.has_one_span() {
                true => usage!(
                    "--{flag} has no meaning for {}, whose sequences are all as long; leave it out",
                    task.name()
                ),
                false => usage!(
                    "--{flag} has no meaning for {}; give --{}",
                    task.name(),
                    task.span_name()
                ),
            });
        }
        let span = spans.into_iter().find_map(|(_, span)| span);
        if let Some(span) = span {
            if span != self.train.span {
                self.test_spans.clear();
            }
            self.train.span = span;
        }
        if let Some(spans) = &args.test_delays {
            self.test_spans.clone_from(spans);
        } else if self.test_spans.is_empty() {
            let factors: &[usize] = match task {
                Task::Copying { .. }
                | Task::SelectiveCopying { .. }
                | Task::MarkedSymbol { .. } => &[1, 10, 100],
                Task::Induction { .. } | Task::Recall { .. } => &[1, 10],
                _ => &[1],
            };
            self.test_spans =
                factors.iter().map(|factor| self.train.span.saturating_mul(*factor)).collect();
        }
        Ok(())
    }

    fn apply_layer(&mut self, args: &TrainArgs) -> anyhow::Result<()> {
        let layer = &mut self.train.layer;
        let (d_input, d_hidden) = (layer.d_input, args.hidden.unwrap_or(layer.d_hidden));
        match args.preset {
            Some(Preset::Default) => *layer = SabLstmConfig::new(d_input, d_hidden, true),
            Some(Preset::Paper) => *layer = SabLstmConfig::paper(d_input, d_hidden),
            Some(Preset::Released) => *layer = SabLstmConfig::released(d_input, d_hidden),
            None => layer.d_hidden = d_hidden,
        }
        set(&mut layer.score_gain, args.score_gain);
        set(&mut layer.forget_bias, args.forget_bias);
        args.settings.apply(&mut layer.settings);
        // The recorded settings name the offset that the run used.
        layer.settings.truncation_offset = Some(layer.settings.truncation_offset());
        let kind = args.score.unwrap_or(layer.score.kind());
        if kind == ScoreKind::Additive && args.attention.is_some() {
            return Err(usage!("--attention has no meaning for additive scores; leave it out"));
        }
        let attention = args.attention.or(layer.score.d_attention()).unwrap_or(ATTENTION);
        layer.score = ScoreConfig::new(kind, attention);
        Ok(())
    }

    fn apply_training(&mut self, args: &TrainArgs) {
        let train = &mut self.train;
        set(&mut train.curriculum, args.curriculum.map(Into::into));
        set(&mut train.batch, args.batch);
        set(&mut train.updates, args.updates);
        set(&mut train.lr, args.lr);
        set(&mut train.lr_decay, args.lr_decay);
        set(&mut train.input_noise, args.input_noise);
        set(&mut train.weight_average, args.weight_average);
        set(&mut train.clip_norm, args.clip_norm);
        set(&mut train.seed, args.seed);
        set(&mut train.evaluate_every, args.evaluate_every);
        set(&mut train.checkpoint_every, args.checkpoint_every);
        if let Some(LevelOrNever(level)) = args.stop_at {
            train.stop_at = level;
        }
    }

    fn apply_comparison(&mut self, args: &TrainArgs) {
        set(&mut self.train.model, args.model.map(Into::into));
        let model = self.train.model;
        match &args.compare {
            Some(models) => {
                self.compare = models.iter().filter_map(|name| (*name).into()).collect();
            }
            None if args.config.is_none() && model == ModelKind::Sab => {
                self.compare = vec![ModelKind::Tbptt]
            }
            None => {}
        }
        let mut seen = vec![model];
        self.compare.retain(|model| {
            !seen.contains(model) && {
                seen.push(*model);
                true
            }
        });
    }

    fn apply_run(&mut self, args: &TrainArgs) {
        set(&mut self.test_sequences, args.test_sequences);
        self.test_steps = args.test_steps.or(self.test_steps);
        set(&mut self.backend, args.backend);
        self.threads = args.threads.or(self.threads);
    }

    fn validate(&self) -> anyhow::Result<()> {
        self.train.validate()?;
        for span in &self.test_spans {
            self.train
                .check_test_span(*span)
                .map_err(|error| usage!("--test-delays has {span}: {error}"))?;
        }
        if self.test_sequences == 0 {
            return Err(usage!("--test-sequences is 0, but it has to be at least 1"));
        }
        if self.test_steps == Some(0) {
            return Err(usage!("--test-steps is 0, but it has to be at least 1"));
        }
        if self.threads == Some(0) {
            return Err(usage!("--threads is 0, but it has to be at least 1"));
        }
        Ok(())
    }
}

fn set<T>(setting: &mut T, given: Option<T>) {
    if let Some(value) = given {
        *setting = value;
    }
}

/// Sequences per test: all images, recordings and appliances, and of a text a good part.
fn test_sequences(task: &Task) -> usize {
    match task {
        Task::PixelMnist { .. } | Task::PixelCifar => 10_000,
        Task::Digits { .. } | Task::Appliances => 300,
        Task::Text { .. } => 1000,
        _ => 64,
    }
}

/// The task that `args` names, starting from `base` if there is one. A text in `data` says how many
/// characters there are.
fn task_of(args: &TrainArgs, base: Option<Task>, data: Option<&Path>) -> anyhow::Result<Task> {
    let mut task = match (args.task, base) {
        (None, Some(task)) => task,
        (Some(asked), Some(task)) if name(asked) == task.name() => task,
        (Some(asked), _) => asked.into(),
        (None, None) => {
            let names: Vec<_> = TaskName::value_variants().iter().map(|task| name(*task)).collect();
            return Err(usage!("name a task: {}", names.join(", ")));
        }
    };
    apply_sizes(args, &mut task)?;
    if args.permuted && !matches!(task, Task::PixelMnist { .. }) {
        return Err(usage!("--permuted belongs to the task mnist; leave it out"));
    }
    if task.needs_files() && data.is_none() {
        return Err(usage!("{}", DataError::NotNamed { task: task.name() }));
    }
    Ok(match task {
        Task::PixelMnist { permuted } => Task::PixelMnist { permuted: permuted || args.permuted },
        Task::Text { .. } => {
            let characters = Examples::characters(data.unwrap_or(Path::new("")))
                .map_err(|error| usage!("{error}"))?;
            Task::Text { characters }
        }
        task => task,
    })
}

/// Changes the sizes of the task that were given.
fn apply_sizes(args: &TrainArgs, task: &mut Task) -> anyhow::Result<()> {
    let of = task.name();
    let mut sizes = task.sizes();
    for (flag, given) in sizes_given(args) {
        let Some(given) = given else { continue };
        match sizes.iter_mut().find(|(name, _)| *name == flag) {
            Some((_, size)) => **size = given,
            None => return Err(usage!("--{flag} has no meaning for {of}; leave it out")),
        }
    }
    Ok(())
}

/// The flags that are sizes of a task.
fn sizes_given(args: &TrainArgs) -> [(&'static str, Option<usize>); 9] {
    [
        ("symbols", args.symbols),
        ("alphabet", args.alphabet),
        ("distractors", args.distractors),
        ("vocabulary", args.vocabulary),
        ("pairs", args.pairs),
        ("queries", args.queries),
        ("keys", args.keys),
        ("values", args.values),
        ("frame", args.frame),
    ]
}

/// A flag among `args` that a resumed run cannot change.
fn fixed_flag(args: &TrainArgs) -> Option<String> {
    let flags = [
        ("model", args.model.is_some()),
        ("compare", args.compare.is_some()),
        ("preset", args.preset.is_some()),
        ("hidden", args.hidden.is_some()),
        ("forget-bias", args.forget_bias.is_some()),
        ("score", args.score.is_some()),
        ("attention", args.attention.is_some()),
        ("score-gain", args.score_gain.is_some()),
        ("data", args.data.is_some()),
        ("permuted", args.permuted),
        ("delay", args.delay.is_some()),
        ("length", args.length.is_some()),
        ("curriculum", args.curriculum.is_some()),
        ("batch", args.batch.is_some()),
        ("lr", args.lr.is_some()),
        ("lr-decay", args.lr_decay.is_some()),
        ("input-noise", args.input_noise.is_some()),
        ("weight-average", args.weight_average.is_some()),
        ("clip-norm", args.clip_norm.is_some()),
        ("seed", args.seed.is_some()),
        ("evaluate-every", args.evaluate_every.is_some()),
        ("checkpoint-every", args.checkpoint_every.is_some()),
    ];
    let sizes = sizes_given(args).map(|(flag, given)| (flag, given.is_some()));
    let mut flags = flags.into_iter().chain(sizes);
    let given = flags.find_map(|(flag, given)| given.then(|| flag.to_owned()));
    given.or_else(|| args.settings.first())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{ArgAction, CommandFactory, Parser};

    fn settings(line: &str) -> anyhow::Result<Settings> {
        let words = ["sab train"].into_iter().chain(line.split_whitespace());
        Settings::from_args(&TrainArgs::try_parse_from(words)?)
    }

    #[test]
    fn the_main_job_needs_no_flags() {
        let settings = settings("copying").unwrap();
        assert_eq!(settings.train.task, Task::Copying { symbols: 10, alphabet: 8 });
        assert_eq!(settings.train.model, ModelKind::Sab);
        assert_eq!(settings.compare, [ModelKind::Tbptt]);
        assert_eq!(settings.test_spans, [100, 1000, 10_000]);
    }

    #[test]
    fn flags_win_over_the_preset() {
        let settings =
            settings("copying --preset paper --k-top 3 --score mlp --attention 7").unwrap();
        let layer = settings.train.layer;
        assert_eq!((layer.settings.k_top, layer.settings.k_trunc), (3, 5));
        assert_eq!(layer.score, ScoreConfig::Mlp { d_attention: 7 });
    }

    #[test]
    fn sizes_follow_the_task() {
        let settings = settings("copying --alphabet 3 --symbols 2 --delay 7 --model lstm").unwrap();
        assert_eq!(settings.train.layer.d_input, 5);
        assert_eq!(settings.test_spans, [7, 70, 700]);
        assert!(settings.compare.is_empty());
    }

    #[test]
    fn every_task_has_its_own_sizes() {
        for (line, task) in [
            (
                "selective-copying --distractors 3",
                Task::SelectiveCopying { symbols: 10, alphabet: 8, distractors: 3 },
            ),
            (
                "marked-symbol --alphabet 8 --delay 9",
                Task::MarkedSymbol { alphabet: 8, distractors: 8 },
            ),
            ("induction --vocabulary 5 --length 9", Task::Induction { vocabulary: 5 }),
            (
                "recall --pairs 4 --queries 2 --keys 5 --values 6 --distractors 7",
                Task::Recall { pairs: 4, queries: 2, keys: 5, values: 6, distractors: 7 },
            ),
        ] {
            assert_eq!(settings(line).unwrap().train.task, task, "{line}");
        }
        for (line, named) in [
            ("induction --delay 9", "give --length"),
            ("selective-copying --length 9", "give --delay"),
            ("induction --symbols 9", "--symbols has no meaning for induction"),
            ("adding --keys 9", "--keys has no meaning for adding"),
            ("recall --length 19", "2 * pairs + queries"),
        ] {
            let error = settings(line).unwrap_err().to_string();
            assert!(error.contains(named), "{line}: {error}");
        }
    }

    #[test]
    fn long_tests_take_fewer_sequences() {
        let settings = settings("copying --test-sequences 32 --test-steps 4000").unwrap();
        assert_eq!([105, 106, 980, 5000].map(|delay| settings.sequences_at(delay)), [32, 31, 4, 1]);
    }

    #[test]
    fn a_model_is_not_compared_with_itself() {
        let settings = settings("copying --compare lstm,sab,lstm,none").unwrap();
        assert_eq!(settings.compare, [ModelKind::Lstm]);
    }

    #[test]
    fn a_resumed_run_refuses_every_setting_that_it_cannot_change() {
        let changeable = [
            "updates",
            "stop_at",
            "test_delays",
            "test_sequences",
            "test_steps",
            "backend",
            "threads",
        ];
        let other = ["task", "out", "resume", "config", "help"];
        let train = TrainArgs::command();
        let run = settings("copying").unwrap();
        for flag in train.get_arguments() {
            let id = flag.get_id().as_str();
            if other.contains(&id) {
                continue;
            }
            let choices = flag.get_possible_values();
            let value = choices.first().map_or("1", |choice| choice.get_name());
            let flag_action = flag.get_action();
            let flag = flag.get_long().unwrap();
            let takes_value = !matches!(flag_action, ArgAction::SetTrue);
            let flag_word = format!("--{flag}");
            let line = ["sab train", "--resume", "run", &flag_word];
            let line = line.into_iter().chain(takes_value.then_some(value));
            let args = TrainArgs::try_parse_from(line).unwrap();
            let outcome = run.clone().for_resumption(&args);
            assert_eq!(outcome.is_ok(), changeable.contains(&id), "--{flag}: {outcome:?}");
        }
    }
}
