//! The forward pass, step by step in backend primitives: LSTM cell, scores, retrieval, storage of slots
//! (the algorithm, steps 1 to 6).

use burn::backend::Backend;

use super::{gained, sparsify};
use crate::op::options::{Readout, SabOptions};
use crate::op::prim::{Ints, Prim};
use crate::op::tensors::{BackendInputs, BackendOutputs, Dims, Reminders, SabOutputs};

/// The saved activations of one step, with `b` rows, `h` hidden units and `n` ranks.
#[derive(Clone, Debug)]
pub(super) struct SavedStep<B: Backend> {
    /// Input, forget, cell and output gate after their activations, `[b, h]` each.
    pub gates: [Prim<B>; 4],
    /// tanh of the cell state, `[b, h]`.
    pub cell_tanh: Prim<B>,
    /// The cell state before the step, `[b, h]`.
    pub cell_before: Prim<B>,
    /// The retrieval of the step; absent if there are no slots yet.
    pub retrieval: Option<Retrieval<B>>,
}

/// The retrieval of one step.
#[derive(Clone, Debug)]
pub(super) struct Retrieval<B: Backend> {
    /// Number of slots before the step.
    pub slots: usize,
    /// Scores of the ranked slots, `[b, n]`.
    pub values: Prim<B>,
    /// Indices of the ranked slots, `[b, n]`.
    pub indices: Ints<B>,
}

/// The saved activations of all steps.
#[derive(Clone, Debug)]
pub(crate) struct SavedSteps<B: Backend> {
    pub(super) steps: Vec<SavedStep<B>>,
    /// Hidden states after each step, `[b, t, h]`.
    pub(super) hidden: Prim<B>,
    /// All slots, carried and stored, `[b, m, h]`, and their keys, `[b, m, a]`; absent if there are
    /// none.
    pub(super) memory: Option<(Prim<B>, Prim<B>)>,
}

/// Row indices of the slots `indices` (`[rows, n]`) in a `[rows * m, _]` matrix.
pub(super) fn slot_rows<B: Backend>(indices: Ints<B>, m: usize, like: &Prim<B>) -> Ints<B> {
    let [rows, n] = indices.dims();
    let first = like.iota(rows).scale(m).reshape([rows, 1]).expand([rows, n]);
    (indices + first).reshape([rows * n])
}

