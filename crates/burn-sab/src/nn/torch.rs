//! Weights of PyTorch: the state dicts of `torch.nn.LSTM` and `torch.nn.LSTMCell`, and of the authors' SAB release.
//!
//! PyTorch packs the gates as this crate does, in the order i, f, g, o, and keeps each matrix transposed:
//!
//! | `torch.nn.LSTM` | `torch.nn.LSTMCell` | shape there | here | shape here |
//! | --- | --- | --- | --- | --- |
//! | `weight_ih_l{k}` | `weight_ih` | `[4H, I]` | `weight_ih` | `[I, 4H]` |
//! | `weight_hh_l{k}` | `weight_hh` | `[4H, H]` | `weight_hh` | `[H, 4H]` |
//! | `bias_ih_l{k}` | `bias_ih` | `[4H]` | `bias_ih` | `[4H]` |
//! | `bias_hh_l{k}` | `bias_hh` | `[4H]` | `bias_hh` | `[4H]` |
//!
//! The names of a reverse direction end in `_reverse`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use burn::module::{Initializer, Param};
use burn::nn::{Linear, LinearConfig};
use burn::store::{ModuleStore, SafetensorsStore, bridge};
use burn::tensor::{DType, Device, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use thiserror::Error;

use super::config::{SabLstmConfig, ScoreConfig};
use super::lstm::SabLstm;
use super::scorer::{AdditiveScorer, Scorer};
use super::stack::{SabLstmStack, SabLstmStackConfig};
use crate::error::ConfigError;

/// Weights that cannot be read, written or converted.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum TorchError {
    /// A file that cannot be read or written.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: String,
        /// What went wrong.
        message: String,
    },
    /// A weight that is not there.
    #[error("there is no weight {name:?} among {found}; under(prefix) chooses those of one layer")]
    Missing {
        /// The weight.
        name: String,
        /// The names that there are.
        found: String,
    },
    /// A weight of another shape.
    #[error("{name} has shape {found:?}, expected {expected}")]
    Shape {
        /// The weight.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it has to have.
        expected: String,
    },
    /// A weight whose elements are not floating-point numbers.
    #[error("{name} is {found:?}, expected F32, F64, F16 or BF16")]
    DataType {
        /// The weight.
        name: String,
        /// Its data type.
        found: DType,
    },
    /// An option that one of the two libraries does not have.
    #[error("{what}: {remedy}")]
    NoCounterpart {
        /// What it is.
        what: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// An invalid setting of the layer.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

/// The weights of PyTorch modules by their names in a state dict.
///
/// ```no_run
/// # use burn::tensor::Device;
/// # use burn_sab::{SabLstmConfig, SabLstmStackConfig, TorchError, TorchWeights};
/// # fn main() -> Result<(), TorchError> {
/// # let device = Device::default();
/// // In Python: safetensors.torch.save_file(network.state_dict(), "network.safetensors")
/// let weights = TorchWeights::load("network.safetensors")?.under("encoder.lstm.");
/// let config = SabLstmStackConfig::new(SabLstmConfig::new(1, 1, true), 1);
/// let stack = config.try_init_from_torch(&weights, &device)?;    // sizes are those of the weights
/// stack.to_torch()?.within("encoder.lstm.").save("trained.safetensors")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TorchWeights {
    weights: BTreeMap<String, TensorData>,
}

/// All weights that are given, by their names.
impl FromIterator<(String, TensorData)> for TorchWeights {
    fn from_iter<I: IntoIterator<Item = (String, TensorData)>>(weights: I) -> Self {
        Self { weights: weights.into_iter().collect() }
    }
}

