//! The CPU kernel on the backends whose tensors are plain memory: flex and ndarray.
//!
//! The kernel reads slices. A tensor in row-major order is borrowed as it lies; a view in another order is
//! copied once. Results are vectors that become tensors without a copy.

// NdArray is deprecated in Burn 0.22; users are still on it.
#![allow(deprecated)]

use std::borrow::Cow;
use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{DType, Element, TensorData};

use super::coverage::NotCovered;
use super::cpu;
use super::kernel::Kernel;
use super::options::{Readout, SabOptions};
use super::score::Score;
use super::stream::{BackendStep, SlotKeys, SlotMemory, SlotStore, StepOutputs, fingerprint};
use super::tensors::{
    BackendInputs, BackendOutputs, Dims, Gradients, Needs, Reminders, SabInputs, SabOutputs,
    Upstream,
};

/// An element type that the kernel and the backends know.
pub(crate) trait HostFloat: cpu::Float + Element + bytemuck::Pod {}
impl HostFloat for f32 {}
impl HostFloat for f64 {}

/// A backend whose tensors can be read as slices.
pub(crate) trait HostBackend: Backend {
    /// The elements of a tensor in row-major order; its data type is `T`.
    fn slice<T: HostFloat>(tensor: &FloatTensor<Self>) -> Cow<'_, [T]>;

    /// Whether two tensors have the same elements because they are the same view of the same memory.
    fn same(a: &FloatTensor<Self>, b: &FloatTensor<Self>) -> bool;
}

#[cfg(feature = "flex")]
impl HostBackend for burn::backend::Flex {
    fn slice<T: HostFloat>(tensor: &FloatTensor<Self>) -> Cow<'_, [T]> {
        match tensor.as_slice::<T>() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(tensor.to_contiguous().storage::<T>().to_vec()),
        }
    }

    fn same(a: &FloatTensor<Self>, b: &FloatTensor<Self>) -> bool {
        std::ptr::eq(a.bytes().as_ptr(), b.bytes().as_ptr()) && a.layout() == b.layout()
    }
}

#[cfg(feature = "ndarray")]
impl HostBackend for burn::backend::NdArray {
    fn slice<T: HostFloat>(tensor: &FloatTensor<Self>) -> Cow<'_, [T]> {
        use burn::backend::ndarray::NdArrayTensor::{F32, F64};
        use bytemuck::{allocation::cast_vec, cast_slice};
        // The casts change nothing: `T` is the type of the variant.
        match tensor {
            F32(storage) => match storage.view().to_slice() {
                Some(slice) => Cow::Borrowed(cast_slice(slice)),
                None => Cow::Owned(cast_vec(storage.view().iter().copied().collect())),
            },
            F64(storage) => match storage.view().to_slice() {
                Some(slice) => Cow::Borrowed(cast_slice(slice)),
                None => Cow::Owned(cast_vec(storage.view().iter().copied().collect())),
            },
            // `plan` covers these two types only.
            other => panic!("the CPU kernel does not read {:?}", other.dtype()),
        }
    }

    fn same(a: &FloatTensor<Self>, b: &FloatTensor<Self>) -> bool {
        use burn::backend::ndarray::NdArrayTensor::{F32, F64};
        // A closure cannot be generic over the element, and the type of a storage has no public name.
        macro_rules! same {
            ($a:ident, $b:ident) => {{
                let (a, b) = ($a.view(), $b.view());
                std::ptr::eq(a.as_ptr(), b.as_ptr())
                    && a.shape() == b.shape()
                    && a.strides() == b.strides()
            }};
        }
        match (a, b) {
            (F32(a), F32(b)) => same!(a, b),
            (F64(a), F64(b)) => same!(a, b),
            _ => false,
        }
    }
}

/// The CPU kernel.
#[derive(Debug)]
pub(crate) struct CpuKernel;

/// The element type of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostType {
    F32,
    F64,
}

/// The saved activations: the kernel's own and, among its outputs, the hidden states that the backward pass
/// looks up; `None` where no step stored one and not all are given.
#[derive(Clone, Debug)]
pub(crate) struct SavedHost<B: Backend> {
    activations: Activations,
    past: Option<FloatTensor<B>>,
}

#[derive(Clone, Debug)]
enum Activations {
    F32(Arc<cpu::Saved<f32>>),
    F64(Arc<cpu::Saved<f64>>),
}

impl<B: HostBackend> Kernel<B> for CpuKernel {
    const NAME: &'static str = "the CPU kernel";
    type Plan = HostType;
    type Saved = SavedHost<B>;

