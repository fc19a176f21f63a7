//! Inference: a trained network is saved, loaded, and serves a stream step by step.
//!
//! ```sh
//! cargo run --release --example serve
//! ```
//!
//! Expect: the forecasts of the loaded network are better than the negative control, which repeats the last value. The
//! session is stored halfway and restored, and the forecasts of both are the same, bit for bit. A step takes as long at
//! the end of the stream as at its beginning.

use std::time::{Duration, Instant};

use burn::config::Config;
use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_sab::{SabLstmConfig, SabLstmState};
use burn_sab_examples::forecast::{Forecaster, Training, config, value};
use burn_sab_examples::{device, first_argument_or};

/// Steps of the stream.
const STEPS: usize = 4_000;
/// Chunks of the training before it.
const CHUNKS: usize = 1_000;
/// A wave that was not trained on.
const WAVE: usize = 100;

fn main() {
    let steps = first_argument_or(STEPS).max(8);
    let device = device();
    let folder = std::env::temp_dir().join(format!("burn-sab-serve-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the files");

    // What a program for training ends with: the configuration and the weights.
    device.seed(1);
    let mut training = Training::new(&device);
    for _ in 0..CHUNKS {
        training.update();
    }
    config().save(folder.join("config.json")).expect("a file for the configuration");
    let record = training.network.into_record();
    record.save(folder.join("network.bpk")).expect("a file for the weights");

    // What a program for inference begins with.
    let config = SabLstmConfig::load(folder.join("config.json")).expect("a configuration");
    let record = burn::store::ModuleRecord::load(folder.join("network.bpk")).expect("weights");
    let network = Forecaster::new(&config, &device).load_record(record).valid();

    let half = steps / 2;
    let (mut errors, mut times, state) = serve(&network, 0..half, None, &device);
    let file = folder.join("session.bpk");
    state.clone().save_file(&file).expect("a file for the session");
    let restored = SabLstmState::load_file(&file, &device).expect("a session");
    let (later, later_times, _) = serve(&network, half..steps, Some(state), &device);
    let (again, _, _) = serve(&network, half..steps, Some(restored), &device);
    assert_eq!(later, again, "a restored session goes on bit for bit");
    std::fs::remove_dir_all(&folder).expect("the folder that was made");

    let first = median(&mut times.clone());
    let last = median(&mut later_times.clone());
    errors.extend(later);
    times.extend(later_times);
    times.sort_unstable();
    let mean = |errors: &mut dyn Iterator<Item = f64>| errors.sum::<f64>() / steps as f64;
    let by_network = mean(&mut errors.iter().map(|error| error * error));
    let by_repeating = mean(&mut (0..steps).map(|t| (value(WAVE, t + 1) - value(WAVE, t)).powi(2)));
    println!("{steps} steps");
    println!("  mean squared error  {by_network:.4}; of the last value {by_repeating:.4}");
    println!("  median of a step    {first:.1?} in the first half, {last:.1?} in the second");
    println!("  99 % of the steps   within {:.1?}", times[times.len() * 99 / 100]);
    if steps >= STEPS {
        assert!(by_network < by_repeating, "not what this example promises");
    }
}

/// Serves some steps; returns the error of each forecast, the time that each step took, and the state.
fn serve(
    network: &Forecaster,
    steps: std::ops::Range<usize>,
    mut state: Option<SabLstmState>,
    device: &Device,
) -> (Vec<f64>, Vec<Duration>, SabLstmState) {
    let (mut errors, mut times) = (Vec::new(), Vec::new());
    for t in steps {
        let start = Instant::now();
        let x = Tensor::<2>::from_data([[value(WAVE, t) as f32]], device);
        let (forecast, after) = network.step(x, state);
        let forecast: f32 = forecast.into_scalar();
        times.push(start.elapsed());
        errors.push(f64::from(forecast) - value(WAVE, t + 1));
        state = Some(after);
    }
    (errors, times, state.expect("at least one step"))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
