//! The op on a device of another machine: one message for the forward pass and one for the backward pass, which the
//! server runs on the kernel of its own backend.
//!
//! Burn's remote backend sends each primitive as a message. Here a call crosses as one custom operation of Burn's
//! intermediate representation, beside its tensors, which are on the server already. The handlers that
//! [`register_ops`] adds to a server run it there. Nothing is saved between the passes: the backward pass computes the
//! forward pass again, on the server.
//!
//! | file | purpose |
//! | --- | --- |
//! | `call` | what a call is beside its tensors, as scalars of a message |
//! | `ask` | questions to a server: its release, and whether its kernel covers a call |
//! | `server` | the handlers |

mod ask;
mod call;
#[cfg(feature = "remote-server")]
mod server;

use std::cell::RefCell;

use burn::backend::ir::{CustomOpIr, TensorIr};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Remote, TensorMetadata, get_device_settings};
use burn::remote::CustomOpClient;
use burn::tensor::{DType, Shape};

use super::coverage::NotCovered;
use super::kernel::Kernel;
use super::options::SabOptions;
use super::settings::Strategy;
use super::tensors::{
    BackendInputs, BackendOutputs, Dims, Gradients, Needs, Reminders, SabOutputs, Upstream,
};
pub(crate) use ask::expect_answer;
use call::{BACKWARD, Call, FORWARD};
#[cfg(feature = "remote-server")]
pub use server::register_ops;

/// The kernel of the server's backend, and backend primitives on the server where that does not cover a call.
#[derive(Debug)]
pub(crate) struct RemoteKernel;

impl Kernel<Remote> for RemoteKernel {
    const NAME: &'static str = "the server's kernel";
    type Plan = ();
    type Saved = ();

    fn plan(
        inputs: &BackendInputs<Remote>,
        options: &SabOptions,
        keep: bool,
    ) -> Result<(), NotCovered> {
        ask::release(&inputs.x.device())?;
        // A server runs every other call, if need be on backend primitives: asking would cost a round trip per call.
        let by_kernel = options.rows.is_some() || options.settings.strategy == Strategy::Fused;
        if by_kernel { ask::coverage(inputs, options, keep) } else { Ok(()) }
    }

    fn forward(
        (): (),
        inputs: &BackendInputs<Remote>,
        options: &SabOptions,
        keep: bool,
    ) -> (BackendOutputs<Remote>, Option<()>) {
        let device = inputs.x.device();
        let client = CustomOpClient::new(&device);
        let (float, int) = (inputs.x.dtype(), get_device_settings::<Remote>(&device).int_dtype);
        let sequence = |shape: [usize; 3]| output(&client, shape.into(), float);
        let outputs = shapes(inputs, options).map_ranks(
            |shape| output(&client, shape.into(), float),
            sequence,
            |shape| output(&client, shape.into(), int.into()),
        );
        let described = RefCell::new(Vec::new());
        let describe = |output| described.borrow_mut().push(output);
        outputs.clone().map_ranks(describe, describe, describe);
        let scalars = Call::forward(inputs, options).to_scalars();
        let op =
            CustomOpIr::with_scalars(FORWARD, &shared(inputs), &described.into_inner(), scalars);
        let results = RefCell::new(client.register(op).into_iter());
        let result = |_| results.borrow_mut().next().expect("a tensor for every output");
        (outputs.map_ranks(result, result, result), keep.then_some(()))
    }

    fn backward(
        inputs: &BackendInputs<Remote>,
        (): (),
        upstream: Upstream<FloatTensor<Remote>>,
        options: &SabOptions,
        needs: &Needs,
    ) -> Gradients<Remote> {
        let client = CustomOpClient::new(&inputs.x.device());
        let scalars = Call::backward(options, &upstream, needs).to_scalars();
        let mut tensors = shared(inputs);
        upstream.map(|gradient| tensors.push(gradient.into_ir()));
        let needed = inputs.iter().zip(needs.iter()).filter(|(_, need)| **need);
        let outputs: Vec<TensorIr> =
            needed.map(|(input, _)| output(&client, input.shape(), input.dtype())).collect();
        let op = CustomOpIr::with_scalars(BACKWARD, &tensors, &outputs, scalars);
        let mut gradients = client.register(op).into_iter();
        needs.map(|need| need.then(|| gradients.next().expect("a tensor for every output")))
    }
}

/// The tensors as inputs of a message that leaves them where they are.
fn shared(inputs: &BackendInputs<Remote>) -> Vec<TensorIr> {
    inputs.iter().map(|tensor| tensor.clone().into_ir()).collect()
}

/// A tensor that a message is to make.
fn output(client: &CustomOpClient, shape: Shape, dtype: DType) -> TensorIr {
    TensorIr::uninit(client.create_empty_handle(), shape, dtype)
}

/// The shapes of a call's outputs.
fn shapes(
    inputs: &BackendInputs<Remote>,
    options: &SabOptions,
) -> SabOutputs<[usize; 2], [usize; 3], [usize; 3]> {
    let dims = Dims::of::<Remote>(inputs, options);
    let Dims { batch, time, hidden, stored, .. } = dims;
    let given = options.readout.len(time);
    let places = [batch, given, dims.places(options)];
    SabOutputs {
        hidden: [batch, given, hidden],
        last: [batch, hidden],
        cell: [batch, hidden],
        stored: (stored > 0).then_some([batch, stored, hidden]),
        reminders: options.reminders.then_some(Reminders {
            summary: [batch, given, hidden],
            slots: places,
            weights: places,
        }),
    }
}