    fn plan(inputs: &BackendInputs<B>, _: &SabOptions, _: bool) -> Result<HostType, NotCovered> {
        match inputs.x.dtype() {
            DType::F32 => Ok(HostType::F32),
            DType::F64 => Ok(HostType::F64),
            dtype => Err(NotCovered::DataType { dtype, supported: "F32 and F64" }),
        }
    }

    fn forward(
        plan: HostType,
        inputs: &BackendInputs<B>,
        options: &SabOptions,
        keep: bool,
    ) -> (BackendOutputs<B>, Option<SavedHost<B>>) {
        match plan {
            HostType::F32 => forward::<B, f32>(inputs, options, keep, Activations::F32),
            HostType::F64 => forward::<B, f64>(inputs, options, keep, Activations::F64),
        }
    }

    fn backward(
        inputs: &BackendInputs<B>,
        saved: SavedHost<B>,
        upstream: Upstream<FloatTensor<B>>,
        options: &SabOptions,
        needs: &Needs,
    ) -> Gradients<B> {
        let past = saved.past.as_ref();
        match &saved.activations {
            Activations::F32(saved) => {
                backward::<B, f32>(inputs, saved, past, &upstream, options, needs)
            }
            Activations::F64(saved) => {
                backward::<B, f64>(inputs, saved, past, &upstream, options, needs)
            }
        }
    }

    fn step(
        plan: HostType,
        inputs: BackendInputs<B>,
        memory: SlotMemory,
        options: &SabOptions,
    ) -> BackendStep<B> {
        match plan {
            HostType::F32 => step::<B, f32>(inputs, memory, options),
            HostType::F64 => step::<B, f64>(inputs, memory, options),
        }
    }
}

type Arrays<'a, T> = SabInputs<Cow<'a, [T]>, Cow<'a, [T]>, Cow<'a, [T]>>;

/// The inputs as slices: borrowed, or owned by those that had to be copied.
struct Slices<'a, T: HostFloat> {
    dims: Dims,
    arrays: Arrays<'a, T>,
}

impl<'a, T: HostFloat> Slices<'a, T> {
    fn of<B: HostBackend>(inputs: &'a BackendInputs<B>, options: &SabOptions) -> Self {
        Self {
            dims: Dims::of::<B>(inputs, options),
            arrays: inputs.as_ref().map(|tensor| B::slice(tensor)),
        }
    }

    fn inputs(&self) -> cpu::Inputs<'_, T> {
        let arrays = self.arrays.as_ref().map(|array| &array[..]);
        let (dims, capacity) = (self.dims, self.dims.carried);
        cpu::Inputs { dims, arrays, capacity, slots_in_front: false }
    }
}

fn floats<B: Backend, T: HostFloat, const D: usize>(
    values: Vec<T>,
    shape: [usize; D],
    device: &B::Device,
) -> FloatTensor<B> {
    B::float_from_data(TensorData::new(values, shape), device)
}

fn ints<B: Backend>(values: Vec<i32>, shape: [usize; 3], device: &B::Device) -> IntTensor<B> {
    let dtype = get_device_settings::<B>(device).int_dtype;
    B::int_from_data(TensorData::new(values, shape).convert_dtype(dtype.into()), device)
}

/// Runs the sequence through the kernel.
fn forward<B: HostBackend, T: HostFloat>(
    inputs: &BackendInputs<B>,
    options: &SabOptions,
    keep: bool,
    wrap: fn(Arc<cpu::Saved<T>>) -> Activations,
) -> (BackendOutputs<B>, Option<SavedHost<B>>) {
    let slices = Slices::<T>::of::<B>(inputs, options);
    let (outputs, saved) = cpu::forward(&slices.inputs(), options, keep);
    let device = inputs.x.device();
    let Dims { batch, time, hidden, stored: count, .. } = slices.dims;
    let given = options.readout.len(time);
    let gathered = match outputs.stored {
        Some(stored) => Some(stored),
        // Every step's output is a slot: the two share their memory.
        None if count == time || count == 0 => None,
        None => {
            let h = &outputs.hidden;
            let steps = (0..batch * time).filter(|at| options.stores_slot(at % time));
            Some(steps.flat_map(|at| &h[at * hidden..(at + 1) * hidden]).copied().collect())
        }
    };
    let h = floats::<B, T, 3>(outputs.hidden, [batch, given, hidden], &device);
    let stored = (count > 0).then(|| match gathered {
        None => h.clone(),
        Some(slots) => floats::<B, T, 3>(slots, [batch, count, hidden], &device),
    });
    let past = match options.readout {
        Readout::All if options.rows.is_none() => Some(h.clone()),
        _ => stored.clone(),
    };
    let places = [batch, given, slices.dims.places(options)];
    let outputs = SabOutputs {
        hidden: h,
        last: floats::<B, T, 2>(outputs.last, [batch, hidden], &device),
        cell: floats::<B, T, 2>(outputs.cell, [batch, hidden], &device),
        stored,
        reminders: outputs.reminders.map(|Reminders { summary, slots, weights }| Reminders {
            summary: floats::<B, T, 3>(summary, [batch, given, hidden], &device),
            slots: ints::<B>(slots, places, &device),
            weights: floats::<B, T, 3>(weights, places, &device),
        }),
    };
    (outputs, saved.map(|saved| SavedHost { activations: wrap(Arc::new(saved)), past }))
}

