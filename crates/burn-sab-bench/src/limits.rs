//! What a GPU could do at most: how fast it copies memory and multiplies matrices, measured on the same
//! backend in the same process, and what share of it a training step reaches.
//!
//! The shares are not the whole story: a sequence is a chain of steps, and a device that waits for one row's
//! step to end is idle without being at either limit.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use burn_sab::ScoreKind;

use crate::case::Case;

/// What one measurement has to take at least: a thousand times what a launch and the wait for its end take.
const SAMPLE: Duration = Duration::from_millis(20);
/// Measurements, of which the best counts: the device's rate, not its noise.
const SAMPLES: usize = 5;
/// Sides of the square matrices: up to 64 MiB each, where every large GPU is at its rate.
const SIDES: [usize; 6] = [128, 256, 512, 1024, 2048, 4096];
/// Numbers that are copied: up to 128 MiB, the most that WebGPU promises for one array and more than caches
/// hold.
const LENGTHS: [usize; 6] = [1 << 15, 1 << 17, 1 << 19, 1 << 21, 1 << 23, 1 << 25];

/// The rates of a device.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// GFLOP/s of a product of large square matrices in f32.
    pub gflops: f64,
    /// GB/s of a large copy, reads and writes together.
    pub gb_s: f64,
}

/// Measures both rates.
///
/// # Errors
///
/// If the device fails.
pub fn measure(device: &Device) -> anyhow::Result<Limits> {
    let uniform =
        |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), device);
    let gflops = best(&SIDES, device, |side| {
        let (a, b) = (uniform([side, side]), uniform([side, side]));
        (2.0 * (side as f64).powi(3), Box::new(move || a.clone().matmul(b.clone())))
    })?;
    let gb_s = best(&LENGTHS, device, |length| {
        let numbers = uniform([1, length]);
        let moved = 2 * length * size_of::<f32>();
        // An addition, as a copy alone would copy nothing.
        (moved as f64, Box::new(move || numbers.clone() + 1.0))
    })?;
    Ok(Limits { gflops: gflops / 1e9, gb_s: gb_s / 1e9 })
}

/// An amount of work, and how to do it once.
type Work = (f64, Box<dyn Fn() -> Tensor<2>>);

/// The best rate over growing sizes, in work per second; ends with the first size that keeps the device busy
/// by itself.
fn best(sizes: &[usize], device: &Device, work: impl Fn(usize) -> Work) -> anyhow::Result<f64> {
    let mut best = 0.0f64;
    for size in sizes {
        let (amount, once) = work(*size);
        let time = |repeats: usize| -> anyhow::Result<Duration> {
            let start = Instant::now();
            for _ in 0..repeats {
                let result = once();
                // One by one: Burn's fusion would make one kernel of all and read what they share once.
                device.flush()?;
                drop(result);
            }
            device.sync()?;
            Ok(start.elapsed())
        };
        // The first one compiles.
        time(1)?;
        let single = time(1)?;
        let repeats = (SAMPLE.as_secs_f64() / single.as_secs_f64()).ceil().max(1.0);
        for _ in 0..SAMPLES {
            let took = time(repeats as usize)?;
            best = best.max(repeats * amount / took.as_secs_f64());
        }
        if single > SAMPLE {
            break;
        }
    }
    Ok(best)
}

/// Floating-point operations of the products in a training step: of the gates, of queries, keys and scores,
/// and of the retrieval. Backward each product becomes two; scores and retrieval are replayed for the slots
/// that were selected only.
pub fn operations(case: &Case) -> f64 {
    let [batch, time, input, hidden, k_top] =
        [case.batch, case.time, case.input, case.hidden, case.settings.k_top].map(|n| n as f64);
    let attention = case.attended() as f64;
    let slots = 1.0 + (case.time / case.settings.k_att) as f64;
    let pairs: f64 = (0..case.time).map(|t| 1.0 + (t / case.settings.k_att) as f64).sum();
    let gates = time * (input + hidden) * 4.0 * hidden;
    let (queries, keys, scores) = match case.score {
        // Each is one number for a state or slot.
        ScoreKind::Additive => (time * hidden, slots * hidden, pairs),
        _ => (time * hidden * attention, slots * hidden * attention, pairs * attention),
    };
    let selected = time * k_top * (hidden + attention);
    // The inputs need no gradient.
    let backward = 2.0 * (gates + queries + keys + selected) - time * input * 4.0 * hidden;
    2.0 * batch * (gates + queries + keys + scores + time * k_top * hidden + backward)
}

/// Bytes that a training step cannot but move: inputs, gates, states and slots are written once and read
/// once, and so are the gradients of the gates; the products that make weight gradients read inputs, states
/// and these gradients once more.
pub fn traffic(case: &Case) -> f64 {
    let [batch, time, input, hidden] =
        [case.batch, case.time, case.input, case.hidden].map(|n| n as f64);
    let slots = (case.time / case.settings.k_att) as f64;
    let step = 2.0 * input + 3.0 * hidden + 5.0 * 4.0 * hidden;
    let slot = 2.0 * (hidden + case.attended() as f64);
    size_of::<f32>() as f64 * batch * (time * step + slots * slot)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_sab::SabSettings;
    use burn_sab_cli::backend::Backend;

    /// B 1, T 2, I 1, H 1, A 1, k_att 1: slots are the initial state and those after two steps.
    #[test]
    fn operations_and_bytes_by_hand() {
        let case = Case {
            batch: 1,
            time: 2,
            input: 1,
            hidden: 1,
            attention: 1,
            settings: SabSettings::default()
                .with_k_top(1)
                .with_k_trunc(5)
                .with_truncation_offset(Some(0)),
            ..Case::main(Backend::Flex, 1, 1)
        };
        // Forward: gates 2 · 2 · 4, queries 2, keys 3, scores 1 + 2, retrieval 2. Backward: twice gates,
        // queries, keys, and k_top scores and retrievals, without the gradient of the inputs, 2 · 4.
        let forward = 16.0 + 2.0 + 3.0 + 3.0 + 2.0;
        let backward = 2.0 * (16.0 + 2.0 + 3.0 + 4.0) - 8.0;
        assert_eq!(operations(&case), 2.0 * (forward + backward));
        assert_eq!(traffic(&case), 4.0 * (2.0 * (2.0 + 3.0 + 20.0) + 2.0 * 4.0));
        let twice = Case { batch: 2, ..case.clone() };
        assert_eq!(operations(&twice), 2.0 * operations(&case));
        assert_eq!(traffic(&twice), 2.0 * traffic(&case));
    }

    #[test]
    fn a_device_has_rates() {
        let device = Backend::preferred().unwrap().device().unwrap();
        let Limits { gflops, gb_s } = measure(&device).unwrap();
        // Any processor of this century, and none.
        assert!((0.01..1e6).contains(&gflops) && (0.01..1e6).contains(&gb_s), "{gflops}, {gb_s}");
    }
}