impl TorchWeights {
    /// Reads a state dict from a file: SafeTensors, or with the feature `pytorch` also one that `torch.save` wrote
    /// (`.pt`, `.pth`, `.bin`).
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or if it is of `torch.save` and the feature `pytorch` is off.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, TorchError> {
        let path = path.as_ref();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            return Self::collect(path, SafetensorsStore::from_file(path));
        }
        Self::load_pytorch(path, None)
    }

    /// Reads a state dict that lies under a key of a checkpoint that `torch.save` wrote, such as `"state_dict"`. Needs
    /// the feature `pytorch`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has no such key, or if the feature `pytorch` is off.
    pub fn load_key(path: impl AsRef<Path>, key: &str) -> Result<Self, TorchError> {
        Self::load_pytorch(path.as_ref(), Some(key))
    }

    #[cfg(feature = "pytorch")]
    fn load_pytorch(path: &Path, key: Option<&str>) -> Result<Self, TorchError> {
        let store = burn::store::PytorchStore::from_file(path);
        Self::collect(path, key.iter().fold(store, |store, key| store.with_top_level_key(*key)))
    }

    #[cfg(not(feature = "pytorch"))]
    fn load_pytorch(path: &Path, _: Option<&str>) -> Result<Self, TorchError> {
        let message = "only .safetensors can be read in this build: switch on the feature pytorch of burn-sab, or \
                       write the state dict with safetensors.torch.save_file";
        Err(TorchError::File { path: path.display().to_string(), message: message.to_owned() })
    }

    fn collect(path: &Path, mut store: impl ModuleStore) -> Result<Self, TorchError> {
        let weights = store.get_all_tensors().map_err(|error| file(path, error))?;
        let read = |(name, tensor): (&String, &_)| {
            let data = bridge::to_data(tensor).map_err(|error| file(path, error))?;
            Ok((name.clone(), data))
        };
        weights.iter().map(read).collect()
    }

    /// Writes the weights into a SafeTensors file, which `safetensors.torch.load_file` reads.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, or if a weight has a data type that SafeTensors does not have.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TorchError> {
        let path = path.as_ref();
        let mut views = Vec::with_capacity(self.weights.len());
        for (name, data) in &self.weights {
            let dtype = match data.dtype() {
                DType::F64 => Dtype::F64,
                DType::F32 => Dtype::F32,
                DType::F16 => Dtype::F16,
                DType::BF16 => Dtype::BF16,
                found => return Err(TorchError::DataType { name: name.clone(), found }),
            };
            let view = TensorView::new(dtype, data.shape().to_vec(), data.as_bytes());
            views.push((name, view.map_err(|error| file(path, error))?));
        }
        // What PyTorch's own writer adds, and other readers ask for.
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        serialize_to_file(views, Some(metadata), path).map_err(|error| file(path, error))
    }

    /// The names of the weights.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().map(String::as_str)
    }

    /// A weight.
    pub fn get(&self, name: &str) -> Option<&TensorData> {
        self.weights.get(name)
    }

    /// The weights whose names begin with `prefix`, with the prefix removed: those of one module, such as
    /// `under("encoder.lstm.")`.
    pub fn under(&self, prefix: &str) -> Self {
        let strip = |(name, data): (&String, &TensorData)| {
            Some((name.strip_prefix(prefix)?.to_owned(), data.clone()))
        };
        self.weights.iter().filter_map(strip).collect()
    }

    /// The weights with `prefix` before every name; the inverse of [`under`](Self::under).
    pub fn within(self, prefix: &str) -> Self {
        let add = |(name, data)| (format!("{prefix}{name}"), data);
        self.weights.into_iter().map(add).collect()
    }

    /// # Errors
    ///
    /// If there is no such weight, or if it is no floating-point number.
    fn find(&self, name: &str) -> Result<&TensorData, TorchError> {
        let data = self.get(name).ok_or_else(|| {
            let found: Vec<&str> = self.names().take(12).collect();
            let more = self.weights.len() - found.len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            TorchError::Missing { name: name.to_owned(), found: format!("{found:?}{more}") }
        })?;
        match data.dtype() {
            DType::F64 | DType::F32 | DType::F16 | DType::BF16 => Ok(data),
            found => Err(TorchError::DataType { name: name.to_owned(), found }),
        }
    }

    /// A weight of `[rows, columns]`; `None` stands for any number.
    ///
    /// # Errors
    ///
    /// If there is no such weight, or if it has another shape.
    fn matrix(
        &self,
        name: &str,
        [rows, columns]: [Option<usize>; 2],
    ) -> Result<(&TensorData, [usize; 2]), TorchError> {
        let data = self.find(name)?;
        let fits =
            |wanted: Option<usize>, size: usize| size > 0 && wanted.is_none_or(|n| n == size);
        match *data.shape().as_slice() {
            [r, c] if fits(rows, r) && fits(columns, c) => Ok((data, [r, c])),
            _ => {
                let size = |n: Option<usize>| n.map_or("any".to_owned(), |n| n.to_string());
                let expected = format!("[{}, {}]", size(rows), size(columns));
                Err(TorchError::Shape {
                    name: name.to_owned(),
                    found: data.shape().to_vec(),
                    expected,
                })
            }
        }
    }

    /// A weight of `[size]`.
    ///
    /// # Errors
    ///
    /// If there is no such weight, or if it has another shape.
    fn vector(
        &self,
        name: &str,
        size: usize,
        device: &Device,
    ) -> Result<Param<Tensor<1>>, TorchError> {
        let data = self.find(name)?;
        if data.shape().as_slice() != [size] {
            let (name, found) = (name.to_owned(), data.shape().to_vec());
            return Err(TorchError::Shape { name, found, expected: format!("[{size}]") });
        }
        Ok(Param::from_tensor(Tensor::from_data(data.clone(), (device, data.dtype()))))
    }

    /// The sizes I and H of a cell, and whether it has biases.
    ///
    /// # Errors
    ///
    /// If it is incomplete, or if its weights do not fit each other.
    fn cell(&self, suffix: &str) -> Result<CellSizes, TorchError> {
        if self.get(&format!("weight_hr{suffix}")).is_some() {
            return Err(TorchError::NoCounterpart {
                what: format!(
                    "weight_hr{suffix}: an LSTM with a projection of its outputs (proj_size)"
                ),
                remedy: "SabLstm has none; train it without",
            });
        }
        let name = format!("weight_hh{suffix}");
        let (_, [packed, d_hidden]) = self.matrix(&name, [None, None])?;
        if packed != 4 * d_hidden {
            let (found, expected) = (vec![packed, d_hidden], "[4 H, H]".to_owned());
            return Err(TorchError::Shape { name, found, expected });
        }
        let (_, [_, d_input]) = self.matrix(&format!("weight_ih{suffix}"), [Some(packed), None])?;
        let bias =
            ["bias_ih", "bias_hh"].iter().any(|b| self.get(&format!("{b}{suffix}")).is_some());
        Ok(CellSizes { d_input, d_hidden, bias })
    }

    /// The layer of `config` with the weights of a cell, whose sizes it has.
    ///
    /// # Errors
    ///
    /// If a weight is missing or of another shape.
    fn layer(
        &self,
        suffix: &str,
        config: &SabLstmConfig,
        device: &Device,
    ) -> Result<SabLstm, TorchError> {
        if config.input_forget {
            return Err(TorchError::NoCounterpart {
                what: "input_forget = true".to_owned(),
                remedy: "PyTorch's LSTM has a forget gate of its own; leave input_forget false",
            });
        }
        let matrix = |name: &str, rows: usize| {
            let (data, _) =
                self.matrix(&format!("{name}{suffix}"), [Some(4 * config.d_hidden), Some(rows)])?;
            Ok::<_, TorchError>(Param::from_tensor(transposed(data, device)))
        };
        let vector = |name: &str| {
            let vector = || self.vector(&format!("{name}{suffix}"), 4 * config.d_hidden, device);
            config.bias.then(vector).transpose()
        };
        // Overwritten below, so random initialisation is unnecessary.
        let blank = SabLstmConfig { initializer: Initializer::Zeros, ..config.clone() };
        Ok(SabLstm {
            weight_ih: matrix("weight_ih", config.d_input)?,
            weight_hh: matrix("weight_hh", config.d_hidden)?,
            bias_ih: vector("bias_ih")?,
            bias_hh: vector("bias_hh")?,
            ..SabLstm::from_config(&blank, device)
        })
    }

    /// Whether the weights are those of a cell, whose names have no number.
    fn is_cell(&self) -> bool {
        self.get("weight_ih").is_some()
    }

    /// Adds the weights of a layer.
    ///
    /// # Errors
    ///
    /// If PyTorch has no such cell.
    fn add(&mut self, suffix: &str, layer: &SabLstm) -> Result<(), TorchError> {
        let option = match layer {
            SabLstm { input_forget: true, .. } => Some("input_forget"),
            SabLstm { clip: Some(_), .. } => Some("clip"),
            SabLstm { activations: Some(_), .. } => Some("activations other than sigmoid and tanh"),
            _ => None,
        };
        if let Some(option) = option {
            return Err(TorchError::NoCounterpart {
                what: option.to_owned(),
                remedy: "PyTorch's LSTM has no such option; export a layer without it",
            });
        }
        let matrix = |weight: &Param<Tensor<2>>| weight.val().transpose().into_data();
        let mut add = |name: &str, data| self.weights.insert(format!("{name}{suffix}"), data);
        add("weight_ih", matrix(&layer.weight_ih));
        add("weight_hh", matrix(&layer.weight_hh));
        let [_, packed] = layer.weight_ih.dims();
        let like = layer.weight_ih.val();
        let zeros = || Tensor::zeros([packed], (&like.device(), like.dtype()));
        if layer.bias_ih.is_some() || layer.bias_hh.is_some() {
            // PyTorch has both or none.
            for (name, bias) in [("bias_ih", &layer.bias_ih), ("bias_hh", &layer.bias_hh)] {
                let bias = bias.as_ref().map_or_else(zeros, Param::val);
                add(name, bias.into_data());
            }
        }
        Ok(())
    }
}

