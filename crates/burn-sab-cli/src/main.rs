//! The program `sab`: trains networks with Sparse Attentive Backtracking and their baselines, checks
//! implementations against the conformance cases, and measures them.

mod args;
mod backend;
mod bench;
mod conformance;
mod error;
mod plot;
mod progress;
mod report;
mod reproduce;
mod run_folder;
mod session;
mod settings;
mod text;
mod train;

use std::panic;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::args::{Cli, Command};

/// What the first panic said, for the one line that reports it.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

fn main() -> ExitCode {
    // Messages of the libraries only where RUST_LOG asks for them.
    tracing_subscriber::fmt()
        .with_env_filter(
            EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off")),
        )
        .with_writer(std::io::stderr)
        .init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return error::explain_usage(&error),
    };
    // Every mistake of a user has a message of its own; a panic is a mistake of this program. It still
    // gets one line, unless a backtrace was asked for.
    if std::env::var_os("RUST_BACKTRACE").is_none_or(|value| value == "0") {
        panic::set_hook(Box::new(|info| {
            let mut first = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            first.get_or_insert_with(|| info.to_string().replace('\n', " "));
        }));
    }
    let outcome = panic::catch_unwind(|| match cli.command {
        Command::Train(args) => train::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Conformance(args) => conformance::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
    });
    match outcome {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => error::explain(&error),
        Err(_) => {
            let said = PANIC.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!(
                "error: this should not have happened: {} (set RUST_BACKTRACE=1 for a trace)",
                said.as_deref().unwrap_or("unknown panic")
            );
            ExitCode::FAILURE
        }
    }
}
