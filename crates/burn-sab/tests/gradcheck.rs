//! Gradients against central differences in f64, where the selection does not switch: the one check that no
//! implementation of ours takes part in twice.

mod common;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{DType, Tensor, TensorData};
use burn_sab::{SabLstm, SabLstmConfig, ScoreConfig, Sparsifier, Strategy};
use common::{Setup, cpu, setup};

/// Step of the difference: the error of a central difference is about `h^2` and rounding about `1e-16 / h`.
const STEP: f64 = 1e-5;

/// Adds `by` to one number of the module's parameters, counted through all of them.
struct Nudge {
    at: usize,
    by: f64,
}

impl ModuleMapper for Nudge {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (data, device) = (param.val().to_data(), param.device());
        let mut values: Vec<f64> = data.iter::<f64>().collect();
        if let Some(value) = values.get_mut(self.at) {
            *value += self.by;
            self.at = usize::MAX;
        } else {
            self.at = self.at.saturating_sub(values.len());
        }
        Param::from_tensor(Tensor::from_data(
            TensorData::new(values, data.shape()),
            (&device, DType::F64),
        ))
    }
}

fn loss(layer: &SabLstm, setup: &Setup) -> (f64, Vec<i64>) {
    let output = layer.forward_with_reminders(setup.x.clone(), Some(setup.state.clone()));
    let loss = setup.loss(&output);
    (loss.into_scalar::<f64>(), output.slots.to_data().iter::<i64>().collect())
}

/// Full gradient (no truncation, no limit on hops) of every parameter.
#[rstest::rstest]
fn parameters(
    #[values(ScoreConfig::Additive, ScoreConfig::Mlp { d_attention: 3 }, ScoreConfig::Dot { d_attention: 3 })]
    score: ScoreConfig,
    #[values(Sparsifier::Threshold, Sparsifier::Released, Sparsifier::Softmax)]
    sparsifier: Sparsifier,
    #[values(Strategy::Reference, Strategy::Primitives, Strategy::Auto)] strategy: Strategy,
    #[values(false, true)] learned_gain: bool,
) {
    let config = SabLstmConfig::new(2, 3, true)
        .with_k_top(2)
        .with_k_att(2)
        .with_score(score)
        .with_sparsifier(sparsifier)
        .with_strategy(strategy)
        .with_learned_gain(learned_gain)
        .full_backpropagation();
    let setup = setup(&config, 2, 9, 11, DType::F64, &cpu());
    let (_, gradients) = setup.run();
    let gradients: Vec<f64> = gradients
        .into_iter()
        .take_while(|(name, _)| name != "x")
        .flat_map(|(_, values)| values)
        .collect();
    let (_, selection) = loss(&setup.layer, &setup);
    let mut compared = 0;
    for (at, gradient) in gradients.iter().enumerate() {
        let nudged = |by| loss(&setup.layer.clone().map(&mut Nudge { at, by }), &setup);
        let ((above, slots_above), (below, slots_below)) = (nudged(STEP), nudged(-STEP));
        if slots_above != selection || slots_below != selection {
            continue;
        }
        let difference = (above - below) / (2.0 * STEP);
        let error = (difference - gradient).abs() / gradient.abs().max(1.0);
        assert!(error < 1e-5, "parameter {at}: {gradient}, by difference {difference}");
        compared += 1;
    }
    assert!(
        compared * 10 > gradients.len() * 9,
        "only {compared} of {} could be compared",
        gradients.len()
    );
}
