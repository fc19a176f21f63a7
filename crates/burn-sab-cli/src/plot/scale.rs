//! The upright axis on which a task's metric is drawn.

use burn_sab_tasks::{Metrics, Task};

/// The upright axis of a task's metric.
pub struct Scale {
    pub bottom: f64,
    pub top: f64,
    pub label: &'static str,
    /// Where chance is; it may be above the top.
    pub nothing: f64,
    /// Whether heights are powers of ten.
    powers: bool,
}

impl Scale {
    /// The axis on which these heights fit.
    pub fn of(task: &Task, heights: impl Iterator<Item = f64> + Clone) -> Self {
        let heights = || heights.clone();
        match task {
            Task::Text { characters } => {
                let nothing = (*characters as f64).log2();
                let label = "bits per character";
                // Between 0 and chance, the curves would lie on each other.
                let bottom = heights().fold(nothing, f64::min).floor();
                let top = heights().reduce(f64::max).map_or(f64::INFINITY, f64::ceil);
                Self { bottom, top: top.min(1.02 * nothing), label, nothing, powers: false }
            }
            Task::Adding => {
                let nothing = (1.0f64 / 6.0).log10();
                Self {
                    bottom: heights().fold(nothing, f64::min).floor(),
                    top: heights().fold(nothing, f64::max).ceil(),
                    label: "mean squared error",
                    nothing,
                    powers: true,
                }
            }
            _ => Self {
                bottom: 0.0,
                top: 102.0,
                label: "accuracy (%)",
                nothing: 100.0 / task.d_output() as f64,
                powers: false,
            },
        }
    }

    /// Where metrics stand on the axis: per cent, bits, or the power of ten of a mean squared error, which
    /// falls from one to the ten-thousandth part of it.
    pub fn height(metrics: &Metrics) -> f64 {
        match metrics {
            Metrics::Classes { accuracy, .. } => 100.0 * accuracy,
            Metrics::Text { bits_per_character, .. } => *bits_per_character,
            Metrics::Adding { mse } => mse.log10(),
        }
    }

    /// What is written beside this height; nothing between two powers of ten.
    pub fn written(&self, height: f64) -> String {
        match self.powers {
            true if (height - height.round()).abs() > 1e-6 => String::new(),
            true => format!("1e{:.0}", height.round()),
            // What is left of 3.6 after sums of tenths.
            false => format!("{}", (100.0 * height).round() / 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter::empty;

    #[test]
    fn errors_are_drawn_by_their_power_of_ten() {
        let heights = [42.0, 0.003].map(|mse| Scale::height(&Metrics::Adding { mse }));
        let scale = Scale::of(&Task::Adding, heights.into_iter());
        assert_eq!((scale.bottom, scale.top), (-3.0, 2.0));
        let written = [-3.0, -2.5, 0.0].map(|height| scale.written(height));
        assert_eq!(written, ["1e-3", "", "1e0"]);
        let percent = Scale::of(&Task::copying(), empty());
        assert_eq!([20.0, 3.5999999999999996].map(|height| percent.written(height)), ["20", "3.6"]);
    }

    #[test]
    fn the_axis_of_a_text_goes_as_far_as_the_curves() {
        let text = Task::Text { characters: 64 };
        let scale = Scale::of(&text, [3.2, 2.1].into_iter());
        assert_eq!((scale.bottom, scale.top, scale.nothing), (2.0, 4.0, 6.0));
        assert_eq!(Scale::of(&text, empty()).top, 1.02 * 6.0);
    }
}
