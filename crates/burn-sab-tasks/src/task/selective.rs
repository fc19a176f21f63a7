//! Sequences of selective copying, and of the marked symbol, which is selective copying of one symbol.

use super::one_hot;
use crate::stream::DataStream;

/// One-hot inputs `[rows, gap + 2 * symbols, alphabet + distractors + 1]` and the symbols
/// `[rows, symbols]`, flat.
///
/// Input features `0 .. alphabet` are the symbols, the next `distractors` the distractors, the last one
/// the mark.
pub(crate) fn sequences(
    stream: &mut DataStream,
    rows: usize,
    symbols: usize,
    [alphabet, distractors]: [usize; 2],
    gap: usize,
) -> (Vec<f32>, Vec<i64>) {
    let mark = alphabet + distractors;
    let noisy = gap + symbols;
    let mut shown = Vec::with_capacity(rows * (noisy + symbols));
    let mut said = Vec::with_capacity(rows * symbols);
    for _ in 0..rows {
        let first = shown.len();
        shown.extend((0..noisy).map(|_| alphabet + stream.below(distractors)));
        let mut places = stream.distinct(symbols, noisy);
        places.sort_unstable();
        for place in places {
            let symbol = stream.below(alphabet);
            shown[first + place] = symbol;
            said.push(symbol as i64);
        }
        shown.extend(vec![mark; symbols]);
    }
    (one_hot(&shown, mark + 1), said)
}

/// An input in words.
pub(crate) fn in_words(token: usize, [alphabet, distractors]: [usize; 2]) -> String {
    match token.checked_sub(alphabet) {
        None => format!("symbol {token}"),
        Some(distractor) if distractor < distractors => format!("distractor {distractor}"),
        Some(_) => "mark".to_owned(),
    }
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
            seed: u64, rows in 1usize..4, symbols in 1usize..6, alphabet in 2usize..6, distractors in 1usize..6,
            gap in 1usize..30,
        ) {
            let mut stream = DataStream::new(seed, Purpose::Training);
            let (input, said) = sequences(&mut stream, rows, symbols, [alphabet, distractors], gap);
            let shown = read_one_hot(&input, alphabet + distractors + 1);
            prop_assert_eq!(shown.len(), rows * (gap + 2 * symbols));
            prop_assert_eq!(said.len(), rows * symbols);
            for (row, said) in shown.chunks(gap + 2 * symbols).zip(said.chunks(symbols)) {
                let (noisy, marks) = row.split_at(gap + symbols);
                let read: Vec<i64> =
                    noisy.iter().filter(|&&x| x < alphabet).map(|&x| x as i64).collect();
                prop_assert_eq!(read, said);
                prop_assert!(noisy.iter().all(|&x| x < alphabet + distractors));
                prop_assert!(marks.iter().all(|&x| x == alphabet + distractors));
            }
        }
    }

    #[test]
    fn places_symbols_and_distractors_are_about_equally_frequent() {
        let (rows, gap, symbols) = (4000, 4, 2);
        let mut stream = DataStream::new(3, Purpose::Training);
        let (input, _) = sequences(&mut stream, rows, symbols, [2, 2], gap);
        let shown = read_one_hot(&input, 5);
        let count = |keep: &dyn Fn(usize, usize) -> bool| {
            let rows = shown.chunks(gap + 2 * symbols);
            rows.flat_map(|row| row.iter().enumerate()).filter(|&(t, &x)| keep(t, x)).count() as f64
        };
        for place in 0..gap + symbols {
            // A third of 4,000; 5 standard deviations are 149.
            let there = count(&|t, x| t == place && x < 2);
            assert!((there - 4000.0 / 3.0).abs() < 149.0, "{there} symbols at {place}");
        }
        for (token, expected) in [(0, 4000.0), (1, 4000.0), (2, 8000.0), (3, 8000.0)] {
            // 5 standard deviations of 16,000 fair draws are 316.
            let there = count(&|_, x| x == token);
            assert!((there - expected).abs() < 316.0, "{there} of token {token}");
        }
    }
}
