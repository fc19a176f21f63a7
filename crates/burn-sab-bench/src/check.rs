//! Whether an implementation agrees with the readable twin on a case: one that does not has no speed.

use anyhow::{Context, ensure};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Distribution, Gradients, Tensor};
use burn_sab::{SabLstm, Strategy};

use crate::args::Model;
use crate::case::{Case, Loss};
use crate::network::strategy;
use burn_sab_cli::backend::Backend;

/// Largest error that passes, relative to the largest number of the same kind; f32 rounding over some
/// hundred steps stays a hundred times below it.
const BOUND: f64 = 1e-3;
/// A gradient that is nothing but rounding, as that of a parameter that cancels, is measured against this
/// share of the largest gradient.
const NOUGHT: f64 = 1e-3;
/// Steps that the comparison takes at most, and batch rows times steps: the readable twin takes
/// milliseconds for the nodes of a step, and memory for the rest.
const MOST_STEPS: usize = 256;
const MOST_ROW_STEPS: usize = 8192;
/// Slots of which an index searches a part.
const INDEXED: usize = 120;
/// Draws among which one has no score so near a selection's boundary that f32 cannot tell.
const DRAWS: u64 = 32;

/// Compares values and all gradients of `model` with the readable twin's, on the case with fewer steps.
///
/// # Errors
///
/// If they do not agree.
pub fn check(case: &Case, model: Model) -> anyhow::Result<()> {
    let case = &shorter(case);
    let device = case.backend.device()?.autodiff();
    // A GPU would have to compile each of the twin's many small kernels, and may have no f64.
    let host = match case.backend.is_gpu() {
        true => Backend::Flex.device().map_or_else(|_| device.clone(), Device::autodiff),
        false => device.clone(),
    };
    let exact = host.supports_dtype(DType::F64);
    let Case { batch, time, .. } = case;
    for seed in 1..=DRAWS {
        let draw = Draw::new(case, seed, &host)?;
        let want = draw.run(Strategy::Reference, DType::F32, &host);
        let exactly = || draw.run(Strategy::Reference, DType::F64, &host);
        // Where rounding alone moves the twin, as it does beside a selection's boundary, nothing can be told.
        if exact && difference(&want, &exactly())? > BOUND / 10.0 {
            continue;
        }
        let got = draw.run(strategy(model, case.backend), DType::F32, &device);
        let error = difference(&got, &want)?;
        ensure!(
            error <= BOUND,
            "the implementation under test is off by {error:.1e} from the readable one (batch {batch}, time \
             {time}, backend {}): its speed means nothing",
            case.backend.name(),
        );
        return Ok(());
    }
    anyhow::bail!(
        "the readable implementation itself is not stable in f32 on this case (batch {batch}, time {time}): \
         there is nothing to compare with"
    )
}

/// The case with so many steps that more slots than `k_top` are stored and the third window has begun, if
/// it has as many. Where that is too far, both come at shorter intervals.
fn shorter(case: &Case) -> Case {
    let most = MOST_STEPS.min(MOST_ROW_STEPS / case.batch).max(1);
    // An index searches all of fewer slots.
    let fewest = if case.settings.n_probe.is_some() { INDEXED } else { 0 };
    let slots = case.settings.k_top.saturating_add(2).max(fewest);
    let to_slots = slots.saturating_mul(case.settings.k_att);
    let to_windows = case.settings.k_trunc.saturating_mul(2).saturating_add(1);
    let mut shorter = Case { time: to_slots.max(to_windows).min(case.time), ..case.clone() };
    if shorter.time > most {
        shorter.time = most;
        // What the case itself never comes to stays out of reach.
        if case.settings.k_att <= case.time {
            shorter.settings.k_att = case.settings.k_att.min((most / slots).max(1));
        }
        if case.settings.k_trunc <= case.time {
            shorter.settings.k_trunc = case.settings.k_trunc.min((most / 2).max(1));
        }
    }
    shorter
}

/// Weights, inputs and upstream gradients.
struct Draw {
    layer: SabLstm,
    x: Tensor<3>,
    /// Of all steps or, `[B, 1, H]`, of the last.
    up: Tensor<3>,
}

/// Outputs, and gradients parameter by parameter.
struct Numbers {
    outputs: Vec<Vec<f64>>,
    gradients: Vec<Vec<f64>>,
}

impl Draw {
    fn new(case: &Case, seed: u64, device: &Device) -> anyhow::Result<Self> {
        device.seed(seed);
        let layer = case.layer().try_init(device)?;
        let time = case.time;
        let normal = |width| {
            Tensor::random([case.batch, time, width], Distribution::Normal(0.0, 1.0), device)
        };
        let (x, up): (Tensor<3>, Tensor<3>) = (normal(case.input), normal(case.hidden));
        let up = match case.loss {
            Loss::Mean => up,
            Loss::Last => up.narrow(1, time - 1, 1),
        };
        Ok(Self { layer, x, up })
    }

