//! Who is measured: the models of this program, and what a user could take instead in PyTorch.
//!
//! A new peer is an entry of [`PEERS`]. A model of this program also needs a variant of [`Model`] and of
//! [`Network`](crate::network::Network); one of PyTorch needs a class in `torch_peers.py`.

use burn_sab_cli::values::name;

use crate::args::Model;
use crate::case::Case;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A model of this program.
    Own(Model),
    /// A peer of the script for PyTorch, by its name there.
    Torch(&'static str),
}

pub const SAB: Peer = Peer::Own(Model::Sab);
pub const LSTM: Peer = Peer::Own(Model::Lstm);
pub const BUNSEN: Peer = Peer::Own(Model::Bunsen);
pub const REFERENCE: Peer = Peer::Own(Model::Reference);
pub const PRIMITIVES: Peer = Peer::Own(Model::Primitives);
pub const TORCH_LSTM: Peer = Peer::Torch("torch-lstm");
pub const TORCH_CELL: Peer = Peer::Torch("torch-cell");
pub const TORCH_SAB: Peer = Peer::Torch("torch-sab");

/// The kind of work that a case measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// A forward pass and a training step over whole sequences.
    Sequences,
    /// One step at a time without gradients.
    Stream,
}

impl Work {
    pub fn of(case: &Case) -> Self {
        if case.slots.is_some() { Self::Stream } else { Self::Sequences }
    }
}

/// A peer as the tables describe it.
pub struct Entry {
    pub peer: Peer,
    /// Whether the peer has slots: only then the settings of the memory apply.
    remembers: bool,
    /// The work for which the layer's time is divided by the peer's.
    divides: &'static [Work],
    /// Whether a case measures the peer beside the layer: the peer can do the work within seconds and a few GiB.
    takes: fn(&Case) -> bool,
}

/// All peers, in the order of the tables' rows and ratios.
pub static PEERS: [Entry; 8] = [
    Entry { peer: SAB, remembers: true, divides: &[], takes: |_| true },
    Entry {
        peer: LSTM,
        remembers: false,
        divides: &[Work::Sequences, Work::Stream],
        takes: |case| {
            let [rows, time, hidden] = sizes(case);
            is_loopable(case) && rows * hidden * time * time < MOST_COPIED
        },
    },
    Entry {
        peer: BUNSEN,
        remembers: false,
        divides: &[Work::Sequences, Work::Stream],
        takes: |case| case.input == case.hidden && is_loopable(case) && !case.backend.is_gpu(),
    },
    Entry {
        peer: REFERENCE,
        remembers: true,
        divides: &[Work::Sequences, Work::Stream],
        // A GPU would have to compile each of its many small kernels first.
        takes: |case| is_dense(case) && !case.backend.is_gpu(),
    },
    // Measured where --model names it.
    Entry { peer: PRIMITIVES, remembers: true, divides: &[], takes: |_| false },
    Entry {
        peer: TORCH_LSTM,
        remembers: false,
        divides: &[Work::Sequences],
        takes: |case| {
            let [rows, time, hidden] = sizes(case);
            Work::of(case) == Work::Sequences && rows * hidden * time < MOST_KEPT
        },
    },
    Entry {
        peer: TORCH_CELL,
        remembers: false,
        // A stream in PyTorch is a loop over a cell.
        divides: &[Work::Stream],
        takes: is_loopable,
    },
    Entry {
        peer: TORCH_SAB,
        remembers: true,
        divides: &[Work::Sequences],
        takes: |case| {
            Work::of(case) == Work::Sequences && is_dense(case) && case.settings.max_hops.is_none()
        },
    },
];

/// Limits beyond which a comparison is left out, as it would take minutes or tens of GiB. Steps: with the
/// dozens of nodes a step of Burn's autodiff, and as many small operations in PyTorch. Numbers: those that
/// dense attention keeps, those that the longest recurrence keeps, those that Burn's `Lstm` copies.
const MOST_STEPS: usize = 1000;
const MOST_ATTENDED: f64 = 1e9;
const MOST_KEPT: f64 = 1e8;
const MOST_COPIED: f64 = 2.5e10;

/// Batch rows, steps and hidden units.
fn sizes(case: &Case) -> [f64; 3] {
    [case.batch, case.time, case.hidden].map(|n| n as f64)
}

/// Whether a case has few enough steps for a loop over them.
fn is_loopable(case: &Case) -> bool {
    case.time <= MOST_STEPS
}

/// Whether dense attention is fast enough for a case: a loop over its steps then takes seconds.
fn is_dense(case: &Case) -> bool {
    let [rows, time, hidden] = sizes(case);
    let attended = rows * hidden * time * (1.0 + time / case.settings.k_att as f64) / 2.0;
    is_loopable(case)
        && attended < MOST_ATTENDED
        && case.slots.is_none_or(|slots| slots <= MOST_STEPS)
}

/// The peers that are measured on a case where no model is named.
pub fn beside(case: &Case) -> impl Iterator<Item = Peer> {
    PEERS.iter().filter(move |entry| (entry.takes)(case)).map(|entry| entry.peer)
}

/// The peers whose times others' are divided by.
pub fn divisors(work: Work) -> impl Iterator<Item = Peer> {
    PEERS.iter().filter(move |entry| entry.divides.contains(&work)).map(|entry| entry.peer)
}

impl Peer {
    /// Its name on the command line, here or there.
    pub fn name(self) -> String {
        match self {
            Self::Own(model) => name(model),
            Self::Torch(peer) => peer.to_owned(),
        }
    }

    /// Its name in a table.
    pub fn title(self) -> String {
        self.name().replace('-', " ")
    }

    /// Whether the peer has slots: only then the settings of the memory apply.
    pub fn remembers(self) -> bool {
        PEERS.iter().any(|entry| entry.peer == self && entry.remembers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    /// The script that PyTorch runs.
    const SCRIPT: &str = include_str!("../torch_peers.py");

    #[test]
    fn every_model_is_listed_and_every_torch_peer_is_in_the_script() {
        for model in Model::value_variants() {
            assert!(PEERS.iter().any(|entry| entry.peer == Peer::Own(*model)), "{model:?}");
        }
        for Entry { peer, .. } in &PEERS {
            if let Peer::Torch(name) = peer {
                assert!(SCRIPT.contains(&format!("\"{name}\":")), "{name}");
            }
        }
    }

    #[test]
    fn times_are_divided_by_those_of_the_same_work() {
        let titles = |work| divisors(work).map(Peer::title).collect::<Vec<_>>();
        assert_eq!(
            titles(Work::Sequences),
            ["lstm", "bunsen", "reference", "torch lstm", "torch sab"]
        );
        assert_eq!(titles(Work::Stream), ["lstm", "bunsen", "reference", "torch cell"]);
    }
}
