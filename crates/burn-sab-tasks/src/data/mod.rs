//! Where the sequences of a task come from: a stream of random numbers, or files.

mod appliances;
mod cifar;
mod digits;
#[cfg(feature = "download")]
mod download;
mod file;
pub mod fuzz;
mod images;
#[cfg(test)]
pub(crate) mod made;
mod mnist;
mod series;
mod text;

#[cfg(feature = "download")]
pub use download::download_mnist;

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::stream::{DataStream, Purpose};
use crate::task::{Batch, Target, Task, adding, copying, induction, recall, selective, token};
pub use digits::Recording;
use images::Images;
use series::{Padded, Series};
use text::Text;

/// Why data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A task that is learnt from files was given none.
    #[error("the task {task} is learnt from files; say where they are with --data")]
    NotNamed {
        /// The task's name.
        task: &'static str,
    },
    /// Files are not there.
    #[error("{}: there is no {what}; get them from {from}", folder.display())]
    Missing {
        /// Where they were looked for.
        folder: PathBuf,
        /// Their names.
        what: String,
        /// Where they can be had.
        from: &'static str,
    },
    /// Files could not be downloaded.
    #[cfg(feature = "download")]
    #[error(
        "{}: MNIST could not be downloaded ({why}); try again, or get its four files from {from} and put them there",
        folder.display()
    )]
    NotDownloaded {
        /// Where they were to go.
        folder: PathBuf,
        /// What burn-dataset says.
        why: String,
        /// Where they can be had.
        from: &'static str,
    },
    /// A file is there, and its contents are not as they should be.
    #[error("{}: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The sequences of a task, for training and held out.
#[derive(Debug)]
pub struct Examples {
    task: Task,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Generated,
    /// With the order in which the pixels come.
    Images(Images, Vec<usize>),
    Text(Text),
    /// With the number of values that are a step.
    Series(Series, usize),
}

impl Examples {
    /// The sequences of `task`. `path` is where its files are: a folder, or a text file; tasks that are
    /// generated need none.
    ///
    /// # Errors
    ///
    /// If files are missing, cannot be read, or are not what the task needs.
    pub fn load(task: Task, path: Option<&Path>) -> Result<Self, DataError> {
        let path = || path.ok_or(DataError::NotNamed { task: task.name() });
        let source = match task {
            Task::PixelMnist { permuted } => {
                let images = mnist::read(path()?)?;
                let order = images.order(permuted);
                Source::Images(images, order)
            }
            Task::PixelCifar => {
                let images = cifar::read(path()?)?;
                let order = images.order(false);
                Source::Images(images, order)
            }
            Task::Text { characters } => {
                let text = text::read_text(path()?)?;
                if text.alphabet.len() != characters {
                    let what = format!(
                        "it has {} different bytes, and the network was made for {characters}",
                        text.alphabet.len()
                    );
                    return Err(DataError::Wrong { path: path()?.to_owned(), what });
                }
                Source::Text(text)
            }
            Task::Digits { frame } => Source::Series(digits::load(path()?)?, frame),
            Task::Appliances => Source::Series(appliances::load(path()?)?, 1),
            _ => Source::Generated,
        };
        Ok(Self { task, source })
    }

