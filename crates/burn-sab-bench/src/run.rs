//! One model on one case: its times and counts.

use std::time::{Duration, Instant};

use burn::tensor::{Device, Distribution, Tensor};
use burn_sab_cli::backend::{BURN_SIMD, Backend};
use burn_sab_cli::memory;
use burn_sab_cli::statistics::median;

use crate::args::Model;
use crate::case::{Case, Loss};
use crate::measured::Figures;
use crate::network::{Network, State};
use crate::{counts, limits, sgemm};

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

/// Standard deviation of drawn slots, as elements of hidden states have it.
const SIZE: f64 = 0.3;

pub const SEED: u64 = 1;

/// Measures one model; the process should do nothing else.
///
/// # Errors
///
/// If the backend is not to be had or fails.
pub fn measure(case: &Case, model: Model) -> anyhow::Result<Figures> {
    let device = case.backend.device()?;
    device.seed(SEED);
    let network = Network::new(case, model, &device.clone().autodiff())?;
    let mut figures =
        Figures { device: case.backend.name(), burn_simd: Some(BURN_SIMD), ..Figures::default() };
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
        let before = memory::allocations();
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
        allocations = allocations.min(memory::allocations() - before);
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
    if model == Model::Sab && case.loss == Loss::Mean && case.settings.max_hops.is_none() {
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
    let state = if case.drawn_slots {
        network.remembering(normal([case.batch, slots, case.hidden], device).mul_scalar(SIZE))
    } else {
        // With the initial hidden state as the first slot.
        let past = (slots - 1) * case.settings.k_att;
        let x = || normal([case.batch, past, case.input], device);
        (past > 0).then(|| network.forward(x(), Loss::Last).state)
    };
    let x = normal([case.batch, case.input], device);
    // The first step puts slots and keys into the form of the kernel.
    let (state, bytes) = growth(device, || network.step(x.clone(), state))?;
    if matches!(state, State::Sab(_)) {
        figures.bytes_a_slot = Some(bytes.max(0) as u64 / (case.batch * slots) as u64);
    }
    let state = Some(state);
    if case.backend.is_gpu() {
        drop(network.step(x.clone(), state.clone()).hidden().into_data());
    }
    let mut allocations = usize::MAX;
    let [times] = sample(case, || {
        // The first step copies what `state` still holds.
        let mut state = Some(network.step(x.clone(), state.clone()));
        let before = memory::allocations();
        let start = Instant::now();
        for _ in 0..STREAM {
            state = Some(network.step(x.clone(), state));
        }
        device.sync()?;
        let elapsed = start.elapsed();
        allocations = allocations.min(memory::allocations() - before);
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
    let (made, heap) = memory::heap_growth(pass);
    let grown = in_use()?.zip(before).map(|(after, before)| after as isize - before as isize);
    Ok((made, grown.unwrap_or(heap)))
}

/// Standard normal numbers.
pub fn normal<const D: usize>(dims: [usize; D], device: &Device) -> Tensor<D> {
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
    let median = median(&mut times);
    // Sorted by now.
    (rounded(median), [rounded(times[0]), rounded(times[times.len() - 1])])
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