/// The sizes of a cell.
#[derive(Clone, Copy, PartialEq, Eq)]
struct CellSizes {
    d_input: usize,
    d_hidden: usize,
    bias: bool,
}

impl CellSizes {
    /// The configuration with these sizes.
    fn put(self, config: &SabLstmConfig) -> SabLstmConfig {
        let Self { d_input, d_hidden, bias } = self;
        SabLstmConfig { d_input, d_hidden, bias, ..config.clone() }
    }
}

impl SabLstmConfig {
    /// Creates a layer with the weights of a `torch.nn.LSTMCell`, or of a `torch.nn.LSTM` with one layer in one
    /// direction. Sizes and biases are those of the weights, all other settings those of this configuration. The
    /// parameters of the score are initialised at random.
    ///
    /// # Errors
    ///
    /// If a weight is missing or of another shape, if the weights are of several layers, or if the settings are not
    /// [valid](Self::validate).
    pub fn try_init_from_torch(
        &self,
        weights: &TorchWeights,
        device: &Device,
    ) -> Result<SabLstm, TorchError> {
        if let Some(name) = ["weight_ih_l1", "weight_ih_l0_reverse"]
            .into_iter()
            .find(|name| weights.get(name).is_some())
        {
            return Err(TorchError::NoCounterpart {
                what: format!("{name}: an LSTM of several layers or in both directions"),
                remedy: "make a stack of it with SabLstmStackConfig::try_init_from_torch",
            });
        }
        let suffix = if weights.is_cell() { "" } else { "_l0" };
        let config = weights.cell(suffix)?.put(self);
        config.validate()?;
        weights.layer(suffix, &config, device)
    }

