//! What a program does around its work: the command line before it, the exit status after it.

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::{error, failure};

/// Parses the command line of this process and hands it to `work`.
///
/// An error becomes one line on standard error, and so does a panic. The exit status is that of `work`, 2 if the
/// command line makes no sense, or 1 after any other error.
pub fn run<Line: Parser>(work: impl FnOnce(Line) -> anyhow::Result<ExitCode>) -> ExitCode {
    // Messages of the libraries only where RUST_LOG asks for them.
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off")),
        )
        .with_writer(std::io::stderr)
        .init();
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => return error::explain_usage(&error),
    };
    failure::listen();
    failure::caught(|| work(line)).unwrap_or_else(|error| error::explain(&error))
}
