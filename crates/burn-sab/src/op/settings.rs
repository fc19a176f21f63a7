//! The settings of the memory, each written once: type, default, check, documentation, and its name on
//! a command line.

use std::fmt::Debug;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::score::ScoreKind;
use crate::error::ConfigError;

/// A value of a setting, which can be read from text and written as text.
pub trait SettingValue: Sized + Copy + PartialEq + Debug {
    /// The words that are values, with their meanings; empty if the value is a number.
    const WORDS: &'static [(&'static str, &'static str)] = &[];

    /// The form of the text, such as "a whole number".
    const EXPECTED: &'static str;

    /// Reads the value; `None` if the text is not of the expected form.
    fn from_text(text: &str) -> Option<Self>;

    /// Writes the value so that [`from_text`](Self::from_text) reads it.
    fn to_text(&self) -> String;
}

macro_rules! numbers {
    ($($number:ty: $expected:literal),*) => {$(
        impl SettingValue for $number {
            const EXPECTED: &'static str = $expected;

            fn from_text(text: &str) -> Option<Self> {
                text.parse().ok()
            }

            fn to_text(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

numbers!(usize: "a whole number", f64: "a number");

impl SettingValue for bool {
    const WORDS: &'static [(&'static str, &'static str)] = &[("false", "No"), ("true", "Yes")];
    const EXPECTED: &'static str = "one of false true";

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }

    fn to_text(&self) -> String {
        self.to_string()
    }
}

impl<T: SettingValue + FromStr> SettingValue for Option<T> {
    const EXPECTED: &'static str = "a whole number or \"none\"";

    fn from_text(text: &str) -> Option<Self> {
        if text == "none" { Some(None) } else { T::from_text(text).map(Some) }
    }

    fn to_text(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::to_text)
    }
}

/// Defines an enum whose variants have a word each.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($(#[doc = $doc:literal])+ $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl SettingValue for $name {
            const WORDS: &'static [(&'static str, &'static str)] =
                &[$(($word, concat!($($doc),+))),+];
            const EXPECTED: &'static str = concat!("one of", $(" ", $word),+);

            fn from_text(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$variant),)+
                    _ => None,
                }
            }

            fn to_text(&self) -> String {
                match self {
                    $(Self::$variant => $word,)+
                }
                .to_owned()
            }
        }
    };
}

words! {
    /// How raw scores become the sparse weights of at most `k_top` slots (the algorithm, step 4).
    ///
    /// M is the number of slots that are stored when the weights are computed. Of equal scores the
    /// older slot ranks first; a NaN ranks below every number.
    Sparsifier {
        /// The paper's: `relu(a - delta)`, normalised to sum to one, where `delta` is the (k_top + 1)-th
        /// largest score, or the smallest score minus one while M <= k_top.
        Threshold = "threshold",
        /// The authors' PyTorch release: `delta` is the k_top-th largest score plus 1e-7, so that at most
        /// k_top - 1 slots have weight; while M <= k_top the raw scores are the weights.
        Released = "released",
        /// Softmax over the k_top largest scores.
        Softmax = "softmax",
    }
}

words! {
    /// The content of the memory before the first step.
    InitialSlot {
        /// No slot (the paper).
        None = "none",
        /// One slot with the initial hidden state (the authors' release).
        Hidden = "hidden",
    }
}

words! {
    /// The implementation that runs the sequence. All give the same values up to rounding.
    Strategy {
        /// The fastest implementation that covers the settings, the backend and the data type.
        Auto = "auto",
        /// The readable reference: ordinary tensor operations under Burn's own autodiff. Covers every
        /// setting.
        Reference = "reference",
        /// Backend primitives with the hand-written backward pass, one autodiff node; any backend.
        Primitives = "primitives",
        /// The backend's own kernel; an error where it has none.
        Fused = "fused",
    }
}

