//! The command line.

use clap::{Parser, Subcommand};

use crate::conformance::ConformanceArgs;
use crate::download::DownloadArgs;
use crate::reproduce::ReproduceArgs;
use crate::train::args::TrainArgs;

/// Sparse Attentive Backtracking: train it, and check implementations of it
#[derive(Debug, Parser)]
#[command(name = "sab", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Train a network on a task, test it, and leave a run folder with report.html and pictures
    Train(Box<TrainArgs>),
    /// Check this build against conformance cases
    Conformance(ConformanceArgs),
    /// Get the files of a data set
    Download(DownloadArgs),
    /// Repeat the paper's experiments: grids of runs, each with a page of its tables and pictures; can be interrupted
    Reproduce(Box<ReproduceArgs>),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
