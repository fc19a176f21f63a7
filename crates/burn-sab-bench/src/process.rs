//! Processes that measure: models in other processes of this program, PyTorch in its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, bail};
use burn_sab_cli::error::usage;
use burn_sab_cli::values::name;

use crate::args::{BenchArgs, Model, Worker};
use crate::case::Case;
use crate::measured::Figures;

/// The script that times PyTorch, in the sources that this program was built from.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/torch_peers.py");

/// Has a process of this program measure a model.
pub fn measure(case: &Case, model: Model) -> anyhow::Result<Figures> {
    let line = work(Worker::Measure, case, model)?;
    serde_json::from_str(&line).with_context(|| format!("not a line of results: {line:?}"))
}

/// Has a process of this program compare a model with the readable twin.
pub fn check(case: &Case, model: Model) -> anyhow::Result<()> {
    work(Worker::Check, case, model).map(drop)
}

fn work(worker: Worker, case: &Case, model: Model) -> anyhow::Result<String> {
    let (shared, own) = case.flags();
    let threads = case.threads.to_string();
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(format!("--worker={}", name(worker)))
        .arg(format!("--model={}", name(model)))
        .args(shared)
        .args(own)
        // For the matrix products of ndarray, which has threads of its own.
        .env("MATMUL_NUM_THREADS", &threads);
    told(&mut command)
}

/// What a process prints; its last words if it fails.
fn told(command: &mut Command) -> anyhow::Result<String> {
    let program = Path::new(command.get_program()).display().to_string();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {program}"))?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let told = last_line(&output);
    let told = told.strip_prefix("error: ").unwrap_or(&told);
    if told.is_empty() {
        // Killed, by the system for want of memory more often than not.
        bail!("{program} ended with {}", output.status);
    }
    bail!("{told}")
}

fn last_line(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned()
}

/// A Python with PyTorch.
#[derive(Debug)]
pub struct Torch {
    python: PathBuf,
}

impl Torch {
    /// The one that --python or `SAB_PYTHON` names, else `python3`; `None`, and why, if there is none.
    ///
    /// # Errors
    ///
    /// If --python names one that does not do.
    pub fn find(args: &BenchArgs) -> anyhow::Result<Result<Self, String>> {
        let asked = args.python.clone();
        let python = asked.clone().or_else(|| std::env::var_os("SAB_PYTHON").map(PathBuf::from));
        let python = python.unwrap_or_else(|| "python3".into());
        let shown = python.display();
        let imported = Command::new(&python)
            .args(["-c", "import torch"])
            .stdin(Stdio::null())
            .output()
            .map_err(|error| error.to_string())
            .and_then(|output| output.status.success().then_some(()).ok_or(last_line(&output)));
        Ok(match (imported, asked) {
            (Err(why), Some(_)) => return Err(usage!("--python {shown}: {why}")),
            (Err(why), None) => Err(format!(
                "without PyTorch ({shown}: {why}); name a Python that has it with --python or SAB_PYTHON"
            )),
            (Ok(()), _) if !Path::new(SCRIPT).is_file() => {
                Err(format!("without PyTorch: the script {SCRIPT} is not there"))
            }
            (Ok(()), _) => Ok(Self { python }),
        })
    }

    /// Measures one of the script's peers, on a GPU if the case is one's.
    pub fn measure(&self, case: &Case, peer: &str) -> anyhow::Result<Figures> {
        let (shared, _) = case.flags();
        let mut command = Command::new(&self.python);
        command.arg(SCRIPT).arg(format!("--peer={peer}")).args(shared);
        if case.slots.is_some() {
            command.arg("--time=1");
        }
        if case.backend.is_gpu() {
            command.arg("--device=cuda");
        }
        let line = told(&mut command)?;
        serde_json::from_str(&line).with_context(|| format!("not a line of results: {line:?}"))
    }
}
