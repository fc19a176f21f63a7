use std::fs;
use std::io::{self, Write};
use std::panic;
use std::path::Path;

use burn_dataset::Dataset;
use burn_dataset::vision::MnistDataset;

use super::DataError;
use super::mnist::{self, Names};
use crate::task::MNIST_SIDE;

/// Puts the four files of MNIST into `folder`, where [`Task::PixelMnist`](crate::Task::PixelMnist) finds
/// them, and says what they hold. Burn's own data sets (burn-dataset) download them, or have them in their
/// cache from an earlier time.
///
/// # Errors
///
/// If they cannot be downloaded, written, or used.
pub fn download_mnist(folder: &Path) -> Result<String, DataError> {
    part(MnistDataset::train, &mnist::TRAIN, folder)?;
    part(MnistDataset::test, &mnist::TEST, folder)?;
    Ok(mnist::read(folder)?.origin)
}

fn part(dataset: fn() -> MnistDataset, names: &Names, folder: &Path) -> Result<(), DataError> {
    // burn-dataset has no errors: it panics.
    let dataset = panic::catch_unwind(dataset).map_err(|panic| DataError::NotDownloaded {
        folder: folder.to_owned(),
        why: panic
            .downcast_ref::<String>()
            .map_or("no reason was given", String::as_str)
            .to_owned(),
        from: mnist::WHERE,
    })?;
    write(&dataset, names, folder)
        .map_err(|source| DataError::Io { path: folder.to_owned(), source })
}

/// Writes images and labels in the IDX format.
fn write(dataset: &MnistDataset, names: &Names, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let count = dataset.len();
    let (mut images, mut labels) =
        (mnist::head(&[count, MNIST_SIDE, MNIST_SIDE]), mnist::head(&[count]));
    for item in dataset.iter() {
        let item = item.map_err(io::Error::other)?;
        images.extend(item.image.as_flattened().iter().map(|pixel| *pixel as u8));
        labels.push(item.label);
    }
    for (name, bytes) in [(names.images.0, images), (names.labels.0, labels)] {
        // Under another name first: what has the right one is whole.
        let unfinished = folder.join(format!("{name}.part"));
        let mut file = fs::File::create(&unfinished)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&unfinished, folder.join(name))?;
    }
    Ok(())
}
