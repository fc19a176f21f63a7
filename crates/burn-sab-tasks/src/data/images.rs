//! Labelled images as sequences of pixels, and how they are split.

use std::ops::Range;

use crate::stream::{DataStream, Purpose};

/// Labelled images, all of one size.
#[derive(Debug)]
pub struct Images {
    /// What they are, for reports: which files, and how many images.
    pub origin: String,
    /// `[image, pixel, channel]`
    pub(super) values: Vec<u8>,
    pub(super) labels: Vec<u8>,
    /// Pixels of an image, which are its steps.
    pub(super) pixels: usize,
    /// Values of a pixel.
    pub(super) channels: usize,
    /// Images before this one are for training.
    pub(super) training: usize,
    /// Images before this one, and after those for training, choose the best network; the rest are for
    /// the test.
    pub(super) validation: usize,
}

/// The permutation is the same for all runs, whatever their seed: another one is another task.
const PERMUTATION_SEED: u64 = 0;

impl Images {
    /// The images that are there for `purpose`.
    pub(super) fn of(&self, purpose: Purpose) -> Range<usize> {
        match purpose {
            Purpose::Training => 0..self.training,
            Purpose::Curriculum | Purpose::Validation => self.training..self.validation,
            Purpose::Test | Purpose::Permutation => self.validation..self.labels.len(),
        }
    }

    /// Pixels in the order of their numbers, or in one that was drawn once and for all.
    pub(super) fn order(&self, permuted: bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.pixels).collect();
        if permuted {
            // Fisher and Yates.
            let mut stream = DataStream::new(PERMUTATION_SEED, Purpose::Permutation);
            for last in (1..order.len()).rev() {
                order.swap(last, stream.below(last + 1));
            }
        }
        order
    }

    /// Sequences `[image, pixel, channel]` of values in `[0, 1]`, flat, and the labels.
    pub(super) fn sequences(&self, images: &[usize], order: &[usize]) -> (Vec<f32>, Vec<i64>) {
        let size = self.pixels * self.channels;
        let mut values = Vec::with_capacity(images.len() * size);
        for &image in images {
            let image = &self.values[image * size..][..size];
            for &pixel in order {
                let pixel = &image[pixel * self.channels..][..self.channels];
                values.extend(pixel.iter().map(|&value| f32::from(value) / 255.0));
            }
        }
        (values, images.iter().map(|&image| i64::from(self.labels[image])).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_images() -> Images {
        Images {
            origin: String::new(),
            values: vec![0, 51, 102, 153, 204, 255, 0, 0, 0, 0, 0, 255],
            labels: vec![3, 7],
            pixels: 3,
            channels: 2,
            training: 1,
            validation: 1,
        }
    }

    #[test]
    fn pixels_are_steps_and_channels_features() {
        let images = two_images();
        let (values, labels) = images.sequences(&[1, 0], &[2, 0, 1]);
        assert_eq!(labels, [7, 3]);
        let expected = [0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.8, 1.0, 0.0, 0.2, 0.4, 0.6];
        assert_eq!(values.len(), expected.len());
        assert!(values.iter().zip(expected).all(|(got, want)| (got - want).abs() < 1e-6));
    }

    #[test]
    fn a_permutation_has_every_pixel_once_and_is_always_the_same() {
        let images = Images { pixels: 784, ..two_images() };
        let order = images.order(true);
        assert_eq!(order, images.order(true));
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, images.order(false));
        let moved = order.iter().enumerate().filter(|(place, pixel)| place != *pixel).count();
        assert!(moved > 770, "{moved}");
    }

    #[test]
    fn the_parts_of_a_split_do_not_overlap() {
        let images = two_images();
        assert_eq!(images.of(Purpose::Training), 0..1);
        assert_eq!(images.of(Purpose::Validation), 1..1);
        assert_eq!(images.of(Purpose::Test), 1..2);
    }
}
