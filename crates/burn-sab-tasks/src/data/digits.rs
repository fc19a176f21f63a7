//! Spoken digits from the WAV files of the Free Spoken Digit Dataset.

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use hound::{SampleFormat, WavReader, WavSpec};

use super::DataError;
use super::file::{Contents, read};
use super::series::{Item, Series};

/// Recordings of each speaker and digit with indices below this are the test: the data's own split.
const TEST: usize = 5;
/// Recordings below this and from [`TEST`] on choose the best network.
const VALIDATION: usize = 10;
const DIGITS: usize = 10;

/// What every recording has: one channel, 8 kHz, 16 bits.
const SPEC: WavSpec = WavSpec {
    channels: 1,
    sample_rate: 8_000,
    bits_per_sample: 16,
    sample_format: SampleFormat::Int,
};

const WHERE: &str = "https://github.com/Jakobovski/free-spoken-digit-dataset";

/// Missing files that are named; of more, the number.
const NAMED: usize = 3;

/// A recording of a spoken digit.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    /// Its samples at 8 kHz, divided by their root mean square.
    pub samples: Vec<f32>,
    /// The digit that is spoken, if the file is named as in the Free Spoken Digit Dataset, `{digit}_{speaker}_{index}.wav`.
    pub digit: Option<usize>,
}

impl Recording {
    /// Samples a second.
    pub const RATE: usize = SPEC.sample_rate as usize;

    /// Reads a WAV file as [`Task::Digits`](crate::Task::Digits) does.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, is not of one channel, 8 kHz and 16 bits, or has only silence.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let digit = named(path).map(|(_, digit, _)| digit);
        Ok(Self { samples: samples(&read(path)?)?, digit })
    }
}

/// Reads `{digit}_{speaker}_{index}.wav` from `folder` or its `recordings`.
pub(super) fn load(folder: &Path) -> Result<Series, DataError> {
    let inner = folder.join("recordings");
    let folder = if inner.is_dir() { &inner } else { folder };
    let files = complete(folder)?;
    let mut parts = [vec![], vec![], vec![]];
    let (mut shortest, mut longest) = (usize::MAX, 0);
    let speakers = files.keys().filter(|(index, digit, _)| (*index, *digit) == (0, 0)).count();
    for ((index, digit, _), path) in files {
        let values = Recording::read(&path)?.samples;
        (shortest, longest) = (shortest.min(values.len()), longest.max(values.len()));
        let part = match index {
            ..TEST => 2,
            TEST..VALIDATION => 1,
            _ => 0,
        };
        parts[part].push(Item { values, label: digit as u8 });
    }
    let [training, validation, test] = parts.each_ref().map(Vec::len);
    let origin = format!(
        "spoken digits of {speakers} speakers, {training} / {validation} / {test} recordings (indices from {VALIDATION} / \
         {TEST} to {} / 0 to {}) for training / validation / test, of {shortest} to {longest} samples at 8 kHz, each \
         divided by its root mean square",
        VALIDATION - 1,
        TEST - 1,
    );
    Ok(Series::of_parts(origin, parts))
}

/// Recordings by index, digit and speaker: in this order, any number of the first has all digits and speakers.
fn complete(folder: &Path) -> Result<BTreeMap<(usize, usize, String), PathBuf>, DataError> {
    let missing = |what| DataError::Missing { folder: folder.to_owned(), what, from: WHERE };
    let form = "recordings named {digit}_{speaker}_{index}.wav";
    if !folder.is_dir() {
        return Err(missing(format!("folder with {form}")));
    }
    let io = |source| DataError::Io { path: folder.to_owned(), source };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        files.extend(named(&path).map(|name| (name, path)));
    }
    let most = files.keys().map(|(index, ..)| index + 1).max().unwrap_or(0);
    if most <= VALIDATION {
        return Err(missing(format!(
            "{form} with an index from {VALIDATION} on, which are those for training"
        )));
    }
    let speakers: Vec<String> = files.keys().map(|(_, _, speaker)| speaker.clone()).collect();
    let mut absent = Vec::new();
    for speaker in std::collections::BTreeSet::from_iter(speakers) {
        for (digit, index) in (0..DIGITS).flat_map(|digit| (0..most).map(move |at| (digit, at))) {
            if !files.contains_key(&(index, digit, speaker.clone())) {
                absent.push(format!("{digit}_{speaker}_{index}.wav"));
            }
        }
    }
    match absent.len() {
        0 => Ok(files),
        count => {
            let names = absent[..count.min(NAMED)].join(", ");
            let more = count.saturating_sub(NAMED);
            Err(missing(if more == 0 { names } else { format!("{names} and {more} more") }))
        }
    }
}

