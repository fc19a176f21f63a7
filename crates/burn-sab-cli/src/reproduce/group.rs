//! Runs that differ in their seed only: one line of a table, one colour of a picture.

use burn_sab_tasks::{Ending, Event, Metrics};

use super::grid::Grid;
use super::run::{Finished, Run, State};
use crate::text::thousands;

/// Runs that differ in their seed only.
pub struct Group<'a> {
    /// What the table calls it.
    pub name: String,
    pub span: usize,
    /// All that are declared.
    pub runs: Vec<&'a (&'a Run, State)>,
}

impl<'a> Group<'a> {
    /// The groups of a grid, in its order.
    pub fn of(grid: &Grid, runs: &'a [(&'a Run, State)]) -> Vec<Self> {
        let mut groups: Vec<Self> = Vec::new();
        for entry in runs {
            let cell = &entry.0.cell;
            let name = match &cell.variant {
                Some(variant) if grid.models.len() == 1 && !grid.has_nameless_variants() => {
                    variant.clone()
                }
                Some(variant) => format!("{}, {variant}", cell.model),
                None => cell.model.clone(),
            };
            match groups.iter_mut().find(|group| group.name == name && group.span == cell.span) {
                Some(group) => group.runs.push(entry),
                None => groups.push(Self { name, span: cell.span, runs: vec![entry] }),
            }
        }
        groups
    }

    /// The name in a picture of a grid that has several spans.
    pub fn label(&self, grid: &Grid, span_name: &str) -> String {
        match grid.spans.len() {
            1 => self.name.clone(),
            _ => format!("{}, {span_name} {}", self.name, thousands(self.span)),
        }
    }

    /// The runs that are finished.
    pub fn finished(&self) -> impl Iterator<Item = &'a Finished> + '_ {
        self.runs.iter().filter_map(|(_, state)| match state {
            State::Finished(finished) => Some(&**finished),
            _ => None,
        })
    }

    /// A number of every finished run that has it.
    pub fn values(&self, of: impl Fn(&Finished) -> Option<f64>) -> Vec<f64> {
        self.finished().filter_map(of).collect()
    }

    /// What the tests at `span` found, a value a seed.
    pub fn tests(&self, span: usize) -> Vec<Metrics> {
        let tests = self.finished().flat_map(|finished| &finished.report.models[0].tests);
        tests.filter(|test| test.span == span).map(|test| test.metrics).collect()
    }

    /// How many reached the level at which training stops, or else `level`.
    pub fn learnt(&self, level: Option<f64>) -> usize {
        let stopped =
            |finished: &Finished| finished.report.models[0].ending == Some(Ending::Reached);
        let reached = |finished: &Finished| {
            level.is_some_and(|level| held(&finished.events, level).is_some())
        };
        self.finished().filter(|finished| stopped(finished) || reached(finished)).count()
    }

    /// How many ended without a result.
    pub fn failed(&self) -> usize {
        self.runs.iter().filter(|(_, state)| matches!(state, State::Failed(_))).count()
    }

    /// Whether a test at `span` is declared and too long for the model.
    pub fn is_too_long(&self, span: usize) -> bool {
        self.runs.iter().any(|(run, _)| run.cell.too_long.contains(&span))
    }
}

/// The update whose evaluation first reached `level`, and the share of the evaluations from then on that
/// did; `None` if none did.
pub fn held(events: &[Event], level: f64) -> Option<(usize, f64)> {
    let evaluations = events.iter().filter_map(|event| match event {
        Event::Evaluation { update, metrics, .. } => Some((*update, metrics.reaches(level))),
        _ => None,
    });
    let since: Vec<_> = evaluations.skip_while(|(_, reached)| !reached).collect();
    let reached = since.iter().filter(|(_, reached)| *reached).count();
    Some((since.first()?.0, reached as f64 / since.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_held_by_a_share_of_the_evaluations_from_the_first_that_reached_it() {
        let evaluation = |update, accuracy| Event::Evaluation {
            update,
            span: 5,
            metrics: Metrics::Classes { accuracy, cross_entropy: 1.0 },
            best: true,
            longest: 5,
        };
        let events = [(100, 0.2), (200, 0.99), (300, 0.5), (400, 1.0), (500, 0.98)]
            .map(|(update, accuracy)| evaluation(update, accuracy));
        assert_eq!(held(&events, 0.99), Some((200, 0.5)));
        assert_eq!(held(&events[..1], 0.99), None);
    }
}
