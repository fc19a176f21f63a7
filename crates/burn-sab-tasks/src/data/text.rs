//! Text as sequences of characters.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::DataError;
use super::file::{Contents, read, read_if_there};
use crate::stream::{DataStream, Purpose};

/// A text, and how it is split.
#[derive(Debug)]
pub struct Text {
    /// What it is, for reports.
    pub origin: String,
    /// Each byte of the text as its place among the bytes that occur.
    symbols: Vec<u8>,
    /// The bytes that occur, in their order.
    pub(crate) alphabet: Vec<u8>,
    training: usize,
    validation: usize,
}

/// The files of the Penn Treebank in Mikolov's version, and their names for characters.
const PARTS: [[&str; 3]; 2] = [
    ["ptb.char.train.txt", "ptb.char.valid.txt", "ptb.char.test.txt"],
    ["ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"],
];

/// 100,000,000 letters and blanks; the checksum is that on its publisher's page.
const TEXT8: (&str, usize, &str) = ("text8", 100_000_000, "3bea1919949baf155f99411df5fada7e");

const WHERE: &str = "http://mattmahoney.net/dc/text8.zip (text8), \
                     http://www.fit.vutbr.cz/~imikolov/rnnlm/simple-examples.tgz (Penn Treebank)";

/// Of a text in one file, nine tenths are for training, a twentieth chooses the best network, and a
/// twentieth is the test, as is usual for text8.
const TWENTIETH: usize = 20;

/// Reads a text file, or the Penn Treebank or text8 from a folder.
pub(super) fn read_text(path: &Path) -> Result<Text, DataError> {
    if path.is_file() {
        return Text::of_one(read(path)?);
    }
    for names in PARTS {
        let mut parts = Vec::new();
        for name in names {
            parts.extend(read_if_there(path, name)?.map(without_separators));
        }
        if let Ok([training, validation, test]) = <[Contents; 3]>::try_from(parts) {
            return Text::of_three(training, validation, test);
        }
    }
    if let Some(file) = read_if_there(path, TEXT8.0)? {
        return Text::of_one(file);
    }
    Err(DataError::Missing {
        folder: path.to_owned(),
        what: format!("{}, or {}; any text file can be named, too", PARTS[0].join(", "), TEXT8.0),
        from: WHERE,
    })
}

/// The text of a file of the Penn Treebank. Those of characters have a blank between two symbols, and `_` in the place
/// of a blank; the files of words have no `_`.
fn without_separators(mut file: Contents) -> Contents {
    if file.bytes.contains(&b'_') {
        file.bytes.retain(|byte| *byte != b' ');
    }
    file
}

impl Text {
    pub(super) fn of_one(file: Contents) -> Result<Self, DataError> {
        let (name, size, checksum) = TEXT8;
        let named_text8 = file.path.file_stem().is_some_and(|stem| stem == name);
        if named_text8 && file.bytes.len() == size && !file.has_checksum(checksum) {
            return Err(file.wrong(format!(
                "its MD5 checksum is not {checksum}: it is damaged; get it again from {WHERE}"
            )));
        }
        let twentieth = file.bytes.len() / TWENTIETH;
        let training = file.bytes.len() - 2 * twentieth;
        Self::new(file.path, &file.bytes, training, training + twentieth)
    }

    fn of_three(
        training: Contents,
        validation: Contents,
        test: Contents,
    ) -> Result<Self, DataError> {
        let ends = (training.bytes.len(), training.bytes.len() + validation.bytes.len());
        let all = [training.bytes, validation.bytes, test.bytes].concat();
        Self::new(training.path, &all, ends.0, ends.1)
    }