words! {
    /// Where the backward pass gets the gates of a step from. Changes no value beyond rounding; the CPU
    /// kernel heeds it.
    Recompute {
        /// Saved while they fit a budget and the backward pass will read most of them, else recomputed.
        Auto = "auto",
        /// The forward pass saves the gates of every step: 5 H + A elements per step and row.
        Never = "never",
        /// The forward pass saves the state every 32 steps or fewer; the backward pass recomputes the
        /// steps that gradient reaches from there.
        Always = "always",
    }
}

fn at_least_one(name: &'static str, value: usize, hint: &'static str) -> Result<(), ConfigError> {
    if value == 0 { Err(ConfigError::Zero { name, hint }) } else { Ok(()) }
}

/// # Errors
///
/// If the value is not finite or not above zero.
pub(crate) fn positive(name: &'static str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value > 0.0 {
        Ok(())
    } else {
        Err(ConfigError::NotPositive { name, value })
    }
}

/// # Errors
///
/// If the value is not finite or below zero.
fn not_negative(name: &'static str, value: f64) -> Result<(), ConfigError> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(ConfigError::Negative { name, value })
    }
}

const NO_MEMORY: &str = " (for a layer without memory use without_memory())";

/// Hands the list of all settings to another macro. This list is the one place where a setting is written:
/// `documentation, name: type = default, check`.
macro_rules! for_each_setting {
    ($macro:ident $($arguments:tt)*) => {
        $macro! {
            [$($arguments)*]
            /// Slots retrieved per step, at least 1
            k_top: usize = 10, |k_top| at_least_one("k_top", k_top, NO_MEMORY);
            /// Steps between two stored slots, at least 1: a slot is stored after every `k_att` steps
            k_att: usize = 1, |k_att| at_least_one("k_att", k_att, NO_MEMORY);
            /// Steps in a truncation window, at least 1; also the window of truncated backpropagation
            k_trunc: usize = 20,
                |k_trunc| at_least_one("k_trunc", k_trunc, " (to switch truncation off use full_backpropagation())");
            /// Shift of the truncation windows: a window starts where `(t + truncation_offset) % k_trunc == 0`;
            /// with 0 none starts at t = 0, where the initial state enters. None is 1 if every step is a slot, and 0
            /// if not: with `k_trunc` equal to `k_att`, a slot is then the last step of its window
            truncation_offset: Option<usize> = None, |_| Ok(());
            /// Sparsifier of the scores: how they become weights
            sparsifier: Sparsifier = Sparsifier::Softmax, |_| Ok(());
            /// Content of the memory before the first step
            initial_slot: InitialSlot = InitialSlot::Hidden, |_| Ok(());
            /// Factor on the summary on its way into the hidden state, at least 0: h = ĥ + `summary_scale` · s.
            /// Below 1 it bounds h: with weights that sum to 1, |h| is at most 1 / (1 - `summary_scale`). With 0
            /// the summary reaches the readout alone
            summary_scale: f64 = 0.1, |scale| not_negative("summary_scale", scale);
            /// Whether the factor is learned, one for each hidden unit: h = ĥ + γ ⊙ s, where every γ begins at
            /// `summary_scale`. If that is 0, the layer begins as an LSTM without memory
            learned_gain: bool = false, |_| Ok(());
            /// Whether scores are constants to the states that they read (one reading of the paper's ablation without
            /// mental updates): no gradient reaches a state through a score. The parameters of the score are trained
            /// either way. Changes no value
            detach_scores: bool = false, |_| Ok(());
            /// Most reminders on a gradient path, or none for no limit. Changes no value
            max_hops: Option<usize> = None, |_| Ok(());
            /// Slots kept of a long past, at least 1, or none for all: whenever the memory holds twice as many,
            /// those that differ most from the one before them stay, row by row
            slot_budget: Option<usize> = None,
                |budget| at_least_one("slot_budget", budget.unwrap_or(1), " (None keeps every slot)");
            /// Lists of similar slots that a step searches, at least 1, or none to score every slot. Slots outside of
            /// them are not retrieved, and a step takes time that grows with the square root of the number of slots
            /// (the CPU kernel; GPU kernels score every slot). For dot scores, without `slot_budget`
            n_probe: Option<usize> = None,
                |n_probe| at_least_one("n_probe", n_probe.unwrap_or(1), " (None scores every slot)");
            /// What the backward pass recomputes instead of having it saved: memory against time
            recompute: Recompute = Recompute::Auto, |_| Ok(());
            /// Implementation that runs; all give the same values up to rounding
            strategy: Strategy = Strategy::Auto, |_| Ok(());
        }
    };
}
pub(crate) use for_each_setting;

