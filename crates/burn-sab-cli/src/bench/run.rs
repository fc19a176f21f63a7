//! One model on one case: its times and counts.

use std::time::{Duration, Instant};

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::{Lstm, LstmConfig, LstmState};
use burn::tensor::{Device, Distribution, Gradients, Tensor};
use burn_sab::{SabLstm, SabLstmState, Strategy};

use super::args::Model;
use super::case::{Case, Loss};
use super::measured::Figures;
use super::{counts, limits, sgemm};
use crate::backend::Backend;

/// A slow pass stops after three runs that took longer than this together.
const PATIENCE: Duration = Duration::from_secs(20);
const FEWEST_RUNS: usize = 3;

/// Runs that do not count. On a GPU the first compiles kernels, and the next two may, when Burn's fusion finds
/// another way to put operations together.
fn warm_ups(backend: Backend) -> usize {
    if backend.is_gpu() { 3 } else { 1 }
}

/// Steps of a stream that are timed together: one alone is near the resolution of clocks.
const STREAM: usize = 64;

const SEED: u64 = 1;

/// Measures one model; the process should do nothing else.
///
/// # Errors
///
/// If the backend is not to be had or fails.
pub fn measure(case: &Case, model: Model) -> anyhow::Result<Figures> {
    let device = case.backend.device()?;
    device.seed(SEED);
    let network = Network::new(case, model, &device.clone().autodiff())?;
    let mut figures = Figures {
        device: case.backend.name(),
        burn_simd: Some(cfg!(feature = "simd")),
        ..Figures::default()
    };
    match case.slots {
        Some(slots) => stream(case, slots, &network.valid(), &device, &mut figures)?,
        None => sequences(case, model, &network, &device, &mut figures)?,
    }
    Ok(figures)
}

