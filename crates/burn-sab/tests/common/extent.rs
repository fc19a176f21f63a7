//! Rows of different lengths, and with resets.

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sab::{SabLstmConfig, SabLstmOutput, Segments};

use super::{Named, assert_close, gradient, numbers, parameter_gradients, setup};

/// Lengths and resets of the rows of a call.
#[derive(Debug, Clone)]
pub struct Extent {
    pub lengths: Vec<usize>,
    pub resets: Vec<Vec<usize>>,
}

impl Extent {
    pub fn segments(&self, time: usize) -> Segments {
        let segments = Segments::new(self.lengths.len(), time);
        segments.with_lengths(&self.lengths).unwrap().with_resets(&self.resets).unwrap()
    }
}

/// Two calls, one after the other, from a fresh state: values and gradients by name. The second begins with what the
/// rows of the first have left.
pub fn run(
    config: &SabLstmConfig,
    time: usize,
    calls: &[Extent; 2],
    seed: u64,
    dtype: DType,
    device: &Device,
) -> (Named, Named) {
    let [setup, other] = [seed, seed ^ 1]
        .map(|seed| setup(config, calls[0].lengths.len(), time, seed, dtype, device));
    let inputs = [setup.x.clone(), other.x.clone()].map(Tensor::require_grad);
    let mut state = setup.state.clone();
    state.cell = state.cell.require_grad();
    state.hidden = state.hidden.require_grad();
    let (h0, c0) = (state.hidden.clone(), state.cell.clone());
    let first =
        setup.layer.forward_segments(inputs[0].clone(), &calls[0].segments(time), Some(state));
    let second = setup.layer.forward_segments(
        inputs[1].clone(),
        &calls[1].segments(time),
        Some(first.state.clone()),
    );
    let total = setup.loss(&first) + other.loss(&second);
    let grads = total.backward();
    let mut values = Vec::new();
    for (call, output) in [first, second].iter().enumerate() {
        let named = |name: &str| format!("{name} {call}");
        let state = &output.state;
        values.extend([
            (named("hidden"), numbers("hidden", &output.hidden)),
            (named("summary"), numbers("summary", &output.summary)),
            (named("cell"), numbers("cell", &state.cell)),
            (named("last"), numbers("last", &state.hidden)),
            (named("steps"), state.steps().iter().map(|n| *n as f64).collect()),
            (named("counts"), state.slot_counts().iter().map(|n| *n as f64).collect()),
            (named("slots"), state.slots().map_or(vec![], |slots| numbers("slots", &slots))),
            (named("retrieved"), retrieved(output)),
        ]);
    }
    let mut gradients = parameter_gradients(&setup.layer, &grads);
    for (call, x) in inputs.iter().enumerate() {
        gradients.push((format!("x {call}"), gradient("x", x, &grads)));
    }
    gradients.push(("h0".to_owned(), gradient("h0", &h0, &grads)));
    gradients.push(("c0".to_owned(), gradient("c0", &c0, &grads)));
    (values, gradients)
}

/// Slots and weights of every step, without unused places, of which there can be more or fewer.
fn retrieved(output: &SabLstmOutput) -> Vec<f64> {
    let [_, _, places] = output.slots.dims();
    let slots: Vec<i64> = output.slots.to_data().iter::<i64>().collect();
    let weights = numbers("weights", &output.weights);
    let mut all = Vec::new();
    for (slots, weights) in slots.chunks(places).zip(weights.chunks(places)) {
        let live = slots.iter().zip(weights).filter(|(_, weight)| **weight != 0.0);
        all.extend(live.flat_map(|(slot, weight)| [*slot as f64, *weight]));
        all.push(-1.0);
    }
    all
}

/// Asserts that whatever stands in the padding changes no bit of anything else, and that no gradient comes from there.
pub fn assert_padding_has_no_effect(config: &SabLstmConfig, dtype: DType, device: &Device) {
    let setup = setup(config, 3, 9, 1, dtype, device);
    let (lengths, input) = ([9, 4, 0], config.d_input);
    let run = |filling: f64| {
        let mut values = numbers("x", &setup.x);
        for (at, value) in values.iter_mut().enumerate() {
            if at / input % 9 >= lengths[at / input / 9] {
                *value = filling;
            }
        }
        let x = Tensor::<3>::from_data(TensorData::new(values, [3, 9, input]), (device, dtype));
        let x = x.require_grad();
        let (hidden, state) = setup.layer.forward_padded(x.clone(), &lengths, None);
        let slots = state.slots().expect("slots");
        // A loss on padding, too: it is there and has no effect.
        let total = hidden.clone().sum()
            + hidden.clone().powi_scalar(2).sum()
            + state.cell.clone().sum()
            + slots.clone().powi_scalar(2).sum();
        let grads = total.backward();
        let mut all = parameter_gradients(&setup.layer, &grads);
        all.push(("x".to_owned(), gradient("x", &x, &grads)));
        all.push(("hidden".to_owned(), numbers("hidden", &hidden)));
        all.push(("slots".to_owned(), numbers("slots", &slots)));
        all
    };
    let want = run(0.0);
    for filling in [1.0, 1e300, f64::NAN, f64::INFINITY] {
        assert_close(&format!("{filling} {device:?} {config}"), &run(filling), &want, 0.0);
    }
    let of_x = &want.iter().find(|(name, _)| name == "x").unwrap().1;
    assert!(of_x[input * (9 + 4)..].iter().all(|grad| *grad == 0.0));
    assert!(of_x[input * 9..input * (9 + 4)].iter().all(|grad| *grad != 0.0));
}
