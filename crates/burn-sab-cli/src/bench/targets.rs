//! The whole table: which cases it has, and what the layer promises about them.

use super::args::{Case, Loss, Model};
use super::run::Measured;
use super::table::{Results, figure, kept, per_reached_step, ratio, work};
use crate::args::ScoreName;
use crate::backend::Backend;

/// A part of the table.
#[derive(Debug)]
pub struct Section {
    pub title: String,
    pub rows: Vec<(Peer, Case)>,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A model of this program.
    Own(Model),
    /// A peer of the script for PyTorch, by its name there.
    Torch(&'static str),
}

const SAB: Peer = Peer::Own(Model::Sab);
const LSTM: Peer = Peer::Own(Model::Lstm);
const REFERENCE: Peer = Peer::Own(Model::Reference);
const TORCH_LSTM: Peer = Peer::Torch("torch-lstm");
const TORCH_CELL: Peer = Peer::Torch("torch-cell");
const TORCH_SAB: Peer = Peer::Torch("torch-sab");

/// Lengths over which the backward pass of a loss on the last step must not grow.
const LENGTHS: [usize; 3] = [1_000, 10_000, 100_000];
const MILLION: usize = 1_000_000;

/// Limits beyond which a comparison is left out, as it would take minutes or tens of GiB. Steps: with the
/// dozens of nodes a step of Burn's autodiff, and as many small operations in PyTorch. Numbers: those that
/// dense attention keeps, those that the longest recurrence keeps, those that Burn's `Lstm` copies.
const MOST_STEPS: usize = 1000;
const MOST_ATTENDED: f64 = 1e9;
const MOST_KEPT: f64 = 1e8;
const MOST_COPIED: f64 = 2.5e10;

/// One case, and what it is compared with.
pub fn one_case(case: &Case, model: Option<Model>) -> Vec<Section> {
    let title = title(case);
    if let Some(model) = model {
        return vec![Section { title, rows: vec![(Peer::Own(model), case.clone())] }];
    }
    let [rows, time, hidden] = [case.batch, case.time, case.hidden].map(|n| n as f64);
    let attended = rows * hidden * time * (1.0 + time / case.k_att as f64) / 2.0;
    let looped = case.time <= MOST_STEPS;
    let dense = looped && attended < MOST_ATTENDED;
    let stream = case.slots.is_some();
    let may_take = |peer: Peer| match peer {
        SAB => true,
        LSTM => looped && rows * hidden * time * time < MOST_COPIED,
        REFERENCE => dense,
        TORCH_LSTM => !stream && rows * hidden * time < MOST_KEPT,
        TORCH_CELL => looped,
        _ => dense && !stream && case.max_hops.is_none(),
    };
    let all = [SAB, LSTM, REFERENCE, TORCH_LSTM, TORCH_CELL, TORCH_SAB];
    let peers = all.into_iter().filter(|peer| may_take(*peer));
    vec![Section { title, rows: peers.map(|peer| (peer, case.clone())).collect() }]
}

/// What a case's rows have in common.
pub fn title(case: &Case) -> String {
    let Case { batch, input, hidden, k_top, k_trunc, threads, .. } = case;
    let sizes = format!(
        "B {batch}, I {input}, H {hidden}, k_top {k_top}, k_trunc {k_trunc}, {threads} threads"
    );
    match (case.slots, case.loss) {
        (Some(slots), _) => format!("Streaming from {slots} slots, without gradients: {sizes}"),
        (None, Loss::Mean) => format!("Loss on all outputs: {sizes}"),
        (None, Loss::Last) => format!("Loss on the last output: {sizes}"),
    }
}

/// The sections of the whole table.
pub fn table(backends: &[Backend], threads: usize, runs: usize) -> Vec<Section> {
    use ScoreName::{Additive, Dot, Mlp};
    let main: Vec<Case> =
        backends.iter().map(|backend| Case::main(*backend, threads, runs)).collect();
    let with = |change: &dyn Fn(Case) -> Case| main.iter().cloned().map(change).collect::<Vec<_>>();
    let rows = |peer: Peer, cases: Vec<Case>| cases.into_iter().map(move |case| (peer, case));
    // PyTorch knows nothing of Burn's backends: once is enough.
    let once = |change: &dyn Fn(Case) -> Case| with(change).into_iter().take(1).collect::<Vec<_>>();
    let scored = |score: ScoreName| move |case: Case| case.with_score(score);
    let long = |time: usize| move |case: Case| Case { time, ..case };

    let mut training = Vec::new();
    for score in [Dot, Additive, Mlp] {
        training.extend(rows(SAB, with(&scored(score))));
    }
    training.extend(rows(LSTM, main.clone()));
    training.extend(rows(REFERENCE, main.clone()));
    training.extend([TORCH_LSTM, TORCH_CELL].map(|peer| (peer, main[0].clone())));
    for score in [Dot, Additive] {
        training.extend(rows(TORCH_SAB, once(&scored(score))));
    }

    let mut length = Vec::new();
    for score in [Dot, Additive] {
        let longer = |case: Case| long(320)(case.with_score(score));
        length.extend(rows(SAB, with(&longer)));
        length.extend(rows(TORCH_SAB, once(&longer)));
    }
    length.extend(rows(TORCH_LSTM, once(&long(320))));
    for time in [120, 480] {
        length.extend(rows(SAB, with(&|case| Case { time, k_att: 4, ..case })));
    }
    length.extend(rows(SAB, with(&|case| long(480)(case.with_score(Additive)))));
    length.extend(rows(LSTM, with(&long(480))));
    length.extend(rows(TORCH_LSTM, once(&long(480))));

    let sized = |change: &dyn Fn(Case) -> Case| {
        let mut sized = Vec::new();
        for score in [Dot, Additive] {
            sized.extend(rows(SAB, with(&|case| change(case.with_score(score)))));
        }
        sized.extend(rows(LSTM, with(change)));
        sized.extend(rows(TORCH_LSTM, once(change)));
        sized
    };
    let wide = sized(&|case| Case { hidden: 512, ..case });
    let narrow = sized(&|case| Case { batch: 16, ..case });

    let stream = |case: Case| Case { batch: 1, time: 1, slots: Some(1000), ..case };
    let mut streaming: Vec<_> = rows(SAB, with(&stream)).collect();
    streaming.extend(rows(SAB, with(&|case| stream(case.with_score(Additive)))));
    streaming.extend(rows(LSTM, with(&stream)));
    streaming.extend(rows(TORCH_CELL, once(&stream)));

    let replay = |time: usize| {
        move |case: Case| Case { batch: 8, time, k_att: 100, k_trunc: 20, loss: Loss::Last, ..case }
    };
    let mut sparse = Vec::new();
    for (score, max_hops) in [(Dot, Some(1)), (Additive, None), (Dot, None)] {
        for time in LENGTHS {
            let case = |case: Case| Case { max_hops, ..replay(time)(case.with_score(score)) };
            sparse.extend(rows(SAB, with(&case)));
        }
    }
    sparse.extend(rows(TORCH_LSTM, once(&replay(LENGTHS[0]))));

    let million = with(&|case| Case {
        batch: 1,
        time: MILLION,
        input: 8,
        k_att: 1000,
        k_trunc: 100,
        max_hops: Some(1),
        loss: Loss::Last,
        ..case
    });

    let sections =
        [training, length, wide, narrow, streaming, sparse, rows(SAB, million).collect()];
    sections
        .into_iter()
        .map(|rows: Vec<(Peer, Case)>| Section { title: title(&rows[0].1), rows })
        .collect()
}

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

/// What is promised of the whole table's results.
pub fn targets(results: &Results, backends: &[Backend]) -> Vec<Target> {
    backends.iter().flat_map(|backend| on_backend(results, &backend.name())).collect()
}

fn on_backend(results: &Results, device: &str) -> Vec<Target> {
    use Bound::{AtLeast, AtMost, Told};
    let mut targets = Vec::new();
    let mut promise = |what: String, measured: Option<f64>, bound: Bound| {
        targets.push(Target { what: format!("{device}: {what}"), measured, bound });
    };
    // The results on B 64, I 10, H 128 with loss on all outputs.
    let main = |peer: &str, score: &str, time: usize, k_att: usize| {
        results.find(peer, |m| {
            (m.torch.is_some() || m.device == device)
                && (m.batch, m.input, m.hidden, m.time) == (64, 10, 128, time)
                && (peer.ends_with("lstm") || (m.score == score && m.k_att == k_att))
                && m.loss == "mean"
                && m.slots.is_none()
        })
    };
    let step = |m: Option<&Measured>| m.and_then(work);
    let forward = |m: Option<&Measured>| m.map(|m| m.forward_ms);

    for score in ["dot", "additive"] {
        let sab = main("sab", score, 120, 1);
        let torch = main("torch-lstm", score, 120, 1);
        let told = |what: &str| format!("{score}, {what}");
        promise(told("training step ÷ torch.nn.LSTM"), ratio(step(sab), step(torch)), AtMost(0.5));
        promise(told("forward ÷ torch.nn.LSTM"), ratio(forward(sab), forward(torch)), AtMost(0.9));
        for (time, bound) in [(120, 1.0 / 20.0), (320, 1.0 / 60.0)] {
            let [own, eager] = ["sab", "torch-sab"].map(|peer| step(main(peer, score, time, 1)));
            promise(
                told(&format!("training step ÷ SAB in eager PyTorch, T {time}")),
                ratio(own, eager),
                AtMost(bound),
            );
        }
        promise(
            told("training step ÷ Burn's Lstm"),
            ratio(step(sab), step(main("lstm", score, 120, 1))),
            AtMost(1.0 / 5.0),
        );
        // Dot scores of all slots at every step cost T²: the promise has them every fourth step.
        let (k_att, growth) = if score == "dot" { (4, 5.0) } else { (1, 4.3) };
        let [short, long] = [120, 480].map(|time| step(main("sab", score, time, k_att)));
        promise(
            told(&format!("training step ÷ Burn's Lstm, T 480, k_att {k_att}")),
            ratio(long, step(main("lstm", score, 480, 1))),
            AtMost(1.0 / 10.0),
        );
        promise(
            told(&format!("training step, T 480 ÷ T 120, k_att {k_att}")),
            ratio(long, short),
            AtMost(growth),
        );
        promise(
            told("recurrent products' share of the sgemm rate, training step"),
            sab.and_then(|m| m.sgemm_share_train),
            AtLeast(0.5),
        );
        promise(
            told("recurrent products' share of the sgemm rate, forward"),
            sab.and_then(|m| m.sgemm_share_forward),
            AtLeast(0.5),
        );
        let stream =
            results.find("sab", |m| m.device == device && m.score == score && m.slots.is_some());
        let cell = stream.and_then(|stream| results.beside("torch-cell", stream));
        promise(
            told("step of a stream ÷ torch.nn.LSTMCell"),
            ratio(step(stream), step(cell)),
            AtMost(1.0 / 3.0),
        );
    }
    promise(
        "training step, mlp ÷ dot".to_owned(),
        ratio(step(main("sab", "mlp", 120, 1)), step(main("sab", "dot", 120, 1))),
        Told,
    );

    let replay = |score: &str, max_hops: Option<usize>| {
        LENGTHS.map(|time| {
            results.find("sab", |m| {
                (m.device.as_str(), m.score.as_str(), m.max_hops) == (device, score, max_hops)
                    && (m.loss.as_str(), m.time) == ("last", time)
            })
        })
    };
    for (score, max_hops, name) in [("dot", Some(1), "dot, 1 hop"), ("additive", None, "additive")]
    {
        let backward = replay(score, max_hops).map(|m| m.and_then(|m| m.backward_ms));
        promise(
            format!(
                "{name}, loss on the last step: backward, most ÷ least over T 1,000 to 100,000"
            ),
            most_over_least(backward),
            AtMost(1.5),
        );
        let [.., longest] = replay(score, max_hops);
        let torch = longest.and_then(|longest| {
            results.find("torch-lstm", |m| m.loss == "last" && m.hidden == longest.hidden)
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
        most_over_least(replay("dot", None).map(|m| m.and_then(per_reached_step))),
        AtMost(1.2),
    );

    let million = results.find("sab", |m| m.device == device && m.time == MILLION);
    promise(
        "a million steps: seconds of a training step".to_owned(),
        step(million).map(|ms| ms / 1e3),
        AtMost(10.0),
    );
    promise(
        "a million steps: peak MiB".to_owned(),
        million.and_then(|m| m.peak_rss_mib).map(|mib| mib as f64),
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

    /// The table as if every figure were 1.
    fn ones(sections: &[Section]) -> Results {
        let one = |(peer, case): &(Peer, Case)| {
            let row = match peer {
                Peer::Own(model) => Measured::of(case, *model),
                Peer::Torch(peer) => Measured {
                    peer: (*peer).to_owned(),
                    device: "cpu".to_owned(),
                    torch: Some("2".to_owned()),
                    ..Measured::of(case, Model::Lstm)
                },
            };
            Measured {
                forward_ms: 1.0,
                backward_ms: Some(1.0),
                train_step_ms: case.slots.is_none().then_some(1.0),
                peak_rss_mib: Some(1),
                bytes_kept: Some((case.batch * case.time) as u64),
                reached_steps: Some(1),
                sgemm_share_forward: Some(1.0),
                sgemm_share_train: Some(1.0),
                ..row
            }
        };
        Results(sections.iter().flat_map(|section| section.rows.iter().map(one)).collect())
    }

    #[test]
    fn every_target_is_measured_by_the_table() {
        let backends = [Backend::Flex, Backend::Ndarray];
        let results = ones(&table(&backends, 2, 7));
        let targets = targets(&results, &backends);
        assert_eq!(targets.len(), 2 * 28);
        for target in targets {
            let measured = target.measured.unwrap_or_else(|| panic!("{}", target.what));
            let want = if target.what.contains("seconds") { 1e-3 } else { 1.0 };
            assert_eq!(measured, want, "{}", target.what);
        }
    }

    #[test]
    fn every_row_of_the_table_is_another_one() {
        let sections = table(&[Backend::Flex, Backend::Ndarray], 2, 7);
        let rows: Vec<_> = sections.iter().flat_map(|section| &section.rows).collect();
        for (at, row) in rows.iter().enumerate() {
            assert!(!rows[..at].contains(row), "{row:?}");
        }
    }

    #[test]
    fn a_case_has_the_peers_that_can_do_it() {
        let case = Case::main(Backend::Flex, 2, 7);
        let peers = |case: &Case, model| -> Vec<Peer> {
            one_case(case, model)[0].rows.iter().map(|(peer, _)| *peer).collect()
        };
        let all = [SAB, LSTM, REFERENCE, TORCH_LSTM, TORCH_CELL, TORCH_SAB];
        assert_eq!(peers(&case, None), all);
        assert_eq!(peers(&case, Some(Model::Lstm)), [LSTM]);
        let stream = Case { batch: 1, time: 1, slots: Some(10), ..case.clone() };
        assert_eq!(peers(&stream, None), [SAB, LSTM, REFERENCE, TORCH_CELL]);
        let million = Case { batch: 1, time: MILLION, k_att: 1000, ..case.clone() };
        assert_eq!(peers(&million, None), [SAB]);
        let wide = Case { time: 1000, ..case };
        assert_eq!(peers(&wide, None), [SAB, LSTM, TORCH_LSTM, TORCH_CELL]);
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
