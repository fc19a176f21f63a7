//! The LSTM cell on one row of the batch: gates and state, forward and backward, without the matrix
//! products.

use super::float::{Float, sigmoid, tanh, tanh_and_slope};

/// The four gates of one row, in memory order: input, forget, candidate, output.
#[inline(always)]
fn gates<T>(row: &[T], hidden: usize) -> [&[T]; 4] {
    let (i, rest) = row.split_at(hidden);
    let (f, rest) = rest.split_at(hidden);
    let (g, rest) = rest.split_at(hidden);
    [i, f, g, &rest[..hidden]]
}

#[inline(always)]
fn gates_mut<T>(row: &mut [T], hidden: usize) -> [&mut [T]; 4] {
    let (i, rest) = row.split_at_mut(hidden);
    let (f, rest) = rest.split_at_mut(hidden);
    let (g, rest) = rest.split_at_mut(hidden);
    [i, f, g, &mut rest[..hidden]]
}

/// Applies the activations to the gates in place and advances the cell. `cell` changes from c_{t-1} to
/// c_t, and `provisional` becomes the LSTM's output before retrieval. `record`, `[5 H]`, holds the four
/// gates, followed by room for c_t.
#[inline(always)]
pub fn forward<T: Float>(record: &mut [T], cell: &mut [T], provisional: &mut [T]) {
    let hidden = cell.len();
    let (gates, saved_cell) = record.split_at_mut(4 * hidden);
    let [i, f, g, o] = gates_mut(gates, hidden);
    forward_loop(i, f, g, o, cell, &mut saved_cell[..hidden], provisional);
}

// A function of its own, because the compiler infers from parameters alone that slices do not overlap.
// Without that guarantee it does not vectorise the loop.
#[inline(always)]
fn forward_loop<T: Float>(
    i: &mut [T],
    f: &mut [T],
    g: &mut [T],
    o: &mut [T],
    cell: &mut [T],
    saved_cell: &mut [T],
    provisional: &mut [T],
) {
    let n = cell.len();
    let (i, f, g, o) = (&mut i[..n], &mut f[..n], &mut g[..n], &mut o[..n]);
    let (saved_cell, provisional) = (&mut saved_cell[..n], &mut provisional[..n]);
    for k in 0..n {
        i[k] = sigmoid(i[k]);
        f[k] = sigmoid(f[k]);
        g[k] = tanh(g[k]);
        o[k] = sigmoid(o[k]);
        let c = f[k] * cell[k] + i[k] * g[k];
        cell[k] = c;
        saved_cell[k] = c;
        provisional[k] = o[k] * tanh(c);
    }
}

/// Computes from a record: tanh(c_t), its derivative, and the provisional hidden state o * tanh(c_t).
#[inline(always)]
pub fn provisional<T: Float>(
    record: &[T],
    tanh_cell: &mut [T],
    slope: &mut [T],
    provisional: &mut [T],
) {
    let n = tanh_cell.len();
    let [_, _, _, o] = gates(record, n);
    provisional_loop(o, &record[4 * n..5 * n], tanh_cell, slope, provisional);
}

#[inline(always)]
fn provisional_loop<T: Float>(
    o: &[T],
    cell: &[T],
    tanh_cell: &mut [T],
    slope: &mut [T],
    provisional: &mut [T],
) {
    let n = tanh_cell.len();
    let (o, cell, slope, provisional) =
        (&o[..n], &cell[..n], &mut slope[..n], &mut provisional[..n]);
    for k in 0..n {
        (tanh_cell[k], slope[k]) = tanh_and_slope(cell[k]);
        provisional[k] = o[k] * tanh_cell[k];
    }
}

