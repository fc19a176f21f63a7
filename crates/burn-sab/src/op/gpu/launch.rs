//! The launch of kernels: at once on the plain CubeCL backend, and as a queued operation on Burn's
//! fusion backend. Shapes are known in advance, so nothing is transferred to the host.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, BackendTypes};
use burn::tensor::{DType, Shape};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use burn_fusion::custom::{
    CustomOpIr, HandleContainer, OperationFn, OperationIr, StreamId, TensorIr,
};
use burn_fusion::{Fusion, FusionBackend, FusionRuntime};

/// A backend whose tensors are buffers of a CubeCL runtime.
pub(crate) trait CubeLaunch: Backend {
    /// Runs `kernels` on the inputs. `kernels` must return tensors of the shapes and data types
    /// `outputs`. It may overwrite an input that has no other owner.
    fn launch(
        name: &'static str,
        inputs: Vec<FloatTensor<Self>>,
        outputs: Vec<(Shape, DType)>,
        kernels: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
    ) -> Vec<FloatTensor<Self>>;

    /// Converts an integer tensor among the outputs of [`launch`](Self::launch) to its proper type.
    fn as_int(tensor: FloatTensor<Self>) -> IntTensor<Self>;
}

impl CubeLaunch for CubeBackend {
    fn launch(
        _: &'static str,
        inputs: Vec<CubeTensor>,
        _: Vec<(Shape, DType)>,
        kernels: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
    ) -> Vec<CubeTensor> {
        kernels(inputs)
    }

    fn as_int(tensor: CubeTensor) -> CubeTensor {
        tensor
    }
}

impl<B> CubeLaunch for Fusion<B>
where
    B: FusionBackend + BackendTypes<FloatTensorPrimitive = CubeTensor>,
{
    fn launch(
        name: &'static str,
        inputs: Vec<FloatTensor<Self>>,
        outputs: Vec<(Shape, DType)>,
        kernels: impl Fn(Vec<CubeTensor>) -> Vec<CubeTensor> + Send + Sync + 'static,
    ) -> Vec<FloatTensor<Self>> {
        type Handles<B> =
            HandleContainer<<<B as FusionBackend>::FusionRuntime as FusionRuntime>::FusionHandle>;
        let client = inputs[0].client.clone();
        let inputs: Vec<TensorIr> = inputs.into_iter().map(|tensor| tensor.into_ir()).collect();
        let outputs: Vec<TensorIr> = outputs
            .into_iter()
            .map(|(shape, dtype)| TensorIr::uninit(client.create_empty_handle(), shape, dtype))
            .collect();
        let description = CustomOpIr::new(name, &inputs, &outputs);
        let operation = OperationFn(move |handles: &mut Handles<B>| {
            let tensors = inputs.iter().map(|ir| handles.get_float_tensor::<B>(ir)).collect();
            for (ir, tensor) in outputs.iter().zip(kernels(tensors)) {
                handles.register_float_tensor::<B>(&ir.id, tensor);
            }
            Ok(())
        });
        client.register(StreamId::current(), OperationIr::Custom(description), operation)
    }

    fn as_int(tensor: FloatTensor<Self>) -> IntTensor<Self> {
        tensor
    }
}
