//! The flags of the layer's settings: made from the settings themselves, so that a new one has its flag.

use std::marker::PhantomData;

use burn_sab::{SabSettings, ScoreKind, SettingValue};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser, ValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

/// Heading and defaults of the flags for the settings.
pub trait Flags {
    /// The heading in the help under which they stand.
    const HEADING: &'static str;

    /// The settings that hold where no flag is given.
    fn defaults() -> SabSettings;
}

/// The layer's own defaults.
#[derive(Debug, Clone, Copy)]
pub struct OfLayer;

impl Flags for OfLayer {
    const HEADING: &'static str = "Layer";

    fn defaults() -> SabSettings {
        SabSettings::default()
    }
}

/// The settings that were given as flags.
#[derive(Debug, Clone)]
pub struct SettingFlags<F = OfLayer> {
    /// Names and values as texts.
    given: Vec<(&'static str, String)>,
    flags: PhantomData<F>,
}

impl<F> SettingFlags<F> {
    /// The name of a setting that was given, as its flag has it.
    pub fn first(&self) -> Option<String> {
        self.given.first().map(|(name, _)| name.replace('_', "-"))
    }

    /// Whether this setting was given.
    pub fn has(&self, name: &str) -> bool {
        self.given.iter().any(|(given, _)| *given == name)
    }

    /// Changes the settings that were given.
    pub fn apply(&self, settings: &mut SabSettings) {
        for (name, text) in &self.given {
            settings.set(name, text).expect("the parser of the flag accepted it");
        }
    }
}

/// The flags that make `from` of the defaults.
pub fn setting_flags<F: Flags>(from: &SabSettings) -> Vec<String> {
    let defaults = F::defaults();
    let changed = SabSettings::all().into_iter().filter_map(|setting| {
        let value = from.get(setting.name)?;
        let flag = format!("--{}={value}", setting.name.replace('_', "-"));
        (defaults.get(setting.name)? != value).then_some(flag)
    });
    changed.collect()
}

impl<F: Flags> Args for SettingFlags<F> {
    fn augment_args(command: Command) -> Command {
        let defaults = F::defaults();
        SabSettings::all().into_iter().fold(command, |command, setting| {
            let name = setting.name;
            let default = defaults.get(name).unwrap_or_default();
            let about = setting.about.split_whitespace().collect::<Vec<_>>().join(" ");
            let values = if setting.words.is_empty() {
                ValueParser::new(move |text: &str| {
                    SabSettings::default()
                        .set(name, text)
                        .map(|()| text.to_owned())
                        .map_err(|_| format!("give {}", setting.expected))
                })
            } else {
                words(setting.words).into()
            };
            let flag = Arg::new(name)
                .long(name.replace('_', "-"))
                .help(format!("{about} [default: {default}]"))
                .help_heading(F::HEADING)
                .value_parser(values);
            command.arg(match setting.words.is_empty() {
                true => flag.value_name(if setting.expected.contains("whole") { "N" } else { "X" }),
                false => flag,
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<F> FromArgMatches for SettingFlags<F> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SabSettings::all().into_iter().filter_map(|setting| {
            Some((setting.name, matches.get_one::<String>(setting.name)?.clone()))
        });
        Ok(Self { given: given.collect(), flags: PhantomData })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A parser of a setting's value that is one of some words.
pub fn value<T: SettingValue + Send + Sync + 'static>() -> impl TypedValueParser<Value = T> {
    words(T::WORDS).try_map(|word| {
        T::from_text(&word).ok_or_else(|| clap::Error::new(ErrorKind::InvalidValue))
    })
}

/// A parser of these words, with what each means.
fn words(words: &'static [(&'static str, &'static str)]) -> PossibleValuesParser {
    let value = |(word, about): &(&'static str, &'static str)| {
        PossibleValue::new(*word).help(about.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    PossibleValuesParser::new(words.iter().map(value).collect::<Vec<_>>())
}

/// A parser of the name of a score.
pub fn score() -> impl TypedValueParser<Value = ScoreKind> {
    let value = |(_, name, formula): &(ScoreKind, &'static str, &'static str)| {
        PossibleValue::new(*name).help(*formula)
    };
    PossibleValuesParser::new(ScoreKind::ALL.iter().map(value).collect::<Vec<_>>()).try_map(
        |name| {
            let found = ScoreKind::ALL.iter().find(|(_, other, _)| *other == name);
            found.map(|(kind, ..)| *kind).ok_or_else(|| clap::Error::new(ErrorKind::InvalidValue))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingFlags,
    }

    fn parse(line: &str) -> Result<SabSettings, clap::Error> {
        let words = ["sab"].into_iter().chain(line.split_whitespace());
        let mut settings = SabSettings::default();
        Line::try_parse_from(words)?.settings.apply(&mut settings);
        Ok(settings)
    }

    #[test]
    fn every_setting_has_a_flag() {
        let line = "--k-top 3 --sparsifier released --max-hops none --summary-scale 0.5";
        let settings = parse(line).unwrap();
        assert_eq!((settings.k_top, settings.max_hops, settings.summary_scale), (3, None, 0.5));
        let again = parse(&setting_flags::<OfLayer>(&settings).join(" ")).unwrap();
        assert_eq!(again, settings);
        for setting in SabSettings::all() {
            let flag = format!("--{} {}", setting.name.replace('_', "-"), setting.default);
            assert_eq!(parse(&flag).unwrap(), SabSettings::default(), "{flag}");
        }
    }

    #[test]
    fn a_wrong_value_is_named_with_what_it_should_be() {
        for (line, told) in [
            ("--k-top many", "give a whole number"),
            ("--max-hops=-1", "none"),
            ("--sparsifier hard", "threshold"),
        ] {
            let error = parse(line).unwrap_err().to_string();
            assert!(error.contains(told), "{line}: {error}");
        }
    }
}
