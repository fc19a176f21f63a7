//! What the layer promises about the table on the CPU, and what came of it.

use burn_sab::SabSettings;
use burn_sab::ScoreKind::{self, Additive, Dot, Mlp};
use burn_sab_cli::backend::Backend;
use burn_sab_cli::flags::Flags;

use crate::case::{Loss, OfBench};
use crate::measured::{Measured, Results, kept, per_reached_step, ratio, work};
use crate::peer::{LSTM, Peer, SAB, TORCH_CELL, TORCH_LSTM, TORCH_SAB};
use crate::sections::{INDEXED_FROM, LENGTHS, LONGER, MILLION, N_PROBE, ROWS, STREAMS, THREADS};
use crate::table::figure;

/// A promise, and what came of it.
#[derive(Debug)]
pub struct Target {
    pub what: String,
    pub measured: Option<f64>,
    pub bound: Bound,
}

/// What a figure has to be.
#[derive(Debug, Clone, Copy)]
pub enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// Told, not promised.
    Told,
}

impl Target {
    /// A row of the list: what, measured, bound, verdict.
    pub fn row(&self) -> Vec<String> {
        let (bound, met) = match self.bound {
            Bound::AtMost(most) => {
                (format!("at most {}", figure(most)), self.measured.map(|x| x <= most))
            }
            Bound::AtLeast(least) => {
                (format!("at least {}", figure(least)), self.measured.map(|x| x >= least))
            }
            Bound::Told => (String::new(), None),
        };
        let verdict = match (met, self.measured) {
            (Some(true), _) => "met",
            (Some(false), _) => "MISSED",
            (None, Some(_)) => "",
            (None, None) => "not measured",
        };
        let measured = self.measured.map_or_else(String::new, figure);
        vec![self.what.clone(), measured, bound, verdict.to_owned()]
    }
}

/// What is promised of the whole table's results on the CPU.
pub fn targets(results: &Results, backends: &[Backend]) -> Vec<Target> {
    backends.iter().flat_map(|backend| on_backend(results, *backend)).collect()
}

