//! A server of many sessions: streams that began at different times take their steps in one batch.
//!
//! ```sh
//! cargo run --release --example sessions                   # or: -- 1000
//! ```
//!
//! Each session has a state of its own, and at every tick each has a value. The server steps them one by one; or as one
//! batch that stays together; or as a batch that is split after every step and joined before the next, as where sessions
//! come and go.
//!
//! Expect: every forecast is that of the session alone (to 1e-4: rounding), whoever it was batched with. A batch that stays
//! together gives the most forecasts a second; regrouping at every step copies all slots, and can take longer than one by
//! one. Sessions that are split, stored, loaded and joined go on as if nothing had happened, bit for bit. The negative
//! control, forecasts of the wrong sessions, is far off.

use std::time::{Duration, Instant};
use std::{env, fs, process};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_sab::SabLstmState;
use burn_sab_examples::forecast::{Forecaster, config, value, values};
use burn_sab_examples::{device, first_argument_or};

/// Sessions of the default run.
const SESSIONS: usize = 300;
/// Steps that are measured.
const TICKS: usize = 30;
/// Rounding between a batch and a session alone, in f32.
const TOLERANCE: f32 = 1e-4;

fn main() {
    let sessions = first_argument_or(SESSIONS).max(2);
    let device = device();
    device.seed(1);
    let network = Forecaster::new(&config().with_slot_budget(None), &device).valid();
    compare(&network, &ages(8, 1_000), &device);
    compare(&network, &ages(sessions, 60), &device);
    store(&network, &ages(8, 20), &device);
}

/// Steps that each session has had: about `steps`, and different ones.
fn ages(sessions: usize, steps: usize) -> Vec<usize> {
    (0..sessions).map(|session| steps + session * 7 % 50).collect()
}

/// The states of sessions of these ages.
fn begin(network: &Forecaster, ages: &[usize], device: &Device) -> Vec<SabLstmState> {
    let begin = |(session, age): (usize, &usize)| {
        network.layer.forward(values(session..session + 1, 0..*age, device), None).1
    };
    ages.iter().enumerate().map(begin).collect()
}

/// One step of all sessions, whose states lie in groups one after the other: the forecasts, and when each was there.
fn tick(
    network: &Forecaster,
    values: &[f32],
    groups: &mut Vec<SabLstmState>,
    device: &Device,
) -> (Vec<f32>, Vec<Duration>) {
    let start = Instant::now();
    let (mut forecasts, mut latencies) = (Vec::new(), Vec::new());
    let step = |state: SabLstmState| {
        let from = forecasts.len();
        let values = values[from..from + state.batch()].to_vec();
        let x = Tensor::from_data(TensorData::new(values, [state.batch(), 1]), device);
        let (forecast, after) = network.step(x, Some(state));
        forecasts.extend(forecast.into_data().iter::<f32>());
        latencies.resize(forecasts.len(), start.elapsed());
        after
    };
    *groups = std::mem::take(groups).into_iter().map(step).collect();
    (forecasts, latencies)
}

/// The values that sessions of these ages have `later` steps later.
fn arriving(ages: &[usize], later: usize) -> Vec<f32> {
    ages.iter().enumerate().map(|(session, age)| value(session, age + later) as f32).collect()
}

/// All rows of states as one batch.
fn join(states: &[SabLstmState]) -> SabLstmState {
    SabLstmState::cat(states).expect("states of one layer")
}

/// Each row of a batch as a state of its own.
fn split(batch: &SabLstmState) -> Vec<SabLstmState> {
    batch.split(&vec![1; batch.batch()])
}

/// Steps the same sessions in three ways, and prints what that takes.
fn compare(network: &Forecaster, ages: &[usize], device: &Device) {
    println!("{} sessions of {} to {} slots", ages.len(), ages[0] + 1, ages[0] + 50 + TICKS);
    let run = |name: &str, together: bool, regroup: bool| {
        let mut groups = begin(network, ages, device);
        if together {
            groups = vec![join(&groups)];
        }
        // The first step puts the states into the form of the kernel.
        let _ = tick(network, &arriving(ages, 0), &mut groups, device);
        let (mut forecasts, mut latencies) = (Vec::new(), Vec::new());
        let start = Instant::now();
        for later in 1..=TICKS {
            let regrouping = Instant::now();
            if regroup {
                groups = vec![join(&split(&groups[0]))];
            }
            let regrouping = regrouping.elapsed();
            let (new, times) = tick(network, &arriving(ages, later), &mut groups, device);
            forecasts.extend(new);
            latencies.extend(times.into_iter().map(|time| time + regrouping));
        }
        let rate = forecasts.len() as f64 / start.elapsed().as_secs_f64();
        latencies.sort_unstable();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        let (middle, most) = (at(50), at(99));
        println!(
            "  {name:15} {rate:8.0} forecasts a second, latency {middle:.1?} at the median, {most:.1?} at 99 %"
        );
        forecasts
    };
    let alone = run("one by one", false, false);
    let others = [run("in one batch", true, false), run("regrouped", true, true)];
    let difference = |forecasts: &[f32], shift: usize| {
        let pairs = forecasts.iter().skip(shift).zip(&alone).map(|(a, b)| (a - b).abs());
        pairs.fold(0.0, f32::max)
    };
    for forecasts in others {
        let (own, wrong) = (difference(&forecasts, 0), difference(&forecasts, 1));
        assert!(own <= TOLERANCE, "a session's forecasts depend on who was beside it: {own}");
        assert!(wrong > 10.0 * TOLERANCE, "sessions should differ");
    }
}

/// Splits a batch, stores and loads each session, and joins them again.
fn store(network: &Forecaster, ages: &[usize], device: &Device) {
    let folder = env::temp_dir().join(format!("burn-sab-sessions-{}", process::id()));
    fs::create_dir_all(&folder).expect("a folder to write to");
    let mut batch = vec![join(&begin(network, ages, device))];
    let _ = tick(network, &arriving(ages, 0), &mut batch, device);
    let store = |(session, state): (usize, SabLstmState)| {
        let path = folder.join(format!("{session}.bpk"));
        state.save_file(&path).expect("a stored session");
        SabLstmState::load_file(&path, device).expect("a restored session")
    };
    let restored: Vec<_> = split(&batch[0]).into_iter().enumerate().map(store).collect();
    let mut restored = vec![join(&restored)];
    for later in 1..=TICKS {
        let values = arriving(ages, later);
        let (want, _) = tick(network, &values, &mut batch, device);
        let (got, _) = tick(network, &values, &mut restored, device);
        assert_eq!(got, want, "step {later}");
    }
    fs::remove_dir_all(&folder).expect("the folder");
    println!(
        "{} sessions stored and restored: {TICKS} more steps, the same bit for bit",
        ages.len()
    );
}
