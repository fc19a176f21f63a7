//! Summaries of repeated measurements.

/// Sorts `values` and returns their median, the mean of the two in the middle where their number is even.
///
/// # Panics
///
/// If there are no values.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    f64::midpoint(values[last / 2], values[last.div_ceil(2)])
}

/// Mean, smallest and largest; `None` of nothing.
pub fn spread(values: &[f64]) -> Option<(f64, f64, f64)> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let smallest = values.iter().copied().reduce(f64::min)?;
    Some((mean, smallest, values.iter().copied().reduce(f64::max)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&mut [3.0]), 3.0);
        assert_eq!(median(&mut [5.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [5.0, 1.0, 2.0, 9.0]), 3.5);
    }

    #[test]
    fn the_spread_of_some_values_and_of_none() {
        assert_eq!(spread(&[2.0, 1.0, 6.0]), Some((3.0, 1.0, 6.0)));
        assert_eq!(spread(&[]), None);
    }
}
