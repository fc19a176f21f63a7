//! Weights that a seed determines, whatever the backend.

use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};

/// Burn's random numbers come from one generator per backend, which all threads share. Hold this guard while you draw: no
/// other thread then takes numbers between the seed and the draw.
pub(crate) fn generator() -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    GENERATOR.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where weights are drawn. Every backend has a generator of its own; drawn on one CPU backend, a seed
/// means the same network on all of them.
#[cfg(feature = "flex")]
fn drawing_device(_: &Device) -> Device {
    Device::flex().autodiff()
}

/// Where weights are drawn: a build without flex draws where it trains.
#[cfg(not(feature = "flex"))]
fn drawing_device(device: &Device) -> Device {
    device.clone()
}

/// The network that `init` makes on the device it is given, with weights that follow from `seed` alone,
/// moved to `device`, which has autodiff.
///
/// With the feature `flex` the weights are the same on every backend.
pub fn draw<M: Module>(seed: u64, device: &Device, init: impl FnOnce(&Device) -> M) -> M {
    let _generator = generator();
    let host = drawing_device(device);
    host.seed(seed);
    let network = init(&host);
    // Parameters are drawn when they are first used; use them while the generator is ours.
    network.visit(&mut Draw);
    if host == *device { network } else { network.map(&mut Settle { device }) }
}

/// Makes every parameter draw its value now.
struct Draw;

impl ModuleVisitor for Draw {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        param.val();
    }
}

/// Copies parameters to another device. `to_device` would leave them results of an operation in the
/// autodiff graph there, and no leaves.
struct Settle<'a> {
    device: &'a Device,
}

impl ModuleMapper for Settle<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, _) = param.consume();
        let tensor = Tensor::from_data(tensor.into_data(), self.device);
        Param::initialized(id, tensor.require_grad())
    }
}
