//! Clipping by the norm of all gradients together.

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// Scales the gradients of `model` so that the norm of all of them together, as one vector, is at most
/// `most`; returns the norm before scaling. If it is not finite, nothing is scaled.
///
/// This is what PyTorch's `clip_grad_norm_` does. Burn's own
/// [`GradientClippingConfig::Norm`](burn::grad_clipping::GradientClippingConfig) clips every tensor by
/// itself, which changes the direction of the update.
pub(crate) fn clip_by_global_norm<M: Module>(
    grads: &mut GradientsParams,
    model: &M,
    most: f64,
) -> f64 {
    let mut squares = SumsOfSquares { grads, sums: Vec::new() };
    model.visit(&mut squares);
    if squares.sums.is_empty() {
        return 0.0;
    }
    let norm = Tensor::cat(squares.sums, 0).sum().sqrt().into_scalar::<f64>();
    if norm.is_finite() && norm > most {
        model.visit(&mut Scale { grads, factor: most / norm });
    }
    norm
}

struct SumsOfSquares<'a> {
    grads: &'a GradientsParams,
    sums: Vec<Tensor<1>>,
}

impl ModuleVisitor for SumsOfSquares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.get::<D>(param.id) {
            self.sums.push(grad.square().sum());
        }
    }
}

struct Scale<'a> {
    grads: &'a mut GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scale<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}

/// The first parameter of `model` whose gradient has an element that is not finite, by its path in the module
/// ("network.Recurrent.weight_hh"). Reads all gradients: for when the norm is known not to be finite.
pub(crate) fn not_finite<M: Module>(grads: &GradientsParams, model: &M) -> Option<String> {
    let mut search = Search { grads, path: Vec::new(), found: None };
    model.visit(&mut search);
    search.found
}

struct Search<'a> {
    grads: &'a GradientsParams,
    path: Vec<String>,
    found: Option<String>,
}

impl ModuleVisitor for Search<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if self.found.is_some() {
            return;
        }
        let finite = |grad: Tensor<D>| grad.into_data().iter::<f64>().all(f64::is_finite);
        if self.grads.get::<D>(param.id).is_some_and(|grad| !finite(grad)) {
            self.found = Some(self.path.join("."));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::Device;

    fn gradients(weight: f32, bias: f32) -> (Linear, GradientsParams) {
        let device = Device::flex();
        let model = LinearConfig::new(2, 2).init(&device);
        let mut grads = GradientsParams::new();
        grads.register(model.weight.id, Tensor::<2>::full([2, 2], weight, &device));
        let bias_id = model.bias.as_ref().unwrap().id;
        grads.register(bias_id, Tensor::<1>::full([2], bias, &device));
        (model, grads)
    }

    fn values(model: &Linear, grads: &GradientsParams) -> (f32, f32) {
        let weight = grads.get::<2>(model.weight.id).unwrap().mean().into_scalar();
        let bias = grads.get::<1>(model.bias.as_ref().unwrap().id).unwrap().mean().into_scalar();
        (weight, bias)
    }

    #[test]
    fn all_gradients_are_scaled_by_the_same_factor() {
        // Norm: sqrt(4 * 3^2 + 2 * 6^2) = sqrt(108).
        let (model, mut grads) = gradients(3.0, 6.0);
        let norm = clip_by_global_norm(&mut grads, &model, 1.0);
        assert!((norm - 108f64.sqrt()).abs() < 1e-5);
        let (weight, bias) = values(&model, &grads);
        assert!((f64::from(weight) - 3.0 / norm).abs() < 1e-6);
        assert!((f64::from(bias) - 6.0 / norm).abs() < 1e-6);
    }

    #[test]
    fn small_gradients_are_left_alone() {
        let (model, mut grads) = gradients(0.1, -0.2);
        clip_by_global_norm(&mut grads, &model, 1.0);
        assert_eq!(values(&model, &grads), (0.1, -0.2));
    }

    #[test]
    fn a_norm_that_is_not_finite_is_reported() {
        let (model, mut grads) = gradients(f32::NAN, 1.0);
        assert!(clip_by_global_norm(&mut grads, &model, 1.0).is_nan());
        let (model, mut grads) = gradients(f32::INFINITY, 1.0);
        assert!(clip_by_global_norm(&mut grads, &model, 1.0).is_infinite());
    }

    #[test]
    fn the_parameter_whose_gradient_is_not_finite_is_named() {
        let (model, grads) = gradients(1.0, f32::NAN);
        assert_eq!(not_finite(&grads, &model).as_deref(), Some("bias"));
        let (model, grads) = gradients(f32::INFINITY, f32::NAN);
        assert_eq!(not_finite(&grads, &model).as_deref(), Some("weight"));
        // The square overflows, and no element does.
        let (model, mut grads) = gradients(1e30, 1.0);
        assert!(clip_by_global_norm(&mut grads, &model, 1.0).is_infinite());
        assert_eq!(not_finite(&grads, &model), None);
    }
}
