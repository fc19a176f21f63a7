//! The page that sums up the grids of a file with parts: models against tasks.

use std::path::{Path, PathBuf};

use super::grid::{Grid, Role};
use super::group::{Group, held};
use super::run::{Run, State};
use super::table::{learnt, mean, parameters, tested};
use crate::file;
use crate::report::chance;
use crate::text::{duration, markdown_table, thousands};

/// The grids of a file, with how far their runs are.
type Part<'a> = (&'a Grid, Vec<(&'a Run, State)>);

/// Writes a page for every file with parts among the grids; gives the pages.
///
/// # Errors
///
/// If the state of a run cannot be read, or a page not be written.
pub fn write(tables: &[(&Grid, Vec<Run>)], results: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut families: Vec<&str> = Vec::new();
    for family in tables.iter().filter_map(|(grid, _)| grid.family.as_deref()) {
        if !families.contains(&family) {
            families.push(family);
        }
    }
    let mut pages = Vec::new();
    for family in families {
        let mut parts: Vec<Part> = Vec::new();
        for (grid, runs) in tables.iter().filter(|(grid, _)| grid.family.as_deref() == Some(family))
        {
            let of_table = runs.iter().filter(|run| !matches!(run.cell.role, Role::Pilot(_)));
            let states = of_table.map(|run| Ok((run, run.state()?)));
            parts.push((grid, states.collect::<anyhow::Result<_>>()?));
        }
        let path = results.join(format!("{family}.md"));
        file::write(&path, &page(family, &parts))?;
        pages.push(path);
    }
    Ok(pages)
}

/// A row a model, a column a part. Of a part with several spans, the first is shown.
fn page(family: &str, parts: &[Part]) -> String {
    let groups: Vec<Vec<Group>> = parts.iter().map(|(grid, runs)| Group::of(grid, runs)).collect();
    let mut names: Vec<&str> = Vec::new();
    for group in groups.iter().flatten() {
        if !names.contains(&group.name.as_str()) {
            names.push(&group.name);
        }
    }
    let rows = |cell: &dyn Fn(&Grid, &Group) -> String| {
        let head = parts.iter().map(|(grid, _)| format!("[{}]({}.md)", grid.title, grid.name));
        let mut rows = vec![[String::new()].into_iter().chain(head).collect::<Vec<_>>()];
        for name in &names {
            let mut row = vec![(*name).to_owned()];
            for ((grid, _), groups) in parts.iter().zip(&groups) {
                let group = groups.iter().find(|group| group.name == *name);
                row.push(group.map_or_else(|| "–".to_owned(), |group| cell(grid, group)));
            }
            rows.push(row);
        }
        rows
    };
    let mut learnt_span = rows(&|_, group| match group.tests(group.span).as_slice() {
        [] => learnt(group, None),
        tests => tested(tests),
    });
    let nothing = parts.iter().map(|(_, runs)| tested(&[chance(&runs[0].0.settings.train.task)]));
    learnt_span.push(["(chance)".to_owned()].into_iter().chain(nothing).collect());
    let levels: Vec<String> = parts
        .iter()
        .filter_map(|(grid, _)| Some(format!("{} for {}", grid.level?, grid.title.to_lowercase())))
        .collect();
    let mut page = format!(
        "# `sab reproduce {family}` in short\n\nEach heading links to the page of a task, with all columns, pictures and \
         rows. Numbers are means over seeds (smallest–largest).\n\n## At the span that was learnt\n\nAccuracy; of adding \
         the mean squared error, of text the bits per character.\n\n{}",
        markdown_table(&learnt_span)
    );
    if parts.iter().any(|(grid, _)| !grid.test_spans.is_empty()) {
        page.push_str(&format!(
            "\n## Far beyond training\n\nThe span of the farthest test, and the metric there, without further training.\
             \n\n{}",
            markdown_table(&rows(&|_, group| farthest(group)))
        ));
    }
    let reached = match levels.is_empty() {
        true => "Updates, and the time of training.".to_owned(),
        false => format!(
            "Runs that reached the level, updates until an evaluation first did (of the runs that did), and the time of \
             training. Levels: {}.",
            levels.join(", ")
        ),
    };
    page.push_str(&format!(
        "\n## What it took\n\n{reached}\n\n{}\n## Trained parameters\n\n{}",
        markdown_table(&rows(&effort)),
        markdown_table(&rows(&|_, group| parameters(group))),
    ));
    page
}

/// The farthest test: its span and what it found.
fn farthest(group: &Group) -> String {
    let tests = group.finished().flat_map(|run| &run.report.models[0].tests);
    let Some(span) = tests.map(|test| test.span).max() else { return "–".to_owned() };
    format!("{}: {}", thousands(span), tested(&group.tests(span)))
}

/// Runs that reached the grid's level, updates to it, and time; without a level all updates, and time.
fn effort(grid: &Grid, group: &Group) -> String {
    let seconds = group.values(|run| Some(run.report.models[0].training_seconds));
    let seconds = mean(&seconds, duration);
    let whole = |updates: f64| thousands(updates.round() as usize);
    match grid.level {
        Some(level) => {
            let updates = group.values(|run| Some(held(&run.events, level)?.0 as f64));
            format!("{}; {}; {seconds}", learnt(group, grid.level), mean(&updates, whole))
        }
        None => {
            let updates = group.values(|run| Some(run.report.models[0].updates as f64));
            format!("{}; {seconds}", mean(&updates, whole))
        }
    }
}
