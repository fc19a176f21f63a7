//! The pictures of a grid.

use std::fs;
use std::ops::Range;

use anyhow::Context;
use burn_sab_tasks::Task;

use super::grid::Grid;
use super::group::{Group, held};
use super::run::{Finished, Run, State};
use crate::plot::{Bar, Curve, MOST_CURVES, Scale, cost_bars, learning_curves, transfer_curves};
use crate::statistics::spread;
use crate::text::{MIB, thousands};

/// A picture of a grid.
pub struct Picture {
    /// Its file among the results.
    pub file: String,
    /// The contents of the file.
    pub svg: String,
    /// What it shows.
    pub what: String,
}

/// Draws what there is to draw.
pub fn draw(grid: &Grid, runs: &[(&Run, State)]) -> anyhow::Result<Vec<Picture>> {
    let task = runs[0].0.settings.train.task;
    let span_name = task.span_name();
    let groups = Group::of(grid, runs);
    let mut pictures = Vec::new();
    let mut add = |kind: &str, svg: String, what: &str| {
        let file = format!("{}-{kind}.svg", grid.name);
        pictures.push(Picture { file, svg, what: what.to_owned() });
    };

    // Evaluations are all that is drawn; results of before they were kept have none.
    let learnt: Vec<&Group> = with(&groups, |finished| !finished.events.is_empty());
    for (part, some) in parts(learnt.len()) {
        let curves = learnt[some].iter().flat_map(|group| {
            let label = group.label(grid, span_name);
            group.finished().map(move |finished| (label.clone(), finished.events.clone()))
        });
        let title = format!("{}: learning", grid.title);
        let svg = learning_curves(&curves.collect::<Vec<_>>(), &task, &title)?;
        add(&format!("learning{part}"), svg, "the metric against updates");
    }

    let tested: Vec<&Group> = with(&groups, |finished| finished.report.models[0].tests.len() > 1);
    for (part, some) in parts(tested.len()) {
        let curves = tested[some].iter().flat_map(|group| {
            let name = group.label(grid, span_name);
            group
                .finished()
                .map(move |finished| Curve { name: name.clone(), points: points(finished) })
        });
        let title = format!("{}: tests beyond training", grid.title);
        let what = format!("the metric against the {span_name} of the test");
        let svg = transfer_curves(&curves.collect::<Vec<_>>(), &task, &title)?;
        add(&format!("transfer{part}"), svg, &what);
    }

    let bars: Vec<Bar> = groups.iter().filter_map(|group| bar(group, grid, &task)).collect();
    if !bars.is_empty() {
        let title = format!("An update: {}", grid.title);
        add(
            "cost",
            cost_bars(&bars, &title)?,
            "time and memory of an update, and time to the level",
        );
    }

    let finished = runs.iter().filter(|(_, state)| matches!(state, State::Finished(_)));
    let reminded = finished.filter_map(|(run, _)| Some((run, run.reminders()?))).next();
    if let Some((run, path)) = reminded {
        let svg = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let file = format!("{}/{}", grid.name, run.cell.reminders_file());
        let what = format!("which step retrieved which, {}", run.cell.name);
        pictures.push(Picture { file, svg, what });
    }
    Ok(pictures)
}

/// The groups that have a finished run of which something is to be drawn.
fn with<'a>(groups: &'a [Group<'a>], is_drawn: impl Fn(&Finished) -> bool) -> Vec<&'a Group<'a>> {
    groups.iter().filter(|group| group.finished().any(&is_drawn)).collect()
}

/// What the tests of a run showed, by their spans.
fn points(finished: &Finished) -> Vec<(f64, f64)> {
    let tests = finished.report.models[0].tests.iter();
    let mut points: Vec<_> =
        tests.map(|test| (test.span as f64, Scale::height(&test.metrics))).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    points
}

/// The groups that share a picture of curves, and what is added to its name: more than there are colours cannot
/// be told apart.
fn parts(groups: usize) -> Vec<(String, Range<usize>)> {
    let name = |n: usize| if groups <= MOST_CURVES { String::new() } else { format!("-{}", n + 1) };
    let firsts = (0..groups).step_by(MOST_CURVES).enumerate();
    firsts.map(|(n, first)| (name(n), first..groups.min(first + MOST_CURVES))).collect()
}

fn bar(group: &Group, grid: &Grid, task: &Task) -> Option<Bar> {
    let costs: Vec<_> = group.finished().filter_map(|finished| finished.cost).collect();
    let milliseconds: Vec<f64> = costs.iter().map(|cost| 1e3 * cost.seconds).collect();
    let mebibytes: Vec<f64> =
        costs.iter().filter_map(|cost| Some(cost.bytes? as f64 / MIB)).collect();
    let name = match grid.spans.len() {
        1 => group.name.clone(),
        _ => format!("{}, {} {}", group.name, task.span_name(), thousands(group.span)),
    };
    let (milliseconds, ..) = spread(&milliseconds)?;
    let mebibytes = spread(&mebibytes).map(|(mean, ..)| mean);
    let updates = group.values(|finished| Some(held(&finished.events, grid.level?)?.0 as f64));
    // All seeds or none: those that got there would be the fast ones.
    let all = updates.len() == group.finished().count();
    let seconds = spread(&updates).filter(|_| all).map(|(mean, ..)| mean * milliseconds / 1e3);
    Some(Bar { name, milliseconds, mebibytes, seconds })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_groups_are_drawn_in_parts() {
        assert_eq!(parts(0), []);
        assert_eq!(parts(MOST_CURVES), [(String::new(), 0..MOST_CURVES)]);
        let last = MOST_CURVES..MOST_CURVES + 1;
        let expected = [("-1".to_owned(), 0..MOST_CURVES), ("-2".to_owned(), last)];
        assert_eq!(parts(MOST_CURVES + 1), expected);
    }
}
