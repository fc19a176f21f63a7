//! `sab bench`: how fast the layer is, beside what one would use instead, and how much it keeps.
//!
//! Every row has a process of its own, so that peak memory and threads are that row's alone, and comes
//! only after the implementation has been found to agree with the readable one on the row's case.

mod args;
mod check;
mod counts;
mod growth;
mod peers;
mod run;
mod sgemm;
mod table;
mod targets;

use std::process::ExitCode;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use crate::backend::Backend;
use crate::report::commit;
use crate::text::{self, say};
pub use args::BenchArgs;
use args::{Case, Model, Worker};
pub use counts::heap_growth;
use peers::Torch;
use run::Measured;
use table::Results;
use targets::{Peer, Section};

/// Runs the command.
///
/// # Errors
///
/// If the flags make no sense, or a backend is not to be had, or an implementation does not agree with the
/// readable one.
pub fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if let Some(worker) = args.worker {
        return work(args, worker);
    }
    let case = args.case()?;
    let backends = backends(args.backend, case.backend);
    let sections = if args.plot.is_some() {
        vec![growth::section(&case)]
    } else if args.describes_a_case() {
        targets::one_case(&case, args.model)
    } else {
        targets::table(&backends, args.threads, args.runs)
    };
    for backend in &backends {
        backend.device()?;
    }
    let wants_torch = sections
        .iter()
        .flat_map(|section| &section.rows)
        .any(|(peer, _)| matches!(peer, Peer::Torch(_)));
    let torch = if wants_torch || args.python.is_some() {
        Torch::find(args)?.inspect_err(|why| eprintln!("{why}")).ok()
    } else {
        None
    };

    let mut bench =
        Bench { torch, json: args.json, checked: Vec::new(), results: Results::default() };
    if !args.json {
        say(&machine(args.threads));
    }
    for section in &sections {
        bench.section(section)?;
    }
    if let Some(file) = &args.plot {
        growth::draw(&bench.results.0, &case, file)?;
    } else if !args.json && !args.describes_a_case() {
        let header = ["", "measured", "target", ""].map(str::to_owned).to_vec();
        let promised = targets::targets(&bench.results, &backends);
        let rows: Vec<_> =
            std::iter::once(header).chain(promised.iter().map(targets::Target::row)).collect();
        print("Targets", &rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// What a process does for the one that started it.
fn work(args: &BenchArgs, worker: Worker) -> anyhow::Result<ExitCode> {
    let case = args.case()?;
    let model = args.model.unwrap_or(Model::Sab);
    case.backend.make_default();
    rayon::ThreadPoolBuilder::new()
        .num_threads(case.threads)
        .build_global()
        .context("--threads")?;
    match worker {
        Worker::Check => check::check(&case, model)?,
        Worker::Measure => say(&serde_json::to_string(&run::measure(&case, model)?)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// The backends of the table: the one that was asked for, else those that have the CPU kernel.
fn backends(asked: Option<Backend>, preferred: Backend) -> Vec<Backend> {
    let mut found = asked.map_or_else(|| vec![Backend::Flex, Backend::Ndarray], |one| vec![one]);
    found.retain(|backend| asked.is_some() || backend.is_compiled());
    if found.is_empty() { vec![preferred] } else { found }
}

struct Bench {
    torch: Option<Torch>,
    json: bool,
    /// Cases on which a model agrees with the readable one.
    checked: Vec<(Model, Case)>,
    results: Results,
}

impl Bench {
    fn section(&mut self, section: &Section) -> anyhow::Result<()> {
        let bar = ProgressBar::new(section.rows.len() as u64);
        bar.set_style(ProgressStyle::with_template("{pos} of {len} measured; now {msg}")?);
        let first = self.results.0.len();
        for (peer, case) in &section.rows {
            let measured = match (peer, &self.torch) {
                (Peer::Own(model), _) => {
                    bar.set_message(args::name(*model));
                    self.check(*model, case)?;
                    peers::measure(case, *model)
                }
                (Peer::Torch(peer), Some(torch)) => {
                    bar.set_message(*peer);
                    torch.measure(case, peer)
                }
                (Peer::Torch(_), None) => continue,
            };
            self.keep(measured?)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        if !self.json {
            let rows = &self.results.0[first..];
            print(&section.title, &table::times(rows, &self.results));
            print("", &table::counts(rows));
        }
        Ok(())
    }

    fn keep(&mut self, measured: Measured) -> anyhow::Result<()> {
        if self.json {
            say(&serde_json::to_string(&measured)?);
        }
        self.results.0.push(measured);
        Ok(())
    }

    /// Makes sure that the model agrees with the readable one before its speed is told.
    fn check(&mut self, model: Model, case: &Case) -> anyhow::Result<()> {
        // A stream goes through the same implementation as sequences.
        let case = Case {
            slots: None,
            time: if case.slots.is_some() { 120 } else { case.time },
            ..case.clone()
        };
        let known = |(other, seen): &(Model, Case)| *other == model && *seen == case;
        if matches!(model, Model::Lstm | Model::Reference) || self.checked.iter().any(known) {
            return Ok(());
        }
        peers::check(&case, model)?;
        self.checked.push((model, case));
        Ok(())
    }
}

/// Where the figures come from, and whether the machine had anything else to do: PyTorch's threads above
/// all lose time beside others.
fn machine(threads: usize) -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    });
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.as_deref().and_then(|text| text.split_whitespace().next()).unwrap_or("unknown");
    format!(
        "sab {}, commit {}; {}, {threads} threads, load average {load} before; Burn's own SIMD and \
         threads {}",
        env!("CARGO_PKG_VERSION"),
        commit(),
        processor.as_deref().unwrap_or("unknown processor"),
        if cfg!(feature = "simd") { "on" } else { "off (cargo feature simd)" },
    )
}

fn print(title: &str, rows: &[Vec<String>]) {
    say("");
    if !title.is_empty() {
        say(&format!("{title}\n"));
    }
    for line in text::table(rows) {
        say(&format!("  {line}"));
    }
}