    /// Creates a layer and its readout with the weights of the authors' PyTorch release (`self_LSTM_sparse_attn`):
    ///
    /// - the cell `lstm1.*`;
    /// - the score's `w_t`, `[2H, 1]`: the first H elements are u, the others v;
    /// - the readout `fc.*`, `[classes, 2H]`, whose input is the hidden state and then the summary.
    ///
    /// Sizes are those of the weights, and the score is additive. All other settings are those of this configuration;
    /// [`released`](Self::released) has those of the release.
    ///
    /// # Errors
    ///
    /// If a weight is missing or of another shape, or if the settings are not [valid](Self::validate).
    pub fn try_init_from_release(
        &self,
        weights: &TorchWeights,
        device: &Device,
    ) -> Result<(SabLstm, Linear), TorchError> {
        let cell = weights.under("lstm1.");
        let sizes = cell.cell("").map_err(|error| within("lstm1.", error))?;
        let config = Self { score: ScoreConfig::Additive, ..sizes.put(self) };
        config.validate()?;
        let mut layer = cell.layer("", &config, device).map_err(|error| within("lstm1.", error))?;
        let hidden = config.d_hidden;
        let (w_t, _) = weights.matrix("w_t", [Some(2 * hidden), Some(1)])?;
        let w_t = Tensor::<2>::from_data(w_t.clone(), (device, w_t.dtype())).squeeze_dim::<1>(1);
        let half = |from| Param::from_tensor(w_t.clone().narrow(0, from, hidden));
        layer.scorer = Scorer::Additive(AdditiveScorer { u: half(0), v: half(hidden) });
        let (weight, [classes, _]) = weights.matrix("fc.weight", [None, Some(2 * hidden)])?;
        let mut readout = LinearConfig::new(2 * hidden, classes)
            .with_initializer(Initializer::Zeros)
            .init(device);
        readout.weight = Param::from_tensor(transposed(weight, device));
        readout.bias = Some(weights.vector("fc.bias", classes, device)?);
        Ok((layer, readout))
    }
}

