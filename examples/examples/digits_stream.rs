//! Speech as it comes: a recording of many spoken digits in a row is heard sample by sample, on one core, with a memory
//! of few slots.
//!
//! ```sh
//! cargo run --release --example digits_stream                                # tones instead of digits; seconds
//! cargo run --release --example digits_stream -- DATA WEIGHTS [UPDATES]      # DATA: the Free Spoken Digit Dataset
//! cargo run --release --example digits_stream -- DATA WEIGHTS UPDATES FILE   # a WAV file: mono, 8 kHz, 16 bits
//! ```
//!
//! The weights are read from WEIGHTS; if it is not there, a network is trained for UPDATES updates (2,000) and written to
//! it. Without FILE, test recordings are joined, with pauses between them. A digit begins at the first sample that is
//! loud, with an empty state, and is over after 150 ms of silence; the answer is that at its last loud sample. Every
//! sample is one call of `step`, whether it is loud or not.
//!
//! Expect: the digits, with the time at which they are over; the share that is right, where they are known; the time of
//! a sample, of which 8 kHz leaves 125 microseconds; resident memory that stays where it was after the first tenth.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::{Duration, Instant};

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor};
use burn_sab::{SabLstm, SabLstmConfig};
use burn_sab_examples::device;
use burn_sab_examples::resident::Resident;
use burn_sab_tasks::{Batch, DataStream, Examples, Purpose, Target, Task, draw, recording};
use hound::{SampleFormat, WavReader, WavSpec, WavWriter};

const TASK: Task = Task::Digits { frame: 1 };
/// Samples of a recording that training reads: more than almost any has.
const LONGEST: usize = 8_000;
const BATCH: usize = 32;
const D_HIDDEN: usize = 64;
/// The memory of the stream, in slots.
const SLOT_BUDGET: usize = 32;
/// Of Adam.
const RATE_OF_LEARNING: f64 = 5e-3;
const RATE: u32 = 8_000;
/// What 8 kHz leaves for a sample.
const TIME_LEFT: Duration = Duration::from_micros(125);
/// Silence between joined recordings: 300 ms.
const PAUSE: usize = 2_400;
/// Silence after which a digit is over: 150 ms, longer than the pause within a "six" or an "eight".
const OVER: usize = 1_200;
/// Samples below this part of the root mean square are silent.
const SILENT: f32 = 0.1;
/// Digits that are joined.
const DIGITS: usize = 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Hears samples and names a digit.
#[derive(Module, Debug)]
struct Ear {
    layer: SabLstm,
    readout: Linear,
}

impl Ear {
    fn new(device: &Device) -> Self {
        let config = SabLstmConfig::new(1, D_HIDDEN, true)
            // Windows of 20 ms, and a slot for each.
            .with_k_trunc(160)
            .with_k_att(160)
            .with_max_hops(Some(1))
            .with_summary_scale(0.1)
            .with_forget_bias(1.0);
        let readout = LinearConfig::new(D_HIDDEN, TASK.d_output());
        draw(1, device, |device| Self { layer: config.init(device), readout: readout.init(device) })
    }

    /// Logits `[B, 10]` at the last sample of each row.
    fn forward(&self, batch: &Batch) -> Tensor<2> {
        let [rows, time, _] = batch.input.dims();
        let lengths = batch.lengths.clone().unwrap_or(vec![time; rows]);
        let (_, state) = self.layer.forward_padded(batch.input.clone(), &lengths, None);
        self.readout.forward(state.hidden)
    }
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        exit(1);
    }
}

