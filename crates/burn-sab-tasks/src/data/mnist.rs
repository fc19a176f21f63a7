//! MNIST from its four files in the IDX format.

use std::path::Path;

use super::DataError;
use super::file::{Contents, read_if_there};
use super::images::Images;
use crate::task::{MNIST_PIXELS, MNIST_SIDE as SIDE};

/// Images that choose the best network: 5,000 of the 60,000, as is usual, and 500 where only the 10,000
/// test images are there.
const VALIDATION: usize = 5_000;
const FEW_VALIDATION: usize = 500;

/// Of the test images alone, the last tenth is the test.
const TENTH: usize = 10;

/// The four files, with the MD5 checksums of their contents when unpacked. They agree with the checksums
/// that torchvision gives for the packed files.
pub(super) const TRAIN: Names = Names {
    images: ("train-images-idx3-ubyte", "6bbc9ace898e44ae57da46a324031adb"),
    labels: ("train-labels-idx1-ubyte", "a25bea736e30d166cdddb491f175f624"),
    count: 60_000,
};
pub(super) const TEST: Names = Names {
    images: ("t10k-images-idx3-ubyte", "2646ac647ad5339dbf082846283269ea"),
    labels: ("t10k-labels-idx1-ubyte", "27ae3e4e09519cfbb04c329615203637"),
    count: 10_000,
};

pub(super) const WHERE: &str = "https://ossci-datasets.s3.amazonaws.com/mnist/";

pub(super) struct Names {
    pub(super) images: (&'static str, &'static str),
    pub(super) labels: (&'static str, &'static str),
    /// How many images MNIST has in these files.
    count: usize,
}

/// Images and their labels.
pub(super) struct Part {
    values: Vec<u8>,
    labels: Vec<u8>,
    /// Whether these are MNIST's, by their checksums.
    genuine: bool,
}

/// Reads MNIST from `folder`: all of it, or the test images alone, of which nine tenths are then for
/// training.
pub(super) fn read(folder: &Path) -> Result<Images, DataError> {
    let test = TEST.read(folder)?.ok_or_else(|| missing(folder))?;
    Ok(split(test, TRAIN.read(folder)?))
}

/// The test images and, if they are there, those for training.
pub(super) fn split(test: Part, train: Option<Part>) -> Images {
    let (values, labels, training, validation, split, genuine) = match train {
        Some(mut train) => {
            let all = train.labels.len();
            let validation = VALIDATION.min(all / TENTH);
            train.values.extend(test.values);
            train.labels.extend(test.labels);
            let split =
                format!("{} / {validation} / {}", all - validation, train.labels.len() - all);
            let genuine = train.genuine && test.genuine;
            (train.values, train.labels, all - validation, all, split, genuine)
        }
        None => {
            let all = test.labels.len();
            let tested = all / TENTH;
            let rest = all - tested;
            let validation = FEW_VALIDATION.min(rest / TENTH);
            let split =
                format!("{} / {validation} / {tested} of its test images", rest - validation);
            (test.values, test.labels, rest - validation, rest, split, test.genuine)
        }
    };
    let name = if genuine { "MNIST" } else { "images in MNIST's format" };
    Images {
        origin: format!("{name}, {split} for training / validation / test"),
        values,
        labels,
        pixels: MNIST_PIXELS,
        channels: 1,
        training,
        validation,
    }
}

fn missing(folder: &Path) -> DataError {
    DataError::Missing {
        folder: folder.to_owned(),
        what: format!(
            "{0} and {1} (as they are or as .gz), and for the whole of MNIST {2} and {3}",
            TEST.images.0, TEST.labels.0, TRAIN.images.0, TRAIN.labels.0
        ),
        from: WHERE,
    }
}

impl Names {
    /// Reads images and labels; `None` if there are no images.
    fn read(&self, folder: &Path) -> Result<Option<Part>, DataError> {
        let Some(images) = read_if_there(folder, self.images.0)? else { return Ok(None) };
        let labels = read_if_there(folder, self.labels.0)?.ok_or_else(|| missing(folder))?;
        self.part(&images, &labels).map(Some)
    }

    /// The contents of two files.
    pub(super) fn part(&self, images: &Contents, labels: &Contents) -> Result<Part, DataError> {
        let (shape, values) = idx(images)?;
        let [count, SIDE, SIDE] = shape[..] else {
            return Err(images.wrong(format!("its shape is {shape:?}, but images are [n, 28, 28]")));
        };
        let (shape, classes) = idx(labels)?;
        if shape != [count] {
            return Err(
                labels.wrong(format!("its shape is {shape:?}, but there are {count} images"))
            );
        }
        if let Some(label) = classes.iter().find(|label| **label > 9) {
            return Err(labels.wrong(format!("it has the label {label}, but digits are 0 to 9")));
        }
        let mut genuine = count == self.count;
        for (contents, (_, checksum)) in [(images, self.images), (labels, self.labels)] {
            if genuine && !contents.has_checksum(checksum) {
                return Err(contents.wrong(format!(
                    "it has as many entries as MNIST, but its MD5 checksum, unpacked, is not {checksum}: it is \
                     damaged, or another data set; get it again from {WHERE}"
                )));
            }
        }
        genuine &= count > 0;
        Ok(Part { values: values.to_vec(), labels: classes.to_vec(), genuine })
    }
}

/// The head of a file in the IDX format whose values are bytes; see [`idx`].
pub(super) fn head(shape: &[usize]) -> Vec<u8> {
    let sizes = shape.iter().flat_map(|size| (*size as u32).to_be_bytes());
    [0, 0, 8, shape.len() as u8].into_iter().chain(sizes).collect()
}

