//! `sab conformance DIR`: checks the layer against cases that another implementation computed.
//!
//! A case is one SafeTensors file: the configuration as strings in the header's metadata, inputs, weights
//! and upstream gradients, and the outputs and gradients to expect, all in float64. The book, chapter "The
//! command", lists the names.

mod args;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, anyhow, ensure};
use burn::module::Param;
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use burn_sab::{
    InitialSlot, SabLstm, SabLstmConfig, SabLstmOutput, SabLstmState, ScoreConfig, Scorer,
    Sparsifier,
};
use safetensors::{Dtype as StoredType, SafeTensors};

use crate::backend::Backend;
use crate::error::usage;
use crate::failure::caught;
pub use args::ConformanceArgs;
use args::Dtype;

/// Largest error that passes: rounding, some hundred steps deep, in the type that computes.
fn tolerance(dtype: Dtype) -> f64 {
    match dtype {
        Dtype::F32 => 1e-4,
        Dtype::F64 => 1e-9,
    }
}

/// Checks this build against a folder of conformance cases.
///
/// # Errors
///
/// If there is no case to check, or the backend or data type is not to be had. A case that cannot be read
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
    let cases = list(&args.dir)?;
    let bound = tolerance(args.dtype);
    let width =
        cases.iter().filter_map(|path| path.file_stem()).map(|name| name.len()).max().unwrap_or(0);
    let (mut passed, mut failed) = (0, 0);
    for path in cases {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let errors = Case::read(&path).and_then(|case| caught(|| case.check(args, dtype, &device)));
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
                format!("{error:#}  FAILED")
            }
        };
        println!("{name:width$}  {verdict}");
    }
    println!("{passed} passed, {failed} failed");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
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
    Ok(cases)
}

/// Largest `max |got - want| / max(1, max |want|)` over tensors.
struct Errors {
    outputs: f64,
    gradients: f64,
}

struct Values {
    shape: Vec<usize>,
    values: Vec<f64>,
}

struct Case {
    settings: HashMap<String, String>,
    tensors: HashMap<String, Values>,
}

impl Case {
    fn read(path: &Path) -> anyhow::Result<Self> {
        let bytes =
            std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let (_, header) = SafeTensors::read_metadata(&bytes).context("not a SafeTensors file")?;
        let settings = header.metadata().clone().context("the file has no metadata")?;
        let mut tensors = HashMap::new();
        for (name, view) in SafeTensors::deserialize(&bytes)?.iter() {
            ensure!(view.dtype() == StoredType::F64, "{name} is {:?}, not F64", view.dtype());
            let numbers = view.data().chunks_exact(8);
            let values =
                numbers.map(|b| f64::from_le_bytes(b.try_into().expect("eight bytes"))).collect();
            tensors.insert(name.to_owned(), Values { shape: view.shape().to_vec(), values });
        }
        Ok(Self { settings, tensors })
    }

    fn setting(&self, name: &str) -> anyhow::Result<&str> {
        self.settings.get(name).map(String::as_str).with_context(|| format!("no setting {name}"))
    }

    fn count(&self, name: &str) -> anyhow::Result<usize> {
        let text = self.setting(name)?;
        text.parse().map_err(|_| anyhow!("setting {name} = {text:?}: not a whole number"))
    }

    fn values(&self, name: &str) -> anyhow::Result<&Values> {
        self.tensors.get(name).with_context(|| format!("no tensor {name}"))
    }

    fn tensor<const D: usize>(
        &self,
        name: &str,
        dtype: DType,
        device: &Device,
    ) -> anyhow::Result<Tensor<D>> {
        let Values { shape, values } = self.values(name)?;
        ensure!(shape.len() == D, "{name} has shape {shape:?}, not {D} sides");
        Ok(Tensor::from_data(TensorData::new(values.clone(), shape.clone()), (device, dtype)))
    }