/// Gradients through the kernel.
fn backward<B: HostBackend, T: HostFloat>(
    inputs: &BackendInputs<B>,
    saved: &cpu::Saved<T>,
    past: Option<&FloatTensor<B>>,
    upstream: &Upstream<FloatTensor<B>>,
    options: &SabOptions,
    needs: &Needs,
) -> Gradients<B> {
    let slices = Slices::<T>::of::<B>(inputs, options);
    let upstream = upstream.as_ref().map(|gradient| B::slice::<T>(gradient));
    let up = upstream.as_ref().map(|gradient| &gradient[..]);
    let past = past.map_or(Cow::Borrowed(&[][..]), |past| B::slice::<T>(past));
    let gradients = cpu::backward(&slices.inputs(), saved, &past, &up, needs, options);
    let device = inputs.x.device();
    let mut tensors = inputs.iter();
    gradients.map(|gradient| {
        let tensor = tensors.next().expect("a gradient for every input");
        let data = |values| TensorData::new(values, tensor.shape());
        gradient.map(|values| B::float_from_data(data(values), &device))
    })
}

/// A weight as it was given, and in row-major order.
#[derive(Debug, Clone)]
struct Contiguous<B: Backend> {
    given: FloatTensor<B>,
    tensor: FloatTensor<B>,
}

impl<B: HostBackend> Contiguous<B> {
    fn new<T: HostFloat>(given: FloatTensor<B>) -> Self {
        let tensor = match B::slice::<T>(&given) {
            Cow::Borrowed(_) => given.clone(),
            Cow::Owned(elements) => {
                let data = TensorData::new(elements, given.shape());
                B::float_from_data(data, &given.device())
            }
        };
        Self { given, tensor }
    }
}

/// The weights of a stream: converted weights can be transposed views, and a step should not copy them anew.
#[derive(Debug, Clone)]
struct Weights<B: Backend> {
    w_ih: Contiguous<B>,
    w_hh: Contiguous<B>,
    score: Score<Contiguous<B>>,
}

impl<B: HostBackend> Weights<B> {
    fn new<T: HostFloat>(inputs: &BackendInputs<B>) -> Self {
        Self {
            w_ih: Contiguous::new::<T>(inputs.w_ih.clone()),
            w_hh: Contiguous::new::<T>(inputs.w_hh.clone()),
            score: inputs.score.clone().map(Contiguous::new::<T>),
        }
    }

    /// Whether the score's parameters are the same memory as these. Both are held, so that nobody can have
    /// changed either in place.
    fn same_score(&self, score: Score<&FloatTensor<B>>) -> bool {
        self.score.kind() == score.kind()
            && self.score.iter().zip(score.iter()).all(|(a, b)| B::same(&a.given, b))
    }

    /// The fingerprint of the parameters that keys are computed with.
    fn fingerprint<T: HostFloat>(&self) -> u64 {
        let (Score::Additive { v: of_keys, .. }
        | Score::Mlp { memory: of_keys, .. }
        | Score::Dot { key: of_keys, .. }) = &self.score;
        fingerprint(bytemuck::cast_slice(&B::slice::<T>(&of_keys.tensor)))
    }

    fn same_cell(&self, inputs: &BackendInputs<B>) -> bool {
        B::same(&self.w_ih.given, &inputs.w_ih) && B::same(&self.w_hh.given, &inputs.w_hh)
    }
}

/// A stream's slots, their keys, and the weights that the keys were computed with.
#[derive(Clone)]
struct HostMemory<B: Backend, T> {
    stream: cpu::Stream<T>,
    weights: Weights<B>,
    /// Ranks of a step that sees many slots, and the lists that it searches.
    ranks: (usize, Option<usize>),
    /// B and H.
    dims: [usize; 2],
}

impl<B: HostBackend, T: HostFloat> SlotStore for HostMemory<B, T> {
    fn len(&self) -> usize {
        self.stream.len()
    }

    fn counts(&self) -> Vec<usize> {
        self.stream.counts().to_vec()
    }

