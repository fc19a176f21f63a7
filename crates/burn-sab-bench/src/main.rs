//! `sab-bench` measures the layer's time and memory beside those of its alternatives. It serves the developers of
//! burn-sab.
//!
//! Every row has a process of its own, so that peak memory and threads are that row's alone, and comes
//! only after the implementation has been found to agree with the readable one on the row's case.

mod args;
mod case;
mod check;
mod counts;
mod gpu;
mod growth;
mod limits;
mod measured;
mod network;
mod peer;
mod picture;
mod process;
mod run;
mod sections;
mod sgemm;
mod states;
mod table;
mod targets;

use std::process::ExitCode;

use anyhow::Context;
use burn_sab_cli::backend::{BURN_SIMD, Backend, device_name};
use burn_sab_cli::error::usage;
use burn_sab_cli::program;
use burn_sab_cli::provenance::{COMMIT, processor};
use burn_sab_cli::text::{self, say};
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::{BenchArgs, Model, Worker};
use crate::case::Case;
use crate::measured::{Figures, Measured, Results};
use crate::peer::{Peer, SAB};
use crate::process::Torch;
use crate::sections::Section;

fn main() -> ExitCode {
    program::run(|args: BenchArgs| run(&args))
}

/// Runs the command.
///
/// # Errors
///
/// If the flags make no sense, or a backend is not to be had, or an implementation does not agree with the
/// readable one.
fn run(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    if let Some(worker) = args.worker {
        return work(args, worker);
    }
    let cases = args.cases()?;
    let case = cases[0].clone();
    if args.fill && !(case.backend.is_gpu() && matches!(args.model, None | Some(Model::Sab))) {
        return Err(usage!(
            "--fill finds the largest batch of the layer on a GPU, which says when it is full; name a GPU's \
             --backend and no other --model, or leave --fill out"
        ));
    }
    if let Some(file) = &args.plot_states {
        prepare(&case)?;
        states::draw(&case, file)?;
        return Ok(ExitCode::SUCCESS);
    }
    let backends = backends(args.backend, case.backend);
    let gpu = args.backend.filter(|backend| backend.is_gpu());
    let mut sections = match gpu {
        _ if args.plot.is_some() => vec![growth::section(&case)],
        _ if args.describes_a_case() => {
            cases.iter().flat_map(|case| sections::one_case(case, args.model)).collect()
        }
        Some(gpu) => gpu::table(gpu, args.threads, args.runs),
        None => sections::table(&backends, args.threads, args.runs),
    };
    if args.fill {
        sections.iter_mut().for_each(|section| section.fill = true);
    }
    // All of them before anything is measured; asking twice would be an error.
    let devices = backends.iter().map(|backend| backend.device()).collect::<Result<Vec<_>, _>>()?;
    let wants_torch = sections
        .iter()
        .flat_map(|section| &section.rows)
        .any(|(peer, _)| matches!(peer, Peer::Torch(_)));
    let torch = if wants_torch || args.python.is_some() {
        Torch::find(args)?.inspect_err(|why| eprintln!("{why}")).ok()
    } else {
        None
    };

    let mut bench = Bench {
        torch,
        json: args.json,
        checked: Vec::new(),
        results: Results::default(),
        failed: false,
    };
    if !args.json {
        say(&machine(args.threads, devices.first().and_then(device_name).as_deref()));
    }
    for section in &sections {
        bench.section(section)?;
    }
    if let Some(file) = &args.plot {
        growth::draw(&bench.results.0, &case, file)?;
    } else if !args.json && !args.describes_a_case() {
        let header = ["", "measured", "target", ""].map(str::to_owned).to_vec();
        let promised = match gpu {
            Some(gpu) => gpu::targets(&bench.results, gpu),
            None => targets::targets(&bench.results, &backends),
        };
        let rows: Vec<_> =
            std::iter::once(header).chain(promised.iter().map(targets::Target::row)).collect();
        print("Targets", &rows);
    }
    Ok(if bench.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What a process does for the one that started it.
fn work(args: &BenchArgs, worker: Worker) -> anyhow::Result<ExitCode> {
    let case = args.case()?;
    let model = args.model.unwrap_or(Model::Sab);
    prepare(&case)?;
    match worker {
        Worker::Check => check::check(&case, model)?,
        Worker::Measure => say(&serde_json::to_string(&run::measure(&case, model)?)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes this process compute as the case says.
fn prepare(case: &Case) -> anyhow::Result<()> {
    case.backend.make_default();
    rayon::ThreadPoolBuilder::new().num_threads(case.threads).build_global().context("--threads")
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
    /// Whether one of the layer's own rows could not be measured.
    failed: bool,
}

impl Bench {
    fn section(&mut self, section: &Section) -> anyhow::Result<()> {
        let bar = ProgressBar::new(section.rows.len() as u64);
        bar.set_style(ProgressStyle::with_template("{pos} of {len} measured; now {msg}")?);
        let first = self.results.0.len();
        let mut missing = Vec::new();
        for (peer, case) in &section.rows {
            bar.set_message(table::named(*peer, case));
            match self.measure(*peer, case) {
                None => continue,
                Some(Ok(figures)) => self.keep(*peer, case, figures)?,
                // Whoever asked for this alone has nothing else to see.
                Some(Err(error)) if section.rows.len() == 1 => return Err(error),
                Some(Err(error)) => {
                    self.failed |= matches!(peer, Peer::Own(_)) && peer.remembers();
                    missing.push((table::named(*peer, case), error));
                    continue;
                }
            }
            if section.fill && *peer == SAB {
                missing.push(self.fill(case, &bar)?);
            }
            bar.inc(1);
        }
        bar.finish_and_clear();
        if !self.json {
            let rows = &self.results.0[first..];
            print(&section.title, &table::times(rows, &self.results));
            print("", &table::counts(rows));
        }
        for (what, why) in missing {
            let line = format!("{what}: not measured: {why:#}");
            if self.json { eprintln!("{line}") } else { say(&format!("  {line}")) }
        }
        Ok(())
    }

    /// Measures one row; `None` if PyTorch is not there for it.
    fn measure(&mut self, peer: Peer, case: &Case) -> Option<anyhow::Result<Figures>> {
        match peer {
            Peer::Own(model) => {
                Some(self.check(model, case).and_then(|()| process::measure(case, model)))
            }
            Peer::Torch(peer) => self.torch.as_ref().map(|torch| torch.measure(case, peer)),
        }
    }

    /// Doubles the batch until a case no longer fits, and keeps the last one that did; gives the first that
    /// did not, and why. One run each: it is the size that is looked for.
    fn fill(&mut self, case: &Case, bar: &ProgressBar) -> anyhow::Result<(String, anyhow::Error)> {
        let mut largest = None;
        let mut larger = Case { batch: 2 * case.batch, runs: 1, ..case.clone() };
        let why = loop {
            bar.set_message(table::named(SAB, &larger));
            match larger.validate().and_then(|()| process::measure(&larger, Model::Sab)) {
                Ok(figures) => largest = Some((larger.clone(), figures)),
                Err(why) => break why,
            }
            larger.batch *= 2;
        };
        if let Some((case, figures)) = largest {
            self.keep(SAB, &case, figures)?;
        }
        Ok((table::named(SAB, &larger), why))
    }

    fn keep(&mut self, peer: Peer, case: &Case, figures: Figures) -> anyhow::Result<()> {
        let measured = Measured { peer, case: case.clone(), figures };
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
            drawn_slots: false,
            time: if case.slots.is_some() { 120 } else { case.time },
            ..case.clone()
        };
        let known = |(other, seen): &(Model, Case)| *other == model && *seen == case;
        let has_no_twin = model == Model::Reference || !Peer::Own(model).remembers();
        if has_no_twin || self.checked.iter().any(known) {
            return Ok(());
        }
        process::check(&case, model)?;
        self.checked.push((model, case));
        Ok(())
    }
}

/// Where the figures come from, and whether the machine had anything else to do: PyTorch's threads above
/// all lose time beside others.
fn machine(threads: usize, gpu: Option<&str>) -> String {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load = load.as_deref().and_then(|text| text.split_whitespace().next()).unwrap_or("unknown");
    let gpu = gpu.map_or_else(String::new, |name| format!(" and {name}"));
    format!(
        "burn-sab {}, commit {COMMIT}; {}{gpu}, {threads} threads, load average {load} before; Burn's own SIMD and \
         threads {}",
        env!("CARGO_PKG_VERSION"),
        processor(),
        if BURN_SIMD { "on" } else { "off (cargo feature simd)" },
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
