//! Results as people read them.

use burn_sab::SettingValue;

use crate::case::Case;
use crate::measured::{Measured, Results, kept, per_reached_step, ratio, work};
use crate::peer::{self, Peer, Work};

/// The times of one section, each beside its ratios: of training steps, of a stream's steps.
pub fn times(section: &[Measured], results: &Results) -> Vec<Vec<String>> {
    let work_of = section.first().map_or(Work::Sequences, |one| Work::of(&one.case));
    let streams = work_of == Work::Stream;
    let mut header = vec![String::new()];
    header.push(if streams { "step ms" } else { "forward ms" }.to_owned());
    header.push("least–most".to_owned());
    if !streams {
        header.extend(["backward ms", "training step ms", "least–most"].map(str::to_owned));
    }
    header.extend(peer::divisors(work_of).map(|peer| format!("÷ {}", peer.title())));
    let mut rows = vec![header];
    for one in section {
        let figures = &one.figures;
        let mut row =
            vec![label(one), figure(figures.forward_ms), spread(figures.forward_spread_ms)];
        if !streams {
            row.push(figures.backward_ms.map_or_else(String::new, figure));
            row.push(figures.train_step_ms.map_or_else(String::new, figure));
            row.push(figures.train_step_spread_ms.map_or_else(String::new, spread));
        }
        row.extend(peer::divisors(work_of).map(|peer| {
            let ratio = results.beside(peer, one).and_then(|other| ratio(work(one), work(other)));
            ratio.map_or_else(String::new, figure)
        }));
        rows.push(row);
    }
    without_empty_columns(rows)
}

/// The counts of one section.
pub fn counts(section: &[Measured]) -> Vec<Vec<String>> {
    let titles = [
        "",
        "peak MiB",
        "kept, bytes a step and row",
        "bytes a slot",
        "allocations",
        "autodiff nodes",
        "reached steps",
        "backward µs a reached step",
        "sgemm GFLOP/s",
        "products' share: forward",
        "training step",
        "MiB on the GPU",
        "product GFLOP/s",
        "copy GB/s",
        "share of the product rate",
        "of the copy rate",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for one in section {
        let whole = |count: Option<u64>| count.map_or_else(String::new, |n| n.to_string());
        let percent = |share: Option<f64>| {
            share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share))
        };
        let number = |x: Option<f64>| x.map_or_else(String::new, figure);
        let figures = &one.figures;
        rows.push(vec![
            label(one),
            whole(figures.peak_rss_mib),
            number(kept(one)),
            whole(figures.bytes_a_slot),
            whole(figures.allocations),
            whole(figures.autodiff_nodes),
            whole(figures.reached_steps),
            number(per_reached_step(one).map(|ms| 1e3 * ms)),
            number(figures.sgemm_gflops),
            percent(figures.sgemm_share_forward),
            percent(figures.sgemm_share_train),
            whole(figures.device_mib),
            number(figures.product_gflops),
            number(figures.copy_gb_s),
            percent(figures.arithmetic_share),
            percent(figures.bandwidth_share),
        ]);
    }
    without_empty_columns(rows)
}

/// Takes away the columns in which no row says anything.
fn without_empty_columns(rows: Vec<Vec<String>>) -> Vec<Vec<String>> {
    let columns = rows.first().map_or(0, Vec::len);
    let told: Vec<bool> =
        (0..columns).map(|at| at == 0 || rows[1..].iter().any(|row| !row[at].is_empty())).collect();
    let keep = |row: Vec<String>| row.into_iter().zip(&told).filter(|(_, told)| **told);
    rows.into_iter().map(|row| keep(row).map(|(cell, _)| cell).collect()).collect()
}

/// What tells a row from the others of its section.
pub fn label(one: &Measured) -> String {
    named(one.peer, &one.case)
}

/// The same before there is anything to show.
pub fn named(peer: Peer, case: &Case) -> String {
    let model = model(peer, case);
    match case.slots {
        Some(_) => model,
        None => format!("{model}, B {}, T {}", case.batch, case.time),
    }
}

