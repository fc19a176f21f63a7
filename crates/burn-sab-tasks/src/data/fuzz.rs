//! Entries for fuzzing: one function for each format of a data file. Each reads the bytes of a file as
//! [`Examples::load`](super::Examples::load) does, and then makes sequences of what was read. None may panic,
//! whatever the bytes are. The book, chapter "Fuzzing and soak", says what else must hold.

use std::path::Path;

use super::cifar::Records;
use super::file::{Contents, unpacked};
use super::images::Images;
use super::text::Text;
use super::{DataError, appliances, digits, mnist};
use crate::stream::{DataStream, Purpose};

/// Most images that are made up for a file of labels.
const MOST_IMAGES: usize = 64;

/// Images of MNIST whose labels are made up, or labels whose images are.
///
/// # Errors
///
/// What [`Examples::load`](super::Examples::load) says about such a file.
pub fn idx(bytes: &[u8]) -> Result<(), DataError> {
    let file = contents(bytes)?;
    let (shape, _) = mnist::idx(&file)?;
    let count = shape.first().copied().unwrap_or(0);
    let others = |shape: &[usize]| {
        let mut bytes = mnist::head(shape);
        bytes.resize(bytes.len() + shape.iter().product::<usize>(), 0);
        contents(&bytes)
    };
    let part = match shape.len() {
        // Not so many images as a file claims labels: an image is 784 bytes, and a label one.
        1 => mnist::TEST.part(&others(&[count.min(MOST_IMAGES), 28, 28])?, &file)?,
        // No more labels than pixels, where images have none.
        _ => mnist::TEST.part(&file, &others(&[count.min(bytes.len())])?)?,
    };
    sequences(&mnist::split(part, None));
    Ok(())
}

/// One of CIFAR-10's files.
///
/// # Errors
///
/// As [`idx`].
pub fn cifar(bytes: &[u8]) -> Result<(), DataError> {
    let mut records = Records { values: vec![], labels: vec![], full: true };
    records.add(&contents(bytes)?)?;
    let trained = records.labels.len();
    sequences(&records.split(trained));
    Ok(())
}

/// A text, packed or not.
///
/// # Errors
///
/// As [`idx`].
pub fn text(bytes: &[u8]) -> Result<(), DataError> {
    let text = Text::of_one(contents(bytes)?)?;
    let steps = 1 + bytes.len() % 40;
    let mut stream = DataStream::new(1, Purpose::Training);
    let part = text.of(Purpose::Training).len();
    if part > steps {
        text.sequences(&text.draw(&mut stream, 4, steps), steps);
    }
    for purpose in [Purpose::Validation, Purpose::Test] {
        let windows = text.windows(purpose, steps);
        text.sequences(&windows[..windows.len().min(4)], steps);
    }
    Ok(())
}

/// A recording as a WAV file.
///
/// # Errors
///
/// As [`idx`].
pub fn wav(bytes: &[u8]) -> Result<(), DataError> {
    digits::samples(&contents(bytes)?).map(drop)
}

/// A file in the format `.ts`, as that for training and as that for the test.
///
/// # Errors
///
/// As [`idx`].
pub fn ts(bytes: &[u8]) -> Result<(), DataError> {
    let items = appliances::series(&contents(bytes)?)?;
    let series = appliances::split(items.clone(), items);
    for purpose in [Purpose::Training, Purpose::Validation, Purpose::Test] {
        let first: Vec<usize> = series.of(purpose).take(1).collect();
        series.sequences(&first, usize::MAX, 1);
    }
    Ok(())
}

/// A file that is packed, or any other; its contents.
///
/// # Errors
///
/// As [`idx`].
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>, DataError> {
    Ok(contents(bytes)?.bytes)
}

fn contents(bytes: &[u8]) -> Result<Contents, DataError> {
    unpacked(Path::new("fuzzed"), bytes.to_vec())
}

/// One image of each part.
fn sequences(images: &Images) {
    let order = images.order(true);
    for purpose in [Purpose::Training, Purpose::Validation, Purpose::Test] {
        let first: Vec<usize> = images.of(purpose).take(1).collect();
        images.sequences(&first, &order);
    }
}
