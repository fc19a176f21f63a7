//! `sab reproduce`: the experiments of the paper as grids of runs of `sab train`, and their tables.

pub(crate) mod args;
mod cost;
pub(crate) mod grid;
mod group;
mod pictures;
mod rows;
mod run;
mod suite;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use burn::tensor::Device;
use burn_sab_tasks::{Metrics, TrainError};

use crate::backend::Backend;
use crate::error::usage;
use crate::file;
use crate::signals::Stop;
use crate::text::say;
use crate::values::{ModelName, TaskName, name};
pub use args::ReproduceArgs;
use args::TableName;
use grid::{Cell, Chosen, Grid, Role};
use run::{Run, State};
use table::Contents;

/// Runs the command.
///
/// # Errors
///
/// If a grid makes no sense, a backend is not to be had, a folder holds something else, or a file cannot
/// be read or written.
pub fn run(args: &ReproduceArgs) -> anyhow::Result<ExitCode> {
    if args.threads == Some(0) {
        return Err(usage!("--threads is 0, but it has to be at least 1"));
    }
    if let Some(missing) = args.earlier.as_deref().filter(|folder| !folder.is_dir()) {
        return Err(usage!(
            "{} is not a folder; name a --results folder with --earlier",
            missing.display()
        ));
    }
    let backend = match args.backend {
        Some(backend) => backend,
        None => Backend::preferred()?,
    };
    backend.make_default();
    if let Some(threads) = args.threads {
        rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().context("--threads")?;
    }
    let device = backend.device()?;
    let mut grids = Vec::new();
    for grid in grid::asked_for(args)? {
        if let Some(missing) = missing_files(&grid, args.data.as_deref()) {
            if args.table != TableName::All {
                return Err(usage!("the grid {} needs files: {missing}", grid.name));
            }
            say(&format!("left out: {}: {missing}", grid.name));
            continue;
        }
        grids.push(grid);
    }
    let stop = Stop::listen().context("signals")?;
    loop {
        let tables = declared(&grids, args, backend)?;
        make(&tables, args, &device, &stop)?;
        // Pilots have chosen learning rates now.
        let waits = |run: &Run| run.cell.role == Role::Waiting && is_asked_for(run, args);
        let waits = tables.iter().flat_map(|(_, runs)| runs).any(waits);
        if !waits || args.costs_only {
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// The runs of every grid: those that choose learning rates, and those of the table.
fn declared<'a>(
    grids: &'a [Grid],
    args: &ReproduceArgs,
    backend: Backend,
) -> anyhow::Result<Vec<(&'a Grid, Vec<Run>)>> {
    let data = args.data.as_deref();
    let mut tables = Vec::new();
    for grid in grids {
        let make = |cells: Vec<Cell>| -> anyhow::Result<Vec<Run>> {
            cells.into_iter().map(|cell| Run::new(cell, grid, args, backend)).collect()
        };
        let mut runs = make(grid.pilots(data))?;
        let chosen = choose(&runs)?;
        runs.extend(make(grid.cells(data, &chosen))?);
        tables.push((grid, runs));
    }
    for name in args.variants.iter().flatten() {
        if !tables.iter().flat_map(|(_, runs)| runs).any(|run| run.cell.is_variant(name)) {
            return Err(usage!(
                "no grid asked for has a variant {name}; its table names those it has"
            ));
        }
    }
    Ok(tables)
}

/// The learning rates that finished pilots choose: the one with the best metric on held-out sequences, and the first of
/// equals. A run that diverged is never the best.
fn choose(pilots: &[Run]) -> anyhow::Result<Chosen> {
    let mut best: BTreeMap<&str, Option<(f64, Option<Metrics>)>> = BTreeMap::new();
    for pilot in pilots {
        let Role::Pilot(lr) = pilot.cell.role else { continue };
        let metrics = match pilot.state()? {
            State::Finished(finished) => finished.report.models[0].best.map(|best| best.metrics),
            State::Failed(_) => None,
            // No choice before all have ended.
            State::Missing | State::Begun => {
                best.insert(&pilot.cell.group, None);
                continue;
            }
        };
        let found = best.entry(&pilot.cell.group).or_insert(Some((lr, None)));
        let is_better = |than: &Option<Metrics>| match (&metrics, than) {
            (Some(metrics), Some(than)) => metrics.is_better_than(than),
            (metrics, than) => metrics.is_some() && than.is_none(),
        };
        if found.as_ref().is_some_and(|(_, than)| is_better(than)) {
            *found = Some((lr, metrics));
        }
    }
    Ok(best.into_iter().filter_map(|(group, best)| Some((group.to_owned(), best?.0))).collect())
}

/// Makes what is to be made of these runs, and writes their tables.
fn make(
    tables: &[(&Grid, Vec<Run>)],
    args: &ReproduceArgs,
    device: &Device,
    stop: &Stop,
) -> anyhow::Result<()> {
    let results = args.results.clone().unwrap_or_else(|| args.out.join("results"));
    // Everything that can be wrong with what is there comes before hours of work.
    let mut to_do = Vec::new();
    for (_, runs) in tables.iter().filter(|_| !args.tables_only) {
        runs[0].settings.train.examples()?;
    }
    for (table, (_, runs)) in tables.iter().enumerate() {
        for (place, run) in runs.iter().enumerate() {
            match run.state()? {
                _ if !is_asked_for(run, args) || run.cell.role == Role::Waiting => {}
                State::Finished(_) if args.costs_only => to_do.push((table, place)),
                State::Missing | State::Begun if !args.costs_only => to_do.push((table, place)),
                _ => {}
            }
        }
    }
    let all: usize = tables.iter().map(|(_, runs)| runs.len()).sum();
    let verb = if args.costs_only { "measured" } else { "made" };
    say(&format!("{all} runs are declared, {} are to be {verb} now", to_do.len()));
    let stopped = |what: &str| stop.error(&format!("{what}; the same command goes on from there"));
    for (number, (table, place)) in to_do.iter().enumerate() {
        if stop.is_asked_for() {
            return Err(stopped(&format!("stopped after {number} of {} runs", to_do.len())));
        }
        let (grid, runs) = &tables[*table];
        let run = &runs[*place];
        say(&format!("[{}/{}] {}", number + 1, to_do.len(), run.path.display()));
        match args.costs_only {
            true => run.measure_cost(device)?,
            false => {
                let label = format!("[{}/{}] ", number + 1, to_do.len());
                run.finish(&label, device, stop).map_err(|error| match error.downcast_ref() {
                    Some(TrainError::Stopped { .. }) => stopped(&format!("{label}{error}")),
                    _ => error,
                })?
            }
        }
        // After every run, so that an interrupted grid has its tables, too.
        write(grid, runs, &results)?;
    }
    for (grid, runs) in tables {
        say(&format!("table: {}", write(grid, runs, &results)?.display()));
    }
    for page in suite::write(tables, &results)? {
        say(&format!("table: {}", page.display()));
    }
    Ok(())
}

/// What a grid lacks that needs files, and what to do.
fn missing_files(grid: &Grid, data: Option<&Path>) -> Option<String> {
    let Some(data) = data else {
        return grid.data.is_some().then(|| "name their folder with --data".to_owned());
    };
    let place = data.join(grid.data.as_ref()?);
    let hint = format!("there is no {}; put them there, or change --data", place.display());
    (!place.exists()).then_some(hint)
}

fn is_asked_for(run: &Run, args: &ReproduceArgs) -> bool {
    let cell = &run.cell;
    let model = |model: &ModelName| name(*model) == cell.model;
    let task = |task: &TaskName| name(*task) == run.settings.train.task.name();
    // A pilot is for all seeds.
    let seed = |seeds: &Vec<u64>| matches!(cell.role, Role::Pilot(_)) || seeds.contains(&cell.seed);
    !args.tables_only
        && args.tasks.as_ref().is_none_or(|tasks| tasks.iter().any(task))
        && args.variants.as_ref().is_none_or(|names| names.iter().any(|name| cell.is_variant(name)))
        && args.models.as_ref().is_none_or(|models| models.iter().any(model))
        && args.seeds.as_ref().is_none_or(seed)
        && args.spans.as_ref().is_none_or(|spans| spans.contains(&cell.span))
}

/// Writes the table, rows, pictures and finished runs of a grid; gives the table's file, beside which it is a page
/// of HTML.
fn write(grid: &Grid, runs: &[Run], results: &Path) -> anyhow::Result<PathBuf> {
    let of_runs = results.join(&grid.name);
    std::fs::create_dir_all(&of_runs).with_context(|| {
        format!("{} cannot be made; choose another --results", of_runs.display())
    })?;
    let mut entries = Vec::new();
    for run in runs {
        let state = run.state()?;
        if let State::Finished(finished) = &state {
            let file = of_runs.join(run.cell.results_file());
            let text = serde_json::to_string(finished)?;
            // Most are there since an earlier run of the grid ended.
            if !std::fs::read_to_string(&file).is_ok_and(|there| there == text) {
                file::write(&file, &text)?;
            }
        }
        entries.push((run, state));
    }
    let mut lines = String::new();
    for row in rows::rows(grid, &entries) {
        lines.push_str(&serde_json::to_string(&row)?);
        lines.push('\n');
    }
    file::write(&results.join(format!("{}.jsonl", grid.name)), &lines)?;
    // The table and the pictures are of the runs that pilots chose the learning rates for.
    entries.retain(|(run, _)| !matches!(run.cell.role, Role::Pilot(_)));
    let pictures = pictures::draw(grid, &entries)?;
    for picture in &pictures {
        file::write(&results.join(&picture.file), &picture.svg)?;
    }
    let contents = Contents::of(grid, &entries);
    let page = results.join(format!("{}.md", grid.name));
    file::write(&page, &contents.markdown(&pictures))?;
    file::write(&page.with_extension("html"), &contents.page(&pictures).html()?)?;
    Ok(page)
}
