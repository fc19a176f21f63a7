//! The forward and backward pass on the GPU: a few matrix products, and the launches of the kernels over
//! time.

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{DType, Shape as TensorShape};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
#[cfg(not(test))]
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::backward::backward_kernel;
use super::call::CallLaunch;
use super::dense::DenseUpstream;
use super::flow::Paths;
use super::forward::forward_kernel;
use super::launch::CubeLaunch;
use super::layout::Packed;
use super::pack::{Part, pack};
use super::plan::Plan;
use crate::op::prim::Prim;
use crate::op::score::{Score, ScoreKind};
use crate::op::tensors::{
    BackendInputs, BackendOutputs, Dims, Gradients, Needs, Reminders, SabInputs, SabOutputs,
};

/// The saved activations.
#[derive(Clone, Debug)]
pub(crate) struct SavedGpu<B: Backend> {
    plan: Box<Plan>,
    /// The gates after their activations, `[B, T, 4H]`.
    record: FloatTensor<B>,
    packed: FloatTensor<B>,
    saved: FloatTensor<B>,
    operands: FloatTensor<B>,
    notes: FloatTensor<B>,
    /// The table of rows that differ.
    schedule: Option<FloatTensor<B>>,
}

impl Plan {
    /// The arguments that both kernels share.
    fn call<F: Float>(
        &self,
        record: &CubeTensor,
        packed: &CubeTensor,
        saved: &CubeTensor,
        notes: &CubeTensor,
        schedule: Option<&CubeTensor>,
    ) -> CallLaunch<F> {
        let mut tables = SequenceArg::new();
        if let Some(table) = schedule {
            tables.push(table.clone().into_buffer_arg());
        }
        CallLaunch::new(
            record.clone().into_buffer_arg(),
            packed.clone().into_buffer_arg(),
            saved.clone().into_buffer_arg(),
            notes.clone().into_buffer_arg(),
            tables,
            self.sizes.to_launch(),
            self.summary_scale,
            self.at.to_launch(),
            self.variant,
        )
    }
}

/// Returns a tensor over a region of a buffer.
fn view<const D: usize>(
    buffer: &CubeTensor,
    at: usize,
    shape: [usize; D],
    dtype: DType,
) -> CubeTensor {
    let size = buffer.dtype.size();
    let all = buffer.shape().num_elements();
    let len = shape.iter().product::<usize>();
    let handle = buffer.handle.clone();
    let handle =
        handle.offset_start((at * size) as u64).offset_end(((all - at - len) * size) as u64);
    let (client, device) = (buffer.client.clone(), buffer.device.clone());
    CubeTensor::new_contiguous(client, device, TensorShape::from(shape), handle, dtype)
}

/// Allocates a buffer for the kernels to fill.
#[cfg(not(test))]
fn empty(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, TensorShape::from([len]), dtype)
}

/// Allocates the same buffer, filled with NaN.
#[cfg(test)]
use super::tests::poisoned as empty;

/// Returns a tensor that the kernel may overwrite: the tensor itself if it has no other owner, otherwise
/// a copy.
fn owned(tensor: CubeTensor) -> CubeTensor {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// Copies words to the device.
fn upload(words: &[u32], like: &CubeTensor) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    let handle = client.create_from_slice(bytemuck::cast_slice(words));
    CubeTensor::new_contiguous(client, device, TensorShape::from([words.len()]), handle, DType::U32)
}