/// The shape and the bytes of a file in the IDX format: two zeros, the type (8: bytes), the number of
/// dimensions, their sizes as 32 bits with the highest first, and the values.
pub(super) fn idx(file: &Contents) -> Result<(Vec<usize>, &[u8]), DataError> {
    let bytes = &file.bytes;
    let &[0, 0, kind, dimensions, ..] = bytes.as_slice() else {
        return Err(file.wrong("it does not begin as IDX files do"));
    };
    if kind != 8 {
        return Err(file.wrong(format!("its values have type {kind}, but only bytes (8) are read")));
    }
    let head = 4 + 4 * usize::from(dimensions);
    let Some(sizes) = bytes.get(4..head) else {
        return Err(file.wrong("it ends within its head"));
    };
    let shape: Vec<usize> = sizes
        .chunks_exact(4)
        .map(|size| u32::from_be_bytes([size[0], size[1], size[2], size[3]]) as usize)
        .collect();
    let values = &bytes[head..];
    let expected = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    if expected != Some(values.len()) {
        return Err(file.wrong(format!(
            "its shape is {shape:?}, but it has {} values: it is cut off, or not IDX",
            values.len()
        )));
    }
    Ok((shape, values))
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;
    use crate::stream::Purpose;
    use rstest::rstest;
    use std::fs;

    #[test]
    fn the_test_images_alone_are_split() {
        let folder = tempfile::tempdir().unwrap();
        made::mnist(folder.path(), "t10k", 100);
        let images = read(folder.path()).unwrap();
        assert_eq!(images.of(Purpose::Training), 0..81);
        assert_eq!(images.of(Purpose::Validation), 81..90);
        assert_eq!(images.of(Purpose::Test), 90..100);
        assert!(images.origin.starts_with("images in MNIST's format, 81 / 9 / 10 of its test"));
        let (values, labels) = images.sequences(&[13], &images.order(false));
        assert_eq!((values.len(), labels.as_slice()), (784, [3].as_slice()));
        assert!((values[5] - 18.0 / 255.0).abs() < 1e-6);
    }

    /// The real test images where SAB_DATA_DIR says they are, in its folder mnist, and made ones elsewhere.
    #[test]
    fn the_digits_of_sab_data_dir_are_mnist() {
        let made_folder = tempfile::tempdir().unwrap();
        let (folder, count, name) = match std::env::var_os("SAB_DATA_DIR") {
            Some(folder) => {
                let folder = Path::new(&folder).join("mnist");
                // With the training images, or the test images alone.
                let all = std::fs::read_dir(&folder).unwrap().any(|entry| {
                    entry.unwrap().file_name().to_string_lossy().starts_with("train-images")
                });
                match all {
                    true => (folder, 70_000, "MNIST, 55000 / 5000 / 10000"),
                    false => (folder, 10_000, "MNIST, 8500 / 500 / 1000"),
                }
            }
            None => {
                made::mnist(made_folder.path(), "t10k", 200);
                (made_folder.path().to_owned(), 200, "images in MNIST's format, 162 / 18 / 20")
            }
        };
        let images = read(&folder).unwrap();
        assert_eq!(images.labels.len(), count);
        assert!(images.origin.starts_with(name), "{}", images.origin);
        for digit in 0..10 {
            let share = images.labels.iter().filter(|label| **label == digit).count() * 10;
            assert!(share > count / 2 && share < 2 * count, "{digit} is {share} of {count}");
        }
    }

    #[test]
    fn all_files_give_the_usual_split() {
        let folder = tempfile::tempdir().unwrap();
        made::mnist(folder.path(), "t10k", 20);
        made::mnist(folder.path(), "train", 60);
        let images = read(folder.path()).unwrap();
        assert_eq!(images.of(Purpose::Training), 0..54);
        assert_eq!(images.of(Purpose::Validation), 54..60);
        assert_eq!(images.of(Purpose::Test), 60..80);
    }

    #[rstest]
    #[case("t10k-images-idx3-ubyte", vec![0, 0, 8], "IDX")]
    #[case("t10k-images-idx3-ubyte", vec![0, 0, 9, 1, 0, 0, 0, 0], "type 9")]
    #[case("t10k-images-idx3-ubyte", vec![0, 0, 8, 3, 0, 0], "head")]
    #[case("t10k-images-idx3-ubyte", vec![0, 0, 8, 1, 0, 0, 0, 9, 1], "cut off")]
    #[case("t10k-images-idx3-ubyte", vec![0, 0, 8, 1, 0, 0, 0, 1, 1], "[n, 28, 28]")]
    #[case("t10k-labels-idx1-ubyte", vec![0, 0, 8, 1, 0, 0, 0, 1, 1], "10 images")]
    #[case("t10k-labels-idx1-ubyte", vec![0, 0, 8, 1, 0, 0, 0, 10, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "label 10")]
    fn a_broken_file_is_named(#[case] name: &str, #[case] bytes: Vec<u8>, #[case] named: &str) {
        let folder = tempfile::tempdir().unwrap();
        made::mnist(folder.path(), "t10k", 10);
        fs::write(folder.path().join(name), bytes).unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(named), "{error}");
    }

    #[test]
    fn files_of_full_size_have_to_be_the_real_ones() {
        let folder = tempfile::tempdir().unwrap();
        made::mnist(folder.path(), "t10k", 10_000);
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("checksum") && error.contains("t10k-images"), "{error}");
    }

    #[test]
    fn missing_files_are_named_with_where_to_get_them() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("t10k-images-idx3-ubyte") && error.contains("https://"), "{error}");
    }
}