/// Index, digit and speaker of a recording by its name; `None` for other files.
fn named(path: &Path) -> Option<(usize, usize, String)> {
    let name = path.file_name()?.to_str()?.strip_suffix(".wav")?;
    let (digit, rest) = name.split_once('_')?;
    let (speaker, index) = rest.rsplit_once('_')?;
    let digit = digit.parse().ok().filter(|digit| *digit < DIGITS)?;
    // An index of more digits than any recording's is another name.
    let index = index.parse().ok().filter(|index| *index < 1 << 20)?;
    Some((index, digit, speaker.to_owned()))
}

/// The samples of a WAV file (one channel, 8 kHz, 16 bits), divided by their root mean square: recordings differ in
/// loudness by a factor of 70.
///
/// # Errors
///
/// If it is no such file, has no samples or only silence.
pub(super) fn samples(file: &Contents) -> Result<Vec<f32>, DataError> {
    let damaged = |error: hound::Error| {
        file.wrong(format!(
            "it cannot be read as a WAV file ({error}): it is damaged, or another format"
        ))
    };
    let mut reader = WavReader::new(Cursor::new(&file.bytes)).map_err(damaged)?;
    let spec = reader.spec();
    if spec != SPEC {
        return Err(file.wrong(format!(
            "it has {} channels, {} samples a second and {} bits a sample, but recordings have 1, {} and {}: convert \
             it, with `sox IN -r 8000 -b 16 -c 1 OUT` say",
            spec.channels, spec.sample_rate, spec.bits_per_sample, SPEC.sample_rate, SPEC.bits_per_sample,
        )));
    }
    // The length is a number in the file; nothing is allocated for more than there is.
    if reader.len() as usize > file.bytes.len() / 2 {
        return Err(file.wrong(format!("it should have {} samples: it is cut off", reader.len())));
    }
    let samples: Vec<i16> = reader.samples().collect::<Result<_, _>>().map_err(damaged)?;
    let power: f64 = samples.iter().map(|sample| f64::from(*sample).powi(2)).sum();
    if power == 0.0 {
        return Err(file.wrong("it has no samples, or only silence"));
    }
    let scale = (samples.len() as f64 / power).sqrt();
    Ok(samples.into_iter().map(|sample| (f64::from(sample) * scale) as f32).collect())
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;
    use crate::stream::Purpose;
    use rstest::rstest;

    fn error(folder: &Path) -> String {
        load(folder).unwrap_err().to_string()
    }

    #[test]
    fn recordings_are_split_by_their_indices() {
        let folder = tempfile::tempdir().unwrap();
        made::digits(folder.path(), 12);
        let series = load(folder.path()).unwrap();
        assert_eq!(series.of(Purpose::Training), 0..2 * DIGITS);
        assert_eq!(series.of(Purpose::Validation), 2 * DIGITS..7 * DIGITS);
        assert_eq!(series.of(Purpose::Test), 7 * DIGITS..12 * DIGITS);
        // The first of each part has the lowest index, and every digit comes before the next index.
        let labels: Vec<u8> = series.items.iter().map(|item| item.label).collect();
        assert!(labels.chunks(DIGITS).all(|chunk| chunk == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
        let lengths: Vec<usize> = series.items.iter().map(|item| item.values.len()).collect();
        assert_eq!(lengths[0], made::samples_of_digit(0, 10));
        assert_eq!(lengths[7 * DIGITS + 3], made::samples_of_digit(3, 0));
        for item in &series.items {
            let power: f32 = item.values.iter().map(|x| x * x).sum();
            assert!((power / item.values.len() as f32 - 1.0).abs() < 1e-4);
        }
        assert!(series.origin.starts_with("spoken digits of 1 speakers, 20 / 50 / 50"));
    }

    #[test]
    fn the_recordings_of_sab_data_dir_are_three_thousand() {
        let Some(folder) = std::env::var_os("SAB_DATA_DIR") else { return };
        let folder = Path::new(&folder).join("fsdd");
        if !folder.is_dir() {
            return;
        }
        let series = load(&folder).unwrap();
        assert_eq!(
            [Purpose::Training, Purpose::Validation, Purpose::Test].map(|p| series.of(p).len()),
            [2400, 300, 300]
        );
        assert!(series.origin.contains("of 1148 to 18262 samples"), "{}", series.origin);
    }

    #[test]
    fn a_recording_is_read_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        made::digits(folder.path(), 11);
        let series = load(folder.path()).unwrap();
        let path = folder.path().join("recordings/3_made_0.wav");
        let recording = Recording::read(&path).unwrap();
        assert_eq!(recording.digit, Some(3));
        assert_eq!(recording.samples, series.items[series.of(Purpose::Test)][3].values);
        let unnamed = folder.path().join("whatever.wav");
        fs::rename(&path, &unnamed).unwrap();
        assert_eq!(Recording::read(&unnamed).unwrap(), Recording { digit: None, ..recording });
        assert!(Recording::read(&path).unwrap_err().to_string().contains("3_made_0.wav"));
    }

    #[test]
    fn missing_recordings_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let told = error(&folder.path().join("nowhere"));
        assert!(
            told.contains("no folder with recordings") && told.contains("github.com"),
            "{told}"
        );
        assert!(error(folder.path()).contains("index from 10 on"));
        made::digits(folder.path(), 11);
        fs::remove_file(folder.path().join("recordings/3_made_7.wav")).unwrap();
        let told = error(folder.path());
        assert!(told.contains("there is no 3_made_7.wav; get"), "{told}");
        for index in 0..8 {
            fs::remove_file(folder.path().join(format!("recordings/5_made_{index}.wav"))).unwrap();
        }
        let told = error(folder.path());
        assert!(told.contains("3_made_7.wav, 5_made_0.wav, 5_made_1.wav and 6 more"), "{told}");
    }

    #[rstest]
    #[case::nothing(|_: Vec<u8>| vec![], "damaged")]
    #[case::another_format(|_| b"ID3 and so on, which is no WAV file at all".to_vec(), "another format")]
    #[case::cut(|wav: Vec<u8>| wav[..wav.len() / 2].to_vec(), "cut off")]
    #[case::stereo(|_| made::wav(2, 8_000, &[1; 40]), "2 channels")]
    #[case::another_rate(|_| made::wav(1, 44_100, &[1; 40]), "44100 samples a second")]
    #[case::silence(|_| made::wav(1, 8_000, &[0; 40]), "silence")]
    #[case::no_samples(|_| made::wav(1, 8_000, &[]), "no samples")]
    fn a_broken_recording_is_named(#[case] change: fn(Vec<u8>) -> Vec<u8>, #[case] what: &str) {
        let folder = tempfile::tempdir().unwrap();
        made::digits(folder.path(), 11);
        let path = folder.path().join("recordings/3_made_7.wav");
        fs::write(&path, change(fs::read(&path).unwrap())).unwrap();
        let told = error(folder.path());
        assert!(told.contains("3_made_7.wav") && told.contains(what), "{told}");
    }
}
