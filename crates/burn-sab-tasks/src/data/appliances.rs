//! ACSF1: the power that household appliances draw, from two files in the format `.ts` of aeon.

use std::path::Path;

use super::DataError;
use super::file::{Contents, read_if_there};
use super::series::{Item, Series};
use crate::task::{APPLIANCE_STEPS, CLASSES};

const TRAIN: &str = "ACSF1_TRAIN.ts";
const TEST: &str = "ACSF1_TEST.ts";
const WHERE: &str = "https://timeseriesclassification.com/description.php?Dataset=ACSF1 (or aeon's datasets/data/ACSF1)";

/// Of the series for training, the last of every so many chooses the best network. The file has ten series of a class
/// after each other, so that these are two of each class.
const EVERY: usize = 5;

/// Reads both files, as they are or as .gz, from `folder`.
pub(super) fn load(folder: &Path) -> Result<Series, DataError> {
    let part = |name: &str| {
        let file = read_if_there(folder, name)?.ok_or_else(|| DataError::Missing {
            folder: folder.to_owned(),
            what: format!("{name} ({TRAIN} and {TEST}, as they are or as .gz)"),
            from: WHERE,
        })?;
        series(&file)
    };
    Ok(split(part(TRAIN)?, part(TEST)?))
}

pub(super) fn split(train: Vec<Item>, test: Vec<Item>) -> Series {
    let is_held_out = |place: usize| place % EVERY == EVERY - 1;
    let (validation, training): (Vec<_>, Vec<_>) =
        train.into_iter().enumerate().partition(|(place, _)| is_held_out(*place));
    let [training, validation] = [training, validation]
        .map(|part| part.into_iter().map(|(_, item)| item).collect::<Vec<_>>());
    let origin = format!(
        "power of appliances, {} / {} / {} series for training / validation (every fifth of the training file) / test, \
         each with mean 0 and standard deviation 1",
        training.len(),
        validation.len(),
        test.len()
    );
    Series::of_parts(origin, [training, validation, test])
}

/// The series of a file: lines of `#` are comments, those of `@` say what comes, and after `@data` a line is the values
/// of a series with commas between them, a colon, and the series' class.
pub(super) fn series(file: &Contents) -> Result<Vec<Item>, DataError> {
    let text = std::str::from_utf8(&file.bytes)
        .map_err(|_| file.wrong("it is no text: it is damaged, or another format"))?;
    let mut lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
    let mut classes: Option<Vec<&str>> = None;
    loop {
        let Some((_, line)) = lines.next() else {
            return Err(file.wrong("it has no line @data: it is cut off, or not in the format .ts"));
        };
        let mut words = line.split_whitespace();
        match words.next().map(str::to_ascii_lowercase).as_deref() {
            Some("@data") => break,
            Some("@classlabel") => classes = Some(words.skip(1).collect()),
            _ => {}
        }
    }
    let classes = classes.unwrap_or_default();
    if classes.len() != CLASSES {
        return Err(file.wrong(format!(
            "its line @classLabel names {} classes, but appliances are of {CLASSES}",
            classes.len()
        )));
    }
    let mut items = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let wrong = |what: String| file.wrong(format!("line {number}: {what}"));
        let Some((values, class)) = line.rsplit_once(':') else {
            return Err(wrong("there is no class after a colon: it is cut off".to_owned()));
        };
        let Some(label) = classes.iter().position(|name| *name == class.trim()) else {
            let class: String = class.chars().take(20).collect();
            return Err(wrong(format!("the class {class} is not in the line @classLabel")));
        };
        let value = |text: &str| {
            let value = text.trim().parse::<f64>().ok().filter(|value| value.is_finite());
            value.ok_or_else(|| {
                let text: String = text.chars().take(20).collect();
                wrong(format!("the value {text} is no finite number"))
            })
        };
        let values: Vec<f64> = values.split(',').map(value).collect::<Result<_, _>>()?;
        if values.len() != APPLIANCE_STEPS {
            let count = values.len();
            return Err(wrong(format!("it has {count} values, but series have {APPLIANCE_STEPS}")));
        }
        items.push(Item { values: normalized(&values), label: label as u8 });
    }
    match items.len() < EVERY {
        true => Err(file.wrong(format!("it has {} series: there should be 100", items.len()))),
        false => Ok(items),
    }
}

