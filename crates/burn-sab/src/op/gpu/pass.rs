//! The two passes as a few products and launches.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata, get_device_settings};
use burn::tensor::{DType, Shape as Sides};
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;

use super::CubeLaunch;
use super::backward::{Paths, Turned, Workspace, backward_kernel};
use super::forward::{Notes, Outputs, OutputsLaunch, Packed, forward_kernel};
use super::pack::{Part, pack};
use super::plan::{Regions, ScoreKind, Shape, Sizes, Variant};
use crate::op::dense::{DenseOutputs, DenseUpstream};
use crate::op::primitives::Prim;
use crate::op::{Dims, SabGrads, SabInputs, SabOptions, ScoreInputs};

/// How a call runs: its sizes and the kernels' variant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    shape: Shape,
    variant: Variant,
    sizes: Sizes,
    /// Of the device's memory, in bytes.
    alignment: u64,
    lanes: bool,
    limited: bool,
}

/// What forward keeps for backward.
#[derive(Clone, Debug)]
pub struct SavedGpu<B: Backend> {
    plan: Plan,
    /// The gates after their activations, `[B, T, 4H]`.
    record: FloatTensor<B>,
    hidden: FloatTensor<B>,
    notes: FloatTensor<B>,
}

/// Rounds after which Mesa's llvmpipe ends the loops of a shader, all loops together, without a word
/// (LP_MAX_TGSI_LOOP_ITERATIONS in its sources). No GPU has such a limit.
const LLVMPIPE_ROUNDS: usize = 65_535;

/// Plans a call, or says why the kernels do not cover it.
pub(crate) fn plan<B: CubeLaunch<Device = CubeDevice>>(
    inputs: &SabInputs<B>,
    options: &SabOptions,
) -> Result<Plan, String> {
    let dtype = inputs.x.dtype();
    if dtype != DType::F32 {
        return Err(format!("the GPU kernels compute in F32, not in {dtype:?}"));
    }
    let dims = Dims::of(inputs, options);
    let (score, attention) = match &inputs.score {
        ScoreInputs::Additive { .. } => (ScoreKind::Additive, 1),
        ScoreInputs::Mlp { query, .. } => (ScoreKind::Mlp, query.shape()[1]),
        ScoreInputs::Dot { query, .. } => (ScoreKind::Dot, query.shape()[1]),
    };
    let shape = Shape {
        batch: dims.batch,
        time: dims.time,
        hidden: dims.hidden,
        attention,
        carried: inputs.carried,
        slots: dims.total_slots,
        places: dims.width(options),
    };
    let client = inputs.x.device().client();
    let properties = client.properties();
    let variant = Variant::choose(&shape, score, options, &properties.hardware)?;
    let plan = Plan {
        shape,
        variant,
        sizes: Sizes::new(&shape, options),
        alignment: properties.memory.alignment,
        lanes: options.lanes() > 1,
        limited: options.max_hops.is_some(),
    };
    if plan.lanes && variant.gates_in_global {
        return Err(format!("max_hops at H {}: shared memory is too small", shape.hidden));
    }
    if properties.identity.name.contains("llvmpipe") && plan.rounds() > LLVMPIPE_ROUNDS {
        return Err(format!(
            "{} rounds of loops; Mesa's software Vulkan ends a shader's loops after {LLVMPIPE_ROUNDS}",
            plan.rounds()
        ));
    }
    let largest =
        [plan.notes(true).1, plan.workspace().1, dims.batch * dims.time * 4 * dims.hidden]
            .into_iter()
            .max()
            .unwrap_or(0);
    if (largest * size_of::<f32>()) as u64 > properties.memory.max_page_size {
        return Err(format!(
            "a buffer of {} bytes; the device allows {}: take a shorter sequence or a smaller batch",
            largest * size_of::<f32>(),
            properties.memory.max_page_size
        ));
    }
    Ok(plan)
}

impl Plan {
    fn cubes(&self) -> usize {
        self.shape.batch.div_ceil(self.variant.rows)
    }

