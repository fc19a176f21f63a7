//! Results as people read them.

use super::run::Measured;

/// Everything measured so far: ratios are taken within one run of the program.
#[derive(Debug, Default)]
pub struct Results(pub Vec<Measured>);

impl Results {
    /// The first result of `peer` that `fits`.
    pub fn find(&self, peer: &str, fits: impl Fn(&Measured) -> bool) -> Option<&Measured> {
        self.0.iter().find(|found| found.peer == peer && fits(found))
    }

    /// The result of `peer` that `one` is compared with: the same work, and for peers with a memory the
    /// same memory.
    pub fn beside(&self, peer: &str, one: &Measured) -> Option<&Measured> {
        self.find(peer, |other| {
            let elsewhere = other.torch.is_some() || other.device == one.device;
            let plain = ["lstm", "torch-lstm", "torch-cell"].contains(&peer);
            elsewhere && same_work(one, other) && (plain || same_memory(one, other))
        })
    }
}

fn same_work(a: &Measured, b: &Measured) -> bool {
    let work = |m: &Measured| (m.batch, m.time, m.input, m.hidden, m.threads, m.slots);
    work(a) == work(b) && a.loss == b.loss
}

fn same_memory(a: &Measured, b: &Measured) -> bool {
    let sizes = |m: &Measured| (m.k_top, m.k_att, m.k_trunc);
    let attention = |m: &Measured| if m.score == "additive" { 0 } else { m.attention };
    sizes(a) == sizes(b)
        && (&a.score, &a.sparsifier, attention(a)) == (&b.score, &b.sparsifier, attention(b))
        && a.max_hops == b.max_hops
}

/// Peers that times are divided by.
const DIVISORS: [(&str, &str); 4] = [
    ("÷ lstm", "lstm"),
    ("÷ readable", "reference"),
    ("÷ torch lstm", "torch-lstm"),
    ("÷ torch sab", "torch-sab"),
];

/// The times of one section, each beside its ratios: of training steps, of a stream's steps.
pub fn times(section: &[Measured], results: &Results) -> Vec<Vec<String>> {
    let streams = section.iter().any(|one| one.slots.is_some());
    let mut header = vec!["", if streams { "step ms" } else { "forward ms" }, "least–most"];
    if !streams {
        header.extend(["backward ms", "training step ms", "least–most"]);
    }
    // A stream in PyTorch is a loop over a cell.
    let divisors = if streams {
        vec![("÷ lstm", "lstm"), ("÷ readable", "reference"), ("÷ torch cell", "torch-cell")]
    } else {
        DIVISORS.to_vec()
    };
    header.extend(divisors.iter().map(|(title, _)| *title));
    let mut rows = vec![header.into_iter().map(str::to_owned).collect()];
    for one in section {
        let mut row = vec![label(one), figure(one.forward_ms), spread(one.forward_spread_ms)];
        if !streams {
            row.push(one.backward_ms.map_or_else(String::new, figure));
            row.push(one.train_step_ms.map_or_else(String::new, figure));
            row.push(one.train_step_spread_ms.map_or_else(String::new, spread));
        }
        row.extend(divisors.iter().map(|(_, peer)| {
            let ratio = results.beside(peer, one).and_then(|other| ratio(work(one), work(other)));
            ratio.map_or_else(String::new, figure)
        }));
        rows.push(row);
    }
    rows
}

