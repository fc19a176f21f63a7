//! Spoken digits: recordings as sequences of spectra, and batches of them.

use std::f32::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};

use burn::data::dataloader::batcher::Batcher;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Features of a step: logarithms of power in bands of frequency.
pub const BANDS: usize = 20;
/// Digits.
pub const CLASSES: usize = 10;
/// Samples of a step's window; at 8 kHz, 32 ms.
const WINDOW: usize = 256;
/// Samples from a window to the next; at 8 kHz, 16 ms.
const HOP: usize = 128;
/// Recordings of each speaker and digit that are for the test, by the data's own split: 0 to 4.
const TEST_INDICES: u32 = 5;

/// One recording.
#[derive(Clone, Debug)]
pub struct Recording {
    /// `[steps, BANDS]`, row after row.
    pub features: Vec<f32>,
    /// The digit that is spoken.
    pub digit: usize,
}

impl Recording {
    /// Steps of the sequence.
    pub fn steps(&self) -> usize {
        self.features.len() / BANDS
    }
}

/// Recordings for training and for the test.
#[derive(Debug, Default)]
pub struct Recordings {
    /// For training.
    pub train: Vec<Recording>,
    /// Held out.
    pub test: Vec<Recording>,
}

impl Recordings {
    /// Reads the Free Spoken Digit Dataset: files `{digit}_{speaker}_{index}.wav` in `folder` or in its folder
    /// `recordings`, each mono with 16 bits. At most `most` files, evenly spread.
    ///
    /// # Errors
    ///
    /// If the folder or a file cannot be read, or if one of the two parts is empty.
    pub fn load(folder: &Path, most: usize) -> Result<Self, String> {
        let inner = folder.join("recordings");
        let folder = if inner.is_dir() { inner } else { folder.to_owned() };
        let about = "the Free Spoken Digit Dataset has files such as 7_jackson_32.wav; get it from \
                     github.com/Jakobovski/free-spoken-digit-dataset";
        let entries = fs::read_dir(&folder)
            .map_err(|error| format!("{}: {error}; {about}", folder.display()))?;
        let mut files: Vec<(PathBuf, usize, u32)> =
            entries.filter_map(|entry| named(entry.ok()?.path())).collect();
        files.sort();
        let every = files.len().div_ceil(most.max(1)).max(1);
        let mut recordings = Self::default();
        // Step by step through all indices, so that a smaller set also has both parts.
        files.sort_by_key(|(_, _, index)| *index);
        for (path, digit, index) in files.into_iter().step_by(every) {
            let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let samples = samples(&bytes).map_err(|what| format!("{}: {what}", path.display()))?;
            let part =
                if index < TEST_INDICES { &mut recordings.test } else { &mut recordings.train };
            part.push(Recording { features: features(&samples), digit });
        }
        if recordings.train.is_empty() || recordings.test.is_empty() {
            let (train, test) = (recordings.train.len(), recordings.test.len());
            return Err(format!(
                "{}: {train} recordings for training and {test} for the test; {about}",
                folder.display()
            ));
        }
        Ok(recordings)
    }
}

/// Path, digit and index of a recording's file; `None` for other files.
fn named(path: PathBuf) -> Option<(PathBuf, usize, u32)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".wav")?.to_owned();
    let (digit, rest) = name.split_once('_')?;
    let (_, index) = rest.rsplit_once('_')?;
    let digit = digit.parse().ok().filter(|digit| *digit < CLASSES)?;
    Some((path, digit, index.parse().ok()?))
}