    /// Rounds of all loops together in one unit of the longer kernel, rather too many than too few.
    fn rounds(&self) -> usize {
        let Shape { time, hidden, attention, carried, slots, .. } = self.shape;
        let v = &self.variant;
        let each = |items: usize| items.div_ceil(v.units);
        let (states, queries) = (each(v.rows * hidden), each(v.rows * attention));
        let search = slots.div_ceil(v.searchers());
        let ranks = v.ranks;
        let forward = each(4 * hidden) * (hidden + 1)
            + 2 * queries * (hidden + 2)
            + search * (attention + 1 + ranks)
            + 2 * ranks * (v.group() + 1)
            + states * (ranks + 3);
        let parts = each(v.rows * ranks * v.parts());
        let backward = each(hidden) * (4 * hidden + 1)
            + states * (2 * attention + 2 * ranks + 6)
            + parts * (hidden.div_ceil(v.parts()) + 1)
            + each(v.rows * ranks) * (v.parts() + 2 * ranks)
            + queries * (ranks + 2);
        let once = each(v.rows * carried * attention) * (hidden + 1)
            + each(v.rows * slots * (2 * hidden + 3 * attention))
            + states * (carried * (attention + 1) + slots + 8);
        time * forward.max(backward * self.sizes.lanes) + once
    }

    /// Where the outputs beside the hidden states lie, and how many numbers they are.
    fn outputs(&self) -> (Outputs, usize) {
        let Shape { batch, time, hidden, places, .. } = self.shape;
        let mut regions = Regions::new(self.alignment);
        regions.take(batch * time * hidden);
        let outputs = Outputs {
            weights: regions.take(batch * time * places),
            cell: regions.take(batch * hidden),
        };
        (outputs, regions.len())
    }

    fn notes(&self, keep: bool) -> (Notes, usize) {
        let Shape { batch, time, hidden, attention, slots, .. } = self.shape;
        let ranks = self.variant.ranks;
        let mut regions = Regions::new(self.alignment);
        regions.take(batch * attention * slots);
        let scores = regions.take(self.cubes() * self.variant.rows * slots);
        let mut kept = |len| if keep { regions.take(len) } else { 0 };
        let notes = Notes {
            scores,
            start: kept(batch * hidden),
            cells: kept(batch * (time + 1) * hidden),
            queries: kept(batch * time * attention),
            ranked: kept(batch * time * ranks),
            weights: kept(batch * time * ranks),
            sums: kept(batch * time),
        };
        (notes, regions.len())
    }

    fn workspace(&self) -> (Workspace, usize) {
        let Shape { batch, time, hidden, attention, carried, slots, .. } = self.shape;
        let vectors = self.variant.vectors();
        let sides = if self.lanes { 2 } else { 1 };
        let matrices = usize::from(self.variant.score != ScoreKind::Additive);
        let mut regions = Regions::new(self.alignment);
        let workspace = Workspace {
            queries: regions.take(matrices * batch * time * attention),
            before: regions.take(batch * time * hidden),
            provisional: regions.take(matrices * batch * time * hidden),
            memory: regions.take(matrices * batch * slots * hidden),
            keys: regions.take(batch * slots * attention),
            slots: regions.take(sides * batch * slots * hidden),
            lane_keys: regions.take((sides - 1) * 2 * batch * slots * attention),
            h0: regions.take(batch * hidden),
            c0: regions.take(batch * hidden),
            carried: regions.take(batch * carried * hidden),
            vectors: regions.take(batch * vectors),
            gates: regions.take((sides - 1) * batch * time * 4 * hidden),
        };
        (workspace, regions.len())
    }
}

/// A tensor that is a region of a buffer.
fn view<const D: usize>(buffer: &CubeTensor, at: usize, sides: [usize; D]) -> CubeTensor {
    let size = size_of::<f32>();
    let all = buffer.shape().num_elements();
    let len = sides.iter().product::<usize>();
    let handle = buffer.handle.clone();
    let handle =
        handle.offset_start((at * size) as u64).offset_end(((all - at - len) * size) as u64);
    CubeTensor::new_contiguous(
        buffer.client.clone(),
        buffer.device.clone(),
        Sides::from(sides),
        handle,
        buffer.dtype,
    )
}

