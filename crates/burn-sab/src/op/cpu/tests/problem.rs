//! Calls of the kernel on drawn numbers, and their results by name.

use pulp::Arch;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::super::backward::backward_on;
use super::super::forward::forward_on;
use super::super::*;

/// The score functions.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Additive,
    Mlp,
    Dot,
}

/// All of them.
pub const KINDS: [Kind; 3] = [Kind::Additive, Kind::Mlp, Kind::Dot];

/// The memory of a call's inputs and of the gradients from above: of h, s, c, the last h, and stored
/// slots; the first two and the last for as many places as there can be.
pub struct Problem<T> {
    shape: Shape,
    kind: Kind,
    pub x: Vec<T>,
    pub w_ih: Vec<T>,
    pub w_hh: Vec<T>,
    pub bias: Vec<T>,
    pub h0: Vec<T>,
    pub c0: Vec<T>,
    pub slots: Vec<T>,
    score: Vec<Vec<T>>,
    pub up: [Vec<T>; 5],
}

impl<T: Float + Into<f64>> Problem<T> {
    /// Draws everything, always the same.
    pub fn new(kind: Kind, shape: Shape) -> Self {
        let (batch, hidden, attention) = (shape.batch, shape.hidden, shape.attention);
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut uniform = |rows: usize, columns: usize| -> Vec<T> {
            let mut draw = || T::from_f64(1.4 * rng.random::<f64>() - 0.7);
            (0..rows * columns).map(|_| draw()).collect()
        };
        let parameters = match kind {
            Kind::Additive => vec![(1, hidden), (1, hidden)],
            Kind::Mlp => {
                vec![(hidden, attention), (1, attention), (hidden, attention), (1, attention)]
            }
            Kind::Dot => vec![(hidden, attention), (hidden, attention)],
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
            score: parameters.iter().map(|p| uniform(p.0, p.1)).collect(),
            up: [batch * shape.time, batch * shape.time, batch, batch, batch * shape.time]
                .map(|rows| uniform(rows, hidden)),
        }
    }

    /// The inputs as the kernel takes them.
    pub fn inputs(&self) -> Inputs<'_, T> {
        let p = &self.score;
        let score = match self.kind {
            Kind::Additive => Score::Additive { u: &p[0], v: &p[1] },
            Kind::Dot => Score::Dot { query: &p[0], key: &p[1] },
            Kind::Mlp => Score::Mlp { query: &p[0], bias: &p[1], memory: &p[2], v: &p[3] },
        };
        Inputs {
            shape: self.shape,
            x: &self.x,
            w_ih: &self.w_ih,
            w_hh: &self.w_hh,
            bias: &self.bias,
            h0: &self.h0,
            c0: &self.c0,
            slots: &self.slots,
            capacity: self.shape.carried,
            score,
        }
    }

    /// Forward and backward.
    pub fn run_on(&self, arch: Arch, options: &SabOptions, needs: Needs) -> Results<T> {
        let inputs = self.inputs();
        let (outputs, saved) = forward_on(arch, &inputs, options, true, &mut []);
        let saved = saved.expect("asked for");
        let Shape { batch, time, hidden, .. } = self.shape;
        let given = batch * options.readout.len(time) * hidden;
        let stored = batch * options.slots_stored(time) * hidden;
        let [h, s, c, last, slots] = &self.up;
        let up = UpGrads {
            h: Some(&h[..given]),
            s: Some(&s[..given]),
            c: Some(c),
            last: Some(last),
            stored: Some(&slots[..stored]),
        };
        let grads =
            backward_on(arch, &inputs, &saved, past(&outputs, options), &up, needs, options);
        Results { outputs, grads }
    }

    /// The same as the product runs it, with all gradients.
    pub fn run(&self, options: &SabOptions) -> Results<T> {
        self.run_on(Arch::new(), options, Needs::ALL)
    }
}

/// The hidden states that the backward pass looks up.
pub fn past<'a, T>(outputs: &'a Outputs<T>, options: &SabOptions) -> &'a [T] {
    match options.readout {
        Readout::All => &outputs.h,
        Readout::At(_) => &outputs.stored,
    }
}

/// What both passes gave.
pub struct Results<T> {
    pub outputs: Outputs<T>,
    pub grads: Grads<T>,
}

/// Arrays and what they are.
pub type Named = Vec<(&'static str, Vec<f64>)>;

impl<T: Float + Into<f64>> Results<T> {
    /// Every output and every gradient.
    pub fn named(&self) -> Named {
        let (outputs, grads) = (&self.outputs, &self.grads);
        let numbers = |values: &[T]| values.iter().map(|x| (*x).into()).collect();
        let slots = outputs.slots.iter().map(|slot| f64::from(*slot)).collect();
        let mut all = vec![
            ("h", numbers(&outputs.h)),
            ("s", numbers(&outputs.s)),
            ("c", numbers(&outputs.c)),
            ("last", numbers(&outputs.last)),
            ("stored", numbers(&outputs.stored)),
            ("slots", slots),
            ("weights", numbers(&outputs.weights)),
            ("grad x", numbers(&grads.x)),
            ("grad w_ih", numbers(&grads.w_ih)),
            ("grad w_hh", numbers(&grads.w_hh)),
            ("grad bias", numbers(&grads.bias)),
            ("grad h0", numbers(&grads.h0)),
            ("grad c0", numbers(&grads.c0)),
            ("grad slots", numbers(&grads.slots)),
        ];
        all.extend(grads.score.iter().map(|grad| ("grad score", numbers(grad))));
        all
    }
}