/// Who and how, whatever the length of the sequence.
pub fn model(peer: Peer, case: &Case) -> String {
    let mut label = peer.title();
    if peer.remembers() {
        label.push_str(&format!(", {} {}", case.score.name(), case.settings.sparsifier.to_text()));
        if case.settings.k_att != 1 {
            label.push_str(&format!(", k_att {}", case.settings.k_att));
        }
        if let Some(hops) = case.settings.max_hops {
            label.push_str(&format!(", {hops} hops"));
        }
        if let Some(n_probe) = case.settings.n_probe {
            label.push_str(&format!(", n_probe {n_probe}"));
        }
    }
    if let Peer::Own(_) = peer {
        label.push_str(&format!(" ({})", case.backend.name()));
    }
    label
}

/// Three digits that count, and no zeros that do not.
pub fn figure(x: f64) -> String {
    match x.abs() {
        0.0 => "0".to_owned(),
        size if size >= 99.95 => format!("{x:.0}"),
        size if size >= 9.995 => format!("{x:.1}"),
        size if size >= 0.1 => format!("{x:.2}"),
        size if size >= 0.01 => format!("{x:.3}"),
        _ => format!("{x:.4}"),
    }
}

fn spread([least, most]: [f64; 2]) -> String {
    format!("{}–{}", figure(least), figure(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::measured::Figures;
    use crate::peer::{LSTM, REFERENCE, SAB, TORCH_LSTM, TORCH_SAB};
    use burn_sab::ScoreKind;
    use burn_sab_cli::backend::Backend;

    fn measured(peer: Peer, backend: Backend, ms: f64) -> Measured {
        let case = Case { batch: 2, time: 10, ..Case::main(backend, 1, 1) };
        let figures =
            Figures { train_step_ms: Some(ms), bytes_kept: Some(600), ..Figures::default() };
        Measured { peer, case, figures }
    }

    #[test]
    fn ratios_are_of_the_same_work_on_the_same_backend() {
        use Backend::{Flex, Ndarray, Wgpu};
        let sab = measured(SAB, Flex, 2.0);
        let mut longer = measured(REFERENCE, Flex, 8.0);
        longer.case.time = 20;
        let mut other = measured(TORCH_SAB, Flex, 9.0);
        other.case = other.case.with_score(ScoreKind::Mlp);
        let results = Results(vec![
            sab.clone(),
            measured(LSTM, Ndarray, 3.0),
            measured(LSTM, Flex, 4.0),
            longer,
            // PyTorch on a GPU, and on the CPU for whichever of Burn's backends.
            measured(TORCH_LSTM, Wgpu, 5.0),
            measured(TORCH_LSTM, Ndarray, 1.0),
            other,
        ]);
        let rows = times(&[sab], &results);
        let ratios: Vec<_> =
            rows[0].iter().zip(&rows[1]).filter(|(title, _)| title.starts_with('÷')).collect();
        let cell = |title: &str, ratio: &str| (title.to_owned(), ratio.to_owned());
        let [lstm, torch] = [cell("÷ lstm", "0.50"), cell("÷ torch lstm", "2.00")];
        assert_eq!(ratios, [(&lstm.0, &lstm.1), (&torch.0, &torch.1)]);
    }

    #[test]
    fn columns_that_say_nothing_are_left_out() {
        let rows = counts(&[measured(SAB, Backend::Flex, 2.0)]);
        assert_eq!(rows[0], ["", "kept, bytes a step and row"]);
        assert_eq!(rows[1][1], "30.0");
    }

    #[test]
    fn figures_have_three_digits() {
        let told = [0.0, 0.00123, 0.0456, 0.5, 9.999, 12.34, 1234.5].map(figure);
        assert_eq!(told, ["0", "0.0012", "0.046", "0.50", "10.0", "12.3", "1234"]);
    }
}
