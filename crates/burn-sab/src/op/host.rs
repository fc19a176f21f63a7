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

use super::cpu::{self, Grads, Inputs, Needs, Score, Shape, UpGrads};
use super::stream::{Recall, SlotMemory, StepOutputs};
use super::{
    Dims, Readout, RetrievedSlots, SabGrads, SabInputs, SabOptions, SabOutputs, ScoreInputs,
    StoredSlots, UpstreamGrads,
};

/// A number that the kernel and the backends know.
pub(crate) trait HostFloat: cpu::Float + Element + bytemuck::Pod {}
impl HostFloat for f32 {}
impl HostFloat for f64 {}

/// A backend whose tensors can be read as slices.
pub(crate) trait HostBackend: Backend {
    /// The numbers of a tensor in row-major order; its data type is `T`.
    fn slice<T: HostFloat>(tensor: &FloatTensor<Self>) -> Cow<'_, [T]>;
}

#[cfg(feature = "flex")]
impl HostBackend for burn::backend::Flex {
    fn slice<T: HostFloat>(tensor: &FloatTensor<Self>) -> Cow<'_, [T]> {
        match tensor.as_slice::<T>() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(tensor.to_contiguous().storage::<T>().to_vec()),
        }
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
            other => unreachable!("a float tensor of the kernel's type, not {:?}", other.dtype()),
        }
    }
}

/// What the kernel's forward pass keeps: its own notes and, of what it gave out, the hidden states that
/// can be looked up; `None` where no step stored one and not all are given.
#[derive(Clone, Debug)]
pub struct SavedHost<B: Backend> {
    notes: Notes,
    past: Option<FloatTensor<B>>,
}

#[derive(Clone, Debug)]
enum Notes {
    F32(Arc<cpu::Saved<f32>>),
    F64(Arc<cpu::Saved<f64>>),
}

/// Whether the kernel computes in this data type.
pub(crate) fn covers(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F64)
}

/// Borrowed inputs and, per input, the memory of those that had to be copied.
struct Slices<'a, T: HostFloat> {
    tensors: [Cow<'a, [T]>; 7],
    score: Vec<Cow<'a, [T]>>,
    shape: Shape,
    kind: &'static str,
}

impl<'a, T: HostFloat> Slices<'a, T> {
    fn of<B: HostBackend>(inputs: &'a SabInputs<B>, options: &SabOptions) -> Self {
        let Dims { batch, time, input, hidden, .. } = Dims::of(inputs, options);
        let slots = match inputs.carried {
            0 => Cow::Borrowed(&[][..]),
            _ => B::slice(&inputs.slots),
        };
        let (kind, attention) = match &inputs.score {
            ScoreInputs::Additive { .. } => ("additive", 0),
            ScoreInputs::Mlp { query, .. } => ("mlp", query.shape()[1]),
            ScoreInputs::Dot { query, .. } => ("dot", query.shape()[1]),
        };
        Self {
            tensors: [
                B::slice(&inputs.x),
                B::slice(&inputs.w_ih),
                B::slice(&inputs.w_hh),
                B::slice(&inputs.bias),
                B::slice(&inputs.h0),
                B::slice(&inputs.c0),
                slots,
            ],
            score: inputs.score.tensors().into_iter().map(|tensor| B::slice(tensor)).collect(),
            shape: Shape { batch, time, input, hidden, carried: inputs.carried, attention },
            kind,
        }
    }

    fn inputs(&self) -> Inputs<'_, T> {
        let [x, w_ih, w_hh, bias, h0, c0, slots] = &self.tensors;
        let score = match (self.kind, self.score.as_slice()) {
            ("additive", [u, v]) => Score::Additive { u, v },
            ("mlp", [query, bias, memory, v]) => Score::Mlp { query, bias, memory, v },
            (_, [query, key]) => Score::Dot { query, key },
            _ => unreachable!("made by `of`"),
        };
        let capacity = self.shape.carried;
        Inputs { shape: self.shape, x, w_ih, w_hh, bias, h0, c0, slots, capacity, score }
    }
}

