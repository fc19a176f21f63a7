//! `sab train`: train, compare, test, draw, report.

pub mod args;

use std::io;

use anyhow::{Context, anyhow};
use burn_sab_tasks::{Ending, TrainError, Trainer};

use crate::failure::{DeviceFailure, caught};
use crate::run_folder::RunFolder;
use crate::session::{Finished, Session};
use crate::settings::Settings;
use crate::signals::Stop;
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
    let stop = Stop::listen().context("signals")?;
    let session = Session { settings, device, folder, label: String::new(), stop };
    let finished = caught(|| session.finish()).map_err(|error| how_to_go_on(error, &session))?;
    last_screen(&finished, &session);
    Ok(())
}

/// Prints the verdict on each model, the tests, the paths of pictures and reports, and the next command.
fn last_screen(finished: &Finished, session: &Session) {
    let Finished { report, written: [page, markdown], pictures } = finished;
    say("");
    for line in report.verdicts() {
        say(&line);
    }
    say(&format!("\n{}:\n", report.caption()));
    for line in table(&report.rows()) {
        say(&format!("  {line}"));
    }
    say("");
    let folder = session.folder.path();
    for (file, what) in pictures {
        say(&format!("{what}: {}", folder.join(file).display()));
    }
    say(&format!("the report as Markdown: {}", markdown.display()));
    say(&format!("the report for a browser: {}", page.display()));
    let train = &report.settings.train;
    let next = match report.models[0].ending {
        Some(Ending::Reached) => {
            let config = folder.join("config.json");
            let seed = train.seed + 1;
            format!(
                "again with another seed: sab train --config {} --seed {seed}",
                config.display()
            )
        }
        _ => {
            let updates = 2 * train.updates;
            format!("to train longer: sab train --resume {} --updates {updates}", folder.display())
        }
    };
    say(&format!("\n{next}"));
}

/// Adds what to do about an error in the middle of a run.
fn how_to_go_on(error: anyhow::Error, session: &Session) -> anyhow::Error {
    let folder = session.folder.path();
    let resume = format!("`sab train --resume {}`", folder.display());
    match error.downcast_ref() {
        Some(TrainError::Stopped { .. }) => {
            return session.stop.error(&format!("{error}; {resume} goes on from there"));
        }
        Some(TrainError::NoIntactCheckpoint(_)) => {
            let config = folder.join("config.json");
            return anyhow!("{error}: `sab train --config {}`", config.display());
        }
        _ => {}
    }
    let is_io = error.chain().any(|cause| cause.is::<io::Error>())
        || matches!(error.downcast_ref(), Some(TrainError::Io { .. } | TrainError::Observer(_)));
    if error.is::<DeviceFailure>() && Trainer::can_resume(folder) {
        anyhow!("{error}; {resume} goes on from the last checkpoint")
    } else if is_io {
        anyhow!(
            "{error:#}; once the disk and the folder allow it, {resume} goes on from the last checkpoint"
        )
    } else {
        error
    }
}
