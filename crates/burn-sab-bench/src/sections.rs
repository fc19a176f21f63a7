//! Which cases are measured, and beside whom: one case, or those of the whole table on the CPU.

use burn_sab::{SabSettings, ScoreKind};
use burn_sab_cli::backend::Backend;

use crate::args::Model;
use crate::case::{Case, Loss};
use crate::peer::{self, BUNSEN, LSTM, Peer, REFERENCE, SAB, TORCH_CELL, TORCH_LSTM, TORCH_SAB};

/// A part of the table.
#[derive(Debug)]
pub struct Section {
    pub title: String,
    pub rows: Vec<(Peer, Case)>,
    /// Whether the layer's cases are followed by those with the largest batch that fits.
    pub fill: bool,
}

/// Lengths over which the backward pass of a loss on the last step must not grow.
pub const LENGTHS: [usize; 3] = [1_000, 10_000, 100_000];
pub const MILLION: usize = 1_000_000;
/// Batch rows and steps of a training step on longer and longer sequences.
pub const LONGER: [(usize, usize); 5] =
    [(64, 120), (64, 960), (64, 1_920), (8, 10_000), (1, 100_000)];
/// Lists that the layer searches where it has an index.
pub const N_PROBE: usize = 8;
/// Steps from which the table has the layer with an index beside it.
pub const INDEXED_FROM: usize = 10_000;
/// Slots of streams on one thread, drawn ones: a memory of a million takes no steps then.
pub const STREAMS: [usize; 3] = [1_000, 10_000, 1_000_000];
/// Threads, and batch rows, of a training step that is shared out.
pub const THREADS: [usize; 4] = [1, 2, 4, 8];
pub const ROWS: [usize; 3] = [8, 16, 64];

/// One case, and what it is compared with.
pub fn one_case(case: &Case, model: Option<Model>) -> Vec<Section> {
    let title = title(case);
    if let Some(model) = model {
        return vec![Section { title, rows: vec![(Peer::Own(model), case.clone())], fill: false }];
    }
    let rows = peer::beside(case).map(|peer| (peer, case.clone())).collect();
    vec![Section { title, rows, fill: false }]
}

/// What a case's rows have in common.
pub fn title(case: &Case) -> String {
    let Case { batch, input, hidden, threads, .. } = case;
    let SabSettings { k_top, k_trunc, .. } = case.settings;
    let sizes = format!(
        "B {batch}, I {input}, H {hidden}, k_top {k_top}, k_trunc {k_trunc}, {threads} threads"
    );
    match (case.slots, case.loss) {
        (Some(slots), _) => format!("Streaming from {slots} slots, without gradients: {sizes}"),
        (None, Loss::Mean) => format!("Loss on all outputs: {sizes}"),
        (None, Loss::Last) => format!("Loss on the last output: {sizes}"),
    }
}

