//! One case: the settings and tensors of its file. Reading a file checks everything that the computation
//! relies on, so that a mistake in the file is reported as one.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, anyhow, bail, ensure};
use burn_sab::{InitialSlot, SabLstmConfig, ScoreConfig, Sparsifier};
use safetensors::{Dtype as StoredType, SafeTensors};

/// Largest whole number of a setting: more than any sequence has steps, and no sum of two overflows.
const LARGEST: usize = 1_000_000_000;

/// Every setting that a file may have.
const SETTINGS: [&str; 11] = [
    "k_top",
    "k_att",
    "k_trunc",
    "truncation_offset",
    "score",
    "sparsifier",
    "initial_slot",
    "max_hops",
    "summary_scale",
    "learned_gain",
    "detach_scores",
];

/// A key that writers of SafeTensors add by convention; it says nothing about the case.
const CONVENTIONAL: &str = "format";

/// A tensor of the file.
pub struct Values {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// Settings and tensors that fit each other.
pub struct Case {
    pub config: SabLstmConfig,
    tensors: HashMap<String, Values>,
}

impl Case {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the file.
    pub fn parse(file: &[u8]) -> anyhow::Result<Self> {
        let (_, header) =
            SafeTensors::read_metadata(file).context("not a whole SafeTensors file")?;
        let settings = Settings(header.metadata().as_ref().context("it has no metadata")?);
        let content = SafeTensors::deserialize(file).context("not a whole SafeTensors file")?;
        let mut tensors = HashMap::new();
        for (name, view) in content.iter() {
            ensure!(
                view.dtype() == StoredType::F64,
                "tensor {name:?} is {}, and not F64",
                view.dtype()
            );
            let values: Vec<f64> = view
                .data()
                .chunks_exact(8)
                .map(|bytes| f64::from_le_bytes(bytes.try_into().expect("eight bytes")))
                .collect();
            ensure!(
                values.iter().all(|value| value.is_finite()),
                "tensor {name:?} has a value that is not finite"
            );
            tensors.insert(name.to_owned(), Values { shape: view.shape().to_vec(), values });
        }
        let config = settings.config(&tensors)?;
        check_shapes(&config, &tensors)?;
        Ok(Self { config, tensors })
    }

    /// A tensor by its name in the format.
    pub fn values(&self, name: &str) -> &Values {
        self.tensors.get(name).unwrap_or_else(|| panic!("{name} is not part of the format"))
    }

    /// How many gradients the file has.
    pub fn gradients(&self) -> usize {
        self.tensors.keys().filter(|name| name.starts_with("grad.")).count()
    }
}

/// The metadata of the file's header.
struct Settings<'a>(&'a HashMap<String, String>);

impl Settings<'_> {
    fn word(&self, name: &str) -> anyhow::Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("it has no setting {name}"))
    }

    fn one_of<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> anyhow::Result<T> {
        let word = self.word(name)?;
        let found = words.iter().find(|(known, _)| *known == word);
        found.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let known: Vec<&str> = words.iter().map(|(known, _)| *known).collect();
            anyhow!("setting {name} is {word:?}, and not one of {}", known.join(", "))
        })
    }

    fn count(&self, name: &str, least: usize) -> anyhow::Result<usize> {
        let word = self.word(name)?;
        let count = word.parse::<usize>().ok().filter(|count| (least..=LARGEST).contains(count));
        count.ok_or_else(|| {
            anyhow!("setting {name} is {word:?}, and not a whole number from {least} to {LARGEST}")
        })
    }

    fn max_hops(&self) -> anyhow::Result<Option<usize>> {
        match self.word("max_hops")? {
            "none" => Ok(None),
            _ => self.count("max_hops", 0).map(Some).map_err(|error| anyhow!("{error}, or none")),
        }
    }

    fn summary_scale(&self) -> anyhow::Result<f64> {
        let Some(word) = self.0.get("summary_scale") else { return Ok(1.0) };
        let scale = word.parse::<f64>().ok().filter(|scale| scale.is_finite() && *scale >= 0.0);
        scale.ok_or_else(|| {
            anyhow!("setting summary_scale is {word:?}, and not a finite number, 0 or above")
        })
    }

    /// A setting that is off where a file does not have it.
    fn switch(&self, name: &str) -> anyhow::Result<bool> {
        match self.0.contains_key(name) {
            true => self.one_of(name, &[("false", false), ("true", true)]),
            false => Ok(false),
        }
    }

    /// The layer's settings; its sizes are those of the tensors.
    fn config(&self, tensors: &HashMap<String, Values>) -> anyhow::Result<SabLstmConfig> {
        let mut names = self.0.keys().map(String::as_str);
        if let Some(name) = names.find(|name| !SETTINGS.contains(name) && *name != CONVENTIONAL) {
            bail!("unknown setting {name:?}");
        }
        let sparsifier = self.one_of(
            "sparsifier",
            &[
                ("threshold", Sparsifier::Threshold),
                ("released", Sparsifier::Released),
                ("softmax", Sparsifier::Softmax),
            ],
        )?;
        let initial_slot = self.one_of(
            "initial_slot",
            &[("none", InitialSlot::None), ("hidden", InitialSlot::Hidden)],
        )?;
        let of_size = self.one_of::<fn(usize) -> ScoreConfig>(
            "score",
            &[
                ("additive", |_| ScoreConfig::Additive),
                ("mlp", |d_attention| ScoreConfig::Mlp { d_attention }),
                ("dot", |d_attention| ScoreConfig::Dot { d_attention }),
            ],
        )?;
        let [_, _, input] = sides(tensors, "in.x")?;
        let [_, hidden] = sides(tensors, "w.hh")?;
        let score = match of_size(1) {
            // The one score without an attention size.
            additive @ ScoreConfig::Additive => additive,
            _ => {
                let [attention, _] = sides(tensors, "score.query")?;
                of_size(attention)
            }
        };
        Ok(SabLstmConfig::new(input, hidden, true)
            .with_k_top(self.count("k_top", 1)?)
            .with_k_att(self.count("k_att", 1)?)
            .with_k_trunc(self.count("k_trunc", 1)?)
            .with_truncation_offset(Some(self.count("truncation_offset", 0)?))
            .with_score(score)
            .with_sparsifier(sparsifier)
            .with_initial_slot(initial_slot)
            .with_max_hops(self.max_hops()?)
            .with_summary_scale(self.summary_scale()?)
            .with_learned_gain(self.switch("learned_gain")?)
            .with_detach_scores(self.switch("detach_scores")?))
    }
}

