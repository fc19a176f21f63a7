//! One model on one case: its times and counts.

use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::{Lstm, LstmConfig, LstmState};
use burn::tensor::{Device, Distribution, Tensor};
use burn_sab::{SabLstm, SabLstmState, Strategy};
use serde::{Deserialize, Serialize};

use super::args::{Case, Loss, Model, name};
use super::{counts, sgemm};

/// A slow pass stops after three runs that took longer than this together.
const PATIENCE: Duration = Duration::from_secs(20);
const FEWEST_RUNS: usize = 3;

/// Steps of a stream that are timed together: one alone is near the resolution of clocks.
const STREAM: usize = 64;

const SEED: u64 = 1;

/// What was measured, as one line of JSON. Times are medians in milliseconds, spreads the least and the
/// most; `None` where the figure has no meaning or cannot be had.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Which model, or which of PyTorch's peers.
    pub peer: String,
    pub batch: usize,
    /// Steps T; 1 for a stream.
    pub time: usize,
    pub input: usize,
    pub hidden: usize,
    pub k_top: usize,
    pub k_att: usize,
    pub k_trunc: usize,
    pub max_hops: Option<usize>,
    pub score: String,
    pub attention: usize,
    pub sparsifier: String,
    pub loss: String,
    /// Slots in memory before the first timed step of a stream.
    pub slots: Option<usize>,
    pub threads: usize,
    /// Burn's backend, or PyTorch's device.
    pub device: String,
    /// Whether Burn's own SIMD and threads are compiled in.
    pub burn_simd: Option<bool>,
    /// PyTorch's version.
    pub torch: Option<String>,
    /// Timed training steps, or parts of a stream.
    pub runs: usize,
    /// A forward pass without gradients; of a stream, one step.
    pub forward_ms: f64,
    pub forward_spread_ms: [f64; 2],
    /// The backward part of a training step, and the end of all that it needed.
    pub backward_ms: Option<f64>,
    pub backward_spread_ms: Option<[f64; 2]>,
    /// Forward and backward with the gradients of all parameters; no optimiser.
    pub train_step_ms: Option<f64>,
    pub train_step_spread_ms: Option<[f64; 2]>,
    /// Of the whole process.
    pub peak_rss_mib: Option<u64>,
    /// Heap memory that a forward pass leaves for its backward pass, beside outputs and parameters.
    pub bytes_kept: Option<u64>,
    /// Heap allocations of a training step; of a stream, of one step.
    pub allocations: Option<u64>,
    /// Nodes that a forward pass puts into the autodiff graph.
    pub autodiff_nodes: Option<u64>,
    /// Steps that gradient of the last output reaches, over all rows; for `--loss last`.
    pub reached_steps: Option<u64>,
    /// This machine's own rate on the recurrent product's shape, with as many threads.
    pub sgemm_gflops: Option<f64>,
    /// What the recurrent products alone would take at that rate, as a share of the whole forward pass.
    pub sgemm_share_forward: Option<f64>,
    /// The same of the training step.
    pub sgemm_share_train: Option<f64>,
}

impl Measured {
    /// A line without figures.
    pub fn of(case: &Case, model: Model) -> Self {
        Self {
            peer: name(model),
            batch: case.batch,
            time: case.time,
            input: case.input,
            hidden: case.hidden,
            k_top: case.k_top,
            k_att: case.k_att,
            k_trunc: case.k_trunc,
            max_hops: case.max_hops,
            score: name(case.score),
            attention: case.attention,
            sparsifier: name(case.sparsifier),
            loss: name(case.loss),
            slots: case.slots,
            threads: case.threads,
            device: case.backend.name(),
            burn_simd: Some(cfg!(feature = "simd")),
            ..Self::default()
        }
    }
}

/// Measures one model; the process should do nothing else.
///
/// # Errors
///
/// If the backend is not to be had or fails.
pub fn measure(case: &Case, model: Model) -> anyhow::Result<Measured> {
    let device = case.backend.device()?;
    device.seed(SEED);
    let network = Network::new(case, model, &device.clone().autodiff())?;
    let mut measured = Measured::of(case, model);
    match case.slots {
        Some(slots) => stream(case, slots, &network.valid(), &device, &mut measured)?,
        None => sequences(case, model, &network, &device, &mut measured)?,
    }
    Ok(measured)
}

