//! `sab train`: train, compare, test, draw, report.

pub mod args;

use anyhow::{Context, anyhow};
use burn_sab_tasks::Trainer;

use crate::failure::{DeviceFailure, caught};
use crate::run_folder::RunFolder;
use crate::session::Session;
use crate::settings::Settings;
use crate::text::{say, table};
use args::TrainArgs;

/// Runs the command.
pub fn run(args: &TrainArgs) -> anyhow::Result<()> {
    let (folder, settings) = match &args.resume {
        Some(path) => {
            let (folder, settings) = RunFolder::open(path)?;
            (Some(folder), settings.for_resumption(args)?)
        }
        None => (None, Settings::from_args(args)?),
    };
    settings.backend.make_default();
    if let Some(threads) = settings.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("--threads")?;
    }
    // Before the folder, so that a missing device or file leaves nothing behind.
    let device = settings.backend.device()?;
    settings.train.examples()?;
    let folder = match folder {
        Some(folder) => {
            folder.write_settings(&settings)?;
            folder
        }
        None => RunFolder::create(args.out.as_deref(), &settings)?,
    };
    say(&format!("run folder: {}", folder.path().display()));
    let session = Session { settings, device, folder, label: String::new() };
    let finished = caught(|| session.finish()).map_err(|error| {
        let folder = session.folder.path();
        if error.is::<DeviceFailure>() && Trainer::can_resume(folder) {
            anyhow!(
                "{error}; `sab train --resume {}` goes on from the last checkpoint",
                folder.display()
            )
        } else {
            error
        }
    })?;
    say(&format!("\n{}:\n", finished.report.caption()));
    for line in table(&finished.report.rows()) {
        say(&format!("  {line}"));
    }
    say("");
    for (file, what) in &finished.pictures {
        say(&format!("{what}: {}", session.folder.path().join(file).display()));
    }
    say(&format!("report: {}", finished.written.display()));
    Ok(())
}