fn on_backend(results: &Results, backend: Backend) -> Vec<Target> {
    use Bound::{AtLeast, AtMost, Told};
    let mut targets = Vec::new();
    let mut promise = |what: String, measured: Option<f64>, bound: Bound| {
        targets.push(Target { what: format!("{}: {what}", backend.name()), measured, bound });
    };
    // The results on B 64, I 10, H 128 with loss on all outputs.
    let threads = results.0.first().map_or(0, |m| m.case.threads);
    let main = |peer: Peer, score: ScoreKind, time: usize, k_att: usize| {
        results.find(peer, |m| {
            let case = &m.case;
            (matches!(peer, Peer::Torch(_)) || case.backend == backend)
                && (case.batch, case.input, case.hidden, case.time) == (64, 10, 128, time)
                && case.threads == threads
                && case.settings.k_top == OfBench::defaults().k_top
                && (!peer.remembers() || (case.score, case.settings.k_att) == (score, k_att))
                && (case.loss, case.slots) == (Loss::Mean, None)
        })
    };
    let step = |m: Option<&Measured>| m.and_then(work);
    let forward = |m: Option<&Measured>| m.map(|m| m.figures.forward_ms);

    for score in [Dot, Additive] {
        let sab = main(SAB, score, 120, 1);
        let torch = main(TORCH_LSTM, score, 120, 1);
        let told = |what: &str| format!("{}, {what}", score.name());
        promise(told("training step ÷ torch.nn.LSTM"), ratio(step(sab), step(torch)), AtMost(0.5));
        promise(told("forward ÷ torch.nn.LSTM"), ratio(forward(sab), forward(torch)), AtMost(0.9));
        for (time, bound) in [(120, 1.0 / 20.0), (320, 1.0 / 60.0)] {
            let [own, eager] = [SAB, TORCH_SAB].map(|peer| step(main(peer, score, time, 1)));
            promise(
                told(&format!("training step ÷ SAB in eager PyTorch, T {time}")),
                ratio(own, eager),
                AtMost(bound),
            );
        }
        promise(
            told("training step ÷ Burn's Lstm"),
            ratio(step(sab), step(main(LSTM, score, 120, 1))),
            AtMost(1.0 / 5.0),
        );
        // Dot scores of all slots at every step cost T²: the promise has them every fourth step.
        let (k_att, growth) = if score == Dot { (4, 5.0) } else { (1, 4.3) };
        let [short, long] = [120, 480].map(|time| step(main(SAB, score, time, k_att)));
        promise(
            told(&format!("training step ÷ Burn's Lstm, T 480, k_att {k_att}")),
            ratio(long, step(main(LSTM, score, 480, 1))),
            AtMost(1.0 / 10.0),
        );
        promise(
            told(&format!("training step, T 480 ÷ T 120, k_att {k_att}")),
            ratio(long, short),
            AtMost(growth),
        );
        promise(
            told("recurrent products' share of the sgemm rate, training step"),
            sab.and_then(|m| m.figures.sgemm_share_train),
            AtLeast(0.5),
        );
        promise(
            told("recurrent products' share of the sgemm rate, forward"),
            sab.and_then(|m| m.figures.sgemm_share_forward),
            AtLeast(0.5),
        );
        let stream = results.find(SAB, |m| {
            (m.case.backend, m.case.score) == (backend, score)
                && m.case.slots.is_some()
                && !m.case.drawn_slots
        });
        let cell = stream.and_then(|stream| results.beside(TORCH_CELL, stream));
        promise(
            told("step of a stream ÷ torch.nn.LSTMCell"),
            ratio(step(stream), step(cell)),
            AtMost(1.0 / 3.0),
        );
    }
    promise(
        "training step, mlp ÷ dot".to_owned(),
        ratio(step(main(SAB, Mlp, 120, 1)), step(main(SAB, Dot, 120, 1))),
        Told,
    );

    let with_settings = |peer: Peer, sizes: (usize, usize, usize), settings: SabSettings| {
        results.find(peer, |m| {
            let case = &m.case;
            (matches!(peer, Peer::Torch(_)) || case.backend == backend)
                && (case.batch, case.time, case.threads) == sizes
                && (case.settings, case.score) == (settings, Dot)
                && (case.loss, case.slots) == (Loss::Mean, None)
        })
    };
    let with_defaults = |peer: Peer, batch: usize, time: usize, threads: usize| {
        with_settings(peer, (batch, time, threads), SabSettings::default())
    };
    let indexed = SabSettings::default().with_n_probe(Some(N_PROBE));
    for (batch, time) in LONGER {
        let [sab, torch] = [SAB, TORCH_LSTM].map(|peer| with_defaults(peer, batch, time, threads));
        let of = |what: &str| format!("defaults, B {batch}, T {time}: {what} ÷ torch.nn.LSTM");
        let most = if batch == 64 { 0.65 } else { 0.7 };
        promise(of("training step"), ratio(step(sab), step(torch)), AtMost(most));
        if time >= INDEXED_FROM {
            let sab = with_settings(SAB, (batch, time, threads), indexed);
            let what = format!("training step, n_probe {N_PROBE},");
            promise(of(&what), ratio(step(sab), step(torch)), AtMost(most));
        }
        if (batch, time) == (64, 1_920) {
            promise(of("forward"), ratio(forward(sab), forward(torch)), AtMost(1.2));
        }
    }
    for (slots, most) in STREAMS.into_iter().zip([0.02, 0.03, 0.1]) {
        let stream = results.find(SAB, |m| {
            (m.case.backend, m.case.slots, m.case.settings) == (backend, Some(slots), indexed)
        });
        promise(
            format!("step of a stream of {slots} slots, n_probe {N_PROBE}, one thread: ms"),
            step(stream),
            AtMost(most),
        );
    }
    if backend == results.0.first().map_or(backend, |m| m.case.backend) {
        for batch in ROWS {
            let alone = step(with_defaults(SAB, batch, 120, 1));
            for threads in THREADS.into_iter().filter(|threads| *threads > 1) {
                let shared = step(with_defaults(SAB, batch, 120, threads));
                promise(
                    format!("training step, B {batch}: 1 thread ÷ {threads} threads"),
                    ratio(alone, shared),
                    Told,
                );
            }
        }
    }

    let replay = |score: ScoreKind, max_hops: Option<usize>| {
        LENGTHS.map(|time| {
            results.find(SAB, |m| {
                let case = &m.case;
                (case.backend, case.score, case.settings.max_hops) == (backend, score, max_hops)
                    && (case.loss, case.time) == (Loss::Last, time)
            })
        })
    };
    for (score, max_hops, name) in [(Dot, Some(1), "dot, 1 hop"), (Additive, None, "additive")] {
        let backward = replay(score, max_hops).map(|m| m.and_then(|m| m.figures.backward_ms));
        promise(
            format!(
                "{name}, loss on the last step: backward, most ÷ least over T 1,000 to 100,000"
            ),
            most_over_least(backward),
            AtMost(1.5),
        );
        let [.., longest] = replay(score, max_hops);
        let torch = longest.and_then(|longest| {
            results.find(TORCH_LSTM, |m| {
                (m.case.loss, m.case.hidden) == (Loss::Last, longest.case.hidden)
            })
        });
        promise(
            format!("{name}: bytes kept a step and row at T 100,000 ÷ torch.nn.LSTM"),
            ratio(longest.and_then(kept), torch.and_then(kept)),
            AtMost(0.1),
        );
    }
    promise(
        "dot, no limit: backward time a reached step, most ÷ least over T 1,000 to 100,000"
            .to_owned(),
        most_over_least(replay(Dot, None).map(|m| m.and_then(per_reached_step))),
        AtMost(1.2),
    );

    let million = results.find(SAB, |m| (m.case.backend, m.case.time) == (backend, MILLION));
    promise(
        "a million steps: seconds of a training step".to_owned(),
        step(million).map(|ms| ms / 1e3),
        AtMost(10.0),
    );
    promise(
        "a million steps: peak MiB".to_owned(),
        million.and_then(|m| m.figures.peak_rss_mib).map(|mib| mib as f64),
        AtMost(400.0),
    );
    targets
}

