use std::collections::HashSet;

use burn::tensor::Tensor;
use burn_sab::{SabLstm, SabLstmOutput, SabLstmState};

/// The share of the slots that exact selection retrieves which an index of `n_probe` lists retrieves, too: 0 to 1.
///
/// It is taken at `samples` evenly spaced steps of `x`, `[B, T, I]`, the last one included. Both begin each of these
/// steps from the state that exact selection has led to, so that one miss does not change what comes later. The
/// layer should be without autodiff, and have dot scores.
///
/// # Panics
///
/// If there are fewer steps than samples, or if the layer cannot have an index.
pub fn recall(layer: &SabLstm, x: &Tensor<3>, n_probe: usize, samples: usize) -> f64 {
    let [_, time, _] = x.dims();
    assert!(samples <= time, "{samples} samples of {time} steps: take fewer");
    let [mut exact, mut indexed] = [layer.clone(), layer.clone()];
    (exact.settings.n_probe, indexed.settings.n_probe) = (None, Some(n_probe));
    let mut state: Option<SabLstmState> = None;
    let (mut common, mut all) = (0, 0);
    for sample in 0..samples {
        let (from, at) = (time * sample / samples, time * (sample + 1) / samples - 1);
        if at > from {
            state = Some(exact.forward(x.clone().narrow(1, from, at - from), state).1);
        }
        let step = x.clone().narrow(1, at, 1);
        let found = retrieved(&indexed.forward_with_reminders(step.clone(), state.clone()));
        let output = exact.forward_with_reminders(step, state);
        let wanted = retrieved(&output);
        common += wanted.intersection(&found).count();
        all += wanted.len();
        state = Some(output.state);
    }
    if all == 0 { 1.0 } else { common as f64 / all as f64 }
}

/// The row and number of every slot with weight, of one step.
fn retrieved(output: &SabLstmOutput) -> HashSet<(usize, i64)> {
    let [_, _, places] = output.slots.dims();
    let weights = output.weights.to_data();
    let slots = output.slots.to_data();
    let places = slots
        .iter::<i64>()
        .zip(weights.iter::<f64>())
        .enumerate()
        .map(|(place, (slot, weight))| ((place / places, slot), weight));
    places.filter(|(_, weight)| *weight != 0.0).map(|(slot, _)| slot).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};
    use burn_sab::{SabLstmConfig, ScoreConfig};

    #[test]
    fn more_lists_find_more() {
        // GPU kernels score every slot.
        let device = Device::flex();
        let _generator = crate::draw::generator();
        device.seed(1);
        let score = ScoreConfig::Dot { d_attention: 8 };
        let layer = SabLstmConfig::new(3, 8, true).with_score(score).init(&device);
        let x = Tensor::random([2, 400, 3], Distribution::Normal(0.0, 1.0), &device);
        let [one, eight, all] = [1, 8, 1000].map(|n_probe| recall(&layer, &x, n_probe, 20));
        assert!(0.0 < one && one < eight && eight < all, "{one}, {eight}, {all}");
        assert_eq!(all, 1.0);
        // As many slots as there are lists.
        assert_eq!(recall(&layer, &x.clone().narrow(1, 0, 60), 1, 60), 1.0);
        // No slot at all.
        let empty = SabLstmConfig::new(3, 8, true).without_memory().init(&device);
        assert_eq!(recall(&empty, &x, 1, 4), 1.0);
    }
}
