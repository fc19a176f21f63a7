//! Growing the span during training.

use serde::{Deserialize, Serialize};

use crate::stream::DataStream;
use crate::task::{Metrics, Task};

/// Which spans training batches have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Curriculum {
    /// The target span, always.
    None,
    /// A span drawn uniformly from 5 to the longest so far, which grows by a factor of 1.3, up to the
    /// target, whenever the network masters it.
    ///
    /// In first trials, with other settings, the copying task with a delay of 100 was not learnt without it;
    /// with it a delay of 100 was solved while training had only seen delays of about 30. The default
    /// settings learnt it without, too, with one seed (the book, chapter "Results").
    Grow,
}

/// The shortest span that is drawn, the first longest span, and its growth: the values with which the
/// best trials were made.
const SHORTEST: usize = 5;
const FIRST_LONGEST: usize = 10;
const GROWTH: f64 = 1.3;

/// A span is mastered above this accuracy, as in those trials on the copying task.
const MASTERED_ACCURACY: f64 = 0.9;

/// A span of the adding task is mastered below this mean squared error, a tenth of what a network that
/// knows nothing has.
const MASTERED_MSE: f64 = 1.0 / 60.0;

impl Curriculum {
    /// Updates between two looks at whether the longest span is mastered.
    ///
    /// A look costs about as much as half an update (a forward pass over half a batch's rows), so
    /// one in 50 is 1 % of the time, and a network that masters span after span does not wait long.
    pub const LOOK_EVERY: usize = 50;

    /// Sequences per look: 320 symbols of the usual copying task, so that an accuracy near 90 % is
    /// known to about two percent points.
    pub const LOOK_SEQUENCES: usize = 32;

    /// The longest span at the beginning.
    pub fn first_longest(self, task: &Task, target: usize) -> usize {
        match self {
            Self::None => target,
            Self::Grow => FIRST_LONGEST.max(task.shortest_span()).min(target),
        }
    }

    /// Draws the span of a training batch.
    pub fn draw(self, stream: &mut DataStream, task: &Task, longest: usize) -> usize {
        match self {
            Self::None => longest,
            Self::Grow => {
                let shortest = SHORTEST.min(longest).max(task.shortest_span());
                shortest + stream.below(longest - shortest + 1)
            }
        }
    }

    /// Whether the network that achieved `metrics` at a span masters it.
    pub fn mastered(metrics: &Metrics) -> bool {
        match metrics {
            Metrics::Classes { accuracy, .. } => *accuracy > MASTERED_ACCURACY,
            Metrics::Adding { mse } => *mse < MASTERED_MSE,
            // There is no level at which a text is mastered; its curriculum is refused.
            Metrics::Text { .. } => false,
        }
    }

    /// The longest span after `longest` was mastered.
    pub fn grown(longest: usize, target: usize) -> usize {
        ((longest as f64 * GROWTH).round() as usize).max(longest + 1).min(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Purpose;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn drawn_spans_reach_both_ends_and_nothing_beyond(seed: u64, longest in 1usize..40) {
            let task = Task::copying();
            let mut stream = DataStream::new(seed, Purpose::Training);
            let drawn: Vec<usize> =
                (0..2000).map(|_| Curriculum::Grow.draw(&mut stream, &task, longest)).collect();
            prop_assert_eq!(*drawn.iter().min().unwrap(), longest.min(5));
            prop_assert_eq!(*drawn.iter().max().unwrap(), longest);
        }

        #[test]
        fn growth_reaches_the_target_and_stays_there(target in 1usize..100_000) {
            let mut longest = Curriculum::Grow.first_longest(&Task::copying(), target);
            for _ in 0..60 {
                let grown = Curriculum::grown(longest, target);
                prop_assert!(grown > longest || grown == target);
                longest = grown;
            }
            prop_assert_eq!(longest, target);
        }
    }

    #[test]
    fn the_longest_delay_goes_from_10_to_100_in_nine_steps() {
        let mut delays = vec![Curriculum::Grow.first_longest(&Task::copying(), 100)];
        while *delays.last().unwrap() < 100 {
            delays.push(Curriculum::grown(*delays.last().unwrap(), 100));
        }
        assert_eq!(delays, [10, 13, 17, 22, 29, 38, 49, 64, 83, 100]);
    }

    #[test]
    fn no_span_is_shorter_than_the_task_allows() {
        let task = Task::recall();
        let mut stream = DataStream::new(1, Purpose::Training);
        let mut longest = Curriculum::Grow.first_longest(&task, 256);
        assert_eq!(longest, 20);
        for _ in 0..3 {
            for _ in 0..200 {
                let span = Curriculum::Grow.draw(&mut stream, &task, longest);
                assert!((20..=longest).contains(&span), "{span}");
            }
            longest = Curriculum::grown(longest, 256);
        }
    }

    #[test]
    fn without_a_curriculum_the_target_is_drawn() {
        let mut stream = DataStream::new(1, Purpose::Training);
        assert_eq!(Curriculum::None.first_longest(&Task::Adding, 77), 77);
        assert_eq!(Curriculum::None.draw(&mut stream, &Task::Adding, 77), 77);
    }

    #[test]
    fn mastered_is_above_90_percent_or_below_a_tenth_of_the_error() {
        let copying = |accuracy| Metrics::Classes { accuracy, cross_entropy: 1.0 };
        assert!(Curriculum::mastered(&copying(0.91)) && !Curriculum::mastered(&copying(0.9)));
        assert!(Curriculum::mastered(&Metrics::Adding { mse: 0.016 }));
        assert!(!Curriculum::mastered(&Metrics::Adding { mse: 0.017 }));
    }
}