fn most_over_least<const N: usize>(figures: [Option<f64>; N]) -> Option<f64> {
    let mut figures = figures.into_iter().collect::<Option<Vec<f64>>>()?;
    figures.sort_by(f64::total_cmp);
    ratio(figures.last().copied(), figures.first().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sections::table;

    #[test]
    fn every_target_is_measured_by_the_table() {
        let backends = [Backend::Flex, Backend::Ndarray];
        let targets = targets(&Results::ones(&table(&backends, 2, 7)), &backends);
        assert_eq!(targets.len(), 2 * 39 + 9);
        for target in targets {
            let measured = target.measured.unwrap_or_else(|| panic!("{}", target.what));
            let want = if target.what.contains("seconds") { 1e-3 } else { 1.0 };
            assert_eq!(measured, want, "{}", target.what);
        }
    }

    #[test]
    fn verdicts() {
        let verdict = |measured, bound| {
            let target = Target { what: String::new(), measured, bound };
            target.row().pop().unwrap()
        };
        assert_eq!(verdict(Some(0.5), Bound::AtMost(0.5)), "met");
        assert_eq!(verdict(Some(0.4), Bound::AtLeast(0.5)), "MISSED");
        assert_eq!(verdict(None, Bound::AtMost(0.5)), "not measured");
        assert_eq!(verdict(Some(1.0), Bound::Told), "");
    }
}