    /// How many different bytes a text has, which [`Task::Text`] has to know.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn characters(path: &Path) -> Result<usize, DataError> {
        Ok(text::read_text(path)?.alphabet.len())
    }

    /// The task.
    pub fn task(&self) -> Task {
        self.task
    }

    /// What the files hold and how they are split; `None` for generated sequences.
    pub fn origin(&self) -> Option<&str> {
        match &self.source {
            Source::Generated => None,
            Source::Images(images, _) => Some(&images.origin),
            Source::Text(text) => Some(&text.origin),
            Source::Series(series, _) => Some(&series.origin),
        }
    }

    /// How many sequences with this span there are for `purpose`; `None` for as many as one likes.
    pub fn available(&self, purpose: Purpose, span: usize) -> Option<usize> {
        match &self.source {
            Source::Generated => None,
            Source::Images(images, _) => Some(images.of(purpose).len()),
            Source::Text(text) => Some(text.windows(purpose, span).len()),
            Source::Series(series, _) => Some(series.of(purpose).len()),
        }
    }

    /// Steps of the held-out sequence at this place.
    pub fn steps(&self, purpose: Purpose, place: usize, span: usize) -> usize {
        match &self.source {
            Source::Series(series, frame) => {
                series.steps(series.of(purpose).start + place, span, *frame)
            }
            _ => self.task.steps(span),
        }
    }

    /// The places of the first `sequences` held-out sequences, or of as many as there are; the longest sequence first,
    /// so that those of similar lengths can be batches.
    pub fn places(&self, purpose: Purpose, span: usize, sequences: usize) -> Vec<usize> {
        let count = self.available(purpose, span).map_or(sequences, |all| all.min(sequences));
        let mut places: Vec<usize> = (0..count).collect();
        places.sort_by_key(|place| Reverse(self.steps(purpose, *place, span)));
        places
    }

    /// Draws `rows` sequences with this span for training, from files with replacement: a run has no
    /// epochs, so that its place is that of its stream.
    pub fn training_batch(
        &self,
        stream: &mut DataStream,
        span: usize,
        rows: usize,
        device: &Device,
    ) -> Batch {
        match &self.source {
            Source::Generated => self.generated(stream, span, rows, device),
            Source::Images(images, order) => {
                let part = images.of(Purpose::Training).len();
                let drawn: Vec<usize> = (0..rows).map(|_| stream.below(part)).collect();
                self.batch(images.sequences(&drawn, order), span, rows, device)
            }
            Source::Text(text) => {
                let drawn = text.draw(stream, rows, span);
                self.batch(text.sequences(&drawn, span), span, rows, device)
            }
            Source::Series(series, frame) => {
                let drawn = series.draw(stream, rows);
                self.padded(series.sequences(&drawn, span, *frame), device)
            }
        }
    }

    /// Held-out sequences: those at `places` of the files, or as many from the stream.
    ///
    /// # Panics
    ///
    /// Panics if there are not so many [available](Self::available).
    pub fn held_out_batch(
        &self,
        purpose: Purpose,
        stream: &mut DataStream,
        span: usize,
        places: &[usize],
        device: &Device,
    ) -> Batch {
        let rows = places.len();
        match &self.source {
            Source::Generated => self.generated(stream, span, rows, device),
            Source::Images(images, order) => {
                let first = images.of(purpose).start;
                let chosen: Vec<usize> = places.iter().map(|place| first + place).collect();
                self.batch(images.sequences(&chosen, order), span, rows, device)
            }
            Source::Text(text) => {
                let windows = text.windows(purpose, span);
                let chosen: Vec<usize> = places.iter().map(|place| windows[*place]).collect();
                self.batch(text.sequences(&chosen, span), span, rows, device)
            }
            Source::Series(series, frame) => {
                let first = series.of(purpose).start;
                let chosen: Vec<usize> = places.iter().map(|place| first + place).collect();
                self.padded(series.sequences(&chosen, span, *frame), device)
            }
        }
    }

    /// The input of a step, `[d_input]`, in words: "symbol 3", "number 0.42, marked", "character 'e'".
    ///
    /// # Panics
    ///
    /// If the step is not one of these examples.
    pub fn input_in_words(&self, step: &[f32]) -> String {
        match &self.source {
            Source::Text(text) => text.in_words(token(step)),
            _ => self.task.input_in_words(step),
        }
    }

    fn generated(
        &self,
        stream: &mut DataStream,
        span: usize,
        rows: usize,
        device: &Device,
    ) -> Batch {
        match self.task {
            Task::Copying { symbols, alphabet } => {
                let sequences = copying::sequences(stream, rows, symbols, alphabet, span);
                self.batch(sequences, span, rows, device)
            }
            Task::SelectiveCopying { symbols, alphabet, distractors } => {
                let sizes = [alphabet, distractors];
                let sequences = selective::sequences(stream, rows, symbols, sizes, span);
                self.batch(sequences, span, rows, device)
            }
            Task::MarkedSymbol { alphabet, distractors } => {
                let sizes = [alphabet, distractors];
                let sequences = selective::sequences(stream, rows, 1, sizes, span);
                self.batch(sequences, span, rows, device)
            }
            Task::Induction { vocabulary } => {
                let sequences = induction::sequences(stream, rows, vocabulary, span);
                self.batch(sequences, span, rows, device)
            }
            Task::Recall { pairs, queries, keys, values, distractors } => {
                let sizes = recall::Sizes { pairs, queries, keys, values, distractors };
                let drawn = recall::sequences(stream, rows, sizes, span);
                let tensor = |elements| {
                    Tensor::from_data(TensorData::new(elements, [rows, queries]), device)
                };
                Batch {
                    input: self.input(drawn.input, span, rows, device),
                    lengths: None,
                    target: Target::SymbolsAt {
                        symbols: tensor(drawn.values),
                        places: tensor(drawn.places),
                    },
                }
            }
            _ => {
                let (input, sums) = adding::sequences(stream, rows, span);
                let sums = Tensor::from_data(TensorData::new(sums, [rows, 1]), device);
                let input = self.input(input, span, rows, device);
                Batch { input, lengths: None, target: Target::Sums(sums) }
            }
        }
    }

    fn batch(
        &self,
        (input, symbols): (Vec<f32>, Vec<i64>),
        span: usize,
        rows: usize,
        device: &Device,
    ) -> Batch {
        let shape = [rows, self.task.answers(span)];
        let symbols = Tensor::<2, Int>::from_data(TensorData::new(symbols, shape), device);
        let input = self.input(input, span, rows, device);
        Batch { input, lengths: None, target: Target::Symbols(symbols) }
    }

    fn padded(&self, padded: Padded, device: &Device) -> Batch {
        let Padded { input, lengths, labels } = padded;
        let (rows, steps) = (lengths.len(), lengths.iter().copied().max().unwrap_or(0));
        let shape = [rows, steps, self.task.d_input()];
        Batch {
            input: Tensor::from_data(TensorData::new(input, shape), device),
            // Nothing is gained by lengths that are all the same.
            lengths: lengths.iter().any(|length| *length != steps).then_some(lengths),
            target: Target::Symbols(Tensor::from_data(TensorData::new(labels, [rows, 1]), device)),
        }
    }

    fn input(&self, values: Vec<f32>, span: usize, rows: usize, device: &Device) -> Tensor<3> {
        let shape = [rows, self.task.steps(span), self.task.d_input()];
        Tensor::from_data(TensorData::new(values, shape), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn batches_have_the_shapes_of_their_task() {
        let device = Device::flex();
        let folder = tempfile::tempdir().unwrap();
        made::mnist(folder.path(), "t10k", 100);
        made::cifar(folder.path(), 10);
        made::appliances(folder.path(), 20);
        let file = folder.path().join("some.txt");
        std::fs::write(&file, "hello ".repeat(100)).unwrap();
        let text = Task::Text { characters: 5 };
        for (task, path, span, input, answers) in [
            (Task::copying(), None, 7, [4, 27, 10], 10),
            (Task::selective_copying(), None, 7, [4, 27, 17], 10),
            (Task::marked_symbol(), None, 7, [4, 9, 13], 1),
            (Task::induction(), None, 7, [4, 7, 17], 1),
            (Task::recall(), None, 27, [4, 27, 40], 4),
            (Task::Adding, None, 7, [4, 7, 2], 1),
            (Task::PixelMnist { permuted: true }, Some(folder.path()), 784, [4, 784, 1], 1),
            (Task::PixelCifar, Some(folder.path()), 1024, [4, 1024, 3], 1),
            (text, Some(file.as_path()), 9, [4, 9, 5], 9),
            (Task::Appliances, Some(folder.path()), 1460, [4, 1460, 1], 1),
        ] {
            let examples = Examples::load(task, path).unwrap();
            assert_eq!(examples.origin().is_some(), path.is_some());
            let mut stream = DataStream::new(1, Purpose::Training);
            let training = examples.training_batch(&mut stream, span, 4, &device);
            let mut stream = DataStream::new(1, Purpose::Test);
            let held_out =
                examples.held_out_batch(Purpose::Test, &mut stream, span, &[0, 1], &device);
            assert_eq!(training.input.dims(), input, "{task:?}");
            assert_eq!(held_out.input.dims(), [2, input[1], input[2]], "{task:?}");
            let found = match training.target {
                Target::Symbols(symbols) => symbols.dims(),
                Target::SymbolsAt { symbols, places } => {
                    assert_eq!(symbols.dims(), places.dims());
                    symbols.dims()
                }
                Target::Sums(sums) => sums.dims(),
            };
            assert_eq!(found, [4, answers], "{task:?}");
        }
        assert_eq!(Examples::characters(&file).unwrap(), 5);
    }

    /// A task with the path of its files, inputs, and their words.
    type Case<'a> = (Task, Option<&'a Path>, Vec<Vec<f32>>, &'a [&'a str]);

    #[test]
    fn inputs_are_said_in_words() {
        let folder = tempfile::tempdir().unwrap();
        made::mnist(folder.path(), "t10k", 100);
        made::cifar(folder.path(), 10);
        made::appliances(folder.path(), 20);
        made::digits(folder.path(), 11);
        let file = folder.path().join("some.txt");
        std::fs::write(&file, "a\n<\u{e9}".repeat(100)).unwrap();
        let one_hot = |features: usize| {
            let step = move |token| {
                let mut step = vec![0.0; features];
                step[token] = 1.0;
                step
            };
            (0..features).map(step).collect::<Vec<_>>()
        };
        let copying = Task::Copying { symbols: 1, alphabet: 2 };
        let selective = Task::SelectiveCopying { symbols: 1, alphabet: 2, distractors: 1 };
        let recall = Task::Recall { pairs: 1, queries: 1, keys: 2, values: 1, distractors: 1 };
        let all: [Case; 11] = [
            (copying, None, one_hot(4), &["symbol 0", "symbol 1", "blank", "marker"]),
            (selective, None, one_hot(4), &["symbol 0", "symbol 1", "distractor 0", "mark"]),
            (
                Task::MarkedSymbol { alphabet: 1, distractors: 1 },
                None,
                one_hot(3),
                &["symbol 0", "distractor 0", "mark"],
            ),
            (
                Task::Induction { vocabulary: 2 },
                None,
                one_hot(3),
                &["token 0", "token 1", "special token"],
            ),
            (recall, None, one_hot(4), &["key 0", "key 1", "value 0", "distractor 0"]),
            (
                Task::Adding,
                None,
                vec![vec![0.421, 0.0], vec![0.5, 1.0]],
                &["number 0.42", "number 0.50, marked"],
            ),
            (
                Task::PixelMnist { permuted: false },
                Some(folder.path()),
                vec![vec![0.8]],
                &["pixel 0.80"],
            ),
            (
                Task::PixelCifar,
                Some(folder.path()),
                vec![vec![0.8, 0.0, 1.0]],
                &["pixel 0.80 0.00 1.00"],
            ),
            (
                Task::Digits { frame: 2 },
                Some(folder.path()),
                vec![vec![0.8, -0.1]],
                &["samples 0.80 -0.10"],
            ),
            (Task::Appliances, Some(folder.path()), vec![vec![-1.5]], &["power -1.50"]),
            (
                Task::Text { characters: 5 },
                Some(file.as_path()),
                one_hot(5),
                &["character '\\n'", "character '<'", "character 'a'", "byte 169", "byte 195"],
            ),
        ];
        for (task, path, steps, words) in all {
            let examples = Examples::load(task, path).unwrap();
            let said: Vec<_> = steps.iter().map(|step| examples.input_in_words(step)).collect();
            assert_eq!(said, words, "{task:?}");
        }
    }

    #[test]
    fn recordings_of_different_lengths_are_padded() {
        let device = Device::flex();
        let folder = tempfile::tempdir().unwrap();
        made::digits(folder.path(), 11);
        let examples = Examples::load(Task::Digits { frame: 4 }, Some(folder.path())).unwrap();
        let places = examples.places(Purpose::Test, 100, 20);
        assert_eq!(places.len(), 20);
        let steps: Vec<usize> =
            places.iter().map(|place| examples.steps(Purpose::Test, *place, 100)).collect();
        assert!(steps.is_sorted_by(|a, b| a >= b), "{steps:?}");
        // Nine lasts 130 samples, of which 100 are read.
        assert_eq!((steps[0], steps[19]), (25, made::samples_of_digit(0, 0).div_ceil(4)));
        let mut stream = DataStream::new(1, Purpose::Test);
        let batch = examples.held_out_batch(Purpose::Test, &mut stream, 100, &places, &device);
        assert_eq!(batch.input.dims(), [20, 25, 4]);
        assert_eq!(batch.lengths, Some(steps));
        let training = examples.training_batch(&mut stream, 100, 5, &device);
        let lengths = training.lengths.unwrap_or(vec![training.input.dims()[1]; 5]);
        assert_eq!(lengths.len(), 5);
        assert_eq!(lengths.iter().max(), Some(&training.input.dims()[1]));
    }

    #[rstest]
    #[case(Task::Digits { frame: 1 }, "digits")]
    #[case(Task::Appliances, "appliances")]
    #[case(Task::PixelMnist { permuted: false }, "mnist")]
    #[case(Task::PixelCifar, "cifar")]
    #[case(Task::Text { characters: 3 }, "text")]
    fn files_have_to_be_named(#[case] task: Task, #[case] name: &str) {
        let error = Examples::load(task, None).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains("--data"), "{error}");
    }

    #[test]
    fn a_text_has_to_fit_the_network() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("some.txt");
        std::fs::write(&file, "abcabc").unwrap();
        let error = Examples::load(Task::Text { characters: 4 }, Some(&file)).unwrap_err();
        assert!(error.to_string().contains("3 different bytes"), "{error}");
    }
}
