//! A stream: the state is carried from chunk to chunk and from step to step.
//!
//! ```sh
//! cargo run --release --example streaming
//! ```
//!
//! Expect: chunks and single steps differ from the whole sequence by rounding only (below 1e-5).
//! Negative control: carry cell and hidden state as an `Lstm` does, without the slots, and the
//! outputs are others. Then credit: it crosses from one chunk into the one before while the state is
//! attached, and is exactly 0 once it is detached.

use burn::module::Module;
use burn::nn::LstmState;
use burn::tensor::{Distribution, Tensor};
use burn_sab::{SabLstm, SabLstmConfig, SabLstmState};
use burn_sab_examples::device;

const STEPS: usize = 120;
const CHUNK: usize = 40;

fn main() {
    let device = device().autodiff();
    device.seed(1);
    let layer = SabLstmConfig::new(8, 32, true).with_k_att(4).init(&device);
    let x = Tensor::<3>::random([2, STEPS, 8], Distribution::Default, &device);
    let (whole, _) = layer.forward(x.clone(), None);

    let chunked = difference(&whole, in_chunks(&layer, &x, |state| state));
    let stepped = difference(&whole, in_steps(&layer, &x));
    let without_slots = difference(
        &whole,
        in_chunks(&layer, &x, |state| LstmState::new(state.cell, state.hidden).into()),
    );
    println!("largest difference from the whole sequence of {STEPS} steps");
    println!("  chunks of {CHUNK}               {chunked:.1e}");
    println!("  single steps               {stepped:.1e}");
    println!("  chunks, slots left behind  {without_slots:.1e}");
    assert!(chunked < 1e-5 && stepped < 1e-5, "a stream has to equal the whole");
    assert!(without_slots > 1e-3, "the slots should matter");

    let attached = gradient_at_first_chunk(&layer, &x, |state| state);
    let detached = gradient_at_first_chunk(&layer, &x, SabLstmState::detach);
    println!("largest gradient from the second chunk to the inputs of the first");
    println!("  state as it is             {attached:.1e}");
    println!("  state.detach()             {detached:.1e}");
    assert!(attached > 0.0 && detached == 0.0);
}

/// Hidden states of the sequence in chunks; `carry` is what happens to the state between two of them.
fn in_chunks(
    layer: &SabLstm,
    x: &Tensor<3>,
    carry: impl Fn(SabLstmState) -> SabLstmState,
) -> Tensor<3> {
    let mut state = None;
    let mut outputs = vec![];
    for chunk in x.clone().split(CHUNK, 1) {
        let (hidden, after) = layer.forward(chunk, state);
        outputs.push(hidden);
        state = Some(carry(after));
    }
    Tensor::cat(outputs, 1)
}

/// Hidden states of the sequence step by step. Steps run without gradient.
fn in_steps(layer: &SabLstm, x: &Tensor<3>) -> Tensor<3> {
    let layer = layer.valid();
    let mut state = None;
    let mut outputs = vec![];
    for step in x.clone().inner().iter_dim(1) {
        let (hidden, after) = layer.step(step.squeeze_dim(1), state);
        outputs.push(hidden);
        state = Some(after);
    }
    Tensor::stack(outputs, 1)
}

fn difference(whole: &Tensor<3>, other: Tensor<3>) -> f32 {
    assert_eq!(whole.dims(), other.dims());
    (whole.clone() - other).abs().max().into_scalar()
}

/// Largest |gradient| of the second chunk's outputs with respect to the first chunk's inputs.
fn gradient_at_first_chunk(
    layer: &SabLstm,
    x: &Tensor<3>,
    carry: impl Fn(SabLstmState) -> SabLstmState,
) -> f32 {
    let first = x.clone().narrow(1, 0, CHUNK).require_grad();
    let second = x.clone().narrow(1, CHUNK, CHUNK);
    let (hidden, state) = layer.forward(first.clone(), None);
    let (later, _) = layer.forward(second, Some(carry(state)));
    // The first chunk's own outputs enter with weight 0, so that its input always has a gradient.
    let gradients = (later.sum() + hidden.sum() * 0.0).backward();
    let gradient = first.grad(&gradients).expect("the input asked for its gradient");
    gradient.abs().max().into_scalar()
}
