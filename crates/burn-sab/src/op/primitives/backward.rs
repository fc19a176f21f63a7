//! The hand-written backward pass (derived in the book, chapter "The
//! gradient").
//!
//! One reverse sweep visits the steps from last to first. Gradient passes within a truncation window,
//! from a step to its retrieved slots, and from a slot to the step that stored it. No other path carries
//! gradient. With a limit on hops, D + 1 gradients ("lanes", leading dimension l) run in parallel.
//! Gradient that enters a slot in lane d leaves it in lane d + 1. Lane D adds nothing to the slots of
//! this call.

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;

use super::forward::{SavedStep, SavedSteps, slot_rows};
use super::score::{outer, through_matrix};
use super::{gained, sparsify};
use crate::op::options::SabOptions;
use crate::op::prim::Prim;
use crate::op::score::Score;
use crate::op::tensors::{BackendInputs, Dims, Gradients, Needs, SabInputs, Upstream};

/// Gradients of the slots and of their keys, `[l * b * m, _]`: matrices, because each step adds to few
/// of their rows.
struct MemoryGrads<B: Backend> {
    slots: Prim<B>,
    keys: Prim<B>,
}

/// Computes the gradients of the inputs that need one from those of the outputs.
pub(super) fn backward<B: Backend>(
    inputs: &BackendInputs<B>,
    saved: SavedSteps<B>,
    upstream: Upstream<FloatTensor<B>>,
    options: &SabOptions,
    needs: &Needs,
) -> Gradients<B> {
    let dims = Dims::of::<B>(inputs, options);
    let Dims { batch: b, time, input, hidden, carried, .. } = dims;
    let m_end = dims.slots();
    let scorer = inputs.score.clone().map(Prim::<B>);
    let (l, a) = (options.lanes(), scorer.size());
    let h0 = Prim::<B>(inputs.h0.clone());
    let w_hh = Prim::<B>(inputs.w_hh.clone());
    let SavedSteps { steps, hidden: hs, memory } = saved;

    // Upstream gradients enter lane 0.
    let enter = |grad: Prim<B>| match l {
        1 => grad.reshape([1, b, hidden]),
        _ => Prim::cat(vec![grad.reshape([1, b, hidden]), h0.zeros([l - 1, b, hidden])], 0),
    };
    let at = |grad: &Option<Prim<B>>, n: usize| grad.as_ref().map(|g| enter(g.narrow(1, n, n + 1)));
    let given = |grad: &Option<Prim<B>>, t: usize| at(grad, options.readout.place(t)?);
    let Upstream { hidden: up_h, last: up_last, cell: up_cell, stored: up_stored, summary: up_s } =
        upstream.map(Prim::<B>);

    let mut memory_grads = memory.as_ref().map(|_| MemoryGrads {
        slots: h0.zeros([l * b * m_end, hidden]),
        keys: h0.zeros([l * b * m_end, a]),
    });
    let mut m = m_end;
    let mut grad_h: Option<Prim<B>> = up_last.map(enter);
    let mut grad_c: Option<Prim<B>> = up_cell.map(enter);
    let (mut gate_grads, mut states, mut query_grads) = (vec![], vec![], vec![]);
    let (mut grad_v, mut grad_gain): (Option<Prim<B>>, Option<Prim<B>>) = (None, None);
    let zero = h0.zeros([l, b, hidden]);

    for (t, step) in steps.into_iter().enumerate().rev() {
        let SavedStep { gates: [i, f, g, o], cell_tanh, cell_before, retrieval } = step;
        let mut grad = add(grad_h.take(), given(&up_h, t));

        if options.stores_slot(t)
            && let (Some(grads), Some((slots, _))) = (&memory_grads, &memory)
        {
            m -= 1;
            let slot = slots.narrow(1, m, m + 1).reshape([b, hidden]);
            grad = add(grad, at(&up_stored, m - carried));
            grad = add(grad, passed_on(grads, &scorer, slot, m, [l, b, m_end], options));
        }

        // The provisional state ĥ receives the gradient of h unchanged. The summary receives it too, and
        // passes it to the slots and the scores.
        let provisional = o.clone() * cell_tanh.clone();
        let mut grad_provisional = grad.clone();
        let through_h = grad.clone().map(|grad| gained::<B, 3>(grad, inputs, options));
        let reached =
            retrieval.and_then(|retrieval| Some((retrieval, add(through_h, given(&up_s, t))?)));
        if let (Some((retrieval, grad_s)), Some((slots, keys))) = (reached, &memory) {
            let [_, n] = retrieval.values.dims();
            let rows = slot_rows(retrieval.indices.clone(), m_end, &grad_s);
            let ranked = slots.clone().reshape([b * m_end, hidden]).rows(rows.clone());
            let ranked_keys = keys.clone().reshape([b * m_end, a]).rows(rows).reshape([b, n, a]);
            let grad_s = grad_s.reshape([l, b, 1, hidden]);

            let grad_w = (grad_s.clone() * ranked.clone().reshape([1, b, n, hidden]))
                .sum(3)
                .reshape([l, b, n]);
            let w = sparsify::weights(options, retrieval.values.clone(), retrieval.slots);
            if needs.summary_gain == Some(true) {
                let ranked = ranked.reshape([b, n, hidden]);
                let summary = w.clone().reshape([b, 1, n]).matmul(ranked).reshape([b, hidden]);
                let of_step = grad.map(|grad| {
                    (grad.sum(0).reshape([b, hidden]) * summary).sum(0).reshape([hidden])
                });
                grad_gain = add(grad_gain, of_step);
            }
            let grad_a =
                sparsify::weights_backward(options, retrieval.values, retrieval.slots, grad_w);
            let query = scorer.query(provisional.clone());
            let (grad_q, grad_k, grad_v_step) = scorer.combine_backward(query, ranked_keys, grad_a);
            if !options.settings.detach_scores {
                let from_query = scorer.query_backward(provisional.clone(), grad_q.clone());
                grad_provisional = add(grad_provisional, Some(from_query));
            }
            grad_v = add(grad_v, grad_v_step);
            states.push(provisional);
            query_grads.push(grad_q.sum(0).reshape([b, a]));

            if let Some(grads) = memory_grads.take() {
                let lanes = retrieval.indices.reshape([1, b, n]).expand([l, b, n]);
                let rows = slot_rows(lanes.reshape([l * b, n]), m_end, &grad_s);
                let to_slots = (grad_s * w.reshape([1, b, n, 1])).reshape([l * b * n, hidden]);
                memory_grads = Some(MemoryGrads {
                    slots: grads.slots.add_rows(rows.clone(), to_slots),
                    keys: grads.keys.add_rows(rows, grad_k.reshape([l * b * n, a])),
                });
            }
        }

        // The cell.
        let grad_provisional = grad_provisional.unwrap_or_else(|| zero.clone());
        let lane = |value: Prim<B>| value.reshape([1, b, hidden]);
        let into_cell = grad_provisional.clone() * lane(o.clone() * cell_tanh.clone().tanh_slope());
        let grad_cell = add(grad_c.take(), Some(into_cell)).unwrap_or_else(|| zero.clone());
        let gate_grad = Prim::cat(
            vec![
                grad_cell.clone() * lane(g.clone() * i.clone().sigmoid_slope()),
                grad_cell.clone() * lane(cell_before * f.clone().sigmoid_slope()),
                grad_cell.clone() * lane(i * g.tanh_slope()),
                grad_provisional * lane(cell_tanh * o.sigmoid_slope()),
            ],
            2,
        );
        if !options.starts_window(t) {
            grad_h = Some(through_matrix(gate_grad.clone(), &w_hh));
            grad_c = Some(grad_cell * lane(f));
        }
        gate_grads.push(gate_grad.sum(0).reshape([b, 1, 4 * hidden]));
    }

    // Gradients of parameters and inputs, in one product each.
    gate_grads.reverse();
    let gate_grads = Prim::cat(gate_grads, 1).reshape([b * time, 4 * hidden]);
    let before = || {
        let first = h0.clone().reshape([b, 1, hidden]);
        match time {
            1 => first,
            _ => Prim::cat(vec![first, hs.narrow(1, 0, time - 1)], 1),
        }
    };
    let all_lanes =
        |grad: Option<Prim<B>>| grad.unwrap_or_else(|| zero.clone()).sum(0).reshape([b, hidden]);

    let (slots_grad, score) = match (memory, memory_grads) {
        (Some((slots, _)), Some(grads)) => {
            let keys = grads.keys.clone().reshape([l, b * m_end, a]).sum(0).reshape([b * m_end, a]);
            let queries = match states.is_empty() {
                true => (h0.zeros([1, hidden]), h0.zeros([1, a])),
                false => (Prim::cat(states, 0), Prim::cat(query_grads, 0)),
            };
            let memory = (slots.clone().reshape([b * m_end, hidden]), keys);
            let score = scorer.parameter_grads(&needs.score, queries, memory, grad_v);
            let of_slots = |slots: Prim<B>| {
                carried_grad(&grads, &scorer, slots, [l, b, m_end, carried, hidden], options)
            };
            (inputs.slots.clone().map(Prim).map(of_slots), score)
        }
        _ => {
            let none = |n| (h0.zeros([1, hidden]), h0.zeros([1, n]));
            (None, scorer.parameter_grads(&needs.score, none(a), none(a), None))
        }
    };

    let wanted = |needed: bool, gradient: &dyn Fn() -> Prim<B>| needed.then(|| gradient().0);
    let steps = b * time;
    SabInputs {
        x: wanted(needs.x, &|| {
            let grads = gate_grads.clone().reshape([1, steps, 4 * hidden]);
            through_matrix(grads, &Prim(inputs.w_ih.clone())).reshape([b, time, input])
        }),
        w_ih: wanted(needs.w_ih, &|| {
            let x = Prim::<B>(inputs.x.clone()).reshape([steps, input]);
            outer(x, gate_grads.clone())
        }),
        w_hh: wanted(needs.w_hh, &|| outer(before().reshape([steps, hidden]), gate_grads.clone())),
        bias: wanted(needs.bias, &|| gate_grads.clone().sum(0).reshape([4 * hidden])),
        h0: wanted(needs.h0, &|| all_lanes(grad_h.clone())),
        c0: wanted(needs.c0, &|| all_lanes(grad_c.clone())),
        slots: needs.slots.map(|needed| slots_grad.filter(|_| needed).map(|grad| grad.0)),
        summary_gain: needs.summary_gain.map(|needed| {
            wanted(needed, &|| grad_gain.clone().unwrap_or_else(|| h0.zeros([hidden])))
        }),
        score,
    }
}