/// Runs the sequence. Saves activations if `keep`.
pub(super) fn forward<B: Backend>(
    inputs: &BackendInputs<B>,
    options: &SabOptions,
    keep: bool,
) -> (BackendOutputs<B>, Option<SavedSteps<B>>) {
    let dims = Dims::of::<B>(inputs, options);
    let Dims { batch: b, time, input, hidden, carried, .. } = dims;
    let m_end = dims.slots();
    let scorer = inputs.score.clone().map(Prim::<B>);
    let places = dims.places(options);

    let x = Prim::<B>(inputs.x.clone()).reshape([b * time, input]);
    let bias = Prim::<B>(inputs.bias.clone()).reshape([1, 4 * hidden]);
    let projected = (x.matmul(Prim(inputs.w_ih.clone())) + bias).reshape([b, time, 4 * hidden]);
    let w_hh = Prim::<B>(inputs.w_hh.clone());

    let mut h = Prim::<B>(inputs.h0.clone());
    let mut c = Prim::<B>(inputs.c0.clone());
    let mut m = carried;
    let mut memory = (m_end > 0).then(|| {
        let slots = h.zeros([b, m_end, hidden]);
        let keys = h.zeros([b, m_end, scorer.size()]);
        let Some(carried) = inputs.slots.clone().map(Prim::<B>) else {
            return (slots, keys);
        };
        let carried_keys = scorer.key(carried.clone().reshape([b * m, hidden]));
        (
            slots.assign(1, 0, m, carried),
            keys.assign(1, 0, m, carried_keys.reshape([b, m, scorer.size()])),
        )
    });

    let no_summary = h.zeros([b, hidden]);
    let no_weights = h.zeros([b, places]);
    let no_slots = h.integers(0, [b, places]);
    let (mut hs, mut ss, mut slots, mut weights) = (vec![], vec![], vec![], vec![]);
    let mut steps = Vec::with_capacity(if keep { time } else { 0 });

    for t in 0..time {
        let gates = projected.narrow(1, t, t + 1).reshape([b, 4 * hidden]) + h.matmul(w_hh.clone());
        let gate = |k: usize| gates.narrow(1, k * hidden, (k + 1) * hidden);
        let (i, f, g, o) =
            (gate(0).sigmoid(), gate(1).sigmoid(), gate(2).tanh(), gate(3).sigmoid());
        let cell_before = c;
        c = f.clone() * cell_before.clone() + i.clone() * g.clone();
        let cell_tanh = c.clone().tanh();
        let provisional = o.clone() * cell_tanh.clone();

        let mut summary = no_summary.clone();
        let mut retrieval = None;
        let (mut step_slots, mut step_weights) = (no_slots.clone(), no_weights.clone());
        if let Some((slots, keys)) = memory.as_ref().filter(|_| m > 0) {
            let (query, keys) = (scorer.query(provisional.clone()), keys.narrow(1, 0, m));
            let scores = scorer.combine(query.clone(), keys.clone());
            let ranks = options.ranks(m);
            let (values, indices) = match options.settings.n_probe {
                None => sparsify::select(scores, ranks),
                Some(n_probe) => sparsify::search(scores, &keys, &query, (n_probe, ranks)),
            };
            let [_, n] = values.dims();
            let w = sparsify::weights(options, values.clone(), m);
            let rows = slots.clone().reshape([b * m_end, hidden]);
            let ranked = rows.rows(slot_rows(indices.clone(), m_end, &w)).reshape([b, n, hidden]);
            summary = w.clone().reshape([b, 1, n]).matmul(ranked).reshape([b, hidden]);

            let live = n.min(places);
            step_slots = step_slots.assign(1, 0, live, indices.narrow(1, 0, live));
            step_weights = step_weights.assign(1, 0, live, w.narrow(1, 0, live));
            retrieval = Some(Retrieval { slots: m, values, indices });
        }
        h = provisional + gained::<B, 2>(summary.clone(), inputs, options);

        if let Some((slots, keys)) = memory.take_if(|_| options.stores_slot(t)) {
            let key = scorer.key(h.clone()).reshape([b, 1, scorer.size()]);
            let slot = h.clone().reshape([b, 1, hidden]);
            memory = Some((slots.assign(1, m, m + 1, slot), keys.assign(1, m, m + 1, key)));
            m += 1;
        }
        hs.push(h.clone().reshape([b, 1, hidden]));
        if options.reminders && options.readout.place(t).is_some() {
            ss.push(summary.reshape([b, 1, hidden]));
            slots.push(step_slots.reshape([b, 1, places]));
            weights.push(step_weights.reshape([b, 1, places]));
        }
        if keep {
            steps.push(SavedStep { gates: [i, f, g, o], cell_tanh, cell_before, retrieval });
        }
    }

    let given = match &options.readout {
        Readout::All => None,
        Readout::At(steps) => Some(Prim::cat(steps.iter().map(|t| hs[*t].clone()).collect(), 1)),
    };
    let every = (keep || given.is_none()).then(|| Prim::cat(hs, 1));
    let outputs = SabOutputs {
        hidden: given
            .or_else(|| every.clone())
            .expect("hidden states of the given or of all steps")
            .0,
        last: h.0,
        cell: c.0,
        stored: memory
            .as_ref()
            .filter(|_| m > carried)
            .map(|(slots, _)| slots.narrow(1, carried, m).0),
        reminders: options.reminders.then(|| Reminders {
            summary: Prim::cat(ss, 1).0,
            slots: Ints::cat(slots, 1).0,
            weights: Prim::cat(weights, 1).0,
        }),
    };
    let saved = every.filter(|_| keep).map(|hidden| SavedSteps { steps, hidden, memory });
    (outputs, saved)
}
