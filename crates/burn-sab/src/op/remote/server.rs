//! The handlers of a server.

use std::cell::RefCell;

use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, TensorIr};
use burn::backend::tensor::FloatTensor;
use burn::server::CustomOpRegistry;
use burn::tensor::TensorData;

use super::ask::own_release;
use super::call::{BACKWARD, COVERAGE, Call, FORWARD, RELEASE};
use crate::op::kernel::{Kernel, KernelBackend};
use crate::op::options::SabOptions;
use crate::op::primitives::Primitives;
use crate::op::route;
use crate::op::tensors::{BackendInputs, Gradients, Needs, Upstream};

/// Registers the operations of this crate for a server of remote devices, so that calls of the clients run on the
/// kernel of `B`: `Flex`, `NdArray`, or `Cube`, which is every CubeCL runtime.
///
/// Client and server have to be built with the same release of this crate.
///
/// ```no_run
/// # #[cfg(all(feature = "flex", feature = "remote-websocket"))]
/// # fn serve() -> Result<(), burn::server::ServeError> {
/// use burn::backend::Flex;
/// use burn::server::{CustomOpRegistry, RemoteServer, WebSocketTransport};
/// use burn::tensor::Device;
///
/// let mut operations = CustomOpRegistry::<Flex>::new();
/// burn_sab::op::register_ops(&mut operations);
/// RemoteServer::new([Device::flex()])
///     .with_custom_ops(operations)
///     .serve(WebSocketTransport::new(3000))?;
/// # Ok(())
/// # }
/// ```
#[expect(private_bounds, reason = "the backends that this crate has a kernel for, and no others")]
pub fn register_ops<B: BackendIr + KernelBackend>(registry: &mut CustomOpRegistry<B>) {
    registry.register(RELEASE, |handles, op, device| {
        answer::<B>(handles, op, &own_release(), device);
    });
    registry.register(COVERAGE, |handles, op, device| {
        let Message { call, inputs, .. } = Message::<B>::read(handles, op);
        let covered = route::coverage::<B>(&inputs, &call.options(), call.keep);
        if let Err(why) = &covered {
            tracing::info!("a call of a client is not covered by {}: {why}", B::Own::NAME);
        }
        answer::<B>(handles, op, &[i32::from(covered.is_ok())], device);
    });
    registry.register(FORWARD, |handles, op, _| forward::<B>(handles, op));
    registry.register(BACKWARD, |handles, op, _| backward::<B>(handles, op));
}

/// A call with its tensors.
struct Message<B: BackendIr> {
    call: Call,
    inputs: BackendInputs<B>,
    upstream: Upstream<FloatTensor<B>>,
}

impl<B: BackendIr> Message<B> {
    /// # Panics
    ///
    /// If the message is not one of this release: Burn then ends the session, and logs the reason.
    fn read(handles: &mut HandleContainer<B::Handle>, op: &CustomOpIr) -> Self {
        let call = Call::from_scalars(&op.scalars).unwrap_or_else(|error| panic!("{error}"));
        let mut tensors = op.inputs.iter();
        let mut next = || {
            let tensor = tensors.next().expect("a tensor for every input of the call");
            handles.get_float_tensor::<B>(tensor)
        };
        let inputs = call.needs.map(|_| next());
        let upstream = call.upstream.clone().map(|_| next());
        Self { call, inputs, upstream }
    }
}

/// Gives integers for the only output.
fn answer<B: BackendIr>(
    handles: &mut HandleContainer<B::Handle>,
    op: &CustomOpIr,
    numbers: &[i32],
    device: &B::Device,
) {
    let numbers = B::int_from_data(TensorData::from(numbers), device);
    handles.register_int_tensor::<B>(&op.outputs[0].id, numbers);
}

fn forward<B: BackendIr + KernelBackend>(
    handles: &mut HandleContainer<B::Handle>,
    op: &CustomOpIr,
) {
    let Message { call, inputs, .. } = Message::<B>::read(handles, op);
    let options = call.options();
    expect_rows_covered::<B>(&inputs, &options, false);
    let outputs = route::forward::<B>(&inputs, &options);
    // In the order in which the client described them.
    let described = RefCell::new((handles, op.outputs.iter()));
    let float = |tensor| {
        let (handles, outputs) = &mut *described.borrow_mut();
        handles.register_float_tensor::<B>(&next(outputs).id, tensor);
    };
    let int = |tensor| {
        let (handles, outputs) = &mut *described.borrow_mut();
        let output = next(outputs);
        let tensor = B::int_cast(tensor, output.dtype.into());
        handles.register_int_tensor::<B>(&output.id, tensor);
    };
    outputs.map_ranks(float, float, int);
}

fn backward<B: BackendIr + KernelBackend>(
    handles: &mut HandleContainer<B::Handle>,
    op: &CustomOpIr,
) {
    let Message { call, inputs, upstream } = Message::<B>::read(handles, op);
    let (options, needs) = (call.options(), call.needs);
    expect_rows_covered::<B>(&inputs, &options, true);
    let gradients = match route::own_plan::<B>(&inputs, &options, true) {
        Some(plan) => again::<B, B::Own>(plan, &inputs, upstream, &options, &needs),
        None => again::<B, Primitives>((), &inputs, upstream, &options, &needs),
    };
    let mut outputs = op.outputs.iter();
    for gradient in
        gradients.iter().zip(needs.iter()).filter_map(|(gradient, need)| need.then_some(gradient))
    {
        let output = next(&mut outputs);
        let gradient = gradient.clone().expect("a gradient for every input that needs one");
        handles.register_float_tensor::<B>(&output.id, gradient);
    }
}

/// Runs the forward pass again, with its activations saved, and the backward pass.
fn again<B: BackendIr, K: Kernel<B>>(
    plan: K::Plan,
    inputs: &BackendInputs<B>,
    upstream: Upstream<FloatTensor<B>>,
    options: &SabOptions,
    needs: &Needs,
) -> Gradients<B> {
    let (_, saved) = K::forward(plan, inputs, options, true);
    let saved = saved.expect("a forward pass that was asked to saves its activations");
    K::backward(inputs, saved, upstream, options, needs)
}

/// # Panics
///
/// If rows differ and the kernel does not run them: backend primitives would take them for alike. The client has
/// asked before, so that this names a fault.
fn expect_rows_covered<B: KernelBackend>(
    inputs: &BackendInputs<B>,
    options: &SabOptions,
    keep: bool,
) {
    if options.rows.is_some()
        && let Err(why) = route::coverage::<B>(inputs, options, keep)
    {
        panic!("burn-sab: rows differ, and {why}");
    }
}

/// The next output of a message.
fn next<'a>(outputs: &mut impl Iterator<Item = &'a TensorIr>) -> &'a TensorIr {
    outputs.next().expect("the client describes every output")
}
