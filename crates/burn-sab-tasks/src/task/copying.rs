//! Sequences of the copying task.

use crate::stream::DataStream;

/// One-hot inputs `[rows, delay + 2 * symbols, alphabet + 2]` and the symbols `[rows, symbols]`, flat.
///
/// Input features `0 .. alphabet` are the symbols, `alphabet` the blank, `alphabet + 1` the marker.
pub(crate) fn sequences(
    stream: &mut DataStream,
    rows: usize,
    symbols: usize,
    alphabet: usize,
    delay: usize,
) -> (Vec<f32>, Vec<i64>) {
    let (steps, features) = (delay + 2 * symbols, alphabet + 2);
    let (blank, marker) = (alphabet, alphabet + 1);
    let marked_step = symbols + delay - 1;
    let mut input = vec![0.0; rows * steps * features];
    let mut said = Vec::with_capacity(rows * symbols);
    for row in input.chunks_exact_mut(steps * features) {
        for (step, one_hot) in row.chunks_exact_mut(features).enumerate() {
            let shown = if step < symbols {
                let symbol = stream.below(alphabet);
                said.push(symbol as i64);
                symbol
            } else if step == marked_step {
                marker
            } else {
                blank
            };
            one_hot[shown] = 1.0;
        }
    }
    (input, said)
}

/// An input in words.
pub(crate) fn in_words(token: usize, alphabet: usize) -> String {
    match token.checked_sub(alphabet) {
        None => format!("symbol {token}"),
        Some(0) => "blank".to_owned(),
        Some(_) => "marker".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Purpose;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_sequence_is_symbols_blanks_marker_blanks(
            seed: u64, rows in 1usize..4, symbols in 1usize..6, alphabet in 1usize..6, delay in 1usize..30,
        ) {
            let mut stream = DataStream::new(seed, Purpose::Training);
            let (input, said) = sequences(&mut stream, rows, symbols, alphabet, delay);
            prop_assert_eq!(said.len(), rows * symbols);
            prop_assert_eq!(input.len(), rows * (delay + 2 * symbols) * (alphabet + 2));
            for (row, said) in input.chunks((delay + 2 * symbols) * (alphabet + 2)).zip(said.chunks(symbols)) {
                let shown: Vec<usize> = row
                    .chunks(alphabet + 2)
                    .map(|one_hot| {
                        assert_eq!(one_hot.iter().sum::<f32>(), 1.0);
                        one_hot.iter().position(|&x| x == 1.0).unwrap()
                    })
                    .collect();
                let mut expected: Vec<usize> = said.iter().map(|&symbol| symbol as usize).collect();
                expected.extend(vec![alphabet; delay - 1]);
                expected.push(alphabet + 1);
                expected.extend(vec![alphabet; symbols]);
                prop_assert!(said.iter().all(|&symbol| (symbol as usize) < alphabet));
                prop_assert_eq!(shown, expected);
            }
        }
    }

    #[test]
    fn every_symbol_is_about_equally_frequent() {
        let mut stream = DataStream::new(3, Purpose::Training);
        let (_, said) = sequences(&mut stream, 1000, 10, 8, 1);
        for symbol in 0..8 {
            let count = said.iter().filter(|&&s| s == symbol).count();
            // 1,250 expected; 5 standard deviations are 165.
            assert!((1085..1415).contains(&count), "symbol {symbol} came {count} times");
        }
    }
}
