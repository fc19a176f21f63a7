//! What a call is beside its tensors, as scalars of a message.

use burn::backend::ir::ScalarIr;
use serde::{Deserialize, Serialize};

use crate::op::options::{Readout, SabOptions};
use crate::op::rows::Row;
use crate::op::settings::SabSettings;
use crate::op::tensors::{Needs, SabInputs, Upstream};

/// The forward pass: the inputs, to the outputs, each in the order of the fields.
pub(super) const FORWARD: &str = "burn-sab::forward";
/// The backward pass: the inputs and the gradients that reached the op, to the gradients that are needed.
pub(super) const BACKWARD: &str = "burn-sab::backward";
/// The release of this crate on the server: nothing, to three integers.
pub(super) const RELEASE: &str = "burn-sab::release";
/// Whether the server's kernel covers a call: the inputs, to one integer that is 0 or 1.
pub(super) const COVERAGE: &str = "burn-sab::coverage";

/// A call beside its tensors. Every other form of it is another list of scalars, so that no cache of Burn's graphs
/// takes one call for another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Call {
    settings: SabSettings,
    first_step: usize,
    /// The steps of [`Readout::At`].
    steps: Option<Vec<usize>>,
    reminders: bool,
    rows: Option<Vec<Row>>,
    /// Whether activations are to be saved; for a question only.
    pub keep: bool,
    /// Which inputs there are, and which of them need a gradient.
    pub needs: Needs,
    /// Which gradients reached the op.
    pub upstream: Upstream<bool>,
}

impl Call {
    fn new(options: &SabOptions, needs: Needs, upstream: Upstream<bool>) -> Self {
        let SabOptions { settings, first_step, readout, reminders, rows } = options;
        Self {
            settings: *settings,
            first_step: *first_step,
            steps: match readout {
                Readout::All => None,
                Readout::At(steps) => Some(steps.to_vec()),
            },
            reminders: *reminders,
            rows: rows.as_ref().map(|rows| rows.to_vec()),
            keep: false,
            needs,
            upstream,
        }
    }

    /// A forward pass.
    pub fn forward<P>(inputs: &SabInputs<P, P, P>, options: &SabOptions) -> Self {
        Self::new(options, inputs.as_ref().map(|_| false), Upstream::none())
    }

    /// The question whether a kernel covers a forward pass that saves its activations if `keep`.
    pub fn question<P>(inputs: &SabInputs<P, P, P>, options: &SabOptions, keep: bool) -> Self {
        Self { keep, ..Self::forward(inputs, options) }
    }

    /// A backward pass.
    pub fn backward<P>(options: &SabOptions, upstream: &Upstream<P>, needs: &Needs) -> Self {
        Self::new(options, *needs, upstream.as_ref().map(|_| true))
    }

    /// The options.
    #[cfg(any(feature = "remote-server", test))]
    pub fn options(&self) -> SabOptions {
        let Self { settings, first_step, steps, reminders, rows, .. } = self.clone();
        SabOptions {
            settings,
            first_step,
            readout: steps.map_or(Readout::All, |steps| Readout::At(steps.into())),
            reminders,
            rows: rows.map(Into::into),
        }
    }

    /// The number of bytes in MessagePack, and the bytes, eight to a scalar.
    pub fn to_scalars(&self) -> Vec<ScalarIr> {
        let bytes = rmp_serde::to_vec(self).expect("every field has a form in MessagePack");
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        std::iter::once(bytes.len() as u64).chain(words).map(ScalarIr::UInt).collect()
    }