/// The same options with at most as many places as there are slots: the kernel writes `k_top` per step.
fn bounded<B: Backend>(inputs: &SabInputs<B>, options: &SabOptions) -> SabOptions {
    SabOptions { k_top: Dims::of(inputs, options).width(options), ..options.clone() }
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
pub(crate) fn forward<B: HostBackend>(
    inputs: &SabInputs<B>,
    options: &SabOptions,
    keep: bool,
) -> (SabOutputs<B>, Option<SavedHost<B>>) {
    match inputs.x.dtype() {
        DType::F64 => forward_as::<B, f64>(inputs, options, keep, Notes::F64),
        _ => forward_as::<B, f32>(inputs, options, keep, Notes::F32),
    }
}

fn forward_as<B: HostBackend, T: HostFloat>(
    inputs: &SabInputs<B>,
    options: &SabOptions,
    keep: bool,
    notes: fn(Arc<cpu::Saved<T>>) -> Notes,
) -> (SabOutputs<B>, Option<SavedHost<B>>) {
    let options = &bounded(inputs, options);
    let slices = Slices::<T>::of(inputs, options);
    let (outputs, saved) = cpu::forward(&slices.inputs(), options, keep);
    let device = inputs.x.device();
    let dims = Dims::of(inputs, options);
    let Dims { batch, time, hidden, .. } = dims;
    let given = options.readout.len(time);
    let count = options.slots_stored(time);
    let gathered = match options.readout {
        // Every step's output is a slot: the two share their memory.
        Readout::All if count == time || count == 0 => None,
        Readout::All => {
            let steps = (0..batch * time).filter(|at| options.stores_slot(at % time));
            Some(steps.flat_map(|at| &outputs.h[at * hidden..(at + 1) * hidden]).copied().collect())
        }
        Readout::At(_) => Some(outputs.stored),
    };
    let h = floats::<B, T, 3>(outputs.h, [batch, given, hidden], &device);
    let stored = (count > 0).then(|| match gathered {
        None => h.clone(),
        Some(slots) => floats::<B, T, 3>(slots, [batch, count, hidden], &device),
    });
    let past = match options.readout {
        Readout::All => Some(h.clone()),
        Readout::At(_) => stored.clone(),
    };
    let places = [batch, given, dims.width(options)];
    let outputs = SabOutputs::<B> {
        hidden: h,
        last: floats::<B, T, 2>(outputs.last, [batch, hidden], &device),
        cell: floats::<B, T, 2>(outputs.c, [batch, hidden], &device),
        stored: stored.map_or(StoredSlots::None, StoredSlots::Some),
        reminders: if options.reminders {
            RetrievedSlots::Some {
                summary: floats::<B, T, 3>(outputs.s, [batch, given, hidden], &device),
                slots: ints::<B>(outputs.slots, places, &device),
                weights: floats::<B, T, 3>(outputs.weights, places, &device),
            }
        } else {
            RetrievedSlots::None
        },
    };
    (outputs, saved.map(|saved| SavedHost { notes: notes(Arc::new(saved)), past }))
}

/// Gradients through the kernel.
pub(crate) fn backward<B: HostBackend>(
    inputs: &SabInputs<B>,
    saved: &SavedHost<B>,
    upstream: &UpstreamGrads<B>,
    options: &SabOptions,
    needs_x: bool,
) -> SabGrads<B> {
    let past = saved.past.as_ref();
    match &saved.notes {
        Notes::F32(notes) => backward_as(inputs, notes, past, upstream, options, needs_x),
        Notes::F64(notes) => backward_as(inputs, notes, past, upstream, options, needs_x),
    }
}

fn backward_as<B: HostBackend, T: HostFloat>(
    inputs: &SabInputs<B>,
    notes: &cpu::Saved<T>,
    past: Option<&FloatTensor<B>>,
    upstream: &UpstreamGrads<B>,
    options: &SabOptions,
    needs_x: bool,
) -> SabGrads<B> {
    let options = &bounded(inputs, options);
    let slices = Slices::<T>::of(inputs, options);
    let UpstreamGrads { hidden, last, cell, stored, summary } = upstream;
    let [h, last, c, stored, s] = [hidden, last, cell, stored, summary]
        .map(|grad| grad.as_ref().map(|grad| B::slice::<T>(grad)));
    let up = UpGrads {
        h: h.as_deref(),
        last: last.as_deref(),
        c: c.as_deref(),
        stored: stored.as_deref(),
        s: s.as_deref(),
    };
    let needs = Needs { x: needs_x, ..Needs::ALL };
    let past = past.map_or(Cow::Borrowed(&[][..]), |past| B::slice::<T>(past));
    let grads: Grads<T> = cpu::backward(&slices.inputs(), notes, &past, &up, needs, options);

    let device = inputs.x.device();
    let like = |values: Vec<T>, tensor: &FloatTensor<B>| {
        B::float_from_data(TensorData::new(values, tensor.shape()), &device)
    };
    SabGrads {
        x: needs_x.then(|| like(grads.x, &inputs.x)),
        w_ih: like(grads.w_ih, &inputs.w_ih),
        w_hh: like(grads.w_hh, &inputs.w_hh),
        bias: like(grads.bias, &inputs.bias),
        h0: like(grads.h0, &inputs.h0),
        c0: like(grads.c0, &inputs.c0),
        slots: (inputs.carried > 0).then(|| like(grads.slots, &inputs.slots)),
        score: grads
            .score
            .into_iter()
            .zip(inputs.score.tensors())
            .map(|(grad, of)| like(grad, of))
            .collect(),
    }
}

/// A stream's slots, their keys, and the parameters that the keys were computed with.
#[derive(Debug, Clone)]
struct HostMemory<B: Backend, T> {
    stream: cpu::Stream<T>,
    score: ScoreInputs<B>,
    /// Ranks of a step that sees many slots.
    ranks: usize,
    /// B and H.
    dims: [usize; 2],
}

impl<B: HostBackend, T: HostFloat> Recall for HostMemory<B, T> {
    fn count(&self) -> usize {
        self.stream.len()
    }

    fn slots(&self) -> TensorData {
        let [batch, hidden] = self.dims;
        TensorData::new(self.stream.slots(), [batch, self.stream.len(), hidden])
    }
}

/// Whether two sets of parameters are the same numbers because they are the same memory. Both are held, so
/// that nobody can have changed either in place.
fn same_memory<B: HostBackend, T: HostFloat>(a: &ScoreInputs<B>, b: &ScoreInputs<B>) -> bool {
    let (a, b) = (a.tensors(), b.tensors());
    let same = |(a, b)| std::ptr::eq(B::slice::<T>(a).as_ptr(), B::slice::<T>(b).as_ptr());
    a.len() == b.len() && a.into_iter().zip(b).all(same)
}

/// Runs one step of a stream through the kernel.
pub(crate) fn step<B: HostBackend>(
    inputs: &SabInputs<B>,
    memory: SlotMemory,
    options: &SabOptions,
) -> StepOutputs<B> {
    match inputs.x.dtype() {
        DType::F64 => step_as::<B, f64>(inputs, memory, options),
        _ => step_as::<B, f32>(inputs, memory, options),
    }
}

fn step_as<B: HostBackend, T: HostFloat>(
    inputs: &SabInputs<B>,
    memory: SlotMemory,
    options: &SabOptions,
) -> StepOutputs<B> {
    let Dims { batch, hidden, .. } = Dims::of(inputs, options);
    let (dims, ranks) = ([batch, hidden], options.ranks(usize::MAX));
    let mut memory = memory.into::<HostMemory<B, T>>().unwrap_or_else(|memory| {
        let inputs = inputs.clone().with_slots_of(&memory);
        let slots = match inputs.carried {
            0 => Cow::Borrowed(&[][..]),
            _ => B::slice::<T>(&inputs.slots),
        };
        let stream = cpu::Stream::new(&slots, batch, hidden);
        Arc::new(HostMemory { stream, score: inputs.score.clone(), ranks, dims })
    });
    // Nobody else holds it, as a rule: the step changes it where it is.
    let held = Arc::make_mut(&mut memory);
    if held.ranks != ranks || !same_memory::<B, T>(&held.score, &inputs.score) {
        held.stream.forget_keys();
        (held.ranks, held.score) = (ranks, inputs.score.clone());
    }
    let slices = Slices::<T>::of(inputs, options);
    let outputs = held.stream.step(&slices.inputs(), options);
    let device = inputs.x.device();
    StepOutputs {
        hidden: floats::<B, T, 2>(outputs.last, dims, &device),
        cell: floats::<B, T, 2>(outputs.c, dims, &device),
        stored: StoredSlots::None,
        memory: SlotMemory::new(memory),
    }
}
