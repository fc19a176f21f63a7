//! Small made files in the formats of the data sets, for tests.

use std::fs;
use std::path::Path;

use super::mnist::head;

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
