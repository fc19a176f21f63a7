//! `SabLstm` where an `Lstm` was, and what it changes: how far credit reaches.
//!
//! ```sh
//! cargo run --release --example drop_in
//! ```
//!
//! The whole change in a program:
//!
//! ```diff
//! -use burn::nn::LstmConfig;
//! +use burn_sab::SabLstmConfig;
//!
//! -let layer = LstmConfig::new(8, 32, true).init(&device);
//! +let layer = SabLstmConfig::new(8, 32, true).init(&device);
//!  let (hidden, state) = layer.forward(x, None);
//! ```
//!
//! Expect: the gradient that the output at step 200 sends to the input at step 0 has all but
//! vanished in the `Lstm`, is larger by many orders of magnitude in the `SabLstm`, and, the negative
//! control, is exactly 0 when the slots are taken away and only windows of twenty steps are left.

use burn::nn::LstmConfig;
use burn::tensor::{Distribution, Tensor};
use burn_sab::{SabLstm, SabLstmConfig};
use burn_sab_examples::device;

fn main() {
    let device = device().autodiff();
    device.seed(1);
    let x = Tensor::<3>::random([4, 200, 8], Distribution::Default, &device).require_grad();

    let lstm = LstmConfig::new(8, 32, true).init(&device);
    let (hidden, state) = lstm.forward(x.clone(), None);
    println!("Lstm             hidden {:?}, cell {:?}", hidden.dims(), state.cell.dims());
    let by_lstm = gradient_at_first_input(&x, hidden);

    let sab = SabLstmConfig::new(8, 32, true).init(&device);
    let (hidden, state) = sab.forward(x.clone(), None);
    println!("SabLstm          hidden {:?}, cell {:?}", hidden.dims(), state.cell.dims());
    let by_sab = gradient_at_first_input(&x, hidden);

    let truncated = SabLstmConfig::new(8, 32, true).without_memory().init(&device);
    let (hidden, _) = truncated.forward(x.clone(), None);
    let by_truncated = gradient_at_first_input(&x, hidden);

    println!("largest gradient from the last output to the first input");
    println!("  Lstm           {by_lstm:.1e}");
    println!("  SabLstm        {by_sab:.1e}");
    println!("  without slots  {by_truncated:.1e}");
    assert!(by_sab > 1e6 * by_lstm && by_sab.is_finite(), "credit did not reach the first input");
    assert_eq!(by_truncated, 0.0, "credit crossed a truncation window");

    // A trained `Lstm` keeps its weights: parameters of the gates move over, the scores are new.
    let (hidden, _) = SabLstm::from(lstm).forward(x, None);
    println!("converted        hidden {:?}", hidden.dims());
}

/// Largest |gradient| of the sum of the last hidden state with respect to the first input.
fn gradient_at_first_input(x: &Tensor<3>, hidden: Tensor<3>) -> f32 {
    let last = hidden.dims()[1] - 1;
    let gradients = hidden.narrow(1, last, 1).sum().backward();
    let gradient = x.grad(&gradients).expect("the input asked for its gradient");
    gradient.narrow(1, 0, 1).abs().max().into_scalar()
}
