//! Calls of the kernel on drawn numbers, and their results by name.

use pulp::Arch;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::super::backward::backward_on;
use super::super::call::Inputs;
use super::super::forward::forward_on;
use super::super::{Float, Grads, Outputs, UpGrads};
use super::ALL;
use crate::op::options::{Readout, SabOptions};
use crate::op::score::{Score, ScoreKind};
use crate::op::tensors::{Dims, Needs, SabInputs};

/// The score functions.
pub const KINDS: [ScoreKind; 3] = [ScoreKind::Additive, ScoreKind::Mlp, ScoreKind::Dot];

/// The sizes of a call, without the slots that it stores, which the options decide.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub batch: usize,
    pub time: usize,
    pub input: usize,
    pub hidden: usize,
    pub carried: usize,
    pub attention: usize,
}

/// The memory of a call's inputs and of the gradients from above: of h, s, c, the last h, and stored
/// slots; the first two and the last for as many places as there can be.
pub struct Problem<T> {
    shape: Sizes,
    kind: ScoreKind,
    pub x: Vec<T>,
    pub w_ih: Vec<T>,
    pub w_hh: Vec<T>,
    pub bias: Vec<T>,
    pub h0: Vec<T>,
    pub c0: Vec<T>,
    pub slots: Vec<T>,
    summary_gain: Vec<T>,
    score: Vec<Vec<T>>,
    pub up: [Vec<T>; 5],
}

impl<T: Float + Into<f64>> Problem<T> {
    /// Draws everything, always the same.
    pub fn new(kind: ScoreKind, shape: Sizes) -> Self {
        let (batch, hidden, attention) = (shape.batch, shape.hidden, shape.attention);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut uniform = |rows: usize, columns: usize| -> Vec<T> {
            let mut draw = || T::from_f64(1.4 * rng.random::<f64>() - 0.7);
            (0..rows * columns).map(|_| draw()).collect()
        };
        let parameters = match kind {
            ScoreKind::Additive => vec![(1, hidden), (1, hidden)],
            ScoreKind::Mlp => {
                vec![(hidden, attention), (1, attention), (hidden, attention), (1, attention)]
            }
            ScoreKind::Dot => vec![(hidden, attention), (hidden, attention)],
        };
        Self {
            shape,
            kind,
            x: uniform(batch * shape.time, shape.input),
            w_ih: uniform(shape.input, 4 * hidden),
            w_hh: uniform(hidden, 4 * hidden),
            bias: uniform(1, 4 * hidden),
            h0: uniform(batch, hidden),
            c0: uniform(batch, hidden),
            slots: uniform(batch * shape.carried, hidden),
            summary_gain: uniform(1, hidden),
            score: parameters.iter().map(|p| uniform(p.0, p.1)).collect(),
            up: [batch * shape.time, batch * shape.time, batch, batch, batch * shape.time]
                .map(|rows| uniform(rows, hidden)),
        }
    }

    /// The inputs as the kernel takes them.
    pub fn inputs(&self, options: &SabOptions) -> Inputs<'_, T> {
        let p = &self.score;
        let Sizes { batch, time, input, hidden, carried, attention } = self.shape;
        let (score, attention) = match self.kind {
            ScoreKind::Additive => (Score::Additive { u: &p[0][..], v: &p[1][..] }, 1),
            ScoreKind::Dot => (Score::Dot { query: &p[0][..], key: &p[1][..] }, attention),
            ScoreKind::Mlp => {
                let [query, query_bias, memory, v] = [0, 1, 2, 3].map(|k| &p[k][..]);
                (Score::Mlp { query, query_bias, memory, v }, attention)
            }
        };
        Inputs {
            dims: Dims { batch, time, input, hidden, attention, carried, stored: 0 },
            arrays: SabInputs {
                x: &self.x,
                w_ih: &self.w_ih,
                w_hh: &self.w_hh,
                bias: &self.bias,
                h0: &self.h0,
                c0: &self.c0,
                slots: (carried > 0).then_some(&self.slots[..]),
                summary_gain: options.settings.learned_gain.then_some(&self.summary_gain[..]),
                score,
            },
            capacity: carried,
            slots_in_front: false,
        }
    }

    /// The needs that this problem's inputs have of these.
    pub fn needs(&self, all: &Needs, options: &SabOptions) -> Needs {
        let Score::Mlp { query, query_bias, memory, v } = all.score else {
            panic!("needs of every parameter are written as those of mlp scores");
        };
        Needs {
            slots: all.slots.filter(|_| self.shape.carried > 0),
            summary_gain: all.summary_gain.filter(|_| options.settings.learned_gain),
            score: match self.kind {
                ScoreKind::Additive => Score::Additive { u: query, v },
                ScoreKind::Mlp => Score::Mlp { query, query_bias, memory, v },
                ScoreKind::Dot => Score::Dot { query, key: memory },
            },
            ..*all
        }
    }

    /// Forward and backward.
    pub fn run_on(&self, arch: Arch, options: &SabOptions, needs: &Needs) -> Results<T> {
        let inputs = self.inputs(options);
        let (outputs, saved) = forward_on(arch, &inputs, options, true, &mut []);
        let saved = saved.expect("asked for");
        let Sizes { batch, time, hidden, .. } = self.shape;
        let given = batch * options.readout.len(time) * hidden;
        let stored = batch * options.most_stored(time) * hidden;
        let [h, s, c, last, slots] = &self.up;
        let up = UpGrads {
            hidden: Some(&h[..given]),
            summary: Some(&s[..given]),
            cell: Some(c),
            last: Some(last),
            stored: Some(&slots[..stored]),
        };
        let grads =
            backward_on(arch, &inputs, &saved, past(&outputs, options), &up, needs, options);
        Results { outputs, grads }
    }

    /// The same as the product runs it, with all gradients.
    pub fn run(&self, options: &SabOptions) -> Results<T> {
        self.run_on(Arch::new(), options, &self.needs(&ALL, options))
    }
}

/// The hidden states that the backward pass looks up.
pub fn past<'a, T>(outputs: &'a Outputs<T>, options: &SabOptions) -> &'a [T] {
    match options.readout {
        Readout::All if options.rows.is_none() => &outputs.hidden,
        _ => outputs.stored.as_deref().expect("given by itself"),
    }
}

/// What both passes gave.
pub struct Results<T> {
    pub outputs: Outputs<T>,
    pub grads: Grads<T>,
}

/// Arrays and what they are.
pub type Named = Vec<(String, Vec<f64>)>;

impl<T: Float + Into<f64>> Results<T> {
    /// Every output and every gradient that there is.
    pub fn named(&self) -> Named {
        let outputs = &self.outputs;
        let numbers = |values: &[T]| values.iter().map(|x| (*x).into()).collect();
        let mut all: Named = vec![
            ("h".to_owned(), numbers(&outputs.hidden)),
            ("c".to_owned(), numbers(&outputs.cell)),
            ("last".to_owned(), numbers(&outputs.last)),
        ];
        all.extend(outputs.stored.as_ref().map(|slots| ("stored".to_owned(), numbers(slots))));
        if let Some(reminders) = &outputs.reminders {
            let slots = reminders.slots.iter().map(|slot| f64::from(*slot)).collect();
            all.push(("s".to_owned(), numbers(&reminders.summary)));
            all.push(("slots".to_owned(), slots));
            all.push(("weights".to_owned(), numbers(&reminders.weights)));
        }
        for (name, grad) in self.grads.as_ref().map_ranks(|g| g, |g| g, |g| g).named() {
            all.extend(grad.as_ref().map(|grad| (format!("grad {name}"), numbers(grad))));
        }
        all
    }
}
