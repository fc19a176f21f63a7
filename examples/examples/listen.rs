//! A trained network hears a stream of spoken digits sample by sample, and prints what it hears.
//!
//! ```sh
//! sab train digits --data RECORDINGS --out run
//! cargo run --release --example listen -- run 7_jackson_0.wav 3_theo_2.wav
//! ```
//!
//! The first argument is the folder of a run. The others are WAV files of one channel, 8 kHz and 16 bits, which are
//! heard one after the other as one stream. Every 100 ms and at the end of each file, the program prints the most
//! probable digit. The network has no answer for silence: it names a digit at every step. Where files are named as in the
//! Free Spoken Digit Dataset, the answers at their ends are compared with their names.
//!
//! Training hears single recordings, each from an empty state. Here the state goes on from file to file, as in a stream
//! whose parts are not known. With `--reset` it begins anew with each file, as in training; compare the two. As in
//! training, each file is divided by its root mean square; a microphone would need an estimate of it.
//!
//! Expect: steps take less time than 8 kHz leaves, 125 µs a sample, and memory is flat. On the CPU a stream computes on
//! one core.

use std::path::Path;
use std::time::{Duration, Instant};

use burn::tensor::activation::softmax;
use burn::tensor::{Device, Tensor, TensorData};
use burn_sab::SabLstmState;
use burn_sab_examples::resident::resident_kib;
use burn_sab_examples::{device, end};
use burn_sab_tasks::{Recording, Task, TaskModel};

/// Of a network that has none: at twice as many slots its memory is thinned. Those of `sab reproduce real` store fewer
/// in the longest recording, so that the budget changes no answer with `--reset`.
const SLOT_BUDGET: usize = 256;
/// Samples between two reports.
const REPORT: usize = Recording::RATE / 10;

fn main() {
    let (flags, names): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    if let Some(flag) = flags.iter().find(|flag| *flag != "--reset") {
        end(&format!("unknown flag {flag}: there is --reset alone"));
    }
    let [run, files @ ..] = &names[..] else { end("name the folder of a run, and WAV files") };
    if files.is_empty() {
        end("name WAV files after the folder of the run");
    }
    let device = device();
    let (network, frame) = load(run, &device);
    let read =
        |file| Recording::read(Path::new(file)).unwrap_or_else(|error| end(&error.to_string()));
    let recordings: Vec<Recording> = files.iter().map(read).collect();
    listen(Listener::new(network, frame, device), files, &recordings, !flags.is_empty());
}

/// The network of a run, with a memory that stays bounded, and the samples of a step.
fn load(run: &str, device: &Device) -> (TaskModel, usize) {
    let (config, mut network) =
        TaskModel::of_run(Path::new(run), device).unwrap_or_else(|error| end(&error.to_string()));
    let Task::Digits { frame } = config.task else {
        let task = config.task.name();
        end(&format!("{run} is a run of `sab train {task}`: name one of `sab train digits`"))
    };
    let Some(layer) = network.layer_mut() else {
        let model = config.model.name();
        end(&format!(
            "the network of {run} is a {model}, which has no steps: train sab, lstm or tbptt"
        ))
    };
    // Neither changes a weight. An index and a budget exclude each other.
    layer.settings.n_probe = None;
    layer.settings.slot_budget.get_or_insert(SLOT_BUDGET);
    println!("{run}: trained on single recordings, at most {} samples of each", config.span);
    (network, frame)
}

/// A network in the midst of a stream.
struct Listener {
    network: TaskModel,
    /// Samples of a step.
    frame: usize,
    device: Device,
    state: Option<SabLstmState>,
}

impl Listener {
    fn new(network: TaskModel, frame: usize, device: Device) -> Self {
        Self { network, frame, device, state: None }
    }

    /// Hears the samples of one step; returns the most probable digit and its probability.
    fn hear(&mut self, samples: &[f32]) -> (usize, f32) {
        let mut x = samples.to_vec();
        x.resize(self.frame, 0.0);
        let x = Tensor::<2>::from_data(TensorData::new(x, [1, self.frame]), &self.device);
        let stepped = self.network.step(x, self.state.take());
        let (answers, state) = stepped.expect("a SabLstm, by `load`");
        self.state = Some(state);
        let probabilities = softmax(answers, 1).into_data();
        let best = probabilities.iter::<f32>().enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
        best.expect("ten digits")
    }

    fn slots(&self) -> usize {
        self.state.as_ref().map_or(0, SabLstmState::num_slots)
    }
}

/// Hears files in a row, and prints what is heard and what that took.
fn listen(mut listener: Listener, files: &[String], recordings: &[Recording], reset: bool) {
    let frame = listener.frame;
    let steps: usize = recordings.iter().map(|file| file.samples.len().div_ceil(frame)).sum();
    let seconds = |samples: usize| samples as f64 / Recording::RATE as f64;
    let line = |samples: usize, (digit, probability): (usize, f32)| {
        format!("{:8.2} s  {digit}  {:3.0} %", seconds(samples), 100.0 * probability)
    };
    // Written once, so that it does not grow in memory.
    let mut times = vec![Duration::MAX; steps];
    let mut timed = times.iter_mut();
    let (mut heard_samples, mut named, mut right, mut most_slots) = (0, 0, 0, 0);
    let mut in_the_middle = None;
    for (file, recording) in files.iter().zip(recordings) {
        if reset {
            listener.state = None;
        }
        let mut heard = (0, 0.0);
        for samples in recording.samples.chunks(frame) {
            let start = Instant::now();
            heard = listener.hear(samples);
            *timed.next().expect("a place for each step") = start.elapsed();
            most_slots = most_slots.max(listener.slots());
            let before = heard_samples;
            heard_samples += samples.len();
            if timed.len() == steps / 2 {
                in_the_middle = resident_kib();
            }
            if before / REPORT < heard_samples / REPORT {
                println!("{}", line(heard_samples, heard));
            }
        }
        let spoken = recording.digit.map_or(String::new(), |spoken| format!(", spoken {spoken}"));
        println!("{} at the end of {file}{spoken}", line(heard_samples, heard));
        named += usize::from(recording.digit.is_some());
        right += usize::from(recording.digit == Some(heard.0));
    }

    let state = if reset { "begins anew with each file" } else { "goes on from file to file" };
    println!("{} files, {:.1} s; the state {state}", files.len(), seconds(heard_samples));
    if named > 0 {
        let share = 100.0 * right as f64 / named as f64;
        println!("  digits named    {right} of {named}, {share:.1} % (chance: 10 %)");
    }
    times.sort_unstable();
    let (median, most) = (times[steps / 2], times[steps * 99 / 100]);
    let real_time = Duration::from_secs_f64(seconds(frame));
    println!("  a step takes    {median:.1?}, 99 % within {most:.1?}, of {real_time:.1?} of sound");
    println!("  slots           {most_slots} at most");
    if let (Some(middle), Some(last)) = (in_the_middle, resident_kib()) {
        println!("  resident        {middle} KiB halfway, {last} KiB at the end");
    }
}