/// Runs the sequence and returns the outputs of every step. Saves activations if the plan asks for them. `table` is
/// that of rows that differ.
pub(super) fn forward<B: CubeLaunch>(
    inputs: &BackendInputs<B>,
    plan: Plan,
    table: Option<Arc<[u32]>>,
) -> (BackendOutputs<B>, Option<SavedGpu<B>>) {
    let Dims { batch, time, input, hidden, attention, carried, stored } = plan.dims;
    let places = plan.places;
    let projected = Prim::<B>(inputs.x.clone())
        .reshape([batch * time, input])
        .matmul(Prim(inputs.w_ih.clone()))
        .reshape([batch, time, 4 * hidden]);
    let device = inputs.x.device();
    let int = get_device_settings::<B>(&device).int_dtype;

    let mut tensors = vec![projected.0, inputs.x.clone(), inputs.w_hh.clone(), inputs.bias.clone()];
    tensors.extend(inputs.summary_gain.clone());
    tensors.extend(inputs.score.iter().cloned());
    tensors.extend([inputs.h0.clone(), inputs.c0.clone()]);
    tensors.extend(inputs.slots.clone());

    let Plan { at, lengths, wanted, variant, dtype: float, element, .. } = plan;
    let mut results = vec![
        (TensorShape::from([batch, time, hidden]), float),
        (TensorShape::from([batch, hidden]), float),
        (TensorShape::from([batch, hidden]), float),
    ];
    if wanted.stored {
        results.push((TensorShape::from([batch, stored, hidden]), float));
    }
    if wanted.reminders {
        results.push((TensorShape::from([batch, time, hidden]), float));
        results.push((TensorShape::from([batch, time, places]), DType::I32));
        results.push((TensorShape::from([batch, time, places]), float));
    }
    if wanted.keep {
        results.push((TensorShape::from([batch, time, 4 * hidden]), float));
        results.push((TensorShape::from([lengths.packed]), float));
        results.push((TensorShape::from([lengths.saved]), float));
        results.push((TensorShape::from([lengths.operands]), float));
        results.push((TensorShape::from([lengths.notes]), DType::U32));
        if variant.ragged {
            results.push((TensorShape::from([lengths.schedule]), DType::U32));
        }
    }
    let results = B::launch("sab_forward", tensors, results, move |tensors| {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("one tensor per argument");
        let (record, x) = (owned(next()), into_contiguous(next()));
        let part = Packed::of(&variant);
        let matrix = |tensor, at, columns, transposed_at| Part {
            tensor,
            at,
            rows: hidden,
            columns,
            transposed_at: wanted.keep.then_some(transposed_at),
        };
        let mut parts = vec![
            matrix(next(), part.w_hh, 4 * hidden, part.transposed_w_hh),
            Part::list(next(), part.bias, 4 * hidden),
        ];
        if variant.learned_gain {
            parts.push(Part::list(next(), part.summary_gain, hidden));
        }
        match variant.score {
            ScoreKind::Additive => {
                parts.push(Part::list(next(), part.query, hidden));
                parts.push(Part::list(next(), part.key, hidden));
            }
            ScoreKind::Mlp => {
                parts.push(matrix(next(), part.query, attention, part.transposed_query));
                parts.push(Part::list(next(), part.query_bias, attention));
                parts.push(matrix(next(), part.key, attention, part.transposed_key));
                parts.push(Part::list(next(), part.v, attention));
            }
            ScoreKind::Dot => {
                parts.push(matrix(next(), part.query, attention, part.transposed_query));
                parts.push(matrix(next(), part.key, attention, part.transposed_key));
            }
        }
        let state = batch * hidden;
        parts.push(Part::list(next(), part.states, state));
        parts.push(Part::list(next(), part.states + state, state));
        if carried > 0 {
            parts.push(Part::list(next(), part.states + 2 * state, carried * state));
        }
        let packed = empty(&record, lengths.packed, float);
        pack(parts, &packed, element);

        let states = empty(&record, lengths.states, float);
        let saved = empty(&record, lengths.saved, float);
        let operands = empty(&record, lengths.operands, float);
        let notes = empty(&record, lengths.notes, DType::U32);
        let schedule = table.as_ref().map(|words| upload(words, &record));
        forward_kernel::launch(
            &record.client,
            CubeCount::Static(plan.cubes() as u32, 1, 1),
            CubeDim::new_1d(variant.units as u32),
            plan.call(&record, &packed, &saved, &notes, schedule.as_ref()),
            x.into_buffer_arg(),
            states.clone().into_buffer_arg(),
            operands.clone().into_buffer_arg(),
            wanted,
            element,
        );
        let mut out = vec![
            view(&states, 0, [batch, time, hidden], float),
            view(&states, at.states.last, [batch, hidden], float),
            view(&states, at.states.cell, [batch, hidden], float),
        ];
        if wanted.stored {
            out.push(view(&states, at.states.stored, [batch, stored, hidden], float));
        }
        if wanted.reminders {
            out.push(view(&states, at.states.summary, [batch, time, hidden], float));
            out.push(view(&notes, at.notes.places, [batch, time, places], DType::I32));
            out.push(view(&states, at.states.weights, [batch, time, places], float));
        }
        if wanted.keep {
            out.extend([record, packed, saved, operands, notes]);
            out.extend(schedule);
        }
        out
    });
    let mut results = results.into_iter();
    let mut next = || results.next().expect("one tensor per output");
    let (states, last, cell) = (next(), next(), next());
    let outputs = SabOutputs {
        stored: match stored {
            0 => None,
            _ if wanted.stored => Some(next()),
            // Every step stores a slot.
            _ => Some(states.clone()),
        },
        hidden: states,
        last,
        cell,
        reminders: wanted.reminders.then(|| {
            let (summary, slots, weights) = (next(), B::as_int(next()), next());
            let slots = match int {
                burn::tensor::IntDType::I32 => slots,
                _ => B::int_cast(slots, int),
            };
            Reminders { summary, slots, weights }
        }),
    };
    let saved = wanted.keep.then(|| SavedGpu {
        plan: Box::new(plan),
        record: next(),
        packed: next(),
        saved: next(),
        operands: next(),
        notes: next(),
        schedule: variant.ragged.then(next),
    });
    (outputs, saved)
}

