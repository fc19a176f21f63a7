//! Errors, each reported in one line that says what to change.

use std::process::ExitCode;

use burn_sab_tasks::TrainError;
use clap::error::ErrorKind;

use crate::signals::Stopped;

/// Exit status for a command line that makes no sense, as clap uses it.
const USAGE: u8 = 2;

/// A mistake on the command line, or in a file that it names.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(String);

impl Usage {
    /// Returns the error; `text` says what to change.
    pub fn error(text: String) -> anyhow::Error {
        Self(text).into()
    }
}

/// Makes an error that says what to change on the command line, with the arguments of `format!`.
#[macro_export]
macro_rules! usage {
    ($($text:tt)*) => { $crate::error::Usage::error(format!($($text)*)) };
}
pub use crate::usage;

/// Prints an error as one line and returns the exit status for it.
pub(crate) fn explain(error: &anyhow::Error) -> ExitCode {
    if let Some(stopped) = error.downcast_ref::<Stopped>() {
        eprintln!("{stopped}");
        return ExitCode::from(stopped.status);
    }
    eprintln!("error: {}", format!("{error:#}").replace('\n', " "));
    let wrong_setting = matches!(
        error.downcast_ref(),
        Some(
            TrainError::Setting { .. }
                | TrainError::Layer(_)
                | TrainError::Data(_)
                | TrainError::Memory { .. }
                | TrainError::TestSpan { .. }
        )
    );
    if wrong_setting || error.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

/// Prints what clap has to say: help in full, a mistake as one line.
pub(crate) fn explain_usage(error: &clap::Error) -> ExitCode {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    if matches!(
        error.kind(),
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        // A closed pipe is no reason to complain.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    }
    let rendered = error.render().to_string();
    let telling: Vec<&str> = rendered
        .lines()
        .map(str::trim)
        .take_while(|line| !line.starts_with("Usage:"))
        .filter(|line| !line.is_empty() && !line.starts_with("For more information"))
        .collect();
    eprintln!("{} (see --help)", telling.join(" "));
    ExitCode::from(USAGE)
}