fn sequences(
    case: &Case,
    model: Model,
    network: &Network,
    device: &Device,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let x = normal([case.batch, case.time, case.input], &device.clone().autodiff());
    let (plain, plain_x) = (network.valid(), x.clone().inner());
    if case.backend.is_gpu() {
        network.read_all(x.clone(), case.loss);
    }
    let [forward] = sample(case, || {
        let start = Instant::now();
        let pass = plain.forward(plain_x.clone(), case.loss);
        device.sync()?;
        drop(pass);
        Ok([start.elapsed()])
    })?;
    let mut allocations = usize::MAX;
    let [backward, step] = sample(case, || {
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
    figures.runs = step.len();
    (figures.forward_ms, figures.forward_spread_ms) = milliseconds(&forward, 1);
    let (median, spread) = milliseconds(&backward, 1);
    (figures.backward_ms, figures.backward_spread_ms) = (Some(median), Some(spread));
    let (step_ms, spread) = milliseconds(&step, 1);
    (figures.train_step_ms, figures.train_step_spread_ms) = (Some(step_ms), Some(spread));
    figures.allocations = Some(allocations as u64);
    // Before anything that is not the model's.
    figures.peak_rss_mib = counts::peak_rss_mib();
    figures.device_mib = device.memory_pool_usage().map(|usage| usage.bytes_reserved >> 20);

    // Burn frees what no backward pass came by at the end of the next one.
    drop(normal([1], &x.device()).require_grad().backward());
    let (outputs, alone) = growth(device, || plain.forward(plain_x.clone(), case.loss))?;
    drop(outputs);
    // What waits for the next call would be taken without being counted.
    burn_sab::op::release_memory();
    let (grown, nodes) =
        counts::autodiff_nodes(|| growth(device, || network.forward(x, case.loss)));
    let (pass, with_graph) = grown?;
    drop(pass);
    figures.bytes_kept = Some((with_graph - alone).max(0) as u64);
    figures.autodiff_nodes = Some(nodes);

    // Counted on the host, from what was retrieved.
    if case.loss == Loss::Last
        && !case.backend.is_gpu()
        && let Network::Sab(layer) = &plain
    {
        let output = layer.forward_with_reminders(plain_x, None);
        figures.reached_steps = Some(counts::reached_steps(case, &output));
    }
    // Where gradient reaches some steps only, so do the products.
    if model == Model::Sab && case.loss == Loss::Mean && case.max_hops.is_none() {
        let share = |seconds: f64, ms: f64| Some(rounded(seconds * 1e3 / ms));
        if case.backend.is_gpu() {
            let limits = limits::measure(device)?;
            figures.product_gflops = Some(rounded(limits.gflops));
            figures.copy_gb_s = Some(rounded(limits.gb_s));
            figures.arithmetic_share =
                share(limits::operations(case) / (1e9 * limits.gflops), step_ms);
            figures.bandwidth_share = share(limits::traffic(case) / (1e9 * limits.gb_s), step_ms);
        } else {
            let floor = sgemm::floor(case);
            figures.sgemm_gflops = Some(rounded(floor.gflops));
            figures.sgemm_share_forward = share(floor.forward, figures.forward_ms);
            figures.sgemm_share_train = share(floor.train_step, step_ms);
        }
    }
    Ok(())
}

fn stream(
    case: &Case,
    slots: usize,
    network: &Network,
    device: &Device,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    // With the initial hidden state as the first slot.
    let past = (slots - 1) * case.k_att;
    let state = (past > 0)
        .then(|| network.forward(normal([case.batch, past, case.input], device), Loss::Last).state);
    let x = normal([case.batch, case.input], device);
    if case.backend.is_gpu() {
        drop(network.step(x.clone(), state.clone()).hidden().into_data());
    }
    let mut allocations = usize::MAX;
    let [times] = sample(case, || {
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
    figures.runs = times.len();
    (figures.forward_ms, figures.forward_spread_ms) = milliseconds(&times, STREAM);
    figures.allocations = Some((allocations / STREAM) as u64);
    figures.peak_rss_mib = counts::peak_rss_mib();
    Ok(())
}

/// What a pass makes, and the bytes that this takes: of the device's memory, where that is its own, else of
/// the heap.
fn growth<T>(device: &Device, pass: impl FnOnce() -> T) -> anyhow::Result<(T, isize)> {
    let in_use = || -> anyhow::Result<Option<u64>> {
        device.sync()?;
        Ok(device.memory_pool_usage().map(|usage| usage.bytes_in_use))
    };
    let before = in_use()?;
    let (made, heap) = counts::heap_growth(pass);
    let grown = in_use()?.zip(before).map(|(after, before)| after as isize - before as isize);
    Ok((made, grown.unwrap_or(heap)))
}

/// What is measured, with weights drawn as its configuration says.
#[allow(clippy::large_enum_variant)] // one value a process
enum Network {
    Sab(Box<SabLstm>),
    Lstm(Box<Lstm>),
}

#[allow(clippy::large_enum_variant)] // one value at a time
enum State {
    Sab(SabLstmState),
    Lstm(LstmState<2>),
}

impl State {
    fn hidden(&self) -> Tensor<2> {
        match self {
            Self::Sab(state) => state.hidden.clone(),
            Self::Lstm(state) => state.hidden.clone(),
        }
    }
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
                let strategy = strategy(model, case.backend);
                Self::Sab(Box::new(case.layer().with_strategy(strategy).try_init(device)?))
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

    /// Runs a training step and fetches what came of it, or panics. A GPU that has no room for an array does not
    /// say so until somebody reads it; whoever only waits would find it very fast.
    fn read_all(&self, x: Tensor<3>, loss: Loss) {
        let loss = self.forward(x, loss).read_out.mean();
        let gradients = loss.backward();
        drop(loss.into_data());
        let mut read = ReadAll(&gradients);
        match self {
            Self::Sab(layer) => layer.visit(&mut read),
            Self::Lstm(layer) => layer.visit(&mut read),
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

/// Has every number fetched.
struct ReadAll<'a>(&'a Gradients);

impl ModuleVisitor for ReadAll<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        drop(param.val().grad(self.0).map(Tensor::into_data));
    }
}

/// The implementation of the layer that a model stands for. On a GPU the layer alone is its kernels: where
/// they do not cover a case it would take the primitives, and the figure would be another model's.
pub fn strategy(model: Model, backend: Backend) -> Strategy {
    match model {
        Model::Reference => Strategy::Reference,
        Model::Primitives => Strategy::Primitives,
        Model::Sab if backend.is_gpu() => Strategy::Fused,
        Model::Sab | Model::Lstm => Strategy::Auto,
    }
}

/// Standard normal numbers.
fn normal<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(dims, Distribution::Normal(0.0, 1.0), device)
}

/// Times of up to `case.runs` runs, a list for each part, after those that do not count.
fn sample<const N: usize>(
    case: &Case,
    mut once: impl FnMut() -> anyhow::Result<[Duration; N]>,
) -> anyhow::Result<[Vec<Duration>; N]> {
    let start = Instant::now();
    for _ in 0..warm_ups(case.backend) {
        once()?;
        if start.elapsed() > PATIENCE {
            break;
        }
    }
    let start = Instant::now();
    let mut samples = [const { Vec::new() }; N];
    for run in 0..case.runs {
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
    fn the_first_runs_do_not_count() {
        for (backend, first) in [(Backend::Flex, 1), (Backend::Cuda, 3)] {
            let mut runs = 0;
            let [times] = sample(&Case::main(backend, 1, 5), || {
                runs += 1;
                Ok([Duration::ZERO])
            })
            .unwrap();
            assert_eq!((times.len(), runs), (5, 5 + first));
        }
    }
}
