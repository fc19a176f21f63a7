//! The two passes as a few products and launches.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{DType, Shape as Sides};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
#[cfg(not(test))]
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::CubeLaunch;
use super::backward::{Paths, backward_kernel};
use super::call::CallLaunch;
use super::forward::forward_kernel;
use super::layout::Packed;
use super::pack::{Part, pack};
use super::plan::Plan;
use super::variant::{ScoreKind, Shape};
use crate::op::dense::{DenseOutputs, DenseReminders, DenseUpstream};
use crate::op::primitives::Prim;
use crate::op::{SabGrads, SabInputs, ScoreInputs};

/// What forward keeps for backward.
#[derive(Clone, Debug)]
pub struct SavedGpu<B: Backend> {
    plan: Box<Plan>,
    /// The gates after their activations, `[B, T, 4H]`.
    record: FloatTensor<B>,
    packed: FloatTensor<B>,
    kept: FloatTensor<B>,
    operands: FloatTensor<B>,
    notes: FloatTensor<B>,
}

impl Plan {
    /// The arguments that both kernels take.
    fn call<F: Float>(
        &self,
        record: &CubeTensor,
        packed: &CubeTensor,
        kept: &CubeTensor,
        notes: &CubeTensor,
    ) -> CallLaunch<F> {
        CallLaunch::new(
            record.clone().into_buffer_arg(),
            packed.clone().into_buffer_arg(),
            kept.clone().into_buffer_arg(),
            notes.clone().into_buffer_arg(),
            self.sizes.to_launch(),
            self.summary_scale,
            self.at.to_launch(),
            self.variant,
        )
    }
}

/// A tensor that is a region of a buffer.
fn view<const D: usize>(
    buffer: &CubeTensor,
    at: usize,
    sides: [usize; D],
    dtype: DType,
) -> CubeTensor {
    let size = buffer.dtype.size();
    let all = buffer.shape().num_elements();
    let len = sides.iter().product::<usize>();
    let handle = buffer.handle.clone();
    let handle =
        handle.offset_start((at * size) as u64).offset_end(((all - at - len) * size) as u64);
    let (client, device) = (buffer.client.clone(), buffer.device.clone());
    CubeTensor::new_contiguous(client, device, Sides::from(sides), handle, dtype)
}

/// A buffer for the kernels to fill.
#[cfg(not(test))]
fn empty(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, Sides::from([len]), dtype)
}

/// The same, but holding NaN.
#[cfg(test)]
use super::tests::poisoned as empty;

