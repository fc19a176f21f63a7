//! Small made files in the formats of the data sets, for tests.

use std::fs;
use std::path::Path;

use super::mnist::head;
use crate::task::APPLIANCE_STEPS;

/// Packs bytes as gzip does without compressing them (RFC 1952 and, for the stored blocks, RFC 1951).
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let blocks = bytes.chunks(65_535);
    let last = blocks.len();
    for (number, block) in blocks.enumerate() {
        let length = block.len() as u16;
        packed.push(u8::from(number + 1 == last));
        packed.extend(length.to_le_bytes());
        packed.extend((!length).to_le_bytes());
        packed.extend(block);
    }
    let checksum = bytes.iter().fold(!0u32, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 }
        })
    });
    packed.extend((!checksum).to_le_bytes());
    packed.extend((bytes.len() as u32).to_le_bytes());
    packed
}

/// Writes `count` images in MNIST's format, packed: pixel p of image n is n + p, its label n mod 10.
pub(crate) fn mnist(folder: &Path, part: &str, count: usize) {
    let mut images = head(&[count, 28, 28]);
    images.extend((0..count).flat_map(|n| (0..784).map(move |p| (n + p) as u8)));
    let mut labels = head(&[count]);
    labels.extend((0..count).map(|n| (n % 10) as u8));
    for (name, bytes) in [("images-idx3", images), ("labels-idx1", labels)] {
        fs::write(folder.join(format!("{part}-{name}-ubyte.gz")), gzip(&bytes)).unwrap();
    }
}

/// The value of an image's colour at a pixel; `n` counts within its file.
pub(crate) fn color(n: usize, channel: usize, pixel: usize) -> u8 {
    (n + 100 * channel + pixel) as u8
}

/// Writes six files of `count` images each in CIFAR-10's binary format.
pub(crate) fn cifar(folder: &Path, count: usize) {
    let names = (1..=5).map(|number| format!("data_batch_{number}.bin"));
    for name in names.chain(["test_batch.bin".to_owned()]) {
        let mut bytes = Vec::new();
        for n in 0..count {
            bytes.push((n % 10) as u8);
            for channel in 0..3 {
                bytes.extend((0..1024).map(|pixel| color(n, channel, pixel)));
            }
        }
        fs::write(folder.join(name), bytes).unwrap();
    }
}

/// A WAV file with 16 bits a sample.
pub(crate) fn wav(channels: u16, rate: u32, samples: &[i16]) -> Vec<u8> {
    let spec = hound::WavSpec {
        channels,
        sample_rate: rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut bytes = Vec::new();
    let mut writer = hound::WavWriter::new(std::io::Cursor::new(&mut bytes), spec).unwrap();
    for sample in samples {
        writer.write_sample(*sample).unwrap();
    }
    writer.finalize().unwrap();
    bytes
}

/// How long a made recording is.
pub(crate) fn samples_of_digit(digit: usize, index: usize) -> usize {
    40 + 10 * digit + index
}

/// Writes recordings of one speaker, each of ten digits so many times: a digit is a tone of its own.
pub(crate) fn digits(folder: &Path, indices: usize) {
    let folder = folder.join("recordings");
    fs::create_dir_all(&folder).unwrap();
    for (digit, index) in (0..10).flat_map(|digit| (0..indices).map(move |index| (digit, index))) {
        let tone = |n: usize| (1_000.0 * (n as f32 * (0.2 + 0.2 * digit as f32)).cos()) as i16;
        let samples: Vec<i16> = (0..samples_of_digit(digit, index)).map(tone).collect();
        let path = folder.join(format!("{digit}_made_{index}.wav"));
        fs::write(path, wav(1, 8_000, &samples)).unwrap();
    }
}

/// A file of `count` series in the format of ACSF1; series n has class n mod 10.
pub(crate) fn ts(count: usize) -> String {
    let mut text =
        "# A comment.\n@problemName Made\n@classLabel true 0 1 2 3 4 5 6 7 8 9\n@data\n".to_owned();
    for n in 0..count {
        let value = |t: usize| if t == 1 { "1.5".to_owned() } else { (t % (n + 2)).to_string() };
        let values: Vec<String> = (0..APPLIANCE_STEPS).map(value).collect();
        text.push_str(&format!("{}:{}\n", values.join(","), n % 10));
    }
    text
}

/// Writes both files of ACSF1 with `count` series each.
pub(crate) fn appliances(folder: &Path, count: usize) {
    for part in ["TRAIN", "TEST"] {
        fs::write(folder.join(format!("ACSF1_{part}.ts")), ts(count)).unwrap();
    }
}
