//! CIFAR-10 from its six files in the binary format.

use std::path::Path;

use super::DataError;
use super::file::{Contents, read_if_there};
use super::images::Images;
use crate::task::{CIFAR_CHANNELS as CHANNELS, CIFAR_PIXELS as PIXELS};

/// A label, and the three colours of an image one after the other.
const RECORD: usize = 1 + CHANNELS * PIXELS;
/// Images of one file; 30,730,000 bytes.
const PER_FILE: usize = 10_000;
/// Of the images for training, the last tenth chooses the best network.
const TENTH: usize = 10;

const TEST: &str = "test_batch.bin";
const WHERE: &str = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz";

/// Reads CIFAR-10 from `folder` or its `cifar-10-batches-bin`.
pub(super) fn read(folder: &Path) -> Result<Images, DataError> {
    let unpacked = folder.join("cifar-10-batches-bin");
    let folder = if unpacked.is_dir() { &unpacked } else { folder };
    let names = (1..=5).map(|number| format!("data_batch_{number}.bin")).chain([TEST.to_owned()]);
    let mut records = Records { values: vec![], labels: vec![], full: true };
    let mut trained = 0;
    for name in names {
        let file = read_if_there(folder, &name)?.ok_or_else(|| DataError::Missing {
            folder: folder.to_owned(),
            what: format!("{name} (data_batch_1.bin to data_batch_5.bin and {TEST})"),
            from: WHERE,
        })?;
        if name == TEST {
            trained = records.labels.len();
        }
        records.add(&file)?;
    }
    Ok(records.split(trained))
}

/// What the files read so far hold.
pub(super) struct Records {
    pub(super) values: Vec<u8>,
    pub(super) labels: Vec<u8>,
    /// Whether every file has as many images as one of CIFAR-10.
    pub(super) full: bool,
}

impl Records {
    /// Adds the images of a file.
    pub(super) fn add(&mut self, file: &Contents) -> Result<(), DataError> {
        if file.bytes.is_empty() || !file.bytes.len().is_multiple_of(RECORD) {
            return Err(file.wrong(format!(
                "it has {} bytes, which is not a number of images of {RECORD}: it is cut off, or not \
                 CIFAR-10's binary version",
                file.bytes.len()
            )));
        }
        self.full &= file.bytes.len() == PER_FILE * RECORD;
        for record in file.bytes.chunks_exact(RECORD) {
            if record[0] > 9 {
                return Err(
                    file.wrong(format!("it has the label {}, but they are 0 to 9", record[0]))
                );
            }
            self.labels.push(record[0]);
            let color = |channel: usize, pixel: usize| record[1 + channel * PIXELS + pixel];
            self.values.extend(
                (0..PIXELS)
                    .flat_map(|pixel| (0..CHANNELS).map(move |channel| color(channel, pixel))),
            );
        }
        Ok(())
    }

    /// The images, of which the first `trained` come from the files for training.
    pub(super) fn split(self, trained: usize) -> Images {
        let Self { values, labels, full } = self;
        let training = trained - trained / TENTH;
        let name = if full { "CIFAR-10" } else { "images in CIFAR-10's format" };
        Images {
            origin: format!(
                "{name}, {training} / {} / {} for training / validation / test",
                trained - training,
                labels.len() - trained
            ),
            values,
            labels,
            pixels: PIXELS,
            channels: CHANNELS,
            training,
            validation: trained,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;
    use crate::stream::Purpose;
    use std::fs;

    #[test]
    fn colours_of_a_pixel_come_together() {
        let folder = tempfile::tempdir().unwrap();
        made::cifar(folder.path(), 4);
        let images = read(folder.path()).unwrap();
        assert_eq!(images.of(Purpose::Training), 0..18);
        assert_eq!(images.of(Purpose::Validation), 18..20);
        assert_eq!(images.of(Purpose::Test), 20..24);
        let (values, labels) = images.sequences(&[6], &images.order(false));
        assert_eq!((values.len(), labels[0]), (3 * 1024, 2));
        let pixel: Vec<f32> = values[3 * 40..][..3].iter().map(|value| value * 255.0).collect();
        let expected = [made::color(2, 0, 40), made::color(2, 1, 40), made::color(2, 2, 40)];
        assert!(pixel.iter().zip(expected).all(|(got, want)| (got - f32::from(want)).abs() < 1e-3));
    }

    #[test]
    fn broken_and_missing_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("data_batch_1.bin") && error.contains("https://"), "{error}");
        made::cifar(folder.path(), 2);
        fs::write(folder.path().join("data_batch_3.bin"), vec![0; 5000]).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("data_batch_3.bin") && error.contains("5000 bytes"), "{error}");
        let mut record = vec![0; RECORD];
        record[0] = 77;
        fs::write(folder.path().join("data_batch_3.bin"), record).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("label 77"), "{error}");
    }
}
