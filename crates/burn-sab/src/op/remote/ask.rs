//! Questions to a server.
//!
//! A message of Burn's remote backend has no answer, except where it asks for the elements of a tensor. A server that
//! does not know an operation ends the session without one. So the first call on a device asks for the server's release
//! of this crate: the error then names the cause, and no release misreads the calls of another.

use std::sync::Mutex;

use burn::backend::ir::{CustomOpIr, ScalarIr, TensorIr};
use burn::backend::{
    BackendTensor, DispatchAutodiffContext, DispatchDevice, DispatchTensor, DispatchTensorKind,
    ExecutionError, Remote, RemoteDevice, TensorMetadata,
};
use burn::remote::CustomOpClient;
use burn::tensor::{DType, Device, Int, Shape, Tensor};

use super::call::{COVERAGE, Call, RELEASE};
use super::{output, shared};
use crate::op::check::InputError;
use crate::op::coverage::{Coverage, NotCovered};
use crate::op::options::SabOptions;
use crate::op::settings::Strategy;
use crate::op::tensors::BackendInputs;

/// A call, as far as a server's kernel can tell it from others.
type Question = (Vec<ScalarIr>, Vec<(Shape, DType)>);

/// What a server has answered.
struct Known {
    device: RemoteDevice,
    release: Coverage,
    /// The last question about a call: a layer asks it twice before it runs one.
    last: Option<(Question, bool)>,
}

static KNOWN: Mutex<Vec<Known>> = Mutex::new(Vec::new());

/// What is known of the server of a device, if it was asked before.
fn known<T>(device: &RemoteDevice, look: impl FnOnce(&mut Known) -> T) -> Option<T> {
    let mut known = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    known.iter_mut().find(|known| known.device == *device).map(look)
}

/// The release of this crate: major, minor, patch.
pub(super) fn own_release() -> [i32; 3] {
    let numbers = [
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    ];
    numbers.map(|number| number.parse().expect("cargo has checked it"))
}

/// Whether the server of a device has the operations of this release. Asks it once per process.
pub(super) fn release(device: &RemoteDevice) -> Coverage {
    if let Some(release) = known(device, |known| known.release.clone()) {
        return release;
    }
    let release = match ask(device, RELEASE, &[], own_release().len(), Vec::new()) {
        Ok(numbers) => of_release(&numbers),
        Err(error) => Err(NotCovered::ServerSilent {
            device: format!("{device:?}"),
            reason: error.reason().to_owned(),
        }),
    };
    let mut all = KNOWN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    all.push(Known { device: device.clone(), release: release.clone(), last: None });
    release
}

/// Whether a server of this release understands this one.
fn of_release(numbers: &[i32]) -> Coverage {
    if numbers == own_release() {
        return Ok(());
    }
    let in_words =
        |numbers: &[i32]| numbers.iter().map(i32::to_string).collect::<Vec<_>>().join(".");
    Err(NotCovered::ServerRelease { server: in_words(numbers), client: in_words(&own_release()) })
}

/// Whether the server's own kernel covers a call: a round trip, behind all that the server has still to do.
pub(super) fn coverage(
    inputs: &BackendInputs<Remote>,
    options: &SabOptions,
    keep: bool,
) -> Coverage {
    let device = inputs.x.device();
    let call = Call::question(inputs, options, keep);
    let sizes = inputs.iter().map(|tensor| (tensor.shape(), tensor.dtype())).collect();
    let question = (call.to_scalars(), sizes);
    let last = known(&device, |known| known.last.clone()).flatten();
    let covers = match last.filter(|(last, _)| *last == question) {
        Some((_, covers)) => covers,
        None => {
            let answer = ask(&device, COVERAGE, &shared(inputs), 1, question.0.clone());
            let covers = answer.map_err(|error| NotCovered::ServerSilent {
                device: format!("{device:?}"),
                reason: error.reason().to_owned(),
            })? == [1];
            known(&device, |known| known.last = Some((question, covers)));
            covers
        }
    };
    if covers { Ok(()) } else { Err(NotCovered::OnServer) }
}

/// Sends a question and waits for the integers that answer it.
fn ask(
    device: &RemoteDevice,
    id: &'static str,
    inputs: &[TensorIr],
    size: usize,
    scalars: Vec<ScalarIr>,
) -> Result<Vec<i32>, ExecutionError> {
    let client = CustomOpClient::new(device);
    let answer = output(&client, [size].into(), DType::I32);
    let op = CustomOpIr::with_scalars(id, inputs, &[answer], scalars);
    let answer = client.register(op).pop().expect("a tensor for every output");
    let answer = DispatchTensor {
        kind: DispatchTensorKind::Remote(BackendTensor::Int(answer)),
        autodiff: DispatchAutodiffContext::Disabled,
    };
    Ok(Tensor::<1, Int>::from_dispatch(answer).try_into_data()?.iter::<i32>().collect())
}

/// # Errors
///
/// If a call is to go to the server of a remote device, and that has not answered.
pub(crate) fn expect_answer(device: &Device, options: &SabOptions) -> Result<(), InputError> {
    let device = device.clone().inner();
    match device.as_dispatch() {
        DispatchDevice::Remote(device) if options.settings.strategy != Strategy::Primitives => {
            match release(device) {
                Err(why @ NotCovered::ServerSilent { .. }) => Err(InputError::Server { why }),
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_release_is_named() {
        let own = own_release();
        assert_eq!(of_release(&own), Ok(()));
        let later = [own[0], own[1], own[2] + 1];
        let message = of_release(&later).unwrap_err().to_string();
        let names = |release: [i32; 3]| format!("{}.{}.{}", release[0], release[1], release[2]);
        assert!(message.contains(&names(own)) && message.contains(&names(later)), "{message}");
        assert_eq!(names(own), env!("CARGO_PKG_VERSION"));
    }
}
