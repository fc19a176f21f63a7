//! The table on a GPU, and what the layer promises about it.

use burn_sab::ScoreKind::{Additive, Dot};
use burn_sab_cli::backend::Backend;

use crate::case::{Case, Loss};
use crate::measured::{Measured, Results, ratio, work};
use crate::peer::{LSTM, Peer, SAB, TORCH_LSTM, TORCH_SAB};
use crate::sections::{MILLION, Section, million, title};
use crate::targets::Bound::{AtMost, Told};
use crate::targets::Target;

/// Lengths of the training steps, at B 64.
const TIMES: [usize; 2] = [300, 1_000];
/// Lengths of single rows, and of as many rows as fit.
const LONG: [usize; 3] = [10_000, 100_000, MILLION];

/// The sections of the table.
pub fn table(backend: Backend, threads: usize, runs: usize) -> Vec<Section> {
    let main = Case::main(backend, threads, runs);
    let training = TIMES.into_iter().flat_map(|time| {
        let case = |score| Case { time, ..main.clone().with_score(score) };
        let peers = [
            (SAB, Dot),
            (SAB, Additive),
            (LSTM, Dot),
            (TORCH_LSTM, Dot),
            (TORCH_SAB, Dot),
            (TORCH_SAB, Additive),
        ];
        peers.map(|(peer, score)| (peer, case(score)))
    });
    let long = |time| Case { time, ..million(main.clone()) };
    // PyTorch's Lstm keeps every step's gates: 100,000 steps are a few hundred MiB.
    let plain = LONG[..2].iter().map(|time| (TORCH_LSTM, long(*time)));
    let long: Vec<_> = LONG.into_iter().map(|time| (SAB, long(time))).chain(plain).collect();
    vec![
        Section { title: title(&main), rows: training.collect(), fill: false },
        Section { title: title(&long[0].1), rows: long, fill: true },
    ]
}

/// What is promised of the table's results.
pub fn targets(results: &Results, backend: Backend) -> Vec<Target> {
    let mut targets = Vec::new();
    let mut promise = |what: String, measured: Option<f64>, bound| {
        targets.push(Target { what: format!("{}: {what}", backend.name()), measured, bound });
    };
    let step = |m: Option<&Measured>| m.and_then(work);
    for time in TIMES {
        let find = |peer: Peer, score| {
            results.find(peer, |m| {
                let case = &m.case;
                (case.backend, case.time, case.loss) == (backend, time, Loss::Mean)
                    && (!peer.remembers() || case.score == score)
            })
        };
        for score in [Dot, Additive] {
            let sab = find(SAB, score);
            let against = |peer| ratio(step(sab), step(find(peer, score)));
            let told = |what: &str| format!("T {time}, {}, {what}", score.name());
            promise(
                told("training step ÷ SAB in eager PyTorch"),
                against(TORCH_SAB),
                AtMost(1.0 / 30.0),
            );
            promise(told("training step ÷ torch.nn.LSTM"), against(TORCH_LSTM), AtMost(1.5));
            promise(told("training step ÷ Burn's Lstm"), against(LSTM), AtMost(1.0 / 20.0));
            promise(
                told("training step's share of the device's product rate"),
                sab.and_then(|m| m.figures.arithmetic_share),
                Told,
            );
            promise(
                told("training step's share of the device's copy rate"),
                sab.and_then(|m| m.figures.bandwidth_share),
                Told,
            );
        }
    }
    for time in LONG {
        let largest = results
            .0
            .iter()
            .filter(|m| m.peer == SAB && (m.case.backend, m.case.time) == (backend, time))
            .map(|m| m.case.batch)
            .max();
        promise(
            format!("T {time}: largest batch, by doubling"),
            largest.map(|batch| batch as f64),
            Told,
        );
    }
    targets
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_measured_by_the_table() {
        let sections = table(Backend::Cuda, 2, 7);
        assert!(sections[1].fill);
        for target in targets(&Results::ones(&sections), Backend::Cuda) {
            assert_eq!(target.measured, Some(1.0), "{}", target.what);
        }
        let nobody = targets(&Results::default(), Backend::Cuda);
        assert_eq!(nobody.len(), 2 * 2 * 5 + 3);
        assert!(nobody.iter().all(|target| target.measured.is_none()));
    }
}
