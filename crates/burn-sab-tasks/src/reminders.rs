//! Which moment reminded which.

use burn::tensor::Device;
use burn_sab::{InitialSlot, SabLstmConfig};
use serde::{Deserialize, Serialize};

use crate::data::Examples;
use crate::model::TaskModel;
use crate::stream::{DataStream, Purpose};

/// When a slot was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// Before the first step: the initial hidden state.
    Initial,
    /// After this step (counted from 0).
    Step(usize),
}

/// At step `step`, the slot stored at `moment` was retrieved with this weight.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reminder {
    /// The step that was reminded, counted from 0.
    pub step: usize,
    /// The moment it was reminded of.
    pub moment: Moment,
    /// The sparse attention weight, not 0.
    pub weight: f32,
}

impl Moment {
    /// The moment at which a layer with these settings stored its `slot`-th slot (counted from 0).
    pub fn of_slot(slot: usize, layer: &SabLstmConfig) -> Self {
        let initial = usize::from(layer.settings.initial_slot == InitialSlot::Hidden);
        match slot.checked_sub(initial) {
            None => Self::Initial,
            Some(stored) => Self::Step((stored + 1) * layer.settings.k_att - 1),
        }
    }
}

/// The reminders of a sequence, and the sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Reminded {
    /// In the order of the steps.
    pub reminders: Vec<Reminder>,
    /// The input of each step in words; see [`Examples::input_in_words`].
    pub inputs: Vec<String>,
}

/// The reminders of the first test sequence with this span; none of a network without a recurrent layer.
///
/// `layer` is the configuration that `model` was made with.
pub fn reminders(
    model: &TaskModel,
    layer: &SabLstmConfig,
    examples: &Examples,
    span: usize,
    seed: u64,
    device: &Device,
) -> Reminded {
    let mut stream = DataStream::of_span(seed, Purpose::Test, span);
    let batch = examples.held_out_batch(Purpose::Test, &mut stream, span, &[0], device);
    let [_, _, d_input] = batch.input.dims();
    let values = batch.input.clone().into_data().iter::<f32>().collect::<Vec<_>>();
    let inputs = values.chunks(d_input).map(|step| examples.input_in_words(step)).collect();
    let Some(recurrent) = model.layer() else {
        return Reminded { reminders: Vec::new(), inputs };
    };
    let output = recurrent.forward_with_reminders(batch.input, None);
    let [_, _, per_step] = output.weights.dims();
    let weights = output.weights.into_data().iter::<f32>().collect::<Vec<_>>();
    let slots = output.slots.into_data().iter::<i64>().collect::<Vec<_>>();
    let reminders = weights
        .into_iter()
        .zip(slots)
        .enumerate()
        .filter(|(_, (weight, _))| *weight != 0.0)
        .map(|(i, (weight, slot))| Reminder {
            step: i / per_step,
            moment: Moment::of_slot(slot as usize, layer),
            weight,
        })
        .collect();
    Reminded { reminders, inputs }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TrainConfig;
    use crate::task::Task;

    #[test]
    fn slots_are_dated() {
        let layer = SabLstmConfig::new(2, 4, true).with_k_att(3);
        let with = layer.clone().with_initial_slot(InitialSlot::Hidden);
        let without = layer.with_initial_slot(InitialSlot::None);
        let dates = |layer: &SabLstmConfig| [0, 1, 2].map(|slot| Moment::of_slot(slot, layer));
        assert_eq!(dates(&with), [Moment::Initial, Moment::Step(2), Moment::Step(5)]);
        assert_eq!(dates(&without), [Moment::Step(2), Moment::Step(5), Moment::Step(8)]);
    }

    #[test]
    fn only_earlier_moments_remind_and_softmax_weights_sum_to_one() {
        let device = Device::flex();
        let mut config = TrainConfig::new(Task::Copying { symbols: 2, alphabet: 3 });
        config.layer.d_hidden = 8;
        config.layer = config.layer.with_k_top(4);
        let model = TaskModel::new(&config, &device).unwrap();
        let examples = Examples::load(config.task, None).unwrap();
        let Reminded { reminders: found, inputs } =
            reminders(&model, &config.layer, &examples, 6, 1, &device);
        let kinds: Vec<_> = inputs.iter().filter_map(|input| input.split(' ').next()).collect();
        let (shown, after) = kinds.split_at(2);
        assert_eq!(shown, ["symbol"; 2]);
        assert_eq!(after, [&["blank"; 5][..], &["marker"], &["blank"; 2]].concat());
        for step in 0..config.task.steps(6) {
            let of_step: Vec<_> = found.iter().filter(|reminder| reminder.step == step).collect();
            assert_eq!(of_step.len(), 4.min(step + 1));
            assert!(of_step.iter().all(|reminder| reminder.moment < Moment::Step(step)));
            let sum: f32 = of_step.iter().map(|reminder| reminder.weight).sum();
            assert!((sum - 1.0).abs() < 1e-5, "weights of step {step} sum to {sum}");
        }
    }
}
