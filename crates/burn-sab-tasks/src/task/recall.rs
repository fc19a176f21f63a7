//! Sequences of multi-query associative recall.

use super::one_hot;
use crate::stream::DataStream;

/// Sizes of the task, as [`Task::Recall`](super::Task::Recall) has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) pairs: usize,
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) values: usize,
    pub(crate) distractors: usize,
}

/// What is drawn of the task.
pub(crate) struct Drawn {
    /// One-hot inputs `[rows, steps, keys + values + distractors]`.
    pub(crate) input: Vec<f32>,
    /// The values that are asked for, `[rows, queries]`.
    pub(crate) values: Vec<i64>,
    /// Where, counted from the end of the pairs, `[rows, queries]`.
    pub(crate) places: Vec<i64>,
}

/// Input features `0 .. keys` are the keys, the next `values` the values, the rest the distractors.
pub(crate) fn sequences(stream: &mut DataStream, rows: usize, sizes: Sizes, steps: usize) -> Drawn {
    let Sizes { pairs, queries, keys, values, distractors } = sizes;
    let after = steps - 2 * pairs;
    let mut shown = Vec::with_capacity(rows * steps);
    let mut asked = Vec::with_capacity(rows * queries);
    let mut asked_at = Vec::with_capacity(rows * queries);
    for _ in 0..rows {
        let of_row: Vec<(usize, usize)> = stream
            .distinct(pairs, keys)
            .into_iter()
            .map(|key| (key, stream.below(values)))
            .collect();
        shown.extend(of_row.iter().flat_map(|(key, value)| [*key, keys + value]));
        let first = shown.len();
        shown.extend((0..after).map(|_| keys + values + stream.below(distractors)));
        let mut places = stream.distinct(queries, after);
        places.sort_unstable();
        for (place, pair) in places.into_iter().zip(stream.distinct(queries, pairs)) {
            let (key, value) = of_row[pair];
            shown[first + place] = key;
            asked.push(value as i64);
            asked_at.push(place as i64);
        }
    }
    Drawn { input: one_hot(&shown, keys + values + distractors), values: asked, places: asked_at }
}

/// An input in words.
pub(crate) fn in_words(token: usize, keys: usize, values: usize) -> String {
    if token < keys {
        format!("key {token}")
    } else if token < keys + values {
        format!("value {}", token - keys)
    } else {
        format!("distractor {}", token - keys - values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Purpose;
    use crate::task::read_one_hot;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    proptest! {
        #[test]
        fn who_reads_the_sequence_knows_the_answers(
            seed: u64, rows in 1usize..4, pairs in 1usize..6, fewer in 0usize..6, more in 0usize..4,
            values in 2usize..6, distractors in 1usize..4, noise in 0usize..30,
        ) {
            let queries = pairs.saturating_sub(fewer).max(1);
            let keys = pairs + more;
            let sizes = Sizes { pairs, queries, keys, values, distractors };
            let steps = 2 * pairs + queries + noise;
            let mut stream = DataStream::new(seed, Purpose::Training);
            let drawn = sequences(&mut stream, rows, sizes, steps);
            let shown = read_one_hot(&drawn.input, keys + values + distractors);
            prop_assert_eq!(shown.len(), rows * steps);
            prop_assert_eq!((drawn.values.len(), drawn.places.len()), (rows * queries, rows * queries));
            let of_rows = drawn.values.chunks(queries).zip(drawn.places.chunks(queries));
            for (row, (asked, places)) in shown.chunks(steps).zip(of_rows) {
                let (said, after) = row.split_at(2 * pairs);
                let dictionary: BTreeMap<usize, usize> =
                    said.chunks(2).map(|pair| (pair[0], pair[1] - keys)).collect();
                prop_assert_eq!(dictionary.len(), pairs, "all keys differ");
                let read: Vec<(i64, i64)> = after
                    .iter()
                    .enumerate()
                    .filter(|&(_, &x)| x < keys)
                    .map(|(place, key)| (place as i64, dictionary[key] as i64))
                    .collect();
                let asked_for: Vec<(i64, i64)> =
                    places.iter().copied().zip(asked.iter().copied()).collect();
                prop_assert_eq!(read, asked_for);
                let queried: BTreeSet<usize> = after.iter().copied().filter(|&x| x < keys).collect();
                prop_assert_eq!(queried.len(), queries, "no key is asked for twice");
                prop_assert!(after.iter().all(|&x| x < keys || x >= keys + values));
            }
        }
    }

    #[test]
    fn any_pair_is_asked_for_anywhere() {
        let sizes = Sizes { pairs: 4, queries: 1, keys: 4, values: 2, distractors: 1 };
        let mut stream = DataStream::new(3, Purpose::Training);
        let drawn = sequences(&mut stream, 4000, sizes, 12);
        let shown = read_one_hot(&drawn.input, 7);
        for place in 0..4 {
            // A quarter of 4,000; 5 standard deviations are 137.
            let there = drawn.places.iter().filter(|&&at| at == place).count();
            let rows = shown.chunks(12).zip(&drawn.places);
            let pair = rows.filter(|(row, at)| row[8 + **at as usize] == row[2 * place as usize]);
            let pair = pair.count();
            assert!((863..1137).contains(&there), "{there} times at {place}");
            assert!((863..1137).contains(&pair), "pair {place} {pair} times");
        }
    }
}
