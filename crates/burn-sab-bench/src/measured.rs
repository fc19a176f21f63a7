//! What was measured, of whom, on which case.

use serde::{Deserialize, Serialize, Serializer};

use crate::case::Case;
use crate::peer::Peer;

/// One line of results.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    #[serde(serialize_with = "as_named")]
    pub peer: Peer,
    #[serde(flatten)]
    pub case: Case,
    #[serde(flatten)]
    pub figures: Figures,
}

fn as_named<S: Serializer>(peer: &Peer, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&peer.name())
}

/// What was found. Times are medians in milliseconds, spreads the least and the most; `None` where the
/// figure has no meaning or cannot be had.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Figures {
    /// Burn's backend, or PyTorch's device.
    pub device: String,
    /// Whether Burn's own SIMD and threads are compiled in.
    pub burn_simd: Option<bool>,
    /// PyTorch's version.
    pub torch: Option<String>,
    /// Timed training steps, or parts of a stream.
    pub runs: usize,
    /// A forward pass without gradients; of a stream, one step.
    pub forward_ms: f64,
    pub forward_spread_ms: [f64; 2],
    /// The backward part of a training step, and the end of all that it needed.
    pub backward_ms: Option<f64>,
    pub backward_spread_ms: Option<[f64; 2]>,
    /// Forward and backward with the gradients of all parameters; no optimiser.
    pub train_step_ms: Option<f64>,
    pub train_step_spread_ms: Option<[f64; 2]>,
    /// Of the whole process, in the machine's own memory.
    pub peak_rss_mib: Option<u64>,
    /// Memory that a forward pass leaves for its backward pass, beside outputs and parameters: heap, or a
    /// GPU's own.
    pub bytes_kept: Option<u64>,
    /// Memory that a stream's state takes, of slots, keys and all else, for each slot of a row.
    pub bytes_a_slot: Option<u64>,
    /// Heap allocations of a training step; of a stream, of one step.
    pub allocations: Option<u64>,
    /// Nodes that a forward pass puts into the autodiff graph.
    pub autodiff_nodes: Option<u64>,
    /// Steps that gradient of the last output reaches, over all rows; for `--loss last`.
    pub reached_steps: Option<u64>,
    /// This machine's own rate on the recurrent product's shape, with as many threads.
    pub sgemm_gflops: Option<f64>,
    /// What the recurrent products alone would take at that rate, as a share of the whole forward pass.
    pub sgemm_share_forward: Option<f64>,
    /// The same of the training step.
    pub sgemm_share_train: Option<f64>,
    /// A GPU's memory that training steps had reserved.
    pub device_mib: Option<u64>,
    /// A GPU's own rate on a large product of matrices, in f32.
    pub product_gflops: Option<f64>,
    /// A GPU's own rate on a large copy, reads and writes together.
    pub copy_gb_s: Option<f64>,
    /// What the products of a training step would take at that rate, as a share of what it took.
    pub arithmetic_share: Option<f64>,
    /// What the least traffic of a training step would take at that rate, likewise.
    pub bandwidth_share: Option<f64>,
}

/// Everything measured so far: ratios are taken within one run of the program.
#[derive(Debug, Default)]
pub struct Results(pub Vec<Measured>);

impl Results {
    /// The first result of `peer` that `fits`.
    pub fn find(&self, peer: Peer, fits: impl Fn(&Measured) -> bool) -> Option<&Measured> {
        self.0.iter().find(|found| found.peer == peer && fits(found))
    }

    /// The result of `peer` that `one` is compared with: the same work on the same backend, or in PyTorch
    /// on the same kind of device, and for peers with a memory the same memory.
    pub fn beside(&self, peer: Peer, one: &Measured) -> Option<&Measured> {
        self.find(peer, |other| {
            let place = |m: &Measured| m.case.backend;
            let here = match peer {
                Peer::Own(_) => place(one) == place(other),
                Peer::Torch(_) => place(one).is_gpu() == place(other).is_gpu(),
            };
            here && same_work(one, other) && (!peer.remembers() || same_memory(one, other))
        })
    }
}

fn same_work(a: &Measured, b: &Measured) -> bool {
    let work = |m: &Measured| {
        let Case { batch, time, input, hidden, threads, slots, .. } = m.case;
        (batch, time, input, hidden, threads, slots, m.case.loss)
    };
    work(a) == work(b)
}

fn same_memory(a: &Measured, b: &Measured) -> bool {
    let memory = |m: &Measured| (m.case.settings, m.case.score, m.case.attended());
    memory(a) == memory(b)
}

/// The figure that ratios compare: a training step, or a step of a stream.
pub fn work(one: &Measured) -> Option<f64> {
    one.figures.train_step_ms.or(one.case.slots.map(|_| one.figures.forward_ms))
}

/// `a / b`, if both were measured.
pub fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b.filter(|b| *b > 0.0)?)
}

/// Bytes kept for the backward pass per step and row.
pub fn kept(one: &Measured) -> Option<f64> {
    let row_steps = (one.case.time * one.case.batch) as f64;
    ratio(one.figures.bytes_kept.map(|bytes| bytes as f64), Some(row_steps))
}

/// Backward milliseconds per step that gradient reaches.
pub fn per_reached_step(one: &Measured) -> Option<f64> {
    ratio(one.figures.backward_ms, one.figures.reached_steps.map(|steps| steps as f64))
}

#[cfg(test)]
impl Results {
    /// The table as if every figure were 1.
    pub fn ones(sections: &[crate::sections::Section]) -> Self {
        let one = |(peer, case): &(Peer, Case)| Measured {
            peer: *peer,
            case: case.clone(),
            figures: Figures {
                forward_ms: 1.0,
                backward_ms: Some(1.0),
                train_step_ms: case.slots.is_none().then_some(1.0),
                peak_rss_mib: Some(1),
                bytes_kept: Some((case.batch * case.time) as u64),
                reached_steps: Some(1),
                sgemm_share_forward: Some(1.0),
                sgemm_share_train: Some(1.0),
                arithmetic_share: Some(1.0),
                bandwidth_share: Some(1.0),
                ..Figures::default()
            },
        };
        Self(sections.iter().flat_map(|section| section.rows.iter().map(one)).collect())
    }
}