/// Computes the gradients of the four pre-activations (`out`, `[4 H]`) from the gradients of the
/// provisional hidden state and of c_t. `tanh_cell` and `slope` are outputs of [`provisional`].
/// `grad_cell` changes from the gradient of c_t to that of c_{t-1}. Subnormal gradients become zero: without truncation,
/// gradients that vanish would stay at the smallest subnormal number.
#[inline(always)]
pub fn backward<T: Float>(
    record: &[T],
    tanh_cell: &[T],
    slope: &[T],
    previous_cell: &[T],
    grad_provisional: &[T],
    grad_cell: &mut [T],
    out: &mut [T],
) {
    let hidden = grad_cell.len();
    let [i, f, g, o] = gates(record, hidden);
    let [di, df, dg, d_o] = gates_mut(out, hidden);
    backward_loop(
        i,
        f,
        g,
        o,
        tanh_cell,
        slope,
        previous_cell,
        grad_provisional,
        grad_cell,
        di,
        df,
        dg,
        d_o,
    );
}

#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "each must be a parameter, see `forward_loop`")]
fn backward_loop<T: Float>(
    i: &[T],
    f: &[T],
    g: &[T],
    o: &[T],
    tanh_cell: &[T],
    slope: &[T],
    previous_cell: &[T],
    grad_provisional: &[T],
    grad_cell: &mut [T],
    di: &mut [T],
    df: &mut [T],
    dg: &mut [T],
    d_o: &mut [T],
) {
    let n = grad_cell.len();
    let (i, f, g, o) = (&i[..n], &f[..n], &g[..n], &o[..n]);
    let (tanh_cell, slope) = (&tanh_cell[..n], &slope[..n]);
    let (previous_cell, grad_provisional) = (&previous_cell[..n], &grad_provisional[..n]);
    let (di, df, dg, d_o) = (&mut di[..n], &mut df[..n], &mut dg[..n], &mut d_o[..n]);
    let one = T::ONE;
    for k in 0..n {
        let gh = grad_provisional[k].flush();
        let gc = (grad_cell[k] + gh * o[k] * slope[k]).flush();
        di[k] = (gc * g[k] * i[k] * (one - i[k])).flush();
        df[k] = (gc * previous_cell[k] * f[k] * (one - f[k])).flush();
        dg[k] = (gc * i[k] * (one - g[k] * g[k])).flush();
        d_o[k] = (gh * tanh_cell[k] * o[k] * (one - o[k])).flush();
        grad_cell[k] = (gc * f[k]).flush();
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::numbers::numbers;
    use super::*;

    /// Gradients of every size down to nothing.
    fn has_no_subnormal_gradient<T: Float>(smallest: f64) {
        const HIDDEN: usize = 33;
        let mut next = numbers();
        let mut drawn = |n: usize, scale: f64| -> Vec<T> {
            (0..n).map(|_| T::from_f64(next() * scale)).collect()
        };
        for scale in [1.0, 1e3 * smallest, 30.0 * smallest, smallest, 1e-3 * smallest] {
            let (mut record, mut cell) = (drawn(5 * HIDDEN, 4.0), drawn(HIDDEN, 1.0));
            let previous_cell = cell.clone();
            let [mut tanh_cell, mut slope, mut provisional] = [0; 3].map(|_| drawn(HIDDEN, 0.0));
            forward(&mut record, &mut cell, &mut provisional);
            super::provisional(&record, &mut tanh_cell, &mut slope, &mut provisional);
            let (grad_provisional, mut grad_cell) = (drawn(HIDDEN, scale), drawn(HIDDEN, scale));
            let mut out = drawn(4 * HIDDEN, 0.0);
            backward(
                &record,
                &tanh_cell,
                &slope,
                &previous_cell,
                &grad_provisional,
                &mut grad_cell,
                &mut out,
            );
            let sizes = || out.iter().chain(&grad_cell).map(|x| -> f64 { x.abs().into() });
            assert!(sizes().all(|size| size == 0.0 || size >= smallest), "{scale}: {out:?}");
            assert_eq!(sizes().any(|size| size > 0.0), scale > smallest, "{scale}: {out:?}");
        }
    }

    #[test]
    fn subnormal_gradients_become_zero() {
        has_no_subnormal_gradient::<f32>(f32::MIN_POSITIVE.into());
        has_no_subnormal_gradient::<f64>(f64::MIN_POSITIVE);
        assert!(f32::NAN.flush().is_nan());
        assert_eq!((-f32::MIN_POSITIVE).flush(), -f32::MIN_POSITIVE);
    }
}
