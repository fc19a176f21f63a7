//! Labelled series of numbers as sequences, and how they are split.

use std::cmp::Reverse;
use std::ops::Range;

use crate::stream::{DataStream, Purpose};

/// A training batch is a part of so many batches drawn at once, which are sorted by length: its rows are of
/// similar lengths, and little of it is padding.
const POOL: usize = 8;

/// Labelled series.
#[derive(Debug)]
pub struct Series {
    /// What they are, for reports: which files, and how many series.
    pub origin: String,
    /// First those for training, then those for validation, then those for the test.
    pub(super) items: Vec<Item>,
    /// Series before this one are for training.
    pub(super) training: usize,
    /// Series before this one, and after those for training, choose the best network; the rest are for the test.
    pub(super) validation: usize,
}

/// One series and its class.
#[derive(Debug, Clone)]
pub struct Item {
    pub(super) values: Vec<f32>,
    pub(super) label: u8,
}

/// Sequences side by side, padded with zeros to the longest.
pub(super) struct Padded {
    /// `[sequence, step, frame]`, flat.
    pub(super) input: Vec<f32>,
    /// Steps of each sequence.
    pub(super) lengths: Vec<usize>,
    pub(super) labels: Vec<i64>,
}

impl Series {
    /// Puts the parts of a split one after the other.
    pub(super) fn of_parts(origin: String, parts: [Vec<Item>; 3]) -> Self {
        let training = parts[0].len();
        let validation = training + parts[1].len();
        Self { origin, items: parts.into_iter().flatten().collect(), training, validation }
    }

    /// The series that are there for `purpose`.
    pub(super) fn of(&self, purpose: Purpose) -> Range<usize> {
        match purpose {
            Purpose::Training => 0..self.training,
            Purpose::Curriculum | Purpose::Validation => self.training..self.validation,
            Purpose::Test | Purpose::Permutation => self.validation..self.items.len(),
        }
    }

    /// Steps of a series of which at most `most` values are read, `frame` a step.
    pub(super) fn steps(&self, item: usize, most: usize, frame: usize) -> usize {
        self.items[item].values.len().min(most).div_ceil(frame)
    }

    /// Draws series for training, with replacement; each is equally likely. Those of a batch have similar lengths.
    pub(super) fn draw(&self, stream: &mut DataStream, rows: usize) -> Vec<usize> {
        let mut drawn: Vec<usize> = (0..POOL * rows).map(|_| stream.below(self.training)).collect();
        drawn.sort_by_key(|item| Reverse(self.items[*item].values.len()));
        drawn.split_off(stream.below(POOL) * rows).into_iter().take(rows).collect()
    }

    /// Sequences of these series, of which at most `most` values are read, `frame` a step.
    pub(super) fn sequences(&self, items: &[usize], most: usize, frame: usize) -> Padded {
        let lengths: Vec<usize> = items.iter().map(|item| self.steps(*item, most, frame)).collect();
        let row = frame * lengths.iter().max().unwrap_or(&0);
        let mut input = vec![0.0; items.len() * row];
        for (row, item) in input.chunks_mut(row.max(1)).zip(items) {
            let values = &self.items[*item].values;
            let count = values.len().min(most);
            row[..count].copy_from_slice(&values[..count]);
        }
        let labels = items.iter().map(|item| i64::from(self.items[*item].label)).collect();
        Padded { input, lengths, labels }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(lengths: &[usize]) -> Series {
        let item = |n: &usize| Item { values: vec![*n as f32; *n], label: (*n % 10) as u8 };
        Series::of_parts(String::new(), [lengths.iter().map(item).collect(), vec![], vec![]])
    }

    #[test]
    fn sequences_are_padded_at_the_end_and_cut_where_asked() {
        let series = series(&[3, 1, 5]);
        let padded = series.sequences(&[1, 0, 2], 4, 1);
        assert_eq!(padded.lengths, [1, 3, 4]);
        assert_eq!(padded.labels, [1, 3, 5]);
        let rows: Vec<&[f32]> = padded.input.chunks(4).collect();
        assert_eq!(rows, [[1.0, 0.0, 0.0, 0.0], [3.0, 3.0, 3.0, 0.0], [5.0; 4]]);
        let padded = series.sequences(&[2, 1], 5, 2);
        assert_eq!(padded.lengths, [3, 1]);
        let rows: Vec<&[f32]> = padded.input.chunks(6).collect();
        assert_eq!(rows, [[5.0, 5.0, 5.0, 5.0, 5.0, 0.0], [1.0, 0.0, 0.0, 0.0, 0.0, 0.0]]);
    }

    #[test]
    fn batches_are_of_similar_lengths_and_every_series_is_equally_likely() {
        let series = series(&(1..=40).collect::<Vec<_>>());
        let mut stream = DataStream::new(1, Purpose::Training);
        let mut count = [0; 40];
        let mut padding = 0.0;
        for _ in 0..1000 {
            let drawn = series.draw(&mut stream, 16);
            assert_eq!(drawn.len(), 16);
            let Padded { lengths, input, .. } = series.sequences(&drawn, 100, 1);
            padding += 1.0 - lengths.iter().sum::<usize>() as f64 / input.len() as f64;
            drawn.iter().for_each(|item| count[*item] += 1);
        }
        // 400 expected. A batch has 3.2 copies of a series or none: 5 standard deviations are 195.
        assert!(count.iter().all(|count| (205..=595).contains(count)), "{count:?}");
        // Half of a batch would be padding, nearly, if it were drawn at random.
        assert!(padding / 1000.0 < 0.2, "{padding}");
    }

    #[test]
    fn parts_follow_each_other() {
        let item = |label| Item { values: vec![0.0], label };
        let parts = [vec![item(1), item(2)], vec![item(3)], vec![item(4)]];
        let series = Series::of_parts(String::new(), parts);
        assert_eq!(series.of(Purpose::Training), 0..2);
        assert_eq!(series.of(Purpose::Validation), 2..3);
        assert_eq!(series.of(Purpose::Test), 3..4);
    }
}