/// The sides of a tensor that sets sizes; none may be 0.
fn sides<const D: usize>(
    tensors: &HashMap<String, Values>,
    name: &str,
) -> anyhow::Result<[usize; D]> {
    let shape = &tensors.get(name).with_context(|| format!("it has no tensor {name}"))?.shape;
    match <[usize; D]>::try_from(shape.as_slice()) {
        Ok(sides) if !sides.contains(&0) => Ok(sides),
        _ => bail!("tensor {name} has shape {shape:?}, and not {D} sides of at least 1"),
    }
}

/// Every tensor of the format is there, in its shape, and nothing else is.
fn check_shapes(config: &SabLstmConfig, tensors: &HashMap<String, Values>) -> anyhow::Result<()> {
    let expected = shapes(config, sides(tensors, "in.x")?);
    for (name, shape) in &expected {
        let found = &tensors.get(name).with_context(|| format!("it has no tensor {name}"))?.shape;
        ensure!(
            found == shape,
            "tensor {name} has shape {found:?}, where the settings, in.x, w.hh and score.query make it {shape:?}"
        );
    }
    match tensors.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => bail!("unknown tensor {name:?}"),
        None => Ok(()),
    }
}

/// The shapes that follow from settings and input.
fn shapes(
    config: &SabLstmConfig,
    [batch, time, input]: [usize; 3],
) -> BTreeMap<String, Vec<usize>> {
    let hidden = config.d_hidden;
    // A file can claim any number of columns where it has no rows.
    let gates = hidden.saturating_mul(4);
    let slots = time / config.settings.k_att
        + usize::from(config.settings.initial_slot == InitialSlot::Hidden);
    let scorer = match config.score {
        ScoreConfig::Additive => vec![("score.u", vec![hidden]), ("score.v", vec![hidden])],
        ScoreConfig::Mlp { d_attention } => vec![
            ("score.query", vec![d_attention, hidden]),
            ("score.query_bias", vec![d_attention]),
            ("score.memory", vec![d_attention, hidden]),
            ("score.v", vec![d_attention]),
        ],
        ScoreConfig::Dot { d_attention } => vec![
            ("score.query", vec![d_attention, hidden]),
            ("score.key", vec![d_attention, hidden]),
        ],
    };
    let inputs = [
        ("in.x", vec![batch, time, input]),
        ("in.h0", vec![batch, hidden]),
        ("in.c0", vec![batch, hidden]),
        ("w.ih", vec![gates, input]),
        ("w.hh", vec![gates, hidden]),
        ("b.ih", vec![gates]),
        ("b.hh", vec![gates]),
    ];
    let outputs = [
        ("up.h", vec![batch, time, hidden]),
        ("up.s", vec![batch, time, hidden]),
        ("up.c", vec![batch, hidden]),
        ("out.h", vec![batch, time, hidden]),
        ("out.s", vec![batch, time, hidden]),
        ("out.c", vec![batch, hidden]),
        ("out.weights", vec![batch, time, slots]),
        ("out.slots", vec![1]),
    ];
    let gain = config.settings.learned_gain.then(|| ("summary_gain", vec![hidden]));
    let with_gradient: Vec<_> = inputs.into_iter().chain(scorer).chain(gain).collect();
    let gradients =
        with_gradient.iter().map(|(name, shape)| (format!("grad.{name}"), shape.clone()));
    let gradients: Vec<_> = gradients.collect();
    let named = with_gradient.into_iter().chain(outputs);
    named.map(|(name, shape)| (name.to_owned(), shape)).chain(gradients).collect()
}
