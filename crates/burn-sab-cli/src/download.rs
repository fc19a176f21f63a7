//! `sab download`: the files of a data set.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// What Burn's own data sets download; the others' files have to be got by hand.
#[derive(Debug, Args)]
pub struct DownloadArgs {
    /// Which data set
    #[arg(value_enum)]
    pub name: DataName,
    /// Where the data sets are; each has a folder of its own name in it
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
}

/// A data set that can be downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DataName {
    /// The digits of MNIST: 55 MB
    Mnist,
}

/// Runs the command.
///
/// # Errors
///
/// If the files cannot be had or written, or if this build cannot download.
#[cfg(feature = "download")]
pub fn run(args: &DownloadArgs) -> anyhow::Result<()> {
    match args.name {
        DataName::Mnist => {
            let folder = args.data.join("mnist");
            let origin = burn_sab_tasks::download_mnist(&folder)?;
            crate::text::say(&format!("{}: {origin}", folder.display()));
            Ok(())
        }
    }
}

#[cfg(not(feature = "download"))]
pub fn run(args: &DownloadArgs) -> anyhow::Result<()> {
    let name = crate::values::name(args.name);
    Err(crate::error::usage!(
        "this build cannot download {name}; build it with --features download, or get the files by hand: \
         `sab train {name} --data {}` says which and where from",
        args.data.join(&name).display()
    ))
}