    fn run(&self, strategy: Strategy, dtype: DType, device: &Device) -> Numbers {
        let mut layer = self.layer.clone().map(&mut Cast { dtype, device });
        layer.settings.strategy = strategy;
        let x = cast(&self.x, dtype, device);
        let [_, time, _] = x.dims();
        let [_, given, _] = self.up.dims();
        let (hidden, state) = if given == time {
            layer.forward(x, None)
        } else {
            let output = layer.forward_at(x, &[time - 1], None);
            (output.hidden, output.state)
        };
        let gradients = (hidden.clone() * cast(&self.up, dtype, device)).sum().backward();
        let mut collected = Collect { gradients: &gradients, found: Vec::new() };
        layer.visit(&mut collected);
        Numbers { outputs: vec![numbers(hidden), numbers(state.cell)], gradients: collected.found }
    }
}

/// The same numbers in another type, on another device.
fn cast<const D: usize>(tensor: &Tensor<D>, dtype: DType, device: &Device) -> Tensor<D> {
    let tensor = tensor.clone().detach();
    if device == &tensor.device() {
        return tensor.cast(dtype);
    }
    Tensor::<D>::from_data(tensor.into_data(), device).cast(dtype)
}

struct Cast<'a> {
    dtype: DType,
    device: &'a Device,
}

impl ModuleMapper for Cast<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(cast(&param.val(), self.dtype, self.device).detach())
    }
}

struct Collect<'a> {
    gradients: &'a Gradients,
    found: Vec<Vec<f64>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        // A parameter that no gradient reached has none.
        self.found.push(match value.grad(self.gradients) {
            Some(gradient) => numbers(gradient),
            None => vec![0.0; value.shape().num_elements()],
        });
    }
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

/// The largest error of `got`, relative to the largest number of the same list in `want`.
fn difference(got: &Numbers, want: &Numbers) -> anyhow::Result<f64> {
    let largest = |lists: &[Vec<f64>]| {
        lists.iter().flatten().fold(0.0, |largest: f64, number| largest.max(number.abs()))
    };
    let nought = NOUGHT * largest(&want.gradients);
    Ok(relative(&got.outputs, &want.outputs, 0.0)?.max(relative(
        &got.gradients,
        &want.gradients,
        nought,
    )?))
}

fn relative(got: &[Vec<f64>], want: &[Vec<f64>], nought: f64) -> anyhow::Result<f64> {
    ensure!(got.len() == want.len(), "{} lists of numbers, not {}", got.len(), want.len());
    let mut worst = 0.0f64;
    for (got, want) in got.iter().zip(want) {
        ensure!(got.len() == want.len(), "a list of {} numbers, not {}", got.len(), want.len());
        let largest = want.iter().fold(nought, |largest, number| largest.max(number.abs()));
        for (got, want) in got.iter().zip(want) {
            let error = (got - want).abs();
            // Every comparison with NaN is false.
            (error <= f64::MAX).then_some(()).context("a number is not finite")?;
            if error > 0.0 {
                worst = worst.max(error / largest);
            }
        }
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_sab::ScoreKind;

    fn case() -> Case {
        let case = Case::main(Backend::preferred().unwrap(), 1, 1);
        Case { batch: 3, time: 40, hidden: 9, attention: 5, ..case }
    }

    #[test]
    fn every_implementation_passes() {
        for score in [ScoreKind::Additive, ScoreKind::Mlp, ScoreKind::Dot] {
            for loss in [Loss::Mean, Loss::Last] {
                let case = Case { loss, ..case() }.with_score(score);
                check(&case, Model::Sab).unwrap();
                check(&case.with(|settings| settings.max_hops = Some(1)), Model::Primitives)
                    .unwrap();
            }
        }
    }

    #[test]
    fn other_numbers_do_not_pass() {
        let numbers =
            |x| Numbers { outputs: vec![vec![1.0, x]], gradients: vec![vec![1e-9, x - 2.0]] };
        assert_eq!(difference(&numbers(2.0), &numbers(2.0)).unwrap(), 0.0);
        assert!(difference(&numbers(2.01), &numbers(2.0)).unwrap() > BOUND);
        assert!(difference(&numbers(f64::NAN), &numbers(2.0)).is_err());
        let shorter = Numbers { outputs: vec![vec![1.0]], gradients: vec![vec![1e-9, 0.0]] };
        assert!(difference(&shorter, &numbers(2.0)).is_err());
    }

    #[test]
    fn the_comparison_is_short() {
        let sizes = |case: Case| {
            let Case { time, settings, .. } = shorter(&case);
            (time, settings.k_att, settings.k_trunc)
        };
        assert_eq!(sizes(case()), (11, 1, 5));
        assert_eq!(
            sizes(case().with(|settings| settings.k_trunc = usize::MAX)),
            (40, 1, usize::MAX)
        );
        let long = Case { time: 1_000_000, ..case() }
            .with(|settings| (settings.k_att, settings.k_trunc) = (1000, 100));
        assert_eq!(sizes(Case { batch: 1, ..long.clone() }), (256, 36, 100));
        assert_eq!(
            sizes(Case { batch: 64, ..long }.with(|settings| settings.k_trunc = usize::MAX)),
            (128, 18, usize::MAX)
        );
        assert_eq!(sizes(Case { batch: 1_000_000, ..case() }), (1, 1, 1));
    }
}