impl SabLstmStackConfig {
    /// Creates a stack with the weights of a `torch.nn.LSTM`, with any number of layers in one direction or both, or of
    /// a `torch.nn.LSTMCell`. Layers, directions, sizes and biases are those of the weights, all other settings those of
    /// this configuration. The parameters of the scores are initialised at random.
    ///
    /// # Errors
    ///
    /// If a weight is missing or of another shape, or if the settings are not [valid](Self::validate).
    pub fn try_init_from_torch(
        &self,
        weights: &TorchWeights,
        device: &Device,
    ) -> Result<SabLstmStack, TorchError> {
        let has = |name: String| weights.get(&name).is_some();
        let is_cell = weights.is_cell();
        let num_layers = (0..).take_while(|k| has(format!("weight_ih_l{k}"))).count().max(1);
        let bidirectional = has("weight_ih_l0_reverse".to_owned());
        let suffix = |index: usize, reverse: bool| match (is_cell, reverse) {
            (true, _) => String::new(),
            (false, false) => format!("_l{index}"),
            (false, true) => format!("_l{index}_reverse"),
        };
        let layer = weights.cell(&suffix(0, false))?.put(&self.layer);
        let config = Self { layer, num_layers, bidirectional, ..self.clone() };
        config.validate()?;
        let mut layers = Vec::with_capacity(num_layers);
        for index in 0..num_layers {
            let layer = config.layer(index);
            let reverse = SabLstmConfig { reverse: true, ..layer.clone() };
            let forward = weights.layer(&suffix(index, false), &layer, device)?;
            let reverse =
                bidirectional.then(|| weights.layer(&suffix(index, true), &reverse, device));
            layers.push((forward, reverse.transpose()?));
        }
        Ok(config.stack(device, layers))
    }
}

impl SabLstm {
    /// The weights of the cell with the names of a `torch.nn.LSTM` with one layer. Memory settings and score are not
    /// exported, because PyTorch does not have them.
    ///
    /// # Errors
    ///
    /// If the cell has an option that PyTorch does not have, or if the layer runs in reverse.
    pub fn to_torch(&self) -> Result<TorchWeights, TorchError> {
        if self.reverse {
            return Err(in_reverse());
        }
        let mut weights = TorchWeights::default();
        weights.add("_l0", self)?;
        Ok(weights)
    }

    /// The weights of the cell with the names of a `torch.nn.LSTMCell`. Memory settings and score are not exported,
    /// because PyTorch does not have them.
    ///
    /// # Errors
    ///
    /// If the cell has an option that PyTorch does not have.
    pub fn to_torch_cell(&self) -> Result<TorchWeights, TorchError> {
        let mut weights = TorchWeights::default();
        weights.add("", self)?;
        Ok(weights)
    }
}

impl SabLstmStack {
    /// The weights of the cells with the names of a `torch.nn.LSTM`. Memory settings and scores are not exported,
    /// because PyTorch does not have them.
    ///
    /// # Errors
    ///
    /// If the stack has an option that PyTorch does not have: layer normalisation, residual connections, an option of a
    /// cell, or layers that run only in reverse.
    pub fn to_torch(&self) -> Result<TorchWeights, TorchError> {
        let has_norm = self.layers.iter().any(|layer| layer.norm.is_some());
        if self.residual || has_norm {
            return Err(TorchError::NoCounterpart {
                what: if self.residual { "residual = true" } else { "layer_norm = true" }
                    .to_owned(),
                remedy: "torch.nn.LSTM has no such option; export the layers one by one",
            });
        }
        let mut weights = TorchWeights::default();
        for (index, layer) in self.layers.iter().enumerate() {
            if layer.forward.reverse {
                return Err(in_reverse());
            }
            weights.add(&format!("_l{index}"), &layer.forward)?;
            if let Some(reverse) = &layer.reverse {
                weights.add(&format!("_l{index}_reverse"), reverse)?;
            }
        }
        Ok(weights)
    }
}

fn in_reverse() -> TorchError {
    TorchError::NoCounterpart {
        what: "reverse = true".to_owned(),
        remedy: "torch.nn.LSTM runs in reverse only beside a forward direction; export the cell with to_torch_cell",
    }
}

/// An error of a weight by its name in the whole state dict.
fn within(prefix: &str, mut error: TorchError) -> TorchError {
    if let TorchError::Missing { name, .. }
    | TorchError::Shape { name, .. }
    | TorchError::DataType { name, .. } = &mut error
    {
        name.insert_str(0, prefix);
    }
    error
}

fn file(path: &Path, error: impl std::fmt::Display) -> TorchError {
    TorchError::File { path: path.display().to_string(), message: error.to_string() }
}

/// The transposed matrix, in row-major order: a step would copy a transposed view anew.
fn transposed(data: &TensorData, device: &Device) -> Tensor<2> {
    let options = (device, data.dtype());
    let transposed = Tensor::<2>::from_data(data.clone(), options).transpose().into_data();
    Tensor::from_data(transposed, options)
}
