//! The layer in the place of `burn::nn::Lstm`.

mod common;

use burn::module::{Initializer, Module};
use burn::nn::activation::ActivationConfig;
use burn::nn::{HardSigmoidConfig, Lstm, LstmConfig, LstmState};
use burn::tensor::{DType, Device, Tensor};
use burn_sab::{SabLstm, SabLstmConfig, SabLstmState};
use common::{assert_close, cpu_devices, gradient, normal, numbers};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

fn rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(7)
}

fn without_memory(lstm: &Lstm) -> SabLstm {
    let config = SabLstmConfig::new(1, 1, true).without_memory().full_backpropagation();
    config.try_init_from(lstm.clone()).unwrap()
}

fn compare(config: &LstmConfig, with_state: bool, device: &Device) {
    device.seed(3);
    let lstm = config.init(device);
    let layer = without_memory(&lstm);
    let (batch, time) = (3, 9);
    let dims = if config.batch_first { [batch, time, 4] } else { [time, batch, 4] };
    let mut rng = rng();
    let data = normal(&mut rng, dims, 1.0, DType::F32, device);
    let up = normal(&mut rng, [dims[0], dims[1], 5], 1.0, DType::F32, device);
    let state = with_state.then(|| {
        let mut draw = || normal(&mut rng, [batch, 5], 0.5, DType::F32, device);
        LstmState::new(draw(), draw())
    });

    let x = data.clone().require_grad();
    let (hidden, last) = lstm.forward(x.clone(), state.clone());
    let grads =
        ((up.clone() * hidden.clone()).sum() + last.cell.clone().sum() + last.hidden.clone().sum())
            .backward();
    let named = |hidden: &Tensor<3>,
                 cell: &Tensor<2>,
                 last: &Tensor<2>,
                 x: Vec<f64>,
                 w: Vec<f64>,
                 b: Vec<f64>| {
        vec![
            ("hidden".to_owned(), numbers("hidden", hidden)),
            ("cell".to_owned(), numbers("cell", cell)),
            ("last".to_owned(), numbers("last", last)),
            ("x".to_owned(), x),
            ("recurrent weights of the output gate".to_owned(), w),
            ("its bias".to_owned(), b),
        ]
    };
    let gate = &lstm.output_gate.hidden_transform;
    let bias = |grads| gate.bias.as_ref().map_or(vec![], |b| gradient("b", &b.val(), grads));
    let want = named(
        &hidden,
        &last.cell,
        &last.hidden,
        gradient("x", &x, &grads),
        gradient("w", &gate.weight.val(), &grads),
        bias(&grads),
    );

    let x = data.require_grad();
    let (hidden, last) = layer.forward(x.clone(), state.map(SabLstmState::from));
    let grads = ((up * hidden.clone()).sum() + last.cell.clone().sum() + last.hidden.clone().sum())
        .backward();
    let gates = if config.input_forget { 3 } else { 4 };
    let w = layer.weight_hh.val().grad(&grads).unwrap().narrow(1, (gates - 1) * 5, 5);
    let b = layer.bias_hh.as_ref().map_or(vec![], |b| {
        numbers("b", &b.val().grad(&grads).unwrap().narrow(0, (gates - 1) * 5, 5))
    });
    let got =
        named(&hidden, &last.cell, &last.hidden, gradient("x", &x, &grads), numbers("w", &w), b);
    assert_close(&format!("{config} on {device:?}"), &got, &want, 1e-6);
}

#[rstest::rstest]
fn equals_lstm(
    #[values(false, true)] bias: bool,
    #[values(false, true)] reverse: bool,
    #[values(false, true)] batch_first: bool,
    #[values(false, true)] with_state: bool,
) {
    for device in cpu_devices() {
        let config =
            LstmConfig::new(4, 5, bias).with_reverse(reverse).with_batch_first(batch_first);
        compare(&config, with_state, &device);
    }
}

#[test]
fn equals_lstm_with_options_of_the_cell() {
    for device in cpu_devices() {
        let base = LstmConfig::new(4, 5, true);
        // Weights large enough that the clip is met.
        let large = Initializer::XavierNormal { gain: 3.0 };
        compare(&base.clone().with_initializer(large).with_clip(Some(0.3)), true, &device);
        compare(&base.clone().with_input_forget(true), true, &device);
        compare(
            &base
                .clone()
                .with_gate_activation(ActivationConfig::HardSigmoid(HardSigmoidConfig::new()))
                .with_cell_activation(ActivationConfig::Relu)
                .with_hidden_activation(ActivationConfig::Relu),
            true,
            &device,
        );
    }
}

/// There and back: the same weights in the same places.
#[rstest::rstest]
fn round_trip(#[values(false, true)] bias: bool, #[values(false, true)] input_forget: bool) {
    for device in cpu_devices() {
        let lstm = LstmConfig::new(4, 5, bias)
            .with_input_forget(input_forget)
            .with_reverse(true)
            .init(&device);
        let back = Lstm::from(SabLstm::from(lstm.clone()));
        assert_eq!(lstm.num_params(), back.num_params());
        let x = normal(&mut rng(), [2, 6, 4], 1.0, DType::F32, &device);
        let (want, _) = lstm.forward(x.clone(), None);
        let (got, _) = back.forward(x, None);
        got.to_data().assert_eq(&want.to_data(), true);
    }
}
