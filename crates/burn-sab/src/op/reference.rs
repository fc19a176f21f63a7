//! The readable twin of the op: one line of tensor operations per line of the algorithm, under
//! Burn's own autodiff. Slow; covers every option of the layer, those of no fast path included.

use burn::module::Module;
use burn::nn::activation::Activation;
use burn::tensor::activation::softmax;
use burn::tensor::{Int, Tensor, TensorData};

use super::index;
use super::options::{EPSILON, Readout, SabOptions};
use super::score::Score;
use super::settings::Sparsifier;
use super::tensors::{Reminders, SabInputs, SabOutputs};

/// The recurrent cell, with the options of `burn::nn::LstmConfig`.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Bound on the absolute value of the cell state after each step.
    pub clip: Option<f64>,
    /// Forget gate = 1 - input gate; the packed weights then hold three gates: i, g, o.
    pub input_forget: bool,
    /// Activation functions; `None` for the standard ones (sigmoid, tanh, tanh).
    pub activations: Option<Activations>,
}

/// Activation functions other than the standard ones.
#[derive(Module, Debug)]
pub struct Activations {
    /// Of the input, forget and output gate.
    pub gate: Activation,
    /// Of the candidate cell state.
    pub cell: Activation,
    /// Of the cell state on its way to the hidden state.
    pub hidden: Activation,
}

impl Cell {
    /// The plain LSTM cell, which is what the fast paths cover.
    pub fn standard() -> Self {
        Self { clip: None, input_forget: false, activations: None }
    }

    /// Gates in the packed weights.
    pub(crate) fn gates(&self) -> usize {
        if self.input_forget { 3 } else { 4 }
    }

    /// Whether this is [`Cell::standard`].
    pub fn is_standard(&self) -> bool {
        self.clip.is_none() && !self.input_forget && self.activations.is_none()
    }

    /// From gate inputs `[B, 4H]` (or `[B, 3H]`) and `c` to the provisional hidden state and `c`.
    fn step(&self, gates: Tensor<2>, c: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let [_, hidden] = c.dims();
        let gate = |k: usize| gates.clone().narrow(1, k * hidden, hidden);
        let squash = |x: Tensor<2>| match &self.activations {
            None => sigmoid(x),
            Some(activations) => activations.gate.forward(x),
        };
        let (i, f, g, o) = if self.input_forget {
            let i = squash(gate(0));
            (i.clone(), i.neg().add_scalar(1.0), gate(1), squash(gate(2)))
        } else {
            (squash(gate(0)), squash(gate(1)), gate(2), squash(gate(3)))
        };
        let g = match &self.activations {
            None => g.tanh(),
            Some(activations) => activations.cell.forward(g),
        };
        let mut c = f * c + i * g;
        if let Some(clip) = self.clip {
            c = c.clamp(-clip, clip);
        }
        let out = match &self.activations {
            None => c.clone().tanh(),
            Some(activations) => activations.hidden.forward(c.clone()),
        };
        (o * out, c)
    }
}

/// By way of tanh: Burn's default sigmoid computes in f32 whatever the data type is.
fn sigmoid(x: Tensor<2>) -> Tensor<2> {
    x.mul_scalar(0.5).tanh().add_scalar(1.0).mul_scalar(0.5)
}

/// Runs the sequence.
///
/// A limit of D hops is defined by unrolling: pass d retrieves the slots of pass d + 1, the
/// innermost pass retrieves constants.
pub(crate) fn sab_sequence(inputs: SabInputs, options: &SabOptions, cell: &Cell) -> SabOutputs {
    let [_, time, _] = inputs.x.dims();
    match options.settings.max_hops.filter(|hops| *hops < time) {
        None => unroll(&inputs, options, cell, None).0,
        Some(hops) => {
            let carried = inputs.slots.as_ref().map_or(0, |slots| slots.dims()[1]);
            let (mut outputs, mut slots) = unroll(&inputs, options, cell, None);
            for slot in &mut slots[carried..] {
                *slot = slot.clone().detach();
            }
            for _ in 0..=hops {
                (outputs, slots) = unroll(&inputs, options, cell, Some(&slots));
            }
            outputs
        }
    }
}

