//! `sab conformance [DIR]`: checks the layer against cases that another implementation computed.
//!
//! A case is one SafeTensors file: the configuration as strings in the header's metadata, inputs, weights
//! and upstream gradients, and the outputs and gradients to expect, all in float64. The book, chapter "The
//! command sab", lists the names. The cases that ship with the program come from `conformance/reference.py`.

mod args;
pub(crate) mod case;
mod check;
mod shipped;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow};
use burn::tensor::DType;

use crate::backend::Backend;
use crate::error::usage;
use crate::failure::caught;
pub use args::ConformanceArgs;
use args::Dtype;
use case::Case;
use check::check;

/// Largest error that passes: rounding, some hundred steps deep, in the type that computes.
fn tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-4,
        Dtype::F64 => 1e-9,
    }
}

/// Checks this build against the shipped cases or a folder of others.
///
/// # Errors
///
/// If there is no case to check, or the backend or data type is not available. A case that cannot be read
/// counts as failed.
pub fn run(args: &ConformanceArgs) -> anyhow::Result<ExitCode> {
    let backend = args.backend.map_or_else(Backend::preferred, Ok)?;
    let device = backend.device()?;
    let dtype = match args.dtype {
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
    };
    if !device.supports_dtype(dtype) {
        return Err(usage!(
            "the backend {} does not compute in {dtype:?}; take --dtype f32",
            backend.name()
        ));
    }
    let device = device.autodiff();
    let cases = match &args.dir {
        Some(folder) => in_folder(folder)?,
        None => shipped::CASES.iter().map(|(name, file)| Source::Shipped(name, file)).collect(),
    };
    let bound = tolerance(args.dtype);
    let width = cases.iter().map(|case| case.name().len()).max().unwrap_or(0);
    let (mut passed, mut failed) = (0, 0);
    for source in cases {
        let errors = caught(|| check(&source.read()?, args.strategy, dtype, &device));
        let verdict = match errors {
            Ok(errors) => {
                let ok = errors.outputs <= bound && errors.gradients <= bound;
                if ok {
                    passed += 1
                } else {
                    failed += 1
                }
                let word = if ok { "ok" } else { "FAILED" };
                format!(
                    "outputs {:.1e}  gradients {:.1e}  {word}",
                    errors.outputs, errors.gradients
                )
            }
            Err(error) => {
                failed += 1;
                format!("{}  FAILED", format!("{error:#}").replace('\n', " "))
            }
        };
        println!("{:width$}  {verdict}", source.name());
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where a case is.
enum Source {
    /// In the program: its name and its file.
    Shipped(&'static str, &'static [u8]),
    /// In a file of the user's.
    File(PathBuf),
}

impl Source {
    fn name(&self) -> String {
        match self {
            Self::Shipped(name, _) => (*name).to_owned(),
            Self::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        }
    }

    fn read(&self) -> anyhow::Result<Case> {
        match self {
            Self::Shipped(name, file) => {
                Case::parse(file).map_err(|error| anyhow!("the shipped case {name}: {error:#}"))
            }
            Self::File(path) => {
                let file = std::fs::read(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                Case::parse(&file)
                    .with_context(|| format!("{} is not a valid case", path.display()))
            }
        }
    }
}

fn in_folder(folder: &Path) -> anyhow::Result<Vec<Source>> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| usage!("cannot read the folder of cases {}: {error}", folder.display()))?;
    let mut cases = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            cases.push(path);
        }
    }
    if cases.is_empty() {
        return Err(usage!("there is no case (*.safetensors) in {}", folder.display()));
    }
    cases.sort();
    Ok(cases.into_iter().map(Source::File).collect())
}