/// Computes the gradients of the inputs that need one from those of the outputs.
pub(super) fn backward<B: CubeLaunch>(
    inputs: &BackendInputs<B>,
    saved: SavedGpu<B>,
    upstream: DenseUpstream<FloatTensor<B>>,
    needs: &Needs,
) -> Gradients<B> {
    let SavedGpu { plan, record, packed, saved, operands, notes, schedule } = saved;
    let plan = *plan;
    let Plan { dims, variant, at, lengths, dtype: float, element, .. } = plan;
    let Dims { batch, time, input, hidden, attention, carried, .. } = dims;
    let slots = dims.slots();
    let vectors = variant.vectors();
    let steps = batch * time;
    let (width, provisional_width) = (plan.sizes.width, variant.provisional_width());
    let paths = Paths {
        hidden: upstream.hidden.is_some(),
        summary: upstream.summary.is_some(),
        last: upstream.last.is_some(),
        cell: upstream.cell.is_some(),
        limited: plan.limited,
        lanes: plan.sizes.lanes > 1,
    };
    // The kernel never reads the buffer of an absent gradient, so any buffer can stand for it.
    let or_any = |grad: Option<FloatTensor<B>>| grad.unwrap_or_else(|| inputs.x.clone());
    let mut tensors = vec![or_any(upstream.hidden), or_any(upstream.summary)];
    tensors.extend([or_any(upstream.last), or_any(upstream.cell)]);
    tensors.extend([record, packed, saved, operands, notes]);
    tensors.extend(schedule);

    let matrices = variant.score != ScoreKind::Additive;
    // Without slots, the gradients of the score's matrices are zero.
    let attends = slots > 0;
    let mut results = vec![
        (TensorShape::from([steps, 4 * hidden]), float),
        (TensorShape::from([steps, width]), float),
        (TensorShape::from([batch, hidden]), float),
        (TensorShape::from([batch, hidden]), float),
    ];
    if carried > 0 {
        results.push((TensorShape::from([batch, carried, hidden]), float));
    }
    if vectors > 0 {
        results.push((TensorShape::from([batch, vectors]), float));
    }
    if matrices {
        results.push((TensorShape::from([steps, provisional_width]), float));
        results.push((TensorShape::from([steps, attention]), float));
        if attends {
            results.push((TensorShape::from([batch * slots, hidden]), float));
            results.push((TensorShape::from([batch * slots, attention]), float));
        }
    }
    let results = B::launch("sab_backward", tensors, results, move |mut tensors| {
        let schedule = tensors.split_off(9).pop();
        let Ok([up_h, up_s, last, cell, record, packed, saved, operands, notes]) =
            <[_; 9]>::try_from(tensors)
        else {
            unreachable!("nine tensors were given, and a table where rows differ")
        };
        let (record, saved) = (owned(record), owned(saved));
        let state = batch * hidden;
        let states = Packed::of(&variant).states;
        let mut parts = vec![];
        if paths.last {
            parts.push(Part::list(last, states, state));
        }
        if paths.cell {
            parts.push(Part::list(cell, states + state, state));
        }
        let packed = if parts.is_empty() { packed } else { owned(packed) };
        pack(parts, &packed, element);

        let work = empty(&record, lengths.work, DType::F32);
        backward_kernel::launch(
            &record.client,
            CubeCount::Static(plan.cubes() as u32, 1, 1),
            CubeDim::new_1d(variant.units as u32),
            plan.call(&record, &packed, &saved, &notes, schedule.as_ref()),
            into_contiguous(up_h).into_buffer_arg(),
            into_contiguous(up_s).into_buffer_arg(),
            work.into_buffer_arg(),
            paths,
            element,
        );
        let mut out = vec![
            view(&record, 0, [steps, 4 * hidden], float),
            view(&operands, 0, [steps, width], float),
            view(&saved, at.saved.grad_h0, [batch, hidden], float),
            view(&saved, at.saved.grad_c0, [batch, hidden], float),
        ];
        if carried > 0 {
            out.push(view(&saved, at.saved.grad_carried, [batch, carried, hidden], float));
        }
        if vectors > 0 {
            out.push(view(&saved, at.saved.grad_vectors, [batch, vectors], float));
        }
        if matrices {
            out.push(view(&operands, at.provisional, [steps, provisional_width], float));
            out.push(view(&saved, at.saved.queries, [steps, attention], float));
            if attends {
                out.push(view(&saved, 0, [batch * slots, hidden], float));
                out.push(view(&saved, at.saved.grad_keys, [batch * slots, attention], float));
            }
        }
        out
    });
    let mut results = results.into_iter().map(Prim::<B>);
    let mut next = || results.next().expect("one tensor per output");
    let (gates, operand, h0, c0) = (next(), next(), next(), next());
    let carried_grad = (carried > 0).then(&mut next);
    let sums = (vectors > 0).then(|| next().sum(0));

    let product = |left: Prim<B>, right: Prim<B>| left.swap(0, 1).matmul(right);
    // Gradients of vectors, which follow one another in the sums over the batch.
    let vector = |needed: bool, from: usize, len: usize| {
        let sums = sums.as_ref().filter(|_| needed)?;
        Some(sums.narrow(1, from, from + len).reshape([len]).0)
    };
    let mut pair = |given: bool| given.then(|| (next(), next()));
    let (queries, keys) = (pair(matrices), pair(matrices && attends));
    // Gradient of W_q, with that of b as its last row; then the gradient of W_k or W_m.
    let query = |needed: bool| {
        let (provisional, queries) = queries.clone().filter(|_| needed)?;
        Some(product(provisional, queries))
    };
    let key = |needed: bool| {
        needed.then(|| match keys.clone() {
            Some((slots, keys)) => product(slots, keys).0,
            None => h0.zeros([hidden, attention]).0,
        })
    };
    let score = match needs.score {
        Score::Additive { u, v } => {
            Score::Additive { u: vector(u, 0, hidden), v: vector(v, hidden, hidden) }
        }
        Score::Mlp { query: weight, query_bias, memory, v } => {
            let all = query(weight || query_bias);
            let rows = |needed: bool, from: usize, to: usize| {
                all.as_ref().filter(|_| needed).map(|all| all.narrow(0, from, to))
            };
            Score::Mlp {
                query: rows(weight, 0, hidden).map(|rows| rows.0),
                query_bias: rows(query_bias, hidden, hidden + 1)
                    .map(|row| row.reshape([attention]).0),
                memory: key(memory),
                v: vector(v, 0, attention),
            }
        }
        Score::Dot { query: weight, key: other } => {
            Score::Dot { query: query(weight).map(|query| query.0), key: key(other) }
        }
    };
    // One product with [h before | x | 1] computes the gradients of all weights and of the bias.
    let any = needs.w_hh || needs.w_ih || needs.bias;
    let weights = any.then(|| product(operand, gates.clone()));
    let rows = |needed: bool, from: usize, to: usize| {
        weights.as_ref().filter(|_| needed).map(|all| all.narrow(0, from, to))
    };
    SabInputs {
        x: needs.x.then(|| {
            let transposed = Prim::<B>(inputs.w_ih.clone()).swap(0, 1);
            gates.matmul(transposed).reshape([batch, time, input]).0
        }),
        w_ih: rows(needs.w_ih, hidden, hidden + input).map(|rows| rows.0),
        w_hh: rows(needs.w_hh, 0, hidden).map(|rows| rows.0),
        bias: rows(needs.bias, hidden + input, hidden + input + 1)
            .map(|row| row.reshape([4 * hidden]).0),
        h0: needs.h0.then(|| h0.0.clone()),
        c0: needs.c0.then_some(c0.0),
        slots: needs.slots.map(|needed| carried_grad.filter(|_| needed).map(|grad| grad.0)),
        summary_gain: (needs.summary_gain)
            .map(|needed| vector(needed, variant.score_vectors(), hidden)),
        score,
    }
}
