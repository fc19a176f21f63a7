//! What `sab conformance` is told.

use std::path::PathBuf;

use burn_sab::Strategy;
use clap::{Args, ValueEnum};

use crate::backend::Backend;
use crate::flags;

#[derive(Debug, Args)]
pub struct ConformanceArgs {
    /// A folder of cases (*.safetensors) [default: the cases that are compiled in]
    pub dir: Option<PathBuf>,
    /// Where to compute [default: flex, if this build has it]
    #[arg(long, value_enum)]
    pub backend: Option<Backend>,
    /// Type of the numbers
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// Which implementation of the layer
    #[arg(long, default_value = "auto", value_parser = flags::value::<Strategy>())]
    pub strategy: Strategy,
}

/// A floating-point type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32 bits
    F32,
    /// 64 bits
    F64,
}
