//! A service that does not stop: ten million steps of one stream with a bounded memory, then ten thousand updates,
//! one for each thousand steps and 200 at least.
//!
//! ```sh
//! BURN_DEVICE=flex cargo run --release -p burn-sab-examples --example soak     # or: -- 100000
//! ```
//!
//! Expect: resident memory stays where it was after the first tenth, within 4 MiB. Ten windows of the stream, spread
//! over it, are computed a second time: `forward` from the state that was saved before each gives the stream's own
//! values to 1e-10. The state itself is bounded: with a slot budget of 64, never 128 slots or more.
//!
//! The stream computes in f64, and so needs a backend that has it (`BURN_DEVICE=flex`). In f32 two scores can be so
//! close that rounding alone orders them. Now and then `forward` then retrieves another slot than the stream did, and
//! the values of that step differ by about 1e-2.

use burn::module::{Module, ModuleMapper, Param};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{DType, Device, Distribution, Tensor};
use burn_sab::{SabLstmConfig, SabLstmState};
use burn_sab_examples::resident::Resident;
use burn_sab_examples::{device, first_argument_or};

const INPUT: usize = 4;
const HIDDEN: usize = 16;
const SLOT_BUDGET: usize = 64;
/// Steps of a window that is computed a second time.
const WINDOW: usize = 1_000;
/// Reports in all; the first tenth warms up.
const PARTS: usize = 10;
/// Rounding of a thousand steps in f64.
const TOLERANCE: f64 = 1e-10;

fn main() {
    let steps: usize = first_argument_or(10_000_000);
    if steps < PARTS * WINDOW {
        eprintln!("error: the number of steps has to be at least {}, not {steps}", PARTS * WINDOW);
        std::process::exit(2);
    }
    let device = device();
    device.seed(1);
    stream(steps, &device);
    updates((steps / 1_000).max(200), &device);
}

/// One stream without gradient, step by step.
fn stream(steps: usize, device: &Device) {
    let layer = SabLstmConfig::new(INPUT, HIDDEN, true)
        .with_slot_budget(Some(SLOT_BUDGET))
        // Below 1, so that hidden states stay bounded.
        .with_summary_scale(0.5)
        .init(device)
        .map(&mut Doubled);
    let windows = steps / PARTS / WINDOW;
    let mut state: Option<SabLstmState> = None;
    let mut resident = Resident::new("steps");
    for part in 1..=PARTS {
        let (mut most_slots, mut difference) = (0, 0.0);
        for window in 1..=windows {
            let x = Tensor::<3>::random([1, WINDOW, INPUT], Distribution::Default, device);
            let x = x.cast(DType::F64);
            let before = state.clone();
            let sampled = window == windows;
            let mut outputs = vec![];
            for step in x.clone().iter_dim(1) {
                let (hidden, after) = layer.step(step.squeeze_dim(1), state.take());
                most_slots = most_slots.max(after.num_slots());
                state = Some(after);
                if sampled {
                    outputs.push(hidden);
                }
            }
            if sampled {
                let (whole, _) = layer.forward(x, before);
                difference = (whole - Tensor::stack(outputs, 1)).abs().max().into_scalar();
            }
        }
        resident.report(
            part * windows * WINDOW,
            &format!("at most {most_slots} slots, window off by {difference:.1e}"),
        );
        assert!(most_slots < 2 * SLOT_BUDGET, "{most_slots} slots");
        assert!(difference <= TOLERANCE, "the stream is off by {difference:e}");
    }
    resident.assert_flat("the first tenth");
}

/// Gives every parameter the type f64.
struct Doubled;

impl ModuleMapper for Doubled {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(param.val().cast(DType::F64)).set_require_grad(false)
    }
}

/// Updates of a small layer.
fn updates(updates: usize, device: &Device) {
    let device = device.clone().autodiff();
    let mut layer = SabLstmConfig::new(INPUT, 8, true).init(&device);
    let mut optimizer = AdamConfig::new().init();
    let mut resident = Resident::new("updates");
    let part = updates / PARTS;
    for update in 1..=PARTS * part {
        let x = Tensor::<3>::random([4, 30, INPUT], Distribution::Default, &device);
        let (hidden, _) = layer.forward(x, None);
        let loss = hidden.powi_scalar(2).mean();
        let reported = update.is_multiple_of(part).then(|| loss.clone().into_scalar::<f32>());
        let gradients = GradientsParams::from_grads(loss.backward(), &layer);
        layer = optimizer.step(1e-3, layer, gradients);
        if let Some(loss) = reported {
            resident.report(update, &format!("loss {loss:.1e}"));
            assert!(loss.is_finite());
        }
    }
    resident.assert_flat("the first tenth");
}