/// The description of a setting, for programs that offer all settings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// Its name, in snake case.
    pub name: &'static str,
    /// What it means.
    pub about: &'static str,
    /// Its default, in words.
    pub default: String,
    /// The form of its value, such as "a whole number".
    pub expected: &'static str,
    /// The words that are its values, with their meanings; empty if the value is a number.
    pub words: &'static [(&'static str, &'static str)],
}

macro_rules! define_settings {
    ([] $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr, $check:expr;)+) => {
        /// The settings of the memory: part of [`SabLstmConfig`](crate::SabLstmConfig), of the layer, and of a
        /// call of the op.
        ///
        /// The defaults are one set of settings that trained every task of this project's suite (the book, "Design
        /// decisions"). A setting that is missing in a file has its default.
        #[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        #[non_exhaustive]
        pub struct SabSettings {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        impl Default for SabSettings {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl SabSettings {
            /// Checks every setting.
            ///
            /// # Errors
            ///
            /// [`ConfigError`] names the first setting that is out of its range, and the remedy.
            pub fn validate(&self) -> Result<(), ConfigError> {
                $({
                    let check: fn($type) -> Result<(), ConfigError> = $check;
                    check(self.$name)?;
                })+
                self.check_index()
            }

            /// All settings, in the order of the fields.
            pub fn all() -> Vec<Setting> {
                let defaults = Self::default();
                vec![$(Setting {
                    name: stringify!($name),
                    about: concat!($($doc, "\n"),+),
                    default: defaults.$name.to_text(),
                    expected: <$type as SettingValue>::EXPECTED,
                    words: <$type as SettingValue>::WORDS,
                },)+]
            }

            /// The value of the setting of this name as text; `None` if there is no such setting.
            pub fn get(&self, name: &str) -> Option<String> {
                match name {
                    $(stringify!($name) => Some(self.$name.to_text()),)+
                    _ => None,
                }
            }

            /// Sets the setting of this name from text; its range is checked by [`validate`](Self::validate).
            ///
            /// # Errors
            ///
            /// If there is no such setting, or the text is not of the form that it takes.
            pub fn set(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
                match name {
                    $(stringify!($name) => {
                        self.$name = SettingValue::from_text(text).ok_or_else(|| ConfigError::Text {
                            name: stringify!($name),
                            text: text.to_owned(),
                            expected: <$type as SettingValue>::EXPECTED,
                        })?;
                    })+
                    _ => return Err(ConfigError::Unknown { name: name.to_owned() }),
                }
                Ok(())
            }
        }
    };
}

for_each_setting!(define_settings);

impl SabSettings {
    /// The shift of the truncation windows, also where none is given.
    pub fn truncation_offset(&self) -> usize {
        self.truncation_offset.unwrap_or(usize::from(self.k_att == 1))
    }

    /// # Errors
    ///
    /// If there is an index over slots that a budget drops.
    fn check_index(&self) -> Result<(), ConfigError> {
        match (self.n_probe, self.slot_budget) {
            (Some(n_probe), Some(slot_budget)) => Err(ConfigError::Index {
                n_probe,
                beside: format!("slot_budget = {slot_budget}"),
                remedy: "an index keeps every slot; leave one of the two none",
            }),
            _ => Ok(()),
        }
    }

    /// Checks every setting, and whether they fit the form of the score.
    ///
    /// # Errors
    ///
    /// As [`validate`](Self::validate); and if there is an index for scores that are not dot products.
    pub fn validate_with(&self, score: ScoreKind) -> Result<(), ConfigError> {
        self.validate()?;
        match self.n_probe {
            Some(n_probe) if score != ScoreKind::Dot => Err(ConfigError::Index {
                n_probe,
                beside: format!("{} scores", score.name()),
                remedy: "an index serves dot scores only; leave n_probe none, or take dot scores",
            }),
            _ => Ok(()),
        }
    }
}

/// Gives a type a setter `with_<name>` for each setting: `()` where they are its own fields, `(field)` where they
/// are those of a field.
macro_rules! settings_setters {
    ([$outer:ident $field:tt] $($(#[doc = $doc:literal])+ $name:ident: $type:ty $(= $default:expr, $check:expr)?;)+) => {
        pastey::paste! {
            impl $outer {
                $(
                    $(#[doc = $doc])+
                    pub fn [<with_ $name>](mut self, value: $type) -> Self {
                        crate::op::place!(self $field).$name = value;
                        self
                    }
                )+
            }
        }
    };
}
pub(crate) use settings_setters;

/// `self`, or the field of it that is named in parentheses.
macro_rules! place {
    ($self:ident ()) => {
        $self
    };
    ($self:ident ($field:ident)) => {
        $self.$field
    };
}
pub(crate) use place;

for_each_setting!(settings_setters SabSettings ());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_back_from_its_text() {
        let mut settings = SabSettings::default();
        for setting in SabSettings::all() {
            assert_eq!(settings.get(setting.name), Some(setting.default.clone()));
            assert!(!setting.about.is_empty());
            let words = setting.words.iter().map(|(word, _)| *word);
            for text in words.chain((setting.words.is_empty()).then_some("3")) {
                settings.set(setting.name, text).unwrap();
                assert_eq!(settings.get(setting.name).as_deref(), Some(text));
            }
            let error = settings.set(setting.name, "seven").unwrap_err().to_string();
            assert!(error.contains(setting.name) && error.contains(setting.expected), "{error}");
        }
        settings.set("max_hops", "none").unwrap();
        assert_eq!(settings.max_hops, None);
        assert!(settings.set("k_bottom", "1").is_err());
        assert_eq!(settings.get("k_bottom"), None);
    }

    #[test]
    fn a_file_without_a_setting_has_its_default() {
        let settings: SabSettings = serde_json::from_str(r#"{"k_top": 3}"#).unwrap();
        assert_eq!(settings, SabSettings::default().with_k_top(3));
        assert!(serde_json::from_str::<SabSettings>(r#"{"k_top": "many"}"#).is_err());
    }

    #[test]
    fn a_setting_out_of_range_is_named() {
        for (name, text) in [
            ("k_top", "0"),
            ("k_att", "0"),
            ("k_trunc", "0"),
            ("slot_budget", "0"),
            ("n_probe", "0"),
            ("summary_scale", "NaN"),
            ("summary_scale", "-0.1"),
        ] {
            let mut settings = SabSettings::default();
            settings.set(name, text).unwrap();
            let error = settings.validate().unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
    }

    #[test]
    fn an_index_needs_dot_scores_and_all_slots() {
        let settings = SabSettings::default().with_n_probe(Some(8));
        assert!(settings.validate_with(ScoreKind::Dot).is_ok());
        let error = settings.validate_with(ScoreKind::Additive).unwrap_err().to_string();
        assert!(error.contains("n_probe = 8") && error.contains("additive"), "{error}");
        let error = settings.with_slot_budget(Some(3)).validate().unwrap_err().to_string();
        assert!(error.contains("n_probe = 8") && error.contains("slot_budget = 3"), "{error}");
    }
}