/// Returns the gradient that slot `m` passes to the step that stored it: the slot's own and that of its
/// key. With a limit on hops, it moves to the next lane.
fn passed_on<B: Backend>(
    grads: &MemoryGrads<B>,
    scorer: &Score<Prim<B>>,
    slot: Prim<B>,
    m: usize,
    [l, b, m_end]: [usize; 3],
    options: &SabOptions,
) -> Option<Prim<B>> {
    let [_, hidden] = slot.dims();
    let a = scorer.size();
    let limited = options.settings.max_hops.is_some();
    let lanes = if limited { l - 1 } else { l };
    if lanes == 0 {
        return None;
    }
    let of_slot = |rows: &Prim<B>, size: usize| {
        rows.clone()
            .reshape([l, b, m_end, size])
            .narrow(2, m, m + 1)
            .narrow(0, 0, lanes)
            .reshape([lanes, b, size])
    };
    let mut grad = of_slot(&grads.slots, hidden);
    if !options.settings.detach_scores {
        grad = grad + scorer.key_backward(slot, of_slot(&grads.keys, a));
    }
    Some(match limited {
        false => grad,
        true => Prim::cat(vec![grad.zeros([1, b, hidden]), grad], 0),
    })
}

/// Returns the gradient of the carried slots, `[b, m0, h]`. These are inputs of the call, so every lane
/// contributes.
fn carried_grad<B: Backend>(
    grads: &MemoryGrads<B>,
    scorer: &Score<Prim<B>>,
    slots: Prim<B>,
    [l, b, m_end, m, hidden]: [usize; 5],
    options: &SabOptions,
) -> Prim<B> {
    let first = |rows: &Prim<B>, size: usize| {
        rows.clone().reshape([l, b, m_end, size]).narrow(2, 0, m).sum(0).reshape([1, b * m, size])
    };
    let mut grad = first(&grads.slots, hidden);
    if !options.settings.detach_scores {
        let keys = first(&grads.keys, scorer.size());
        grad = grad + scorer.key_backward(slots.reshape([b * m, hidden]), keys);
    }
    grad.reshape([b, m, hidden])
}

fn add<B: Backend>(lhs: Option<Prim<B>>, rhs: Option<Prim<B>>) -> Option<Prim<B>> {
    match (lhs, rhs) {
        (Some(lhs), Some(rhs)) => Some(lhs + rhs),
        (lhs, rhs) => lhs.or(rhs),
    }
}