/// One pass over time; retrieves `reminders` if given, else its own slots. Also returns its slots.
fn unroll(
    inputs: &SabInputs,
    options: &SabOptions,
    cell: &Cell,
    reminders: Option<&[Tensor<2>]>,
) -> (SabOutputs, Vec<Tensor<2>>) {
    let [batch, time, _] = inputs.x.dims();
    let (mut h, mut c) = (inputs.h0.clone(), inputs.c0.clone());
    let mut slots: Vec<Tensor<2>> = match &inputs.slots {
        Some(slots) => slots.clone().iter_dim(1).map(|slot| slot.squeeze_dim(1)).collect(),
        None => vec![],
    };
    let width = options.settings.k_top.min(slots.len() + options.slots_stored(time)).max(1);
    let (mut hidden, mut summaries, mut indices, mut weights) = (vec![], vec![], vec![], vec![]);

    for t in 0..time {
        if options.starts_window(t) {
            (h, c) = (h.detach(), c.detach());
        }
        let x: Tensor<2> = inputs.x.clone().narrow(1, t, 1).squeeze_dim(1);
        let gates = x.matmul(inputs.w_ih.clone())
            + inputs.bias.clone().unsqueeze()
            + h.matmul(inputs.w_hh.clone());
        (h, c) = cell.step(gates, c);

        let mut summary = h.zeros_like();
        let places = Tensor::<2>::zeros([batch, width], (&h.device(), h.dtype()));
        let (mut step_indices, mut step_weights) = (places.clone().int(), places);
        if !slots.is_empty() {
            let memory: Tensor<3> =
                Tensor::stack(reminders.unwrap_or(&slots)[..slots.len()].to_vec(), 1);
            let scores = match options.settings.detach_scores {
                false => score(&inputs.score, h.clone(), memory.clone()),
                true => score(&inputs.score, h.clone().detach(), memory.clone().detach()),
            };
            let ranks = options.ranks(slots.len());
            let order = match (options.settings.n_probe, &inputs.score) {
                (Some(n_probe), Score::Dot { query, key }) => {
                    let (query, keys) = query_and_keys(query, key, h.clone(), memory.clone());
                    searched(scores.clone(), query, keys, (n_probe, ranks))
                }
                _ => ranked(scores.clone(), ranks),
            };
            let w = sparse_weights(options, scores.gather(1, order.clone()), slots.len());

            let [_, n] = w.dims();
            let [_, _, d_hidden] = memory.dims();
            let rows: Tensor<3, Int> = order.clone().unsqueeze_dim(2);
            let nearest = memory.gather(1, rows.expand([batch, n, d_hidden]));
            summary = (w.clone().unsqueeze_dim(2) * nearest).sum_dim(1).squeeze_dim(1);

            let live = n.min(width);
            step_indices = step_indices.slice_assign([0..batch, 0..live], order.narrow(1, 0, live));
            step_weights =
                step_weights.slice_assign([0..batch, 0..live], w.detach().narrow(1, 0, live));
        }
        h = h + match &inputs.summary_gain {
            None => summary.clone().mul_scalar(options.settings.summary_scale),
            Some(gain) => summary.clone() * gain.clone().unsqueeze(),
        };
        if options.stores_slot(t) {
            slots.push(h.clone());
        }
        hidden.push(h.clone());
        summaries.push(summary);
        indices.push(step_indices);
        weights.push(step_weights);
    }
    let steps: Vec<usize> = match &options.readout {
        Readout::All => (0..time).collect(),
        Readout::At(steps) => steps.to_vec(),
    };
    let given = |of: Vec<Tensor<2>>| -> Tensor<3> {
        Tensor::stack(steps.iter().map(|t| of[*t].clone()).collect(), 1)
    };
    let carried = inputs.slots.as_ref().map_or(0, |slots| slots.dims()[1]);
    let outputs = SabOutputs {
        hidden: given(hidden),
        last: h,
        cell: c,
        stored: (slots.len() > carried).then(|| Tensor::stack(slots[carried..].to_vec(), 1)),
        reminders: options.reminders.then(|| Reminders {
            summary: given(summaries),
            slots: Tensor::stack(steps.iter().map(|t| indices[*t].clone()).collect(), 1),
            weights: given(weights),
        }),
    };
    (outputs, slots)
}

