//! A server of many sessions: streams that begin at different times, of which some have a value at each tick.
//!
//! ```sh
//! cargo run --release --example sessions                   # or: -- 1000
//! ```
//!
//! A thread owns the network and the states of all sessions. At each tick it takes the requests that have arrived,
//! batches those of one age, steps each batch once, and answers. Requests alone of their age are stepped alone. (Ages can be
//! mixed in a batch, too; with a slot budget that computes keys anew.)
//!
//! Expect: every forecast is that of the session stepped alone (to 1e-4: rounding), whoever it was batched with, and
//! batching takes less time. The negative control, states given to the wrong sessions, gives other forecasts.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use burn_sab::SabLstmState;
use burn_sab_examples::forecast::{Forecaster, config, value};
use burn_sab_examples::{device, first_argument_or};

/// Sessions of the default run.
const SESSIONS: usize = 300;
/// Sessions that begin together.
const COHORT: usize = 20;
/// Ticks of the server.
const TICKS: usize = 120;
/// Rounding between a batch and a session alone, in f32.
const TOLERANCE: f32 = 1e-4;

/// One value of one session, and where the forecast goes.
struct Request {
    session: usize,
    value: f32,
    sent: Instant,
    answer: Sender<(usize, f32, Duration)>,
}

fn main() {
    let sessions = first_argument_or(SESSIONS).max(2);
    let device = device();
    device.seed(1);
    let network = Forecaster::new(&config(), &device).valid();
    let batched = run(&network, sessions, usize::MAX, &device);
    let alone = run(&network, sessions, 1, &device);
    let difference = |other: &dyn Fn(usize) -> usize| {
        let pairs = batched.forecasts.iter().enumerate();
        let pairs = pairs.map(|(n, forecast)| (forecast - alone.forecasts[other(n)]).abs());
        pairs.fold(0.0, f32::max)
    };
    let (own, wrong) = (difference(&|n| n), difference(&|n| (n + 1) % alone.forecasts.len()));
    println!("{sessions} sessions, {} forecasts", batched.forecasts.len());
    for (name, run) in [("batched by age", &batched), ("one by one", &alone)] {
        let Run { forecasts, busy, latencies, .. } = run;
        let rate = forecasts.len() as f64 / busy.as_secs_f64();
        let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
        println!(
            "  {name:14}  {rate:7.0} forecasts a second, latency {:.1?} at the median, {:.1?} at 99 %",
            at(50),
            at(99)
        );
    }
    println!("  largest difference between the two {own:.1e}; to another session's {wrong:.1e}");
    assert!(own <= TOLERANCE, "a session's forecasts depend on who was beside it");
    assert!(wrong > 10.0 * TOLERANCE, "sessions should differ");
}

/// What a run of the server gave.
struct Run {
    /// In the order of ticks and sessions.
    forecasts: Vec<f32>,
    /// Time that the server worked.
    busy: Duration,
    /// From request to answer, ascending.
    latencies: Vec<Duration>,
}

/// Runs a server and its clients. No batch is larger than `most`.
fn run(network: &Forecaster, sessions: usize, most: usize, device: &Device) -> Run {
    let (requests, arrived) = mpsc::channel();
    let server = {
        let (network, device) = (network.clone(), device.clone());
        thread::spawn(move || serve(&network, &arrived, most, &device))
    };
    let (answer, answers) = mpsc::channel();
    let mut forecasts = Vec::new();
    let mut latencies = Vec::new();
    for tick in 0..TICKS {
        // A cohort begins at every third tick, and has a value at every tick from then on.
        let begin = |session: usize| session / COHORT * 3;
        let present: Vec<_> = (0..sessions).filter(|session| begin(*session) <= tick).collect();
        for &session in &present {
            let value = value(session, tick - begin(session)) as f32;
            let (sent, answer) = (Instant::now(), answer.clone());
            requests.send(Request { session, value, sent, answer }).expect("a server");
        }
        let mut answered: Vec<_> = answers.iter().take(present.len()).collect();
        answered.sort_unstable_by_key(|(session, ..)| *session);
        forecasts.extend(answered.iter().map(|(_, forecast, _)| *forecast));
        latencies.extend(answered.iter().map(|(.., latency)| *latency));
    }
    drop(requests);
    latencies.sort_unstable();
    Run { forecasts, busy: server.join().expect("the server ended well"), latencies }
}

/// Answers requests until nobody can send one; returns the time that it worked.
fn serve(
    network: &Forecaster,
    arrived: &Receiver<Request>,
    most: usize,
    device: &Device,
) -> Duration {
    // Sessions that were last stepped together stay together: a batch whose sessions all ask again is not regrouped.
    let mut groups: Vec<(Vec<usize>, SabLstmState)> = Vec::new();
    let mut busy = Duration::ZERO;
    while let Ok(first) = arrived.recv() {
        let start = Instant::now();
        let mut asked = BTreeMap::new();
        for request in std::iter::once(first).chain(arrived.try_iter()) {
            asked.insert(request.session, request);
        }
        let mut idle = Vec::new();
        let mut ready: BTreeMap<usize, Vec<(Vec<usize>, SabLstmState)>> = BTreeMap::new();
        let mut known = Vec::new();
        for (members, state) in groups {
            known.extend(&members);
            let asks = |place: &usize| asked.contains_key(&members[*place]);
            let (active, waiting): (Vec<_>, Vec<_>) = (0..members.len()).partition(asks);
            let part = |places: &[usize]| {
                (
                    places.iter().map(|place| members[*place]).collect::<Vec<_>>(),
                    state.select(places),
                )
            };
            match (active.is_empty(), waiting.is_empty()) {
                (true, _) => idle.push((members, state)),
                (false, true) => ready.entry(state.step).or_default().push((members, state)),
                (false, false) => {
                    idle.push(part(&waiting));
                    ready.entry(state.step).or_default().push(part(&active));
                }
            }
        }
        let new: Vec<_> =
            asked.keys().copied().filter(|session| !known.contains(session)).collect();
        let begin = |members: &[usize]| {
            (
                members.to_vec(),
                SabLstmState::initial([members.len(), network.layer.d_hidden], device),
            )
        };
        ready.entry(0).or_default().extend(new.chunks(most.min(new.len().max(1))).map(begin));
        groups = idle;
        for mut batches in ready.into_values() {
            if most > 1 && batches.len() > 1 {
                let (members, states): (Vec<_>, Vec<_>) = batches.into_iter().unzip();
                let state = SabLstmState::cat(&states).expect("states of one layer");
                batches = vec![(members.concat(), state)];
            }
            for (members, state) in batches {
                let values = members.iter().map(|session| asked[session].value).collect();
                let x = Tensor::from_data(TensorData::new(values, [members.len(), 1]), device);
                let (forecast, state) = network.step(x, Some(state));
                for (session, forecast) in members.iter().zip(forecast.into_data().iter::<f32>()) {
                    let Request { sent, answer, .. } = &asked[session];
                    // A client that has gone needs no answer.
                    let _ = answer.send((*session, forecast, sent.elapsed()));
                }
                groups.push((members, state));
            }
        }
        busy += start.elapsed();
    }
    busy
}