/// The sections of the whole table on the CPU.
pub fn table(backends: &[Backend], threads: usize, runs: usize) -> Vec<Section> {
    use ScoreKind::{Additive, Dot, Mlp};
    let main: Vec<Case> =
        backends.iter().map(|backend| Case::main(*backend, threads, runs)).collect();
    let with = |change: &dyn Fn(Case) -> Case| main.iter().cloned().map(change).collect::<Vec<_>>();
    let rows = |peer: Peer, cases: Vec<Case>| cases.into_iter().map(move |case| (peer, case));
    // PyTorch knows nothing of Burn's backends: once is enough.
    let once = |change: &dyn Fn(Case) -> Case| with(change).into_iter().take(1).collect::<Vec<_>>();
    let scored = |score: ScoreKind| move |case: Case| case.with_score(score);
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
        length.extend(rows(
            SAB,
            with(&|case| Case { time, ..case.with(|settings| settings.k_att = 4) }),
        ));
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

    // As many input features as hidden units, as bunsen's layer has.
    let square = |case: Case| Case { input: case.hidden, ..case };
    let of_burn = |change: &dyn Fn(Case) -> Case| {
        [SAB, LSTM, BUNSEN]
            .into_iter()
            .flat_map(|peer| rows(peer, once(change)))
            .collect::<Vec<_>>()
    };
    let mut squares = of_burn(&square);
    squares.extend(rows(TORCH_LSTM, once(&square)));

    let stream = |case: Case| Case { batch: 1, time: 1, slots: Some(1000), ..case };
    let mut square_streams = of_burn(&|case| stream(square(case)));
    square_streams.extend(rows(TORCH_CELL, once(&|case| stream(square(case)))));
    let mut streaming: Vec<_> = rows(SAB, with(&stream)).collect();
    streaming.extend(rows(SAB, with(&|case| stream(case.with_score(Additive)))));
    streaming.extend(rows(LSTM, with(&stream)));
    streaming.extend(rows(TORCH_CELL, once(&stream)));

    let replay = |time: usize| {
        move |case: Case| {
            let case = case.with(|settings| (settings.k_att, settings.k_trunc) = (100, 20));
            Case { batch: 8, time, loss: Loss::Last, ..case }
        }
    };
    let mut sparse = Vec::new();
    for (score, max_hops) in [(Dot, Some(1)), (Additive, None), (Dot, None)] {
        for time in LENGTHS {
            let case = |case: Case| {
                replay(time)(case.with_score(score)).with(|settings| settings.max_hops = max_hops)
            };
            sparse.extend(rows(SAB, with(&case)));
        }
    }
    sparse.extend(rows(TORCH_LSTM, once(&replay(LENGTHS[0]))));

    let mut longer = Vec::new();
    for (batch, time) in LONGER {
        let case = |case: Case| Case { batch, time, ..with_defaults(case) };
        longer.extend(rows(SAB, with(&case)));
        if time >= INDEXED_FROM {
            longer.extend(rows(SAB, with(&|main| with_index(case(main)))));
        }
        longer.extend(rows(TORCH_LSTM, once(&case)));
    }

    let mut streams = Vec::new();
    for slots in STREAMS {
        let case = |case: Case| Case {
            batch: 1,
            time: 1,
            slots: Some(slots),
            drawn_slots: true,
            threads: 1,
            ..with_index(with_defaults(case))
        };
        streams.extend(rows(SAB, with(&case)));
    }

    let mut sections = vec![
        training,
        length,
        wide,
        narrow,
        squares,
        longer,
        streaming,
        square_streams,
        streams,
        sparse,
        rows(SAB, with(&million)).collect(),
    ];
    for threads in THREADS {
        let mut shared = Vec::new();
        // The case of the longer sequences, without those that the table has already.
        for batch in ROWS.into_iter().filter(|batch| (threads, *batch) != (main[0].threads, 64)) {
            let case = |case: Case| Case { batch, threads, ..with_defaults(case) };
            shared.extend(rows(SAB, once(&case)));
            shared.extend(rows(TORCH_LSTM, once(&case)));
        }
        sections.push(shared);
    }
    sections
        .into_iter()
        .map(|rows: Vec<(Peer, Case)>| Section { title: title(&rows[0].1), rows, fill: false })
        .collect()
}

/// The same case with the settings that the layer has by itself.
pub fn with_defaults(case: Case) -> Case {
    case.with(|settings| *settings = SabSettings::default())
}

/// The same case with an index over the slots.
pub fn with_index(case: Case) -> Case {
    case.with(|settings| settings.n_probe = Some(N_PROBE))
}

/// A million steps and one loss at the end: sizes as in the example of that name.
pub fn million(case: Case) -> Case {
    let case = case.with(|settings| {
        (settings.k_att, settings.k_trunc, settings.max_hops) = (1000, 100, Some(1));
    });
    Case { batch: 1, time: MILLION, input: 8, loss: Loss::Last, ..case }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let million =
            Case { batch: 1, time: MILLION, ..case.clone() }.with(|settings| settings.k_att = 1000);
        assert_eq!(peers(&million, None), [SAB]);
        let wide = Case { time: 1000, ..case.clone() };
        assert_eq!(peers(&wide, None), [SAB, LSTM, TORCH_LSTM, TORCH_CELL]);
        let square = Case { input: 128, ..case.clone() };
        let all = [SAB, LSTM, BUNSEN, REFERENCE, TORCH_LSTM, TORCH_CELL, TORCH_SAB];
        assert_eq!(peers(&square, None), all);
        let gpu = Case { backend: Backend::Cuda, ..case };
        assert_eq!(peers(&gpu, None), [SAB, LSTM, TORCH_LSTM, TORCH_CELL, TORCH_SAB]);
    }
}
