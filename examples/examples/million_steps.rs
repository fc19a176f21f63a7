//! One training step over a million time steps, on one CPU core, in a few hundred MiB.
//!
//! ```sh
//! cargo run --release --example million_steps            # or: -- 100000; on software Vulkan: -- 400
//! ```
//!
//! A pattern is shown near the beginning and its opposite at the very end; the loss is read from the last
//! step. The layer's weights are drawn, but so that unlike states remind of each other. Expect: gradient
//! arrives at the inputs of the first showing, because the layer is reminded of it, and in the windows of the
//! other slots that were retrieved; at every other input, and that is nearly all of them, it is exactly 0.
//! `burn::nn::Lstm` would keep 9,608 bytes a step for its backward pass (`sab-bench --model lstm --batch 8
//! --time 1000`, `bytes_kept` by batch and time), whichever steps matter.

use std::ops::Range;
use std::time::Instant;

use burn::tensor::{Device, Distribution, Tensor};
use burn_sab::{SabLstm, SabLstmConfig, ScoreConfig, Scorer};
use burn_sab_examples::{device, first_argument_or};

const INPUT: usize = 8;
const HIDDEN: usize = 128;
/// The least that this example can show something with.
const FEWEST: usize = 200;
const LSTM_BYTES: usize = 9_608;

fn main() {
    let steps: usize = first_argument_or(1_000_000);
    if steps < FEWEST {
        eprintln!("error: the number of steps has to be at least {FEWEST}, not {steps}");
        std::process::exit(2);
    }
    let device = device().autodiff();
    device.seed(1);
    let sizes = Sizes::new(steps);
    let layer = layer(&sizes, &device);
    let x = sequence(&sizes, &device).require_grad();

    let start = Instant::now();
    let output = layer.forward_at(x.clone(), &[steps - 1], None);
    let slots = output.state.num_slots();
    // A GPU is still at work when a call returns.
    device.sync().expect("a working device");
    let forward = start.elapsed();
    let gradients = output.hidden.sum().backward();
    device.sync().expect("a working device");
    let backward = start.elapsed() - forward;
    println!("{steps} steps, {slots} slots");
    println!("  forward   {:8.2} s", forward.as_secs_f64());
    println!("  backward  {:8.2} s", backward.as_secs_f64());
    if let Some(peak) = peak_mib() {
        println!("  peak memory of the process, input and its gradient included: {peak} MiB");
    }
    println!("  burn::nn::Lstm would keep {} MiB", (steps * LSTM_BYTES) >> 20);

    let gradient = x.grad(&gradients).expect("the input asked for its gradient");
    let reached = reached(gradient);
    println!(
        "gradient reaches {} of {steps} inputs:",
        reached.iter().map(|r| r.len()).sum::<usize>()
    );
    for range in &reached {
        println!("  steps {} to {}", range.start, range.end - 1);
    }
    assert!(reached.contains(&sizes.shown()), "the first showing has to be among them");
    assert!(reached.last().is_some_and(|range| range.end == steps), "so do the last steps");
    // The last window, and one for each slot that one of its steps was reminded of.
    assert!(reached.len() <= 1 + 5 * sizes.k_trunc, "more than one reminder deep");
}

/// How long everything is, in steps.
struct Sizes {
    steps: usize,
    /// From slot to slot.
    k_att: usize,
    /// Of a window; offset 0 puts each slot at a window's end.
    k_trunc: usize,
}

impl Sizes {
    /// A slot every thousand steps and windows of a hundred; less of both where that gives no twenty slots.
    fn new(steps: usize) -> Self {
        let k_trunc = (steps / 40).min(100);
        let windows = (steps / 20 / k_trunc).min(10);
        Self { steps, k_att: windows * k_trunc, k_trunc }
    }

    /// Steps of the first showing: the window that ends with the second slot.
    fn shown(&self) -> Range<usize> {
        2 * self.k_att - self.k_trunc..2 * self.k_att
    }
}

/// The layer, whose keys are its queries with the opposite sign: unlike states remind of each other. (Like
/// states would let the newest slots win: each holds a mean of older ones, so that their lengths grow.)
fn layer(sizes: &Sizes, device: &Device) -> SabLstm {
    let mut layer = SabLstmConfig::new(INPUT, HIDDEN, true)
        .with_k_top(5)
        .with_k_att(sizes.k_att)
        .with_k_trunc(sizes.k_trunc)
        .with_max_hops(Some(1))
        .with_score(ScoreConfig::Dot { d_attention: 64 })
        .with_score_gain(8.0)
        .init(device);
    if let Scorer::Dot(score) = &mut layer.scorer {
        score.key = score.query.clone().map(|weights| weights.neg());
    }
    layer
}

/// Noise, `[1, steps, INPUT]`, with the pattern at its first showing and its opposite at the end.
fn sequence(sizes: &Sizes, device: &Device) -> Tensor<3> {
    let noise = |steps| Tensor::<3>::random([1, steps, INPUT], Distribution::Default, device);
    let pattern = Tensor::<3>::ones([1, sizes.k_trunc, INPUT], device) * -2.0;
    let shown = sizes.shown();
    let between = sizes.steps - shown.end - sizes.k_trunc;
    let opposite = pattern.clone().neg();
    Tensor::cat(vec![noise(shown.start), pattern, noise(between), opposite], 1)
}

/// Runs of steps whose input has gradient, of `[1, T, I]`.
fn reached(gradient: Tensor<3>) -> Vec<Range<usize>> {
    let largest: Vec<f32> = gradient.abs().max_dim(2).into_data().iter::<f32>().collect();
    let mut runs: Vec<Range<usize>> = vec![];
    for (step, _) in largest.iter().enumerate().filter(|(_, size)| **size > 0.0) {
        match runs.last_mut() {
            Some(run) if run.end == step => run.end = step + 1,
            _ => runs.push(step..step + 1),
        }
    }
    runs
}

/// The most memory that this process ever had, where the system tells.
fn peak_mib() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.split_whitespace().next()?.parse::<usize>().ok()? >> 10)
}
