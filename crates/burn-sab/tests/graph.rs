//! What a pass leaves on Burn's autodiff tape. Alone in its program: it counts the nodes made by everything.

mod common;

use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Tensor};
use burn_sab::{SabLstmConfig, Strategy};
use common::normal;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// Nodes made since the program began: identifiers are handed out one by one.
fn nodes() -> u64 {
    let device = burn::tensor::Device::flex().autodiff();
    let fresh = Tensor::<1>::zeros([1], &device).require_grad();
    fresh.try_into_primitive::<Autodiff<Flex>>().expect("a flex tensor with autodiff").id().value
}

/// Nodes that one forward pass over `time` steps makes.
fn nodes_of_a_pass(strategy: Strategy, time: usize) -> u64 {
    let device = burn::tensor::Device::flex().autodiff();
    let layer = SabLstmConfig::new(3, 5, true).with_strategy(strategy).init(&device);
    let x = normal(&mut ChaCha8Rng::seed_from_u64(1), [2, time, 3], 1.0, DType::F32, &device)
        .require_grad();
    let before = nodes();
    let (hidden, _) = layer.forward(x, None);
    let made = nodes() - before;
    hidden.sum().backward();
    made
}

#[test]
fn one_node_whatever_the_length() {
    let short = nodes_of_a_pass(Strategy::Auto, 3);
    for time in [1, 2, 30, 300] {
        assert_eq!(nodes_of_a_pass(Strategy::Auto, time), short);
        assert_eq!(nodes_of_a_pass(Strategy::Primitives, time), short);
    }
    // The sequence, its ports, and around it the sum of two biases, the initial state and slot: nothing per
    // step.
    assert!(short < 40, "{short} nodes");
    // The control: the reference leaves nodes at every step.
    assert!(nodes_of_a_pass(Strategy::Reference, 30) > 30 * 20);
}