fn sequences(
    case: &Case,
    model: Model,
    network: &Network,
    device: &Device,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let x = normal([case.batch, case.time, case.input], &device.clone().autodiff());
    let (plain, plain_x) = (network.valid(), x.clone().inner());
    let [forward] = sample(case.runs, || {
        let start = Instant::now();
        drop(plain.forward(plain_x.clone(), case.loss));
        device.sync()?;
        Ok([start.elapsed()])
    })?;
    let mut allocations = usize::MAX;
    let [backward, step] = sample(case.runs, || {
        let before = counts::allocations();
        let start = Instant::now();
        let pass = network.forward(x.clone(), case.loss);
        let loss = pass.read_out.clone().mean();
        device.sync()?;
        let middle = Instant::now();
        let gradients = loss.backward();
        device.sync()?;
        drop((pass, gradients));
        let end = Instant::now();
        // Threads allocate memory of their own now and then: the least is the pass's.
        allocations = allocations.min(counts::allocations() - before);
        Ok([end - middle, end - start])
    })?;
    measured.runs = step.len();
    (measured.forward_ms, measured.forward_spread_ms) = milliseconds(&forward, 1);
    let (median, spread) = milliseconds(&backward, 1);
    (measured.backward_ms, measured.backward_spread_ms) = (Some(median), Some(spread));
    let (median, spread) = milliseconds(&step, 1);
    (measured.train_step_ms, measured.train_step_spread_ms) = (Some(median), Some(spread));
    measured.allocations = Some(allocations as u64);
    // Before anything that is not the model's.
    measured.peak_rss_mib = counts::peak_rss_mib();

    // Burn frees what no backward pass came by at the end of the next one.
    drop(normal([1], &x.device()).require_grad().backward());
    let (outputs, alone) = counts::heap_growth(|| plain.forward(plain_x.clone(), case.loss));
    drop(outputs);
    // What waits for the next call would be taken without being counted.
    burn_sab::op::release_memory();
    let ((pass, with_graph), nodes) =
        counts::autodiff_nodes(|| counts::heap_growth(|| network.forward(x, case.loss)));
    drop(pass);
    measured.bytes_kept = Some((with_graph - alone).max(0) as u64);
    measured.autodiff_nodes = Some(nodes);

    if case.loss == Loss::Last
        && let Network::Sab(layer) = &plain
    {
        let output = layer.forward_with_reminders(plain_x, None);
        measured.reached_steps = Some(counts::reached_steps(case, &output));
    }
    // Where gradient reaches some steps only, so do the products.
    if model == Model::Sab && case.loss == Loss::Mean && case.max_hops.is_none() {
        let floor = sgemm::floor(case);
        measured.sgemm_gflops = Some(rounded(floor.gflops));
        measured.sgemm_share_forward = Some(rounded(floor.forward * 1e3 / measured.forward_ms));
        measured.sgemm_share_train =
            measured.train_step_ms.map(|step| rounded(floor.train_step * 1e3 / step));
    }
    Ok(())
}

fn stream(
    case: &Case,
    slots: usize,
    network: &Network,
    device: &Device,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    // With the initial hidden state as the first slot.
    let past = (slots - 1) * case.k_att;
    let state = (past > 0)
        .then(|| network.forward(normal([case.batch, past, case.input], device), Loss::Last).state);
    let x = normal([case.batch, case.input], device);
    let mut allocations = usize::MAX;
    let [times] = sample(case.runs, || {
        // The first step copies what `state` still holds.
        let mut state = Some(network.step(x.clone(), state.clone()));
        let before = counts::allocations();
        let start = Instant::now();
        for _ in 0..STREAM {
            state = Some(network.step(x.clone(), state));
        }
        device.sync()?;
        let elapsed = start.elapsed();
        allocations = allocations.min(counts::allocations() - before);
        Ok([elapsed])
    })?;
    measured.runs = times.len();
    (measured.forward_ms, measured.forward_spread_ms) = milliseconds(&times, STREAM);
    measured.allocations = Some((allocations / STREAM) as u64);
    measured.peak_rss_mib = counts::peak_rss_mib();
    Ok(())
}

/// What is measured, with weights drawn as its configuration says.
#[allow(clippy::large_enum_variant)] // one value a process
enum Network {
    Sab(Box<SabLstm>),
    Lstm(Box<Lstm>),
}

enum State {
    Sab(SabLstmState),
    Lstm(LstmState<2>),
}

impl Clone for State {
    fn clone(&self) -> Self {
        match self {
            Self::Sab(state) => Self::Sab(state.clone()),
            Self::Lstm(state) => {
                Self::Lstm(LstmState::new(state.cell.clone(), state.hidden.clone()))
            }
        }
    }
}