    fn config(&self) -> anyhow::Result<SabLstmConfig> {
        let attention = || anyhow::Ok(self.values("score.query")?.shape[0]);
        let unknown = |name: &str| {
            Err(anyhow!("unknown {name} {:?}", self.setting(name).unwrap_or_default()))
        };
        let score = match self.setting("score")? {
            "additive" => ScoreConfig::Additive,
            "mlp" => ScoreConfig::Mlp { d_attention: attention()? },
            "dot" => ScoreConfig::Dot { d_attention: attention()? },
            _ => return unknown("score"),
        };
        let sparsifier = match self.setting("sparsifier")? {
            "threshold" => Sparsifier::Threshold,
            "released" => Sparsifier::Released,
            "softmax" => Sparsifier::Softmax,
            _ => return unknown("sparsifier"),
        };
        let initial_slot = match self.setting("initial_slot")? {
            "none" => InitialSlot::None,
            "hidden" => InitialSlot::Hidden,
            _ => return unknown("initial_slot"),
        };
        let max_hops = match self.setting("max_hops")? {
            "none" => None,
            _ => Some(self.count("max_hops")?),
        };
        let [input, hidden] = [self.values("w.ih")?.shape[1], self.values("w.hh")?.shape[1]];
        Ok(SabLstmConfig::new(input, hidden, true)
            .with_k_top(self.count("k_top")?)
            .with_k_att(self.count("k_att")?)
            .with_k_trunc(self.count("k_trunc")?)
            .with_truncation_offset(self.count("truncation_offset")?)
            .with_score(score)
            .with_sparsifier(sparsifier)
            .with_initial_slot(initial_slot)
            .with_max_hops(max_hops))
    }

    /// The layer with the case's weights. PyTorch keeps matrices as `[out, in]`, Burn as `[in, out]`.
    fn layer(
        &self,
        config: &SabLstmConfig,
        dtype: DType,
        device: &Device,
    ) -> anyhow::Result<SabLstm> {
        let vector = |name| anyhow::Ok(Param::from_tensor(self.tensor::<1>(name, dtype, device)?));
        let matrix = |name| {
            anyhow::Ok(Param::from_tensor(self.tensor::<2>(name, dtype, device)?.transpose()))
        };
        let mut layer = config.try_init(device)?;
        layer.weight_ih = matrix("w.ih")?;
        layer.weight_hh = matrix("w.hh")?;
        layer.bias_ih = Some(vector("b.ih")?);
        layer.bias_hh = Some(vector("b.hh")?);
        match &mut layer.scorer {
            Scorer::Additive(scorer) => {
                scorer.u = vector("score.u")?;
                scorer.v = vector("score.v")?;
            }
            Scorer::Mlp(scorer) => {
                scorer.query = matrix("score.query")?;
                scorer.query_bias = vector("score.query_bias")?;
                scorer.memory = matrix("score.memory")?;
                scorer.v = vector("score.v")?;
            }
            Scorer::Dot(scorer) => {
                scorer.query = matrix("score.query")?;
                scorer.key = matrix("score.key")?;
            }
        }
        Ok(layer)
    }

