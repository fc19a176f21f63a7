//! The program `sab`: trains networks with Sparse Attentive Backtracking and their baselines, repeats the
//! paper's experiments, and checks implementations against the conformance cases.
//!
//! The public modules are what `sab` shares with the other program of this workspace, `sab-bench`. They are no
//! library for other crates, and may change with any commit.

pub mod backend;
mod cli;
mod conformance;
mod download;
pub mod error;
mod failure;
pub mod file;
pub mod flags;
#[doc(hidden)]
pub mod fuzz;
pub mod memory;
mod page;
pub mod plot;
pub mod program;
mod progress;
pub mod provenance;
mod report;
mod reproduce;
mod run_folder;
mod sealed;
mod session;
mod settings;
mod signals;
pub mod statistics;
pub mod text;
mod train;
pub mod values;

use std::process::ExitCode;

use crate::cli::{Cli, Command};

/// Runs the program `sab` with the arguments of this process and returns its exit status.
pub fn main() -> ExitCode {
    program::run(|line: Cli| match line.command {
        Command::Train(args) => train::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Conformance(args) => conformance::run(&args),
        Command::Download(args) => download::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Reproduce(args) => reproduce::run(&args),
    })
}