    fn new(
        path: PathBuf,
        bytes: &[u8],
        training: usize,
        validation: usize,
    ) -> Result<Self, DataError> {
        let mut occurs = [false; 256];
        for byte in bytes {
            occurs[usize::from(*byte)] = true;
        }
        let alphabet: Vec<u8> = (0..=u8::MAX).filter(|byte| occurs[usize::from(*byte)]).collect();
        let mut places = [None; 256];
        // All 256 bytes may occur.
        for (byte, place) in alphabet.iter().zip(0..=u8::MAX) {
            places[usize::from(*byte)] = Some(place);
        }
        if alphabet.len() < 2 {
            let what = "a text needs at least two different characters".to_owned();
            return Err(DataError::Wrong { path, what });
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        Ok(Self {
            origin: format!(
                "{}, {training} / {} / {} bytes for training / validation / test, {} different ones",
                name.unwrap_or_default(),
                validation - training,
                bytes.len() - validation,
                alphabet.len()
            ),
            symbols: bytes.iter().filter_map(|byte| places[usize::from(*byte)]).collect(),
            alphabet,
            training,
            validation,
        })
    }

    /// The part of the text that is there for `purpose`.
    pub(super) fn of(&self, purpose: Purpose) -> Range<usize> {
        match purpose {
            Purpose::Training => 0..self.training,
            Purpose::Curriculum | Purpose::Validation => self.training..self.validation,
            Purpose::Test | Purpose::Permutation => self.validation..self.symbols.len(),
        }
    }

    /// Where training windows begin, drawn at random. A window has one character more than steps.
    pub(super) fn draw(&self, stream: &mut DataStream, rows: usize, steps: usize) -> Vec<usize> {
        let last = self.of(Purpose::Training).len().saturating_sub(steps);
        (0..rows).map(|_| stream.below(last.max(1))).collect()
    }

    /// Where the windows of a part begin that follow each other without a gap.
    pub(super) fn windows(&self, purpose: Purpose, steps: usize) -> Vec<usize> {
        let part = self.of(purpose);
        let count = part.len().saturating_sub(1) / steps;
        (0..count).map(|window| part.start + window * steps).collect()
    }

    /// The character with this place among those that occur, in words.
    pub(super) fn in_words(&self, place: usize) -> String {
        match self.alphabet[place] {
            byte if byte.is_ascii() => format!("character {:?}", char::from(byte)),
            byte => format!("byte {byte}"),
        }
    }

    /// One-hot inputs `[window, steps, alphabet]`, flat, and the characters that follow them.
    pub(super) fn sequences(&self, starts: &[usize], steps: usize) -> (Vec<f32>, Vec<i64>) {
        let features = self.alphabet.len();
        let mut input = vec![0.0; starts.len() * steps * features];
        let mut following = Vec::with_capacity(starts.len() * steps);
        for (row, &start) in input.chunks_exact_mut(steps * features).zip(starts) {
            let window = &self.symbols[start..][..=steps];
            for (one_hot, pair) in row.chunks_exact_mut(features).zip(window.windows(2)) {
                one_hot[usize::from(pair[0])] = 1.0;
                following.push(i64::from(pair[1]));
            }
        }
        (input, following)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn text(contents: &str) -> Text {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, contents).unwrap();
        read_text(&path).unwrap()
    }

    #[test]
    fn each_character_is_followed_by_the_next() {
        let text = text(&"abcad".repeat(20));
        assert_eq!(text.alphabet, b"abcd");
        let (input, following) = text.sequences(&[0, 3], 3);
        let shown: Vec<usize> = input
            .chunks(4)
            .map(|one_hot| {
                assert_eq!(one_hot.iter().sum::<f32>(), 1.0);
                one_hot.iter().position(|x| *x == 1.0).unwrap()
            })
            .collect();
        assert_eq!(shown, [0, 1, 2, 0, 3, 0]);
        assert_eq!(following, [1, 2, 0, 3, 0, 1]);
    }

    #[test]
    fn windows_lie_in_their_part_side_by_side() {
        let text = text(&"abcad".repeat(40));
        assert_eq!(text.of(Purpose::Training), 0..180);
        assert_eq!(text.windows(Purpose::Test, 4), [190, 194]);
        let mut stream = DataStream::new(1, Purpose::Training);
        let drawn = text.draw(&mut stream, 1000, 30);
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&0), Some(&149)));
        text.sequences(&[149], 30);
        assert!(text.windows(Purpose::Test, 10).is_empty());
    }

    #[test]
    fn three_files_are_three_parts() {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in PARTS[1].iter().zip(["aabb", "ab", "bba"]) {
            fs::write(folder.path().join(name), contents).unwrap();
        }
        let text = read_text(folder.path()).unwrap();
        assert_eq!(text.of(Purpose::Validation), 4..6);
        assert_eq!(text.of(Purpose::Test), 6..9);
    }

    #[test]
    fn blanks_between_the_symbols_of_the_penn_treebank_are_no_symbols() {
        let folder = tempfile::tempdir().unwrap();
        for (name, contents) in PARTS[0].iter().zip([" a _ b b \n", " b _ a \n", " a a _ \n"]) {
            fs::write(folder.path().join(name), contents).unwrap();
        }
        let text = read_text(folder.path()).unwrap();
        assert_eq!(text.alphabet, b"\n_ab");
        assert_eq!(text.of(Purpose::Training), 0..5);
        assert_eq!(text.of(Purpose::Test), 9..13);
    }

    /// As many symbols as the book of the data says, where SAB_DATA_DIR has the Penn Treebank.
    #[test]
    fn the_penn_treebank_of_sab_data_dir_has_fifty_symbols() {
        let Some(folder) = std::env::var_os("SAB_DATA_DIR") else { return };
        let folder = Path::new(&folder).join("ptb");
        if !folder.is_dir() {
            return;
        }
        let text = read_text(&folder).unwrap();
        assert_eq!(text.alphabet.len(), 50);
        let parts = [Purpose::Training, Purpose::Validation, Purpose::Test];
        assert_eq!(parts.map(|part| text.of(part).len()), [5_017_482, 393_042, 442_423]);
    }

    #[test]
    fn broken_and_missing_texts_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = read_text(folder.path()).unwrap_err().to_string();
        assert!(error.contains("ptb.char.train.txt") && error.contains("text8"), "{error}");
        fs::write(folder.path().join("text8"), "aaaa").unwrap();
        let error = read_text(folder.path()).unwrap_err().to_string();
        assert!(error.contains("two different"), "{error}");
    }
}