fn run() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let device = device();
    let scratch = Scratch::new()?;
    let (data, weights, updates, file) = match arguments.as_slice() {
        [] => (scratch.tones()?, scratch.0.join("weights.bpk"), 250, None),
        [data, weights, rest @ ..] if rest.len() <= 2 => {
            let updates = rest.first().map_or("2000", String::as_str);
            let updates =
                updates.parse().map_err(|_| format!("{updates} is no number of updates"))?;
            (data.into(), weights.into(), updates, rest.get(1).map(PathBuf::from))
        }
        _ => return Err("name DATA and WEIGHTS, then a number of updates, then a WAV file".into()),
    };
    let ear = Ear::new(&device);
    let mut ear = match weights.is_file() {
        true => ear.load_record(burn::store::ModuleRecord::load(&weights)?),
        false => {
            let ear = train(&data, updates, &device)?;
            ear.clone().into_record().save(&weights)?;
            ear
        }
    };
    ear.layer.settings.slot_budget = Some(SLOT_BUDGET);
    let (file, spoken) = match file {
        Some(file) => (file, vec![]),
        None => join(&data, &scratch.0)?,
    };
    let heard = listen(&ear, &as_loud_as_in_training(recording(&file)?), &device);
    if !spoken.is_empty() {
        let right = heard.iter().zip(&spoken).filter(|(heard, spoken)| heard == spoken).count();
        println!(
            "{right} of {} digits are right (chance: 10 %); {} were heard",
            spoken.len(),
            heard.len()
        );
        if arguments.is_empty() {
            assert!(
                heard.len() == spoken.len() && 5 * right > spoken.len(),
                "not what this example promises"
            );
        }
    }
    Ok(())
}

/// A recording alone has a root mean square of 1; with pauses, that of the loud samples has to be.
fn as_loud_as_in_training(samples: Vec<f32>) -> Vec<f32> {
    let loud: Vec<f32> = samples.iter().copied().filter(|sample| sample.abs() > SILENT).collect();
    let power = loud.iter().map(|sample| sample * sample).sum::<f32>() / loud.len().max(1) as f32;
    let scale = power.sqrt().max(f32::MIN_POSITIVE).recip();
    samples.into_iter().map(|sample| scale * sample).collect()
}

/// Trains on the recordings for training.
fn train(data: &Path, updates: usize, device: &Device) -> Outcome<Ear> {
    let device = device.clone().autodiff();
    let examples = Examples::load(TASK, Some(data))?;
    println!("{}", examples.origin().unwrap_or_default());
    let mut ear = Ear::new(&device);
    let clipping = GradientClippingConfig::Norm(1.0);
    let mut optimizer = AdamConfig::new().with_grad_clipping(Some(clipping)).init();
    let cross_entropy = CrossEntropyLossConfig::new().init(&device);
    let mut stream = DataStream::new(1, Purpose::Training);
    let mut mean = 0.0;
    let part = (updates / 10).max(1);
    for update in 1..=updates {
        let batch = examples.training_batch(&mut stream, LONGEST, BATCH, &device);
        let Target::Symbols(digits) = &batch.target else { unreachable!("one digit a recording") };
        let loss = cross_entropy.forward(ear.forward(&batch), digits.clone().squeeze_dim(1));
        mean += loss.clone().into_scalar::<f32>() / part as f32;
        let gradients = GradientsParams::from_grads(loss.backward(), &ear);
        ear = optimizer.step(RATE_OF_LEARNING, ear, gradients);
        if update.is_multiple_of(part) {
            println!("update {update:5}   loss {mean:.3}");
            mean = 0.0;
        }
    }
    Ok(ear.valid())
}