/// The counts of one section.
pub fn counts(section: &[Measured]) -> Vec<Vec<String>> {
    let titles = [
        "",
        "peak MiB",
        "kept, bytes a step and row",
        "allocations",
        "autodiff nodes",
        "reached steps",
        "backward µs a reached step",
        "sgemm GFLOP/s",
        "products' share: forward",
        "training step",
    ];
    let mut rows = vec![titles.map(str::to_owned).to_vec()];
    for one in section {
        let whole = |count: Option<u64>| count.map_or_else(String::new, |n| n.to_string());
        let percent = |share: Option<f64>| {
            share.map_or_else(String::new, |share| format!("{:.0} %", 100.0 * share))
        };
        rows.push(vec![
            label(one),
            whole(one.peak_rss_mib),
            kept(one).map_or_else(String::new, figure),
            whole(one.allocations),
            whole(one.autodiff_nodes),
            whole(one.reached_steps),
            per_reached_step(one).map_or_else(String::new, |ms| figure(1e3 * ms)),
            one.sgemm_gflops.map_or_else(String::new, figure),
            percent(one.sgemm_share_forward),
            percent(one.sgemm_share_train),
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

/// The figure that ratios compare: a training step, or a step of a stream.
pub fn work(one: &Measured) -> Option<f64> {
    one.train_step_ms.or(one.slots.map(|_| one.forward_ms))
}

/// `a / b`, if both were measured.
pub fn ratio(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    Some(a? / b.filter(|b| *b > 0.0)?)
}

/// Bytes kept for the backward pass per step and row.
pub fn kept(one: &Measured) -> Option<f64> {
    ratio(one.bytes_kept.map(|bytes| bytes as f64), Some((one.time * one.batch) as f64))
}

/// Backward milliseconds per step that gradient reaches.
pub fn per_reached_step(one: &Measured) -> Option<f64> {
    ratio(one.backward_ms, one.reached_steps.map(|steps| steps as f64))
}

/// What tells a row from the others of its section.
fn label(one: &Measured) -> String {
    let model = model(one);
    match one.slots {
        Some(_) => model,
        None => format!("{model}, T {}", one.time),
    }
}

/// What was measured, whatever the length of the sequence.
pub fn model(one: &Measured) -> String {
    let peer = one.peer.replace('-', " ");
    let mut label = peer.clone();
    if ["sab", "reference", "primitives", "torch-sab"].contains(&one.peer.as_str()) {
        label.push_str(&format!(", {} {}", one.score, one.sparsifier));
        if one.k_att != 1 {
            label.push_str(&format!(", k_att {}", one.k_att));
        }
        if let Some(hops) = one.max_hops {
            label.push_str(&format!(", {hops} hops"));
        }
    }
    label.push_str(&match &one.torch {
        Some(_) => String::new(),
        None => format!(" ({})", one.device),
    });
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

    fn measured(peer: &str, device: &str, ms: f64) -> Measured {
        let torch = peer.starts_with("torch").then(|| "2".to_owned());
        Measured {
            peer: peer.to_owned(),
            device: device.to_owned(),
            torch,
            batch: 2,
            time: 10,
            score: "dot".to_owned(),
            train_step_ms: Some(ms),
            bytes_kept: Some(600),
            ..Measured::default()
        }
    }

    #[test]
    fn ratios_are_of_the_same_work_on_the_same_backend() {
        let sab = measured("sab", "flex", 2.0);
        let longer = Measured { time: 20, ..measured("reference", "flex", 8.0) };
        let results = Results(vec![
            sab.clone(),
            measured("lstm", "ndarray", 3.0),
            measured("lstm", "flex", 4.0),
            longer,
            measured("torch-lstm", "cpu", 1.0),
            Measured { score: "mlp".to_owned(), ..measured("torch-sab", "cpu", 9.0) },
        ]);
        let rows = times(&[sab], &results);
        let ratio = |title: &str| {
            let at = rows[0].iter().position(|cell| cell == title).unwrap();
            rows[1][at].clone()
        };
        let titles = DIVISORS.map(|(title, _)| ratio(title));
        assert_eq!(titles, ["0.50", "", "2.00", ""]);
    }

    #[test]
    fn columns_that_say_nothing_are_left_out() {
        let rows = counts(&[measured("sab", "flex", 2.0)]);
        assert_eq!(rows[0], ["", "kept, bytes a step and row"]);
        assert_eq!(rows[1][1], "30.0");
    }

    #[test]
    fn figures_have_three_digits() {
        let told = [0.0, 0.00123, 0.0456, 0.5, 9.999, 12.34, 1234.5].map(figure);
        assert_eq!(told, ["0", "0.0012", "0.046", "0.50", "10.0", "12.3", "1234"]);
    }
}