fn empty<const D: usize>(like: &CubeTensor, sides: [usize; D], dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, Sides::from(sides), dtype)
}

/// A tensor that the kernel may overwrite: itself, if nobody else holds it.
fn owned(tensor: CubeTensor) -> CubeTensor {
    let tensor = into_contiguous(tensor);
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// The score's parameters as `(tensor, rows, columns)`: the two of queries and keys, then the vectors.
fn parameters<B: Backend>(score: &ScoreInputs<B>) -> Vec<FloatTensor<B>> {
    match score.clone() {
        ScoreInputs::Additive { u, v } => vec![u, v],
        ScoreInputs::Mlp { query, query_bias, memory, v } => vec![query, memory, query_bias, v],
        ScoreInputs::Dot { query, key } => vec![query, key],
    }
}

/// Runs the sequence; keeps what the backward pass needs if `keep`.
pub(crate) fn forward<B: CubeLaunch>(
    inputs: &SabInputs<B>,
    plan: Plan,
    keep: bool,
) -> (DenseOutputs<B>, Option<SavedGpu<B>>) {
    let Shape { batch, time, hidden, attention, places, .. } = plan.shape;
    let [_, _, input] = inputs.x.shape().dims();
    let projected = Prim::<B>(inputs.x.clone())
        .reshape([batch * time, input])
        .matmul(Prim(inputs.w_ih.clone()))
        .reshape([batch, time, 4 * hidden]);
    let device = inputs.x.device();
    let int = get_device_settings::<B>(&device).int_dtype;

    let mut tensors = vec![projected.0, inputs.slots.clone()];
    tensors.extend([inputs.w_hh.clone(), inputs.bias.clone()]);
    tensors.extend(parameters(&inputs.score));
    tensors.extend([inputs.h0.clone(), inputs.c0.clone()]);

    let float = DType::F32;
    let (notes_at, notes_len) = plan.notes(keep);
    let (outputs_at, outputs_len) = plan.outputs();
    let results = vec![
        (Sides::from([batch, time, hidden]), float),
        (Sides::from([batch, time, hidden]), float),
        (Sides::from([batch, hidden]), float),
        (Sides::from([batch, time, places]), DType::I32),
        (Sides::from([batch, time, places]), float),
        (Sides::from([batch, time, 4 * hidden]), float),
        (Sides::from([notes_len]), float),
    ];
    let results = B::launch("sab_forward", tensors, results, move |tensors| {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("as many as were given");
        let (record, slots) = (owned(next()), into_contiguous(next()));
        let variant = plan.variant;
        let at = Packed::of(&variant);
        let part = |tensor, at, columns| Part { tensor, at, rows: 1, columns, turned: false };
        let mut parts = vec![
            part(next(), at.w_hh, 4 * hidden * hidden),
            part(next(), at.bias, 4 * hidden),
            part(next(), at.query, hidden * attention),
            part(next(), at.key, hidden * attention),
        ];
        if variant.score == ScoreKind::Mlp {
            parts.push(part(next(), at.query_bias, attention));
            parts.push(part(next(), at.v, attention));
        }
        parts.push(part(next(), at.h0, batch * hidden));
        parts.push(part(next(), at.h0 + batch * hidden, batch * hidden));
        let packed = empty(&record, [at.h0 + 2 * batch * hidden], float);
        pack(parts, &packed);

        let states = empty(&record, [batch, time, hidden], float);
        let outputs = empty(&record, [outputs_len], float);
        let notes = empty(&record, [notes_len], float);
        let retrieved = empty(&record, [batch, time, places], DType::I32);
        forward_kernel::launch(
            &record.client,
            CubeCount::Static(plan.cubes() as u32, 1, 1),
            CubeDim::new_1d(variant.units as u32),
            record.clone().into_buffer_arg(),
            packed.into_buffer_arg(),
            slots.into_buffer_arg(),
            states.clone().into_buffer_arg(),
            outputs.clone().into_buffer_arg(),
            notes.clone().into_buffer_arg(),
            retrieved.clone().into_buffer_arg(),
            plan.sizes.to_launch(),
            OutputsLaunch::new(outputs_at.weights, outputs_at.cell),
            notes_at.to_launch(),
            variant,
            keep,
        );
        vec![
            states,
            view(&outputs, 0, [batch, time, hidden]),
            view(&outputs, outputs_at.cell, [batch, hidden]),
            retrieved,
            view(&outputs, outputs_at.weights, [batch, time, places]),
            record,
            notes,
        ]
    });
    let Ok([states, summary, cell, slots, weights, record, notes]) = <[_; 7]>::try_from(results)
    else {
        unreachable!("seven tensors were launched")
    };
    let mut slots = B::as_int(slots);
    if int != burn::tensor::IntDType::I32 {
        slots = B::int_cast(slots, int);
    }
    let saved = keep.then(|| SavedGpu { plan, record, hidden: states.clone(), notes });
    (DenseOutputs { hidden: states, summary, cell, slots, weights }, saved)
}

/// Gradients of all inputs from those of the outputs; that of `x` only if `needs_x`.
pub(crate) fn backward<B: CubeLaunch>(
    inputs: &SabInputs<B>,
    saved: SavedGpu<B>,
    upstream: DenseUpstream<B>,
    needs_x: bool,
) -> SabGrads<B> {
    let SavedGpu { plan, record, hidden: states, notes } = saved;
    let Shape { batch, time, hidden, attention, carried, slots, .. } = plan.shape;
    let [_, _, input] = inputs.x.shape().dims();
    let vectors = plan.variant.vectors();
    let steps = batch * time;
    let paths = Paths {
        hidden: upstream.hidden.is_some(),
        summary: upstream.summary.is_some(),
        cell: upstream.cell.is_some(),
        limited: plan.limited,
        lanes: plan.lanes,
    };
    // Any buffer stands for a gradient that there is not.
    let or_any = |grad: Option<FloatTensor<B>>| grad.unwrap_or_else(|| states.clone());
    let mut tensors = vec![record, states.clone(), notes];
    tensors.extend([or_any(upstream.hidden), or_any(upstream.summary), or_any(upstream.cell)]);
    tensors.extend([inputs.w_hh.clone(), inputs.slots.clone()]);
    tensors.extend(parameters(&inputs.score));

    let float = DType::F32;
    let matrices = plan.variant.score != ScoreKind::Additive;
    let mut results = vec![
        (Sides::from([steps, 4 * hidden]), float),
        (Sides::from([steps, hidden]), float),
        (Sides::from([batch, hidden]), float),
        (Sides::from([batch, hidden]), float),
    ];
    if carried > 0 {
        results.push((Sides::from([batch, carried, hidden]), float));
    }
    if vectors > 0 {
        results.push((Sides::from([batch, vectors]), float));
    }
    // No slot was ever stored: the score's matrices take no gradient.
    let attends = slots > 0;
    if matrices {
        results.push((Sides::from([steps, hidden]), float));
        results.push((Sides::from([steps, attention]), float));
        if attends {
            results.push((Sides::from([batch * slots, hidden]), float));
            results.push((Sides::from([batch * slots, attention]), float));
        }
    }
    let results = B::launch("sab_backward", tensors, results, move |tensors| {
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().expect("as many as were given");
        let record = owned(next());
        let [states, notes, up_h, up_s, up_c] = [next(), next(), next(), next(), next()];
        let variant = plan.variant;
        let at = Turned::of(&variant);
        let turned = |tensor, at, rows, columns| Part { tensor, at, rows, columns, turned: true };
        let part = |tensor, at, columns| Part { tensor, at, rows: 1, columns, turned: false };
        let (w_hh, slots_before) = (next(), next());
        let mut parts = vec![
            turned(w_hh, at.w_hh, hidden, 4 * hidden),
            turned(next(), at.query, hidden, attention),
            turned(next(), at.key, hidden, attention),
        ];
        if variant.score == ScoreKind::Mlp {
            next();
            parts.push(part(next(), at.v, attention));
        }
        if paths.cell {
            parts.push(part(up_c, at.cell, batch * hidden));
        }
        if carried > 0 {
            parts.push(part(slots_before, at.cell + batch * hidden, batch * carried * hidden));
        }
        let packed = empty(&record, [at.cell + batch * (1 + carried) * hidden], float);
        pack(parts, &packed);

        let (notes_at, _) = plan.notes(true);
        let (work_at, work_len) = plan.workspace();
        let work = empty(&record, [work_len], float);
        backward_kernel::launch(
            &record.client,
            CubeCount::Static(plan.cubes() as u32, 1, 1),
            CubeDim::new_1d(variant.units as u32),
            record.clone().into_buffer_arg(),
            packed.into_buffer_arg(),
            into_contiguous(states).into_buffer_arg(),
            into_contiguous(notes).into_buffer_arg(),
            into_contiguous(up_h).into_buffer_arg(),
            into_contiguous(up_s).into_buffer_arg(),
            work.clone().into_buffer_arg(),
            plan.sizes.to_launch(),
            notes_at.to_launch(),
            work_at.to_launch(),
            variant,
            paths,
        );
        let gates = match plan.lanes {
            true => view(&work, work_at.gates, [steps, 4 * hidden]),
            false => view(&record, 0, [steps, 4 * hidden]),
        };
        let mut out = vec![
            gates,
            view(&work, work_at.before, [steps, hidden]),
            view(&work, work_at.h0, [batch, hidden]),
            view(&work, work_at.c0, [batch, hidden]),
        ];
        if carried > 0 {
            out.push(view(&work, work_at.carried, [batch, carried, hidden]));
        }
        if vectors > 0 {
            out.push(view(&work, work_at.vectors, [batch, vectors]));
        }
        if matrices {
            out.push(view(&work, work_at.provisional, [steps, hidden]));
            out.push(view(&work, work_at.queries, [steps, attention]));
            if attends {
                out.push(view(&work, work_at.memory, [batch * slots, hidden]));
                out.push(view(&work, work_at.keys, [batch * slots, attention]));
            }
        }
        out
    });
    let mut results = results.into_iter().map(Prim::<B>);
    let mut next = || results.next().expect("as many as were launched");
    let (gates, before, h0, c0) = (next(), next(), next(), next());
    let carried_grad = (carried > 0).then(&mut next);
    let sums = (vectors > 0).then(|| next().sum(0));

    let product = |left: Prim<B>, right: Prim<B>| left.swap(0, 1).matmul(right);
    let x = Prim::<B>(inputs.x.clone()).reshape([steps, input]);
    let score = match (&inputs.score, sums) {
        (ScoreInputs::Additive { .. }, Some(sums)) => {
            let half = |k: usize| sums.narrow(1, k * hidden, (k + 1) * hidden).reshape([hidden]).0;
            vec![half(0), half(1)]
        }
        (_, sums) => {
            let (provisional, queries) = (next(), next());
            let query = product(provisional, queries);
            let key = match attends {
                true => product(next(), next()),
                false => query.zeros([hidden, attention]),
            };
            match sums {
                Some(sums) => {
                    let half = |k: usize| {
                        sums.narrow(1, k * attention, (k + 1) * attention).reshape([attention]).0
                    };
                    vec![query.0, half(0), key.0, half(1)]
                }
                None => vec![query.0, key.0],
            }
        }
    };
    SabGrads {
        x: needs_x.then(|| {
            let turned = Prim::<B>(inputs.w_ih.clone()).swap(0, 1);
            gates.clone().matmul(turned).reshape([batch, time, input]).0
        }),
        w_ih: product(x, gates.clone()).0,
        w_hh: product(before, gates.clone()).0,
        bias: gates.sum(0).reshape([4 * hidden]).0,
        h0: h0.0,
        c0: c0.0,
        slots: carried_grad.map(|grad| grad.0),
        score,
    }
}