/// Scores `[B, M]` of the memory `[B, M, H]` (the algorithm, step 3).
fn score(score: &Score<Tensor<1>, Tensor<2>>, h: Tensor<2>, memory: Tensor<3>) -> Tensor<2> {
    match score {
        Score::Additive { u, v } => {
            let query: Tensor<2> = (h.tanh() * u.clone().unsqueeze()).sum_dim(1);
            let keys: Tensor<2> = (memory.tanh() * v.clone().unsqueeze()).sum_dim(2).squeeze_dim(2);
            query + keys
        }
        Score::Mlp { query, query_bias, memory: weight, v } => {
            let query: Tensor<2> = h.matmul(query.clone()) + query_bias.clone().unsqueeze();
            let keys = memory.matmul(weight.clone().unsqueeze());
            ((query.unsqueeze_dim(1) + keys).tanh() * v.clone().unsqueeze())
                .sum_dim(2)
                .squeeze_dim(2)
        }
        Score::Dot { query, key } => {
            let [_, size] = query.dims();
            let (query, keys) = query_and_keys(query, key, h, memory);
            (keys * query.unsqueeze_dim(1))
                .sum_dim(2)
                .squeeze_dim(2)
                .mul_scalar((size as f64).sqrt().recip())
        }
    }
}

/// The query `[B, A]` and the keys `[B, M, A]` of dot scores.
fn query_and_keys(
    query: &Tensor<2>,
    key: &Tensor<2>,
    h: Tensor<2>,
    memory: Tensor<3>,
) -> (Tensor<2>, Tensor<3>) {
    (h.matmul(query.clone()), memory.matmul(key.clone().unsqueeze()))
}

/// Indices `[B, n]` of the best scores in falling order, of equal ones the older slot first, NaN last: a
/// stable sort on the host, where there is no doubt about ties.
fn ranked(scores: Tensor<2>, n: usize) -> Tensor<2, Int> {
    let [batch, slots] = scores.dims();
    let device = scores.device();
    let rows = on_host(scores);
    let best = |row| index::ranked(row, (0..slots).collect()).into_iter().take(n);
    let order: Vec<i64> = rows.chunks(slots).flat_map(best).map(|slot| slot as i64).collect();
    Tensor::from_data(TensorData::new(order, [batch, n]), &device)
}

/// As [`ranked`], among the slots that an index finds for the queries `[B, A]` by the keys `[B, M, A]`.
fn searched(
    scores: Tensor<2>,
    query: Tensor<2>,
    keys: Tensor<3>,
    (n_probe, n): (usize, usize),
) -> Tensor<2, Int> {
    let [batch, _] = scores.dims();
    let device = scores.device();
    let (keys, query, scores) = (on_host(keys), on_host(query), on_host(scores));
    let order = index::select(&keys, &query, &scores, batch, (n_probe, n));
    Tensor::from_data(TensorData::new(order, [batch, n]), &device)
}

/// The elements of a tensor.
fn on_host<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.detach().into_data().iter::<f64>().collect()
}

/// Weights `[B, n]` of the ranked scores `[B, n]` out of `slots` slots (the algorithm, step 4).
fn sparse_weights(options: &SabOptions, ranked: Tensor<2>, slots: usize) -> Tensor<2> {
    let [_, n] = ranked.dims();
    let last = ranked.clone().narrow(1, n - 1, 1);
    // δ is the last ranked score plus this. Subtracted after the score, it is not lost beside a large one.
    let offset = match options.settings.sparsifier {
        Sparsifier::Softmax => return softmax(ranked, 1),
        Sparsifier::Released if slots <= options.settings.k_top => return ranked,
        Sparsifier::Released => EPSILON,
        Sparsifier::Threshold if slots <= options.settings.k_top => -1.0,
        Sparsifier::Threshold => 0.0,
    };
    let excess = burn::tensor::activation::relu((ranked - last).sub_scalar(offset));
    let sum = excess.clone().sum_dim(1).add_scalar(EPSILON);
    excess / sum
}