    /// The call of these scalars.
    ///
    /// # Errors
    ///
    /// If they are not those of a call.
    #[cfg(any(feature = "remote-server", test))]
    pub fn from_scalars(scalars: &[ScalarIr]) -> Result<Self, String> {
        let mut words = scalars.iter().map(|scalar| match scalar {
            ScalarIr::UInt(word) => Ok(*word),
            other => Err(format!("{other:?} is not a part of a call of burn-sab")),
        });
        let size = words.next().ok_or("a call of burn-sab without scalars")??;
        let mut bytes = Vec::with_capacity(8 * scalars.len());
        for word in words {
            bytes.extend(word?.to_le_bytes());
        }
        let bytes = usize::try_from(size).ok().and_then(|size| bytes.get(..size));
        let bytes = bytes.ok_or_else(|| format!("a call of burn-sab is cut off: {size} bytes"))?;
        rmp_serde::from_slice(bytes).map_err(|error| format!("a call of burn-sab: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::score::Score;
    use crate::op::settings::{SettingValue, Sparsifier};

    fn needs(score: Score<bool>, slots: Option<bool>) -> Needs {
        SabInputs {
            x: true,
            w_ih: false,
            w_hh: true,
            bias: false,
            h0: true,
            c0: false,
            slots,
            summary_gain: Some(false),
            score,
        }
    }

    /// Calls that differ from one another in one thing each.
    fn calls() -> Vec<Call> {
        let scores = [
            Score::Additive { u: true, v: false },
            Score::Mlp { query: false, query_bias: true, memory: true, v: false },
            Score::Dot { query: true, key: false },
            Score::Dot { query: true, key: true },
        ];
        let mut all = Vec::new();
        let forms = scores
            .into_iter()
            .flat_map(|score| [None, Some(false), Some(true)].map(|slots| needs(score, slots)));
        for needs in forms {
            all.push(Call::backward(&SabOptions::default(), &Upstream::<()>::none(), &needs));
        }
        let needs = needs(scores[2], None);
        let mut with = |change: &dyn Fn(&mut SabOptions)| {
            let mut options = SabOptions::default();
            change(&mut options);
            all.push(Call::backward(&options, &Upstream::<()>::none(), &needs));
        };
        for setting in SabSettings::all() {
            let words = setting.words.iter().map(|(word, _)| *word);
            for text in words.chain(setting.words.is_empty().then_some("7")) {
                if text != setting.default {
                    with(&|options| options.settings.set(setting.name, text).unwrap());
                }
            }
        }
        with(&|options| options.settings.summary_scale = 0.1 + f64::EPSILON);
        with(&|options| options.settings.k_trunc = usize::MAX);
        with(&|options| options.first_step = 1 << 40);
        with(&|options| options.reminders = true);
        for steps in [vec![0], vec![3, 5, 70_000]] {
            with(&|options| options.readout = Readout::At(steps.clone().into()));
        }
        let row = Row { first_step: 3, carried: 1, length: 7, resets: vec![2, 5] };
        for rows in [vec![row.clone()], vec![row, Row::default()]] {
            with(&|options| options.rows = Some(rows.clone().into()));
        }
        let none = Upstream::none();
        for upstream in [
            Upstream { hidden: Some(()), ..none.clone() },
            Upstream { last: Some(()), ..none.clone() },
            Upstream { cell: Some(()), ..none.clone() },
            Upstream { stored: Some(()), ..none.clone() },
            Upstream { summary: Some(()), ..none },
        ] {
            all.push(Call::backward(&SabOptions::default(), &upstream, &needs));
        }
        all.push(Call { keep: true, ..all[0].clone() });
        all
    }

    #[test]
    fn a_call_comes_back_from_its_scalars() {
        for call in calls() {
            let scalars = call.to_scalars();
            assert_eq!(Call::from_scalars(&scalars).as_ref(), Ok(&call));
            let Call { needs, upstream, keep, .. } = call.clone();
            let again = Call { keep, ..Call::new(&call.options(), needs, upstream) };
            assert_eq!(again, call);
        }
    }

    #[test]
    fn every_call_has_its_own_scalars() {
        let scalars: Vec<_> = calls().iter().map(Call::to_scalars).collect();
        for (at, one) in scalars.iter().enumerate() {
            assert!(!scalars[..at].contains(one), "{:?}", calls()[at]);
        }
        // A default call is short: a message is a few hundred bytes.
        assert!(scalars[0].len() < 40, "{} scalars", scalars[0].len());
        assert!(Sparsifier::WORDS.len() > 1);
    }

    #[test]
    fn other_scalars_are_no_call() {
        let mut scalars = calls()[0].to_scalars();
        scalars.pop();
        let message = |scalars: &[ScalarIr]| Call::from_scalars(scalars).unwrap_err();
        assert!(message(&scalars).contains("cut off"));
        assert!(message(&[]).contains("without scalars"));
        assert!(message(&[ScalarIr::Float(1.0)]).contains("Float(1.0)"));
        assert!(message(&[ScalarIr::UInt(1), ScalarIr::UInt(0)]).contains("burn-sab"));
    }
}
