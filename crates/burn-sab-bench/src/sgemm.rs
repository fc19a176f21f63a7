//! How fast this machine multiplies matrices of the recurrent products' shapes.
//!
//! A share compares two times: what the recurrent products of a pass would take alone at that rate, and
//! what the whole pass took, with gates, retrieval and all. The products themselves run at no less than
//! this share of the rate.

use std::hint::black_box;
use std::time::Instant;

use crate::case::Case;

/// Time that one measurement spans: far above the clock's resolution and a thread's wake-up.
const SAMPLE_SECONDS: f64 = 5e-3;
/// Measurements, of which the best counts: the machine's rate, not its noise.
const SAMPLES: usize = 20;
/// Terms that a weight gradient's product sums at once: as many as there are, but no more than make it
/// a large product.
const MOST_TERMS: usize = 1024;

/// The recurrent products of a case at the machine's own rate.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// Rate of the forward pass's product in GFLOP/s, all threads together.
    pub gflops: f64,
    /// Seconds of the forward pass's products.
    pub forward: f64,
    /// Seconds of all products of a training step.
    pub train_step: f64,
}

/// Measures on the threads of the rayon pool, each with products of its own.
pub fn floor(case: &Case) -> Floor {
    let Case { batch, time, hidden, .. } = *case;
    let gates = 4 * hidden;
    let per_step = product(batch, hidden, gates);
    let windows = (0..time).filter(|t| case.starts_window(*t)).count();
    let forward_rate = rate(batch, hidden, gates);
    let forward = time as f64 * per_step / forward_rate;
    // No gradient goes back to the hidden state before a window.
    let to_hidden = (time - windows) as f64 * per_step / rate(batch, gates, hidden);
    let terms = (batch * time).min(MOST_TERMS);
    let to_weights = time as f64 * per_step / rate(hidden, terms, gates);
    Floor { gflops: forward_rate / 1e9, forward, train_step: forward + to_hidden + to_weights }
}

/// Operations of a product `[m, k] [k, n]`.
fn product(m: usize, k: usize, n: usize) -> f64 {
    2.0 * m as f64 * k as f64 * n as f64
}

/// Operations per second of products `[m, k] [k, n]`.
fn rate(m: usize, k: usize, n: usize) -> f64 {
    // The first guess is a slow machine; then as many products as the time holds.
    let mut repeats = (SAMPLE_SECONDS * 1e9 / product(m, k, n)).ceil();
    let mut best = 0.0f64;
    for _ in 0..=SAMPLES {
        let start = Instant::now();
        let threads = rayon::broadcast(|_| multiply_repeatedly(m, k, n, repeats as usize)).len();
        let seconds = start.elapsed().as_secs_f64();
        let rate = threads as f64 * repeats * product(m, k, n) / seconds;
        best = best.max(rate);
        repeats = (SAMPLE_SECONDS * rate / threads as f64 / product(m, k, n)).ceil();
    }
    best
}

fn multiply_repeatedly(m: usize, k: usize, n: usize, repeats: usize) {
    let (a, b) = (vec![0.5f32; m * k], vec![0.5f32; k * n]);
    let mut out = vec![0.0f32; m * n];
    let stride = |n: usize| isize::try_from(n).expect("a stride fits in isize");
    for _ in 0..repeats {
        // SAFETY: `a`, `b` and `out` have exactly the numbers of dense matrices [m, k], [k, n] and [m, n]
        // with these strides, and `out` is borrowed by nobody else.
        #[allow(unsafe_code)]
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.as_mut_ptr(),
                1,
                stride(n),
                false,
                a.as_ptr(),
                1,
                stride(k),
                b.as_ptr(),
                1,
                stride(n),
                1.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        black_box(&mut out);
    }
}