/// The samples of a WAV file in [-1, 1].
///
/// # Errors
///
/// If it is not of the kind that the data has.
pub fn samples(wav: &[u8]) -> Result<Vec<f32>, String> {
    let wrong = |what: &str| Err(format!("{what}: expected a WAV file, mono, with 16 bits"));
    if wav.get(..4) != Some(b"RIFF") || wav.get(8..12) != Some(b"WAVE") {
        return wrong("no RIFF header");
    }
    let number = |at: usize, bytes: usize| {
        let bytes = wav.get(at..at + bytes)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let mut at = 12;
    while let (Some(name), Some(size)) = (wav.get(at..at + 4), number(at + 4, 4)) {
        let start = at + 8;
        match name {
            b"fmt "
                if [number(start, 2), number(start + 2, 2), number(start + 14, 2)]
                    != [Some(1), Some(1), Some(16)] =>
            {
                return wrong("another format");
            }
            b"data" => {
                let data = &wav[start..wav.len().min(start + size)];
                let sample = |pair: &[u8; 2]| f32::from(i16::from_le_bytes(*pair)) / 32_768.0;
                return Ok(data.as_chunks::<2>().0.iter().map(sample).collect());
            }
            _ => {}
        }
        // Chunks begin at even places.
        at = start + size + size % 2;
    }
    wrong("no samples")
}

/// Logarithms of the power in bands of equal width in the mel scale, `[steps, BANDS]`; at least one step.
pub fn features(samples: &[f32]) -> Vec<f32> {
    let mel = |hertz: f32| 1127.0 * (1.0 + hertz / 700.0).ln();
    let hertz = |mel: f32| 700.0 * ((mel / 1127.0).exp() - 1.0);
    // Bins of 31.25 Hz each.
    let bin_of = |band: usize| {
        let mel = mel(100.0) + (mel(3_900.0) - mel(100.0)) * band as f32 / BANDS as f32;
        (hertz(mel) / 31.25).round() as usize
    };
    let cosines: Vec<f32> = (0..WINDOW).map(|n| (TAU * n as f32 / WINDOW as f32).cos()).collect();
    let cos = |n: usize| cosines[n % WINDOW];
    let sin = |n: usize| cosines[(n + 3 * WINDOW / 4) % WINDOW];
    let mut features = Vec::new();
    let last = samples.len().saturating_sub(WINDOW);
    for start in (0..=last).step_by(HOP) {
        let hann = |n: usize| 0.5 - 0.5 * cos(n);
        let window = samples[start..].iter().take(WINDOW).enumerate();
        let window: Vec<f32> = window.map(|(n, sample)| sample * hann(n)).collect();
        let power = |bin: usize| {
            let sum = |wave: &dyn Fn(usize) -> f32| -> f32 {
                window.iter().enumerate().map(|(n, sample)| sample * wave(bin * n)).sum()
            };
            sum(&cos).powi(2) + sum(&sin).powi(2)
        };
        for band in 0..BANDS {
            let (from, to) = (bin_of(band), bin_of(band + 1).max(bin_of(band) + 1));
            let mean = (from..to).map(power).sum::<f32>() / (to - from) as f32;
            features.push(0.25 * (mean + 1e-4).ln());
        }
    }
    features
}

/// Recordings side by side, padded to the longest.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[B, T, BANDS]`; zeros after the end of a recording.
    pub features: Tensor<3>,
    /// The last step of each recording, `[B]`.
    pub last: Tensor<1, Int>,
    /// The digits, `[B]`.
    pub digits: Tensor<1, Int>,
}

/// Makes batches.
#[derive(Clone, Debug)]
pub struct Batches;

impl Batcher<Recording, Batch> for Batches {
    fn batch(&self, recordings: Vec<Recording>, device: &Device) -> Batch {
        let rows = recordings.len();
        let steps = recordings.iter().map(Recording::steps).max().unwrap_or(0);
        let mut features = vec![0.0; rows * steps * BANDS];
        for (row, recording) in features.chunks_mut((steps * BANDS).max(1)).zip(&recordings) {
            row[..recording.features.len()].copy_from_slice(&recording.features);
        }
        let integers = |of: fn(&Recording) -> usize| {
            let integers: Vec<i64> = recordings.iter().map(|r| of(r) as i64).collect();
            Tensor::from_data(integers.as_slice(), device)
        };
        Batch {
            features: Tensor::from_data(TensorData::new(features, [rows, steps, BANDS]), device),
            last: integers(|recording| recording.steps() - 1),
            digits: integers(|recording| recording.digit),
        }
    }
}
