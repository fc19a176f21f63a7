//! Errors, each told in one line that says what to change.

use std::process::ExitCode;

use burn_sab_tasks::TrainError;
use clap::error::ErrorKind;

/// Exit status for a command line that makes no sense, as clap uses it.
const USAGE: u8 = 2;

/// Something on the command line, or in a file it names, that makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An error that says what to change on the command line.
macro_rules! usage {
    ($($text:tt)*) => { anyhow::Error::new($crate::error::Usage(format!($($text)*))) };
}
pub(crate) use usage;

/// Prints an error as one line and gives the exit status for it.
pub fn explain(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", format!("{error:#}").replace('\n', " "));
    let wrong_setting = matches!(
        error.downcast_ref(),
        Some(TrainError::Setting { .. } | TrainError::Layer(_) | TrainError::Data(_))
    );
    if wrong_setting || error.is::<Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
}

/// Prints what clap has to say: help in full, a mistake as one line.
pub fn explain_usage(error: &clap::Error) -> ExitCode {
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
