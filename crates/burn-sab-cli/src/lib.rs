//! The program `sab`: trains networks with Sparse Attentive Backtracking and their baselines, checks
//! implementations against the conformance cases, and measures them.

mod backend;
mod bench;
mod cli;
mod conformance;
mod download;
mod error;
mod failure;
mod plot;
mod progress;
mod report;
mod reproduce;
mod run_folder;
mod session;
mod settings;
mod text;
mod train;
mod values;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command};

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
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
    failure::listen();
    let outcome = failure::caught(|| match cli.command {
        Command::Train(args) => train::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Conformance(args) => conformance::run(&args),
        Command::Download(args) => download::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args),
        Command::Reproduce(args) => reproduce::run(&args),
    });
    outcome.unwrap_or_else(|error| error::explain(&error))
}