    fn check(
        &self,
        args: &ConformanceArgs,
        dtype: DType,
        device: &Device,
    ) -> anyhow::Result<Errors> {
        let config = self.config()?.with_strategy(args.strategy.into());
        let layer = self.layer(&config, dtype, device)?;
        let x = self.tensor::<3>("in.x", dtype, device)?.require_grad();
        let h0 = self.tensor::<2>("in.h0", dtype, device)?.require_grad();
        let c0 = self.tensor::<2>("in.c0", dtype, device)?.require_grad();
        let state = SabLstmState::new(c0.clone(), h0.clone());
        let output = layer.forward_with_reminders(x.clone(), Some(state));

        let loss = (self.tensor("up.h", dtype, device)? * output.hidden.clone()).sum()
            + (self.tensor("up.s", dtype, device)? * output.summary.clone()).sum()
            + (self.tensor("up.c", dtype, device)? * output.state.cell.clone()).sum();
        let grads = loss.backward();

        let mut outputs = Worst::new(self);
        outputs.see("out.h", output.hidden.to_data())?;
        outputs.see("out.s", output.summary.to_data())?;
        outputs.see("out.c", output.state.cell.to_data())?;
        outputs.see("out.slots", TensorData::from([output.state.num_slots() as f64]))?;
        outputs.see("out.weights", dense_weights(&output))?;

        let mut gradients = Worst::new(self);
        gradients.see("grad.in.x", gradient(&x, &grads))?;
        gradients.see("grad.in.h0", gradient(&h0, &grads))?;
        gradients.see("grad.in.c0", gradient(&c0, &grads))?;
        let mut vector = |name: &str, param: &Param<Tensor<1>>| {
            gradients.see(name, gradient(&param.val(), &grads))
        };
        for (name, bias) in [("grad.b.ih", &layer.bias_ih), ("grad.b.hh", &layer.bias_hh)] {
            vector(name, bias.as_ref().context("no bias")?)?;
        }
        match &layer.scorer {
            Scorer::Additive(scorer) => {
                vector("grad.score.u", &scorer.u)?;
                vector("grad.score.v", &scorer.v)?;
            }
            Scorer::Mlp(scorer) => {
                vector("grad.score.query_bias", &scorer.query_bias)?;
                vector("grad.score.v", &scorer.v)?;
            }
            Scorer::Dot(_) => {}
        }
        let mut matrix = |name: &str, param: &Param<Tensor<2>>| {
            gradients.see(name, transposed(gradient(&param.val(), &grads)))
        };
        matrix("grad.w.ih", &layer.weight_ih)?;
        matrix("grad.w.hh", &layer.weight_hh)?;
        match &layer.scorer {
            Scorer::Additive(_) => {}
            Scorer::Mlp(scorer) => {
                matrix("grad.score.query", &scorer.query)?;
                matrix("grad.score.memory", &scorer.memory)?;
            }
            Scorer::Dot(scorer) => {
                matrix("grad.score.query", &scorer.query)?;
                matrix("grad.score.key", &scorer.key)?;
            }
        }
        let expected = self.tensors.keys().filter(|name| name.starts_with("grad.")).count();
        ensure!(gradients.seen == expected, "compared {} of {expected} gradients", gradients.seen);
        Ok(Errors { outputs: outputs.error, gradients: gradients.error })
    }
}

/// The largest error so far.
struct Worst<'a> {
    case: &'a Case,
    error: f64,
    seen: usize,
}

impl<'a> Worst<'a> {
    fn new(case: &'a Case) -> Self {
        Self { case, error: 0.0, seen: 0 }
    }

    fn see(&mut self, name: &str, got: TensorData) -> anyhow::Result<()> {
        let Values { shape, values: want } = self.case.values(name)?;
        ensure!(
            got.shape().as_slice() == &shape[..],
            "{name} has shape {:?}, not {shape:?}",
            got.shape()
        );
        let got: Vec<f64> = got.iter::<f64>().collect();
        let largest = want.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        for (got, want) in got.iter().zip(want) {
            let error = (got - want).abs() / largest;
            // `max` alone would let a NaN pass.
            self.error = if error.is_nan() { f64::INFINITY } else { self.error.max(error) };
        }
        self.seen += 1;
        Ok(())
    }
}

fn gradient<const D: usize>(tensor: &Tensor<D>, grads: &Gradients) -> TensorData {
    // A tensor that no gradient reached has none.
    tensor.grad(grads).unwrap_or_else(|| tensor.clone().inner().zeros_like()).to_data()
}

fn transposed(data: TensorData) -> TensorData {
    let [rows, columns]: [usize; 2] = data.shape().dims();
    let values: Vec<f64> = data.iter::<f64>().collect();
    let turned = (0..rows * columns).map(|at| values[(at % rows) * columns + at / rows]).collect();
    TensorData::new(turned, [columns, rows])
}

/// `[B, T, M]` from the retrieved slots and their weights.
fn dense_weights(output: &SabLstmOutput) -> TensorData {
    let slots = output.state.num_slots();
    let [batch, time, places] = output.weights.dims();
    let mut dense = vec![0.0; batch * time * slots];
    let indices = output.slots.to_data();
    let weights = output.weights.to_data();
    for (at, (slot, weight)) in indices.iter::<i64>().zip(weights.iter::<f64>()).enumerate() {
        if weight != 0.0 {
            dense[at / places * slots + slot as usize] += weight;
        }
    }
    TensorData::new(dense, [batch, time, slots])
}
