use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::backend::Backend;
use crate::values::{ModelName, TaskName};

/// Every run is a run of `sab train`; its line is in the table's rows.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct ReproduceArgs {
    /// Which table
    #[arg(value_enum, default_value_t = TableName::All)]
    pub table: TableName,
    /// A small grid that ends within minutes: it shows that everything works, not what the paper claims
    #[arg(long, conflicts_with = "full")]
    pub quick: bool,
    /// The largest grid: more seeds, longer tests; days
    #[arg(long)]
    pub full: bool,
    /// A grid of your own: a TOML file in the form of the program's own ones
    #[arg(long, value_name = "FILE", conflicts_with = "table")]
    pub grid: Option<PathBuf>,
    /// Run only the grids of these tasks now: two processes can share a folder if neither has a task of the other
    #[arg(long, value_enum, value_name = "TASKS", value_delimiter = ',')]
    pub tasks: Option<Vec<TaskName>>,
    /// Run only these models now; the others stay declared, and are kept if they are there
    #[arg(long, value_enum, value_name = "MODELS", value_delimiter = ',')]
    pub models: Option<Vec<ModelName>>,
    /// Run only these variants of the grid now, by their names or those of their folders
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub variants: Option<Vec<String>>,
    /// Run only these seeds now
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub seeds: Option<Vec<u64>>,
    /// Run only these delays or lengths now
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    pub spans: Option<Vec<usize>>,
    /// The folder with the data: mnist/ with the files of MNIST, text/ with tinyshakespeare.txt.gz, ptb/ with those of the
    /// Penn Treebank, fsdd/ with spoken digits, acsf1/ with appliances
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Run nothing: write tables and pictures of the runs that are there
    #[arg(long)]
    pub tables_only: bool,
    /// Train nothing: measure time and memory of an update again, of the runs that are asked for and there. For a
    /// machine that does nothing else, where the runs were not alone
    #[arg(long, conflicts_with = "tables_only")]
    pub costs_only: bool,
    /// Where the runs are kept, finished or not
    #[arg(long, value_name = "DIR", default_value = "runs/reproduce")]
    pub out: PathBuf,
    /// Where tables and pictures go, of each grid also as one page of HTML [default: results/ in the folder of the runs]
    #[arg(long, value_name = "DIR")]
    pub results: Option<PathBuf>,
    /// The results of earlier runs, from another machine say (a --results folder): what is finished there
    /// is not made again
    #[arg(long, value_name = "DIR")]
    pub earlier: Option<PathBuf>,
    /// Where to compute [default: flex, if this build has it]
    #[arg(long, value_enum)]
    pub backend: Option<Backend>,
    /// Threads that compute [default: one a core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

/// A table of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TableName {
    /// Copying at several delays
    Copying,
    /// Adding at several lengths
    Adding,
    /// Copying, tested at delays far beyond those of training
    Transfer,
    /// Copying with one setting of SAB changed at a time
    Ablation,
    /// Copying at short delays, for settings that train stably
    Sweep,
    /// Copying with a memory of few slots, tested at delays of up to a million steps
    Budget,
    /// MNIST pixel by pixel, in order and permuted
    Mnist,
    /// Tasks with distractors between what has to be remembered, learnt by SAB and by other recurrent networks
    Suite,
    /// CIFAR-10 pixel by pixel
    Cifar,
    /// Characters of a text
    Text,
    /// Data sets in full: MNIST, the Penn Treebank, spoken digits sample by sample, appliances
    Real,
    /// All of these
    All,
}

/// How much of a grid is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    Quick,
    Standard,
    Full,
}

impl Size {
    /// What a grid's file calls the changes of this size, and what follows the grid's name.
    pub fn key(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Standard => "standard",
            Self::Full => "full",
        }
    }
}

impl ReproduceArgs {
    /// How much of the grid is run.
    pub fn size(&self) -> Size {
        match (self.quick, self.full) {
            (true, _) => Size::Quick,
            (_, true) => Size::Full,
            _ => Size::Standard,
        }
    }
}