    fn slots(&self) -> TensorData {
        let [batch, hidden] = self.dims;
        TensorData::new(self.stream.slots(), [batch, self.stream.len(), hidden])
    }

    fn keys(&self) -> Option<SlotKeys> {
        let keys = self.stream.keys()?;
        let [batch, _] = self.dims;
        let (slots, parameters) = (self.stream.len(), self.weights.fingerprint::<T>());
        let size = keys.len() / (batch * slots);
        Some(SlotKeys { values: TensorData::new(keys, [batch, slots, size]), parameters })
    }

    fn select(&self, rows: &[usize]) -> SlotMemory {
        let [_, hidden] = self.dims;
        let stream = self.stream.select(rows);
        self.with(stream, [rows.len(), hidden])
    }

    fn cat(&self, others: &[SlotMemory]) -> Option<SlotMemory> {
        let others: Option<Vec<&Self>> = others.iter().map(SlotMemory::of_form).collect();
        let others = others?;
        let fits = |other: &&Self| {
            let score = other.weights.score.as_ref().map(|parameter| &parameter.given);
            other.ranks == self.ranks && self.weights.same_score(score)
        };
        if !others.iter().all(fits) {
            return None;
        }
        let all = || std::iter::once(self).chain(others.iter().copied());
        let batch = all().map(|memory| memory.dims[0]).sum();
        let streams: Vec<_> = all().map(|memory| &memory.stream).collect();
        Some(self.with(cpu::Stream::cat(&streams), [batch, self.dims[1]]))
    }
}

impl<B: HostBackend, T: HostFloat> HostMemory<B, T> {
    /// Other slots of the same weights.
    fn with(&self, stream: cpu::Stream<T>, dims: [usize; 2]) -> SlotMemory {
        let (weights, ranks) = (self.weights.clone(), self.ranks);
        SlotMemory::new(Arc::new(Self { stream, weights, ranks, dims }))
    }
}

/// Runs one step of a stream through the kernel.
fn step<B: HostBackend, T: HostFloat>(
    inputs: BackendInputs<B>,
    memory: SlotMemory,
    options: &SabOptions,
) -> BackendStep<B> {
    let Dims { batch, hidden, .. } = Dims::of::<B>(&inputs, options);
    let dims = [batch, hidden];
    let ranks = (options.ranks(usize::MAX), options.settings.n_probe);
    let mut memory = memory.into::<HostMemory<B, T>>().unwrap_or_else(|memory| {
        let keys = memory.keys();
        let inputs = memory.into_inputs::<B>(inputs.clone());
        let slots = inputs.slots.as_ref().map_or(Cow::Borrowed(&[][..]), |slots| B::slice(slots));
        let weights = Weights::new::<T>(&inputs);
        // A record's keys belong to this layer only if it has the parameters that they were computed with.
        let keys = keys.filter(|keys| keys.parameters == weights.fingerprint::<T>());
        let keys = keys.and_then(|keys| keys.values.as_slice::<T>().ok().map(<[T]>::to_vec));
        let counts = match &options.rows {
            None => vec![slots.len() / (batch * hidden); batch],
            Some(rows) => rows.iter().map(|row| row.carried).collect(),
        };
        let stream = cpu::Stream::<T>::new(&slots, keys, counts, hidden);
        Arc::new(HostMemory { stream, weights, ranks, dims })
    });
    // Nobody else holds it, as a rule: the step changes it where it is.
    let held = Arc::make_mut(&mut memory);
    let same_score = held.weights.same_score(inputs.score.as_ref());
    if held.ranks != ranks || !same_score {
        held.stream.forget_keys();
        held.ranks = ranks;
    }
    if !same_score || !held.weights.same_cell(&inputs) {
        held.weights = Weights::new::<T>(&inputs);
    }
    let Weights { w_ih, w_hh, score } = &held.weights;
    let inputs = BackendInputs::<B> {
        w_ih: w_ih.tensor.clone(),
        w_hh: w_hh.tensor.clone(),
        score: score.as_ref().map(|parameter| parameter.tensor.clone()),
        slots: None,
        ..inputs
    };
    let slices = Slices::<T>::of::<B>(&inputs, options);
    let outputs = held.stream.step(&slices.inputs(), options);
    let device = inputs.x.device();
    StepOutputs {
        hidden: floats::<B, T, 2>(outputs.last, dims, &device),
        cell: floats::<B, T, 2>(outputs.cell, dims, &device),
        summary: outputs
            .reminders
            .map(|reminders| floats::<B, T, 3>(reminders.summary, [batch, 1, hidden], &device)),
        stored: None,
        memory: SlotMemory::new(memory),
    }
}