/// What a pass over sequences gives.
struct Pass {
    /// Outputs whose mean is the loss, `[B, T, H]` or `[B, 1, H]`.
    read_out: Tensor<3>,
    state: State,
}

impl Network {
    fn new(case: &Case, model: Model, device: &Device) -> anyhow::Result<Self> {
        Ok(match model {
            Model::Lstm => {
                Self::Lstm(Box::new(LstmConfig::new(case.input, case.hidden, true).init(device)))
            }
            Model::Sab | Model::Reference | Model::Primitives => {
                Self::Sab(Box::new(case.layer().with_strategy(strategy(model)).try_init(device)?))
            }
        })
    }

    /// The same without autodiff.
    fn valid(&self) -> Self {
        match self {
            Self::Sab(layer) => Self::Sab(Box::new(layer.valid())),
            Self::Lstm(layer) => Self::Lstm(Box::new(layer.valid())),
        }
    }

    fn forward(&self, x: Tensor<3>, loss: Loss) -> Pass {
        let last = x.dims()[1] - 1;
        match (self, loss) {
            (Self::Sab(layer), Loss::Mean) => {
                let (read_out, state) = layer.forward(x, None);
                Pass { read_out, state: State::Sab(state) }
            }
            (Self::Sab(layer), Loss::Last) => {
                let output = layer.forward_at(x, &[last], None);
                Pass { read_out: output.hidden, state: State::Sab(output.state) }
            }
            (Self::Lstm(layer), loss) => {
                let (hidden, state) = layer.forward(x, None);
                let read_out = match loss {
                    Loss::Mean => hidden,
                    Loss::Last => state.hidden.clone().unsqueeze_dim(1),
                };
                Pass { read_out, state: State::Lstm(state) }
            }
        }
    }

    fn step(&self, x: Tensor<2>, state: Option<State>) -> State {
        match (self, state) {
            (Self::Sab(layer), Some(State::Sab(state))) => State::Sab(layer.step(x, Some(state)).1),
            (Self::Lstm(layer), Some(State::Lstm(state))) => {
                State::Lstm(layer.forward(x.unsqueeze_dim(1), Some(state)).1)
            }
            (Self::Sab(layer), _) => State::Sab(layer.step(x, None).1),
            (Self::Lstm(layer), _) => State::Lstm(layer.forward(x.unsqueeze_dim(1), None).1),
        }
    }
}

/// The implementation of the layer that a model stands for.
pub fn strategy(model: Model) -> Strategy {
    match model {
        Model::Reference => Strategy::Reference,
        Model::Primitives => Strategy::Primitives,
        Model::Sab | Model::Lstm => Strategy::Auto,
    }
}

/// Standard normal numbers.
fn normal<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(dims, Distribution::Normal(0.0, 1.0), device)
}

/// Times of up to `runs` runs, a list for each part; the first run does not count.
fn sample<const N: usize>(
    runs: usize,
    mut once: impl FnMut() -> anyhow::Result<[Duration; N]>,
) -> anyhow::Result<[Vec<Duration>; N]> {
    once()?;
    let start = Instant::now();
    let mut samples = [const { Vec::new() }; N];
    for run in 0..runs {
        if run >= FEWEST_RUNS && start.elapsed() > PATIENCE {
            break;
        }
        for (samples, time) in samples.iter_mut().zip(once()?) {
            samples.push(time);
        }
    }
    Ok(samples)
}

/// Median, least and most, divided by `parts`.
fn milliseconds(times: &[Duration], parts: usize) -> (f64, [f64; 2]) {
    let mut times: Vec<f64> =
        times.iter().map(|time| time.as_secs_f64() * 1e3 / parts as f64).collect();
    times.sort_by(f64::total_cmp);
    let (low, high) = (times[(times.len() - 1) / 2], times[times.len() / 2]);
    (rounded((low + high) / 2.0), [rounded(times[0]), rounded(times[times.len() - 1])])
}

fn rounded(x: f64) -> f64 {
    (x * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spreads() {
        let times = [5, 1, 2, 9].map(Duration::from_millis);
        assert_eq!(milliseconds(&times, 1), (3.5, [1.0, 9.0]));
        assert_eq!(milliseconds(&times[..3], 2), (1.0, [0.5, 2.5]));
    }

    #[test]
    fn the_first_run_does_not_count() {
        let mut runs = 0;
        let [times] = sample(5, || {
            runs += 1;
            Ok([Duration::ZERO])
        })
        .unwrap();
        assert_eq!((times.len(), runs), (5, 6));
    }
}
