//! Sequences of the induction heads task.

use super::one_hot;
use crate::stream::DataStream;

/// One-hot inputs `[rows, steps, vocabulary + 1]` and the tokens to be named `[rows]`, flat.
///
/// Input features `0 .. vocabulary` are the tokens, the last one is the special token.
pub(crate) fn sequences(
    stream: &mut DataStream,
    rows: usize,
    vocabulary: usize,
    steps: usize,
) -> (Vec<f32>, Vec<i64>) {
    let special = vocabulary;
    let mut shown = Vec::with_capacity(rows * steps);
    let mut named = Vec::with_capacity(rows);
    for _ in 0..rows {
        let first = shown.len();
        shown.extend((1..steps).map(|_| stream.below(vocabulary)));
        // Its follower comes before the last step, which is special again.
        let place = stream.below(steps - 2);
        shown[first + place] = special;
        named.push(shown[first + place + 1] as i64);
        shown.push(special);
    }
    (one_hot(&shown, vocabulary + 1), named)
}

/// An input in words.
pub(crate) fn in_words(token: usize, vocabulary: usize) -> String {
    if token < vocabulary { format!("token {token}") } else { "special token".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Purpose;
    use crate::task::read_one_hot;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn who_reads_the_sequence_knows_the_answer(
            seed: u64, rows in 1usize..4, vocabulary in 2usize..20, steps in 3usize..40,
        ) {
            let mut stream = DataStream::new(seed, Purpose::Training);
            let (input, named) = sequences(&mut stream, rows, vocabulary, steps);
            let shown = read_one_hot(&input, vocabulary + 1);
            prop_assert_eq!((shown.len(), named.len()), (rows * steps, rows));
            for (row, named) in shown.chunks(steps).zip(named) {
                let special: Vec<usize> = (0..steps).filter(|&t| row[t] == vocabulary).collect();
                prop_assert_eq!((special.len(), special[1]), (2, steps - 1));
                prop_assert_eq!(row[special[0] + 1] as i64, named);
                prop_assert!(named < vocabulary as i64);
            }
        }
    }

    #[test]
    fn the_special_token_comes_anywhere_and_any_token_follows() {
        let mut stream = DataStream::new(3, Purpose::Training);
        let (input, named) = sequences(&mut stream, 4000, 4, 6);
        let shown = read_one_hot(&input, 5);
        for place in 0..4 {
            // A quarter of 4,000; 5 standard deviations are 137.
            let there = shown.chunks(6).filter(|row| row[place] == 4).count();
            let follow = named.iter().filter(|&&token| token == place as i64).count();
            assert!((863..1137).contains(&there), "{there} times at {place}");
            assert!((863..1137).contains(&follow), "{follow} times followed by {place}");
        }
    }
}
