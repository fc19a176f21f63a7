//! Sequences of the adding task.

use crate::stream::DataStream;

/// Inputs `[rows, steps, 2]` (number, mark) and the sums `[rows, 1]`, flat.
///
/// The first mark is uniform in the first half of the steps and the second one in the other half.
pub(crate) fn sequences(
    stream: &mut DataStream,
    rows: usize,
    steps: usize,
) -> (Vec<f32>, Vec<f32>) {
    let half = steps / 2;
    let mut input = vec![0.0; rows * steps * 2];
    let mut sums = Vec::with_capacity(rows);
    for row in input.chunks_exact_mut(steps * 2) {
        for step in row.chunks_exact_mut(2) {
            step[0] = stream.unit();
        }
        let marked = [stream.below(half), half + stream.below(steps - half)];
        for step in marked {
            row[2 * step + 1] = 1.0;
        }
        sums.push(marked.iter().map(|step| row[2 * step]).sum());
    }
    (input, sums)
}

/// An input in words.
pub(crate) fn in_words(step: &[f32]) -> String {
    format!("number {:.2}{}", step[0], if step[1] == 1.0 { ", marked" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::Purpose;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_target_is_the_sum_of_one_marked_number_per_half(
            seed: u64, rows in 1usize..5, steps in 2usize..40,
        ) {
            let mut stream = DataStream::new(seed, Purpose::Training);
            let (input, sums) = sequences(&mut stream, rows, steps);
            prop_assert_eq!(sums.len(), rows);
            for (row, sum) in input.chunks(2 * steps).zip(sums) {
                let marked: Vec<usize> = (0..steps).filter(|&t| row[2 * t + 1] == 1.0).collect();
                prop_assert_eq!(marked.len(), 2);
                prop_assert!(marked[0] < steps / 2 && marked[1] >= steps / 2);
                prop_assert_eq!(row[2 * marked[0]] + row[2 * marked[1]], sum);
                prop_assert!(row.chunks(2).all(|step| (0.0..1.0).contains(&step[0])));
                prop_assert!(row.chunks(2).all(|step| step[1] == 0.0 || step[1] == 1.0));
            }
        }
    }

    #[test]
    fn always_answering_one_has_an_error_of_a_sixth() {
        let mut stream = DataStream::new(5, Purpose::Training);
        let (_, sums) = sequences(&mut stream, 20_000, 4);
        let error = sums.iter().map(|sum| (sum - 1.0).powi(2)).sum::<f32>() / sums.len() as f32;
        assert!((error - 1.0 / 6.0).abs() < 0.006, "{error}");
    }
}