/// A tensor that the kernel may overwrite: itself, if nobody else holds it.
fn owned(tensor: CubeTensor) -> CubeTensor {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// Runs the sequence; keeps what the backward pass needs if the plan says so.
pub(crate) fn forward<B: CubeLaunch>(
    inputs: &SabInputs<B>,
    plan: Plan,
) -> (DenseOutputs<B>, Option<SavedGpu<B>>) {
    let Shape { batch, time, input, hidden, attention, carried, slots, places } = plan.shape;
    let projected = Prim::<B>(inputs.x.clone())
        .reshape([batch * time, input])
        .matmul(Prim(inputs.w_ih.clone()))
        .reshape([batch, time, 4 * hidden]);
    let device = inputs.x.device();
    let int = get_device_settings::<B>(&device).int_dtype;

    let mut tensors = vec![projected.0, inputs.x.clone(), inputs.w_hh.clone(), inputs.bias.clone()];
    tensors.extend(inputs.score.tensors().into_iter().cloned());
    tensors.extend([inputs.h0.clone(), inputs.c0.clone(), inputs.slots.clone()]);

    let Plan { at, lengths, wanted, variant, dtype: float, element, .. } = plan;
    let mut results = vec![
        (Sides::from([batch, time, hidden]), float),
        (Sides::from([batch, hidden]), float),
        (Sides::from([batch, hidden]), float),
    ];
    if wanted.stored {
        results.push((Sides::from([batch, slots - carried, hidden]), float));
    }
    if wanted.reminders {
        results.push((Sides::from([batch, time, hidden]), float));
        results.push((Sides::from([batch, time, places]), DType::I32));
        results.push((Sides::from([batch, time, places]), float));
    }
    if wanted.keep {
        results.push((Sides::from([batch, time, 4 * hidden]), float));
        results.push((Sides::from([lengths.packed]), float));
        results.push((Sides::from([lengths.kept]), float));
        results.push((Sides::from([lengths.operands]), float));
        results.push((Sides::from([lengths.notes]), DType::U32));
    }
    let results = B::launch("sab_forward", tensors, results, move |tensors| {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("as many as were given");
        let (record, x) = (owned(next()), into_contiguous(next()));
        let part = Packed::of(&variant);
        let matrix = |tensor, at, columns, turned_at| Part {
            tensor,
            at,
            rows: hidden,
            columns,
            turned_at: wanted.keep.then_some(turned_at),
        };
        let mut parts = vec![
            matrix(next(), part.w_hh, 4 * hidden, part.turned_w_hh),
            Part::list(next(), part.bias, 4 * hidden),
        ];
        match variant.score {
            ScoreKind::Additive => {
                parts.push(Part::list(next(), part.query, hidden));
                parts.push(Part::list(next(), part.key, hidden));
            }
            ScoreKind::Mlp => {
                parts.push(matrix(next(), part.query, attention, part.turned_query));
                parts.push(Part::list(next(), part.query_bias, attention));
                parts.push(matrix(next(), part.key, attention, part.turned_key));
                parts.push(Part::list(next(), part.v, attention));
            }
            ScoreKind::Dot => {
                parts.push(matrix(next(), part.query, attention, part.turned_query));
                parts.push(matrix(next(), part.key, attention, part.turned_key));
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
        let kept = empty(&record, lengths.kept, float);
        let operands = empty(&record, lengths.operands, float);
        let notes = empty(&record, lengths.notes, DType::U32);
        forward_kernel::launch(
            &record.client,
            CubeCount::Static(plan.cubes() as u32, 1, 1),
            CubeDim::new_1d(variant.units as u32),
            plan.call(&record, &packed, &kept, &notes),
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
            out.push(view(&states, at.states.stored, [batch, slots - carried, hidden], float));
        }
        if wanted.reminders {
            out.push(view(&states, at.states.summary, [batch, time, hidden], float));
            out.push(view(&notes, at.notes.places, [batch, time, places], DType::I32));
            out.push(view(&states, at.states.weights, [batch, time, places], float));
        }
        if wanted.keep {
            out.extend([record, packed, kept, operands, notes]);
        }
        out
    });
    let mut results = results.into_iter();
    let mut next = || results.next().expect("as many as were launched");
    let (states, last, cell) = (next(), next(), next());
    let outputs = DenseOutputs {
        stored: match slots - carried {
            0 => None,
            _ if wanted.stored => Some(next()),
            // Every step stores one.
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
            DenseReminders { summary, slots, weights }
        }),
    };
    let saved = wanted.keep.then(|| SavedGpu {
        plan: Box::new(plan),
        record: next(),
        packed: next(),
        kept: next(),
        operands: next(),
        notes: next(),
    });
    (outputs, saved)
}

/// Gradients of all inputs from those of the outputs; that of `x` only if `needs_x`.
pub(crate) fn backward<B: CubeLaunch>(
    inputs: &SabInputs<B>,
    saved: SavedGpu<B>,
    upstream: DenseUpstream<B>,
    needs_x: bool,
) -> SabGrads<B> {
    let SavedGpu { plan, record, packed, kept, operands, notes } = saved;
    let plan = *plan;
    let Plan { shape, variant, at, lengths, dtype: float, element, .. } = plan;
    let Shape { batch, time, input, hidden, attention, carried, slots, .. } = shape;
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
    // Any buffer stands for a gradient that there is not.
    let or_any = |grad: Option<FloatTensor<B>>| grad.unwrap_or_else(|| inputs.x.clone());
    let mut tensors = vec![or_any(upstream.hidden), or_any(upstream.summary)];
    tensors.extend([or_any(upstream.last), or_any(upstream.cell)]);
    tensors.extend([record, packed, kept, operands, notes]);

    let matrices = variant.score != ScoreKind::Additive;
    // No slot was ever stored: the score's matrices take no gradient.
    let attends = slots > 0;
    let mut results = vec![
        (Sides::from([steps, 4 * hidden]), float),
        (Sides::from([steps, width]), float),
        (Sides::from([batch, hidden]), float),
        (Sides::from([batch, hidden]), float),
    ];
    if carried > 0 {
        results.push((Sides::from([batch, carried, hidden]), float));
    }
    if vectors > 0 {
        results.push((Sides::from([batch, vectors]), float));
    }
    if matrices {
        results.push((Sides::from([steps, provisional_width]), float));
        results.push((Sides::from([steps, attention]), float));
        if attends {
            results.push((Sides::from([batch * slots, hidden]), float));
            results.push((Sides::from([batch * slots, attention]), float));
        }
    }
    let results = B::launch("sab_backward", tensors, results, move |tensors| {
        let Ok([up_h, up_s, last, cell, record, packed, kept, operands, notes]) =
            <[_; 9]>::try_from(tensors)
        else {
            unreachable!("nine tensors were given")
        };
        let (record, kept) = (owned(record), owned(kept));
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
            plan.call(&record, &packed, &kept, &notes),
            into_contiguous(up_h).into_buffer_arg(),
            into_contiguous(up_s).into_buffer_arg(),
            work.into_buffer_arg(),
            paths,
            element,
        );
        let mut out = vec![
            view(&record, 0, [steps, 4 * hidden], float),
            view(&operands, 0, [steps, width], float),
            view(&kept, at.kept.grad_h0, [batch, hidden], float),
            view(&kept, at.kept.grad_c0, [batch, hidden], float),
        ];
        if carried > 0 {
            out.push(view(&kept, at.kept.grad_carried, [batch, carried, hidden], float));
        }
        if vectors > 0 {
            out.push(view(&kept, at.kept.grad_vectors, [batch, vectors], float));
        }
        if matrices {
            out.push(view(&operands, at.provisional, [steps, provisional_width], float));
            out.push(view(&kept, at.kept.queries, [steps, attention], float));
            if attends {
                out.push(view(&kept, 0, [batch * slots, hidden], float));
                out.push(view(&kept, at.kept.grad_keys, [batch * slots, attention], float));
            }
        }
        out
    });
    let mut results = results.into_iter().map(Prim::<B>);
    let mut next = || results.next().expect("as many as were launched");
    let (gates, operand, h0, c0) = (next(), next(), next(), next());
    let carried_grad = (carried > 0).then(&mut next);
    let sums = (vectors > 0).then(|| next().sum(0));

    let product = |left: Prim<B>, right: Prim<B>| left.swap(0, 1).matmul(right);
    let part =
        |sums: &Prim<B>, from: usize, len: usize| sums.narrow(1, from, from + len).reshape([len]).0;
    let mut matrices = || {
        let (provisional, queries) = (next(), next());
        let query = product(provisional, queries);
        let key = match attends {
            true => product(next(), next()),
            false => query.zeros([hidden, attention]),
        };
        (query, key)
    };
    let score = match (&inputs.score, sums) {
        (ScoreInputs::Additive { .. }, Some(sums)) => {
            vec![part(&sums, 0, hidden), part(&sums, hidden, hidden)]
        }
        (ScoreInputs::Mlp { .. }, Some(sums)) => {
            let (query, key) = matrices();
            let bias = query.narrow(0, hidden, hidden + 1).reshape([attention]);
            vec![query.narrow(0, 0, hidden).0, bias.0, key.0, part(&sums, 0, attention)]
        }
        (ScoreInputs::Dot { .. }, None) => {
            let (query, key) = matrices();
            vec![query.0, key.0]
        }
        _ => unreachable!("additive and mlp scores have vectors, dot scores have none"),
    };
    // Of [h before | x | 1]: the gradients of all weights and of the bias in one product.
    let weights = product(operand, gates.clone());
    SabGrads {
        x: needs_x.then(|| {
            let turned = Prim::<B>(inputs.w_ih.clone()).swap(0, 1);
            gates.matmul(turned).reshape([batch, time, input]).0
        }),
        w_hh: weights.narrow(0, 0, hidden).0,
        w_ih: weights.narrow(0, hidden, hidden + input).0,
        bias: weights.narrow(0, hidden + input, hidden + input + 1).reshape([4 * hidden]).0,
        h0: h0.0,
        c0: c0.0,
        slots: carried_grad.map(|grad| grad.0),
        score,
    }
}
