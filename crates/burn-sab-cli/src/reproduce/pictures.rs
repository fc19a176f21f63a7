//! The pictures of a grid.

use std::fs;
use std::ops::Range;

use anyhow::Context;

use super::grid::Grid;
use super::group::{Group, spread};
use super::run::{Run, State};
use crate::plot::{Bar, Curve, MOST_CURVES, Scale, cost_bars, learning_curves, transfer_curves};
use crate::text::thousands;

/// Draws what there is to draw: files, their contents, and what they show.
pub fn draw(grid: &Grid, runs: &[(&Run, State)]) -> anyhow::Result<Vec<(String, String, String)>> {
    let task = runs[0].0.settings.train.task;
    let span_name = task.span_name();
    let groups = Group::of(grid, runs);
    let drawn: Vec<&Group> =
        groups.iter().filter(|group| group.finished().next().is_some()).collect();
    let mut pictures = Vec::new();
    if drawn.is_empty() {
        return Ok(pictures);
    }
    let mut add = |kind: &str, svg: String, what: &str| {
        pictures.push((format!("{}-{kind}.svg", grid.name), svg, what.to_owned()));
    };

    for (part, some) in parts(drawn.len()) {
        let some = &drawn[some];
        let learning: Vec<_> = some
            .iter()
            .flat_map(|group| {
                let label = group.label(grid, span_name);
                group.finished().map(move |finished| (label.clone(), finished.events.clone()))
            })
            .collect();
        let title = format!("{}: learning", grid.title);
        let svg = learning_curves(&learning, &task, &title)?;
        add(&format!("learning{part}"), svg, "the metric against updates");

        let mut far = Vec::new();
        for group in some {
            for finished in group.finished() {
                let tests = &finished.report.models[0].tests;
                let point =
                    |test: &crate::report::Test| (test.span as f64, Scale::height(&test.metrics));
                let mut points: Vec<_> = tests.iter().map(point).collect();
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                if points.len() > 1 {
                    far.push(Curve { name: group.label(grid, span_name), points });
                }
            }
        }
        if !far.is_empty() {
            let title = format!("{}: tests beyond training", grid.title);
            let what = format!("the metric against the {span_name} of the test");
            add(&format!("transfer{part}"), transfer_curves(&far, &task, &title)?, &what);
        }
    }

    let bars: Vec<Bar> = groups.iter().filter_map(|group| bar(group, grid, span_name)).collect();
    if !bars.is_empty() {
        let title = format!("An update: {}", grid.title);
        add("cost", cost_bars(&bars, &title)?, "time and memory of an update");
    }

    let finished = runs.iter().filter(|(_, state)| matches!(state, State::Finished(_)));
    let reminded = finished.filter_map(|(run, _)| Some((run, run.reminders()?))).next();
    if let Some((run, path)) = reminded {
        let svg = fs::read_to_string(&path)
            .with_context(|| format!("{} cannot be read", path.display()))?;
        let file = format!("{}/{}", grid.name, run.cell.reminders_file());
        pictures.push((file, svg, format!("which moment reminded which, {}", run.cell.name)));
    }
    Ok(pictures)
}

/// The groups that share a picture of curves, and what is added to its name: more than there are colours cannot
/// be told apart.
fn parts(groups: usize) -> Vec<(String, Range<usize>)> {
    if groups <= MOST_CURVES {
        return vec![(String::new(), 0..groups)];
    }
    let firsts = (0..groups).step_by(MOST_CURVES).enumerate();
    firsts
        .map(|(n, first)| (format!("-{}", n + 1), first..groups.min(first + MOST_CURVES)))
        .collect()
}

fn bar(group: &Group, grid: &Grid, span_name: &str) -> Option<Bar> {
    let costs: Vec<_> = group.finished().filter_map(|finished| finished.cost).collect();
    let milliseconds: Vec<f64> = costs.iter().map(|cost| 1e3 * cost.seconds).collect();
    let megabytes: Vec<f64> =
        costs.iter().filter_map(|cost| Some(cost.bytes? as f64 / 1e6)).collect();
    let name = match grid.spans.len() {
        1 => group.name.clone(),
        _ => format!("{}, {span_name} {}", group.name, thousands(group.span)),
    };
    let (milliseconds, ..) = spread(&milliseconds)?;
    Some(Bar { name, milliseconds, megabytes: spread(&megabytes).map(|(mean, ..)| mean) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_groups_are_drawn_in_parts() {
        assert_eq!(parts(MOST_CURVES), [(String::new(), 0..MOST_CURVES)]);
        let last = MOST_CURVES..MOST_CURVES + 1;
        let expected = [("-1".to_owned(), 0..MOST_CURVES), ("-2".to_owned(), last)];
        assert_eq!(parts(MOST_CURVES + 1), expected);
    }
}
