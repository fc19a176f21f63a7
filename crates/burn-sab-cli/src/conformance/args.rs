//! What `sab conformance` is told.

use std::path::PathBuf;

use burn_sab::Strategy;
use clap::{Args, ValueEnum};

use crate::backend::Backend;

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
    #[arg(long, value_enum, default_value_t = StrategyName::Auto)]
    pub strategy: StrategyName,
}

/// An implementation of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StrategyName {
    /// The fastest that covers the case
    Auto,
    /// The readable twin under Burn's own autodiff
    Reference,
    /// Backend primitives with the hand-written backward pass
    Primitives,
    /// The backend's own kernel
    Fused,
}

impl From<StrategyName> for Strategy {
    fn from(name: StrategyName) -> Self {
        match name {
            StrategyName::Auto => Self::Auto,
            StrategyName::Reference => Self::Reference,
            StrategyName::Primitives => Self::Primitives,
            StrategyName::Fused => Self::Fused,
        }
    }
}

/// A floating-point type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Dtype {
    /// 32 bits
    F32,
    /// 64 bits
    F64,
}