/// With mean 0 and standard deviation 1, as is usual for this data; zeros where all values are equal.
fn normalized(values: &[f64]) -> Vec<f32> {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    let scale = if variance > 0.0 { variance.sqrt().recip() } else { 0.0 };
    values.iter().map(|value| ((value - mean) * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::super::made;
    use super::*;
    use crate::stream::Purpose;
    use rstest::rstest;
    use std::fs;

    #[test]
    fn every_fifth_series_is_held_out() {
        let folder = tempfile::tempdir().unwrap();
        made::appliances(folder.path(), 20);
        let series = load(folder.path()).unwrap();
        assert_eq!(series.of(Purpose::Training), 0..16);
        assert_eq!(series.of(Purpose::Validation), 16..20);
        assert_eq!(series.of(Purpose::Test), 20..40);
        let labels: Vec<u8> = series.items[..20].iter().map(|item| item.label).collect();
        // Made series n has class n mod 10.
        assert_eq!(labels[..5], [0, 1, 2, 3, 5]);
        assert_eq!(labels[16..], [4, 9, 4, 9]);
        for item in &series.items {
            let sum = |power| item.values.iter().map(|x| x.powi(power)).sum::<f32>();
            assert!(sum(1).abs() < 1e-2 && (sum(2) / APPLIANCE_STEPS as f32 - 1.0).abs() < 1e-4);
        }
    }

    #[test]
    fn the_series_of_sab_data_dir_are_ten_of_each_class() {
        let Some(folder) = std::env::var_os("SAB_DATA_DIR") else { return };
        let folder = Path::new(&folder).join("acsf1");
        if !folder.is_dir() {
            return;
        }
        let series = load(&folder).unwrap();
        let parts = [Purpose::Training, Purpose::Validation, Purpose::Test];
        for (purpose, each) in parts.into_iter().zip([8, 2, 10]) {
            let items = &series.items[series.of(purpose)];
            for class in 0..CLASSES as u8 {
                assert_eq!(items.iter().filter(|item| item.label == class).count(), each);
            }
        }
    }

    #[rstest]
    #[case("@data", "@date", "no line @data")]
    #[case("@classLabel true 0 1", "@classLabel true 0", "names 9 classes")]
    #[case(":3", "", "no class")]
    #[case(":3", ":12", "the class 12")]
    #[case(",1.5,", ",?,", "the value ? is no finite number")]
    #[case(",1.5,", ",NaN,", "the value NaN")]
    #[case(",1.5,", ",", "it has 1459 values")]
    fn a_broken_file_is_named(#[case] from: &str, #[case] to: &str, #[case] what: &str) {
        let folder = tempfile::tempdir().unwrap();
        made::appliances(folder.path(), 20);
        let path = folder.path().join(TEST);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        let told = load(folder.path()).unwrap_err().to_string();
        assert!(told.contains(TEST) && told.contains(what), "{told}");
    }

    #[test]
    fn missing_damaged_and_short_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = || load(folder.path()).unwrap_err().to_string();
        assert!(error().contains(TRAIN) && error().contains("https://"));
        made::appliances(folder.path(), 20);
        fs::remove_file(folder.path().join(TEST)).unwrap();
        assert!(error().contains(&format!("no {TEST}")));
        fs::write(folder.path().join(TEST), [0xff, 0xfe, 0]).unwrap();
        assert!(error().contains("no text"));
        made::appliances(folder.path(), 3);
        assert!(error().contains("it has 3 series"));
    }
}