/// Hears the samples one by one and prints what it hears; returns the digits.
fn listen(ear: &Ear, samples: &[f32], device: &Device) -> Vec<usize> {
    let mut resident = Resident::new("samples");
    let (mut state, mut logits, mut silence) = (None, None, OVER);
    let (mut heard, mut times, mut most_slots) = (Vec::new(), Vec::new(), 0);
    for (n, sample) in samples.iter().enumerate() {
        let start = Instant::now();
        let is_loud = sample.abs() > SILENT;
        if is_loud && silence >= OVER {
            state = None;
        }
        silence = if is_loud { 0 } else { silence + 1 };
        let (hidden, next) = ear.layer.step(Tensor::from_data([[*sample]], device), state);
        if is_loud {
            logits = Some(ear.readout.forward(hidden));
        }
        if silence == OVER
            && let Some(logits) = logits.take()
        {
            let digit = logits.argmax(1).into_scalar::<i64>() as usize;
            println!("{:7.2} s   {digit}", n as f64 / f64::from(RATE));
            heard.push(digit);
        }
        times.push(start.elapsed());
        most_slots = most_slots.max(next.num_slots());
        state = Some(next);
        if (n + 1).is_multiple_of((samples.len() / 10).max(1)) {
            resident.report(n + 1, &format!("at most {most_slots} slots"));
        }
    }
    // Silence at the end may be short.
    heard.extend(logits.map(|logits: Tensor<2>| {
        let digit: Tensor<2, Int> = logits.argmax(1);
        digit.into_scalar::<i64>() as usize
    }));
    times.sort_unstable();
    let within = times.partition_point(|time| *time <= TIME_LEFT);
    println!(
        "a sample: {:.1?} in the median, {:.1?} for 99 %; {:.2} % within {TIME_LEFT:.0?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        100.0 * within as f64 / times.len() as f64,
    );
    assert!(most_slots < 2 * SLOT_BUDGET, "{most_slots} slots");
    resident.assert_flat("the first tenth");
    heard
}

/// Joins recordings of the test, each as loud as the others, with pauses; gives the file and its digits.
fn join(data: &Path, folder: &Path) -> Outcome<(PathBuf, Vec<usize>)> {
    let inner = data.join("recordings");
    let recordings = if inner.is_dir() { inner } else { data.to_owned() };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&recordings)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut parts = name.trim_end_matches(".wav").split('_');
        let digit = parts.next().and_then(|digit| digit.parse::<usize>().ok());
        let index = parts.next_back().and_then(|index| index.parse::<usize>().ok());
        if let (Some(digit @ 0..10), Some(0..5)) = (digit, index) {
            names.push((digit, path));
        }
    }
    names.sort();
    let mut stream = DataStream::new(1, Purpose::Test);
    let mut samples = vec![0.0; PAUSE];
    let mut spoken = Vec::new();
    for place in stream.distinct(DIGITS.min(names.len()), names.len()) {
        let (digit, path) = &names[place];
        spoken.push(*digit);
        samples.extend(recording(path)?);
        samples.extend([0.0; PAUSE]);
    }
    let path = folder.join("joined.wav");
    write(&path, &samples)?;
    println!("{}: {} digits, {} s", path.display(), spoken.len(), samples.len() / RATE as usize);
    Ok((path, spoken))
}

fn write(path: &Path, samples: &[f32]) -> Outcome<()> {
    let sample_format = SampleFormat::Int;
    let spec = WavSpec { channels: 1, sample_rate: RATE, bits_per_sample: 16, sample_format };
    let mut writer = WavWriter::create(path, spec)?;
    for sample in samples {
        writer.write_sample((2_000.0 * sample).clamp(-32_768.0, 32_767.0) as i16)?;
    }
    writer.finalize()?;
    // What is written can be read.
    assert_eq!(WavReader::open(path)?.len() as usize, samples.len());
    Ok(())
}

/// A folder that goes with the program.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Outcome<Self> {
        let path = std::env::temp_dir().join(format!("burn-sab-digits-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// A tone for each digit, 15 recordings each, in the place of the data.
    fn tones(&self) -> Outcome<PathBuf> {
        let folder = self.0.join("tones");
        std::fs::create_dir_all(&folder)?;
        for (digit, index) in (0..10).flat_map(|digit| (0..15).map(move |index| (digit, index))) {
            let step = 0.05 * 1.55f32.powi(digit as i32);
            let count = 80 + 5 * (index % 5) + 2 * digit;
            let samples: Vec<f32> = (0..count).map(|n| (step * n as f32).cos()).collect();
            write(&folder.join(format!("{digit}_tone_{index}.wav")), &samples)?;
        }
        Ok(folder)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder of temporary files may stay.
        std::fs::remove_dir_all(&self.0).ok();
    }
}
