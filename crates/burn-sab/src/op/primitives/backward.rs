//! The backward pass, written out by hand (specification, "Backward"; derived in the book, chapter
//! "The gradient").
//!
//! One sweep from the last step to the first. Gradient moves inside a truncation window, from a step
//! to the slots it retrieved, and from a slot to the step that stored it; nothing else is touched.
//! With a limit on hops, D + 1 gradients ("lanes", leading size l) run side by side: what enters a
//! slot from lane d leaves in lane d + 1, and lane D gives the slots of this call nothing.

use burn::backend::Backend;

use super::forward::{SavedSteps, Step, slot_rows};
use super::score::{Scorer, outer, through_matrix};
use super::sparsify;
use super::tensor::Prim;
use crate::op::{Dims, SabGrads, SabInputs, SabOptions, UpstreamGrads};

/// Gradients of the slots and of their keys, `[l * b * m, _]`: rows so that each step adds to a few.
struct MemoryGrads<B: Backend> {
    slots: Prim<B>,
    keys: Prim<B>,
}

/// Gradients of all inputs from those of the outputs; that of `x` only if `needs_x`.
pub(crate) fn backward<B: Backend>(
    inputs: &SabInputs<B>,
    saved: SavedSteps<B>,
    upstream: UpstreamGrads<B>,
    options: &SabOptions,
    needs_x: bool,
) -> SabGrads<B> {
    let dims = Dims::of(inputs, options);
    let Dims { batch: b, time, input, hidden, total_slots: m_end, .. } = dims;
    let scorer = Scorer::new(&inputs.score);
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
    let up_h = upstream.hidden.map(Prim::<B>);
    let up_s = upstream.summary.map(Prim::<B>);
    let up_stored = upstream.stored.map(Prim::<B>);

    let mut memory_grads = memory.as_ref().map(|_| MemoryGrads {
        slots: h0.zeros([l * b * m_end, hidden]),
        keys: h0.zeros([l * b * m_end, a]),
    });
    let mut m = m_end;
    let mut grad_h: Option<Prim<B>> = upstream.last.map(|g| enter(Prim(g)));
    let mut grad_c: Option<Prim<B>> = upstream.cell.map(|g| enter(Prim(g)));
    let (mut gate_grads, mut states, mut query_grads) = (vec![], vec![], vec![]);
    let mut grad_v: Option<Prim<B>> = None;
    let zero = h0.zeros([l, b, hidden]);

    for (t, step) in steps.into_iter().enumerate().rev() {
        let Step { gates: [i, f, g, o], cell_tanh, cell_before, recall } = step;
        let mut grad = add(grad_h.take(), given(&up_h, t));

        if options.stores_slot(t)
            && let (Some(grads), Some((slots, _))) = (&memory_grads, &memory)
        {
            m -= 1;
            let slot = slots.narrow(1, m, m + 1).reshape([b, hidden]);
            grad = add(grad, at(&up_stored, m - inputs.carried));
            grad = add(grad, passed_on(grads, &scorer, slot, m, [l, b, m_end], options));
        }

        // ĥ passes the gradient of h on; the summary takes its share too, to the slots and to the scores.
        let provisional = o.clone() * cell_tanh.clone();
        let mut grad_provisional = grad.clone();
        let through_h = grad.map(|grad| grad.scaled(options.summary_scale));
        let reached = recall.and_then(|recall| Some((recall, add(through_h, given(&up_s, t))?)));
        if let (Some((recall, grad_s)), Some((slots, keys))) = (reached, &memory) {
            let [_, n] = recall.values.dims();
            let rows = slot_rows(recall.indices.clone(), m_end).to_int();
            let ranked = slots.clone().reshape([b * m_end, hidden]).rows(rows.clone());
            let ranked_keys = keys.clone().reshape([b * m_end, a]).rows(rows).reshape([b, n, a]);
            let grad_s = grad_s.reshape([l, b, 1, hidden]);

            let grad_w =
                (grad_s.clone() * ranked.reshape([1, b, n, hidden])).sum(3).reshape([l, b, n]);
            let w = sparsify::weights(options, recall.values.clone(), recall.slots);
            let grad_a = sparsify::weights_backward(options, recall.values, recall.slots, grad_w);
            let query = scorer.query(provisional.clone());
            let (grad_q, grad_k, grad_v_step) = scorer.combine_backward(query, ranked_keys, grad_a);
            grad_provisional = add(
                grad_provisional,
                Some(scorer.query_backward(provisional.clone(), grad_q.clone())),
            );
            grad_v = add(grad_v, grad_v_step);
            states.push(provisional);
            query_grads.push(grad_q.sum(0).reshape([b, a]));

            if let Some(grads) = memory_grads.take() {
                let lanes = recall.indices.reshape([1, b, n]).expand([l, b, n]).reshape([l * b, n]);
                let rows = slot_rows(lanes, m_end).to_int();
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

    // Parameters and inputs, in one product each.
    gate_grads.reverse();
    let gate_grads = Prim::cat(gate_grads, 1).reshape([b * time, 4 * hidden]);
    let before = match time {
        1 => h0.clone().reshape([b, 1, hidden]),
        _ => Prim::cat(vec![h0.clone().reshape([b, 1, hidden]), hs.narrow(1, 0, time - 1)], 1),
    };
    let x = Prim::<B>(inputs.x.clone()).reshape([b * time, input]);
    let w_ih = Prim::<B>(inputs.w_ih.clone());
    let all_lanes =
        |grad: Option<Prim<B>>| grad.unwrap_or_else(|| zero.clone()).sum(0).reshape([b, hidden]);

    let (carried, score) = match (memory, memory_grads) {
        (Some((slots, _)), Some(grads)) => {
            let keys = grads.keys.clone().reshape([l, b * m_end, a]).sum(0).reshape([b * m_end, a]);
            let queries = match states.is_empty() {
                true => (h0.zeros([1, hidden]), h0.zeros([1, a])),
                false => (Prim::cat(states, 0), Prim::cat(query_grads, 0)),
            };
            let memory = (slots.clone().reshape([b * m_end, hidden]), keys);
            let score = scorer.parameter_grads(queries, memory, grad_v);
            (carried(&grads, &scorer, inputs, [l, b, m_end], hidden), score)
        }
        _ => {
            let none = |n| (h0.zeros([1, hidden]), h0.zeros([1, n]));
            (None, scorer.parameter_grads(none(a), none(a), None))
        }
    };

    SabGrads {
        x: needs_x.then(|| {
            let grads = gate_grads.clone().reshape([1, b * time, 4 * hidden]);
            through_matrix(grads, &w_ih).reshape([b, time, input]).0
        }),
        w_ih: outer(x, gate_grads.clone()).0,
        w_hh: outer(before.reshape([b * time, hidden]), gate_grads.clone()).0,
        bias: gate_grads.sum(0).reshape([4 * hidden]).0,
        h0: all_lanes(grad_h).0,
        c0: all_lanes(grad_c).0,
        slots: carried,
        score,
    }
}

/// What slot `m` hands to the step that stored it: its own gradient and that of its key, one lane on.
fn passed_on<B: Backend>(
    grads: &MemoryGrads<B>,
    scorer: &Scorer<B>,
    slot: Prim<B>,
    m: usize,
    [l, b, m_end]: [usize; 3],
    options: &SabOptions,
) -> Option<Prim<B>> {
    let [_, hidden] = slot.dims();
    let a = scorer.size();
    let lanes = if options.max_hops.is_some() { l - 1 } else { l };
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
    let from_key = scorer.key_backward(slot, of_slot(&grads.keys, a));
    let grad = of_slot(&grads.slots, hidden) + from_key;
    Some(match options.max_hops {
        None => grad,
        Some(_) => Prim::cat(vec![grad.zeros([1, b, hidden]), grad], 0),
    })
}

/// Gradient of the carried slots, `[b, m0, h]`: tensors from outside, so every lane counts.
fn carried<B: Backend>(
    grads: &MemoryGrads<B>,
    scorer: &Scorer<B>,
    inputs: &SabInputs<B>,
    [l, b, m_end]: [usize; 3],
    hidden: usize,
) -> Option<burn::backend::tensor::FloatTensor<B>> {
    let (m, a) = (inputs.carried, scorer.size());
    if m == 0 {
        return None;
    }
    let first = |rows: &Prim<B>, size: usize| {
        rows.clone().reshape([l, b, m_end, size]).narrow(2, 0, m).sum(0).reshape([1, b * m, size])
    };
    let slots = Prim::<B>(inputs.slots.clone()).reshape([b * m, hidden]);
    let grad = first(&grads.slots, hidden) + scorer.key_backward(slots, first(&grads.keys, a));
    Some(grad.reshape([b, m, hidden]).0)
}

fn add<B: Backend>(lhs: Option<Prim<B>>, rhs: Option<Prim<B>>) -> Option<Prim<B>> {
    match (lhs, rhs) {
        (Some(lhs), Some(rhs)) => Some(lhs + rhs),
        (lhs, rhs) => lhs.or(rhs),
    }
}
