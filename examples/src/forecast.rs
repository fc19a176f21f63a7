//! A stream without end and a network that forecasts it, for the examples of streams: waves whose period changes now and
//! then.

use std::f64::consts::TAU;
use std::ops::Range;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Device, Tensor, TensorData};
use burn_sab::{SabLstm, SabLstmConfig, SabLstmState, Segments};

/// Waves that are read side by side in training.
pub const WAVES: usize = 8;
/// Steps of a chunk: less than most periods, so that a chunk alone does not tell how the wave goes on.
pub const CHUNK: usize = 16;
/// Steps between two changes of a wave's period.
pub const SEGMENT: usize = 400;
/// Steps by which each wave changes earlier than the one before it.
const SHIFT: usize = SEGMENT / WAVES;
/// Large enough to learn the task, small enough for seconds on one core.
const D_HIDDEN: usize = 32;

/// The value of a wave at step `t`, in [-1, 1].
pub fn value(wave: usize, t: usize) -> f64 {
    let segment = ((t + SHIFT * wave) / SEGMENT) as u64;
    // A random number in [0, 1) for each wave and segment (SplitMix64).
    let mut z = ((wave as u64) << 32 | segment).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let period = 12.0 + 36.0 * ((z ^ (z >> 31)) as f64 / 2f64.powi(64));
    (TAU * t as f64 / period).sin()
}

/// Whether the period of a wave changes before step `t`.
fn changes(wave: usize, t: usize) -> bool {
    (t + SHIFT * wave).is_multiple_of(SEGMENT)
}

/// The values of some waves at some steps, `[waves, steps, 1]`.
pub fn values(waves: Range<usize>, steps: Range<usize>, device: &Device) -> Tensor<3> {
    let shape = [waves.len(), steps.len(), 1];
    let values = waves.flat_map(|wave| steps.clone().map(move |t| value(wave, t) as f32));
    Tensor::from_data(TensorData::new(values.collect::<Vec<_>>(), shape), device)
}

/// The layer that reads the stream; its memory is bounded.
pub fn config() -> SabLstmConfig {
    SabLstmConfig::new(1, D_HIDDEN, true).with_slot_budget(Some(16)).with_summary_scale(0.5)
}

/// Reads a value and forecasts the next.
#[derive(Module, Debug)]
pub struct Forecaster {
    /// What remembers.
    pub layer: SabLstm,
    /// From a hidden state to a value.
    pub readout: Linear,
}

impl Forecaster {
    /// A network around the layer that `config` describes.
    pub fn new(config: &SabLstmConfig, device: &Device) -> Self {
        let readout = LinearConfig::new(config.d_hidden, 1).init(device);
        Self { layer: config.init(device), readout }
    }

    /// Values `[B, T, 1]` to forecasts `[B, T, 1]`. A row starts anew where `segments` says so.
    pub fn forward(
        &self,
        x: Tensor<3>,
        segments: &Segments,
        state: Option<SabLstmState>,
    ) -> (Tensor<3>, SabLstmState) {
        let output = self.layer.forward_segments(x, segments, state);
        (self.readout.forward(output.hidden), output.state)
    }

    /// Values `[B, 1]` to forecasts `[B, 1]`, without gradient.
    pub fn step(&self, x: Tensor<2>, state: Option<SabLstmState>) -> (Tensor<2>, SabLstmState) {
        let (hidden, state) = self.layer.step(x, state);
        (self.readout.forward(hidden), state)
    }
}

/// A training that goes over the stream chunk by chunk.
pub struct Training {
    /// As trained so far.
    pub network: Forecaster,
    /// What the next chunk begins with.
    pub state: Option<SabLstmState>,
    optimizer: ModuleOptimizer,
    documents: bool,
    at: usize,
    device: Device,
}

impl Training {
    /// A new network, before the first chunk of a stream without end; `device` is one without autodiff.
    pub fn new(device: &Device) -> Self {
        Self::with(&config(), false, device)
    }

    /// The same for a stream of documents: where a wave changes, its row starts anew. The end of a document bounds the
    /// memory, so it needs no budget.
    pub fn of_documents(device: &Device) -> Self {
        Self::with(&config().with_slot_budget(None), true, device)
    }

    fn with(config: &SabLstmConfig, documents: bool, device: &Device) -> Self {
        let device = device.clone().autodiff();
        let clipping = GradientClippingConfig::Norm(1.0);
        Self {
            network: Forecaster::new(config, &device),
            state: None,
            optimizer: AdamConfig::new().with_grad_clipping(Some(clipping)).init(),
            documents,
            at: 0,
            device,
        }
    }

    /// Trains on the next chunk and returns its loss, the mean squared error. What is carried into the chunk after it is
    /// detached, so that no graph is older than a chunk.
    pub fn update(&mut self) -> f32 {
        let values = values(0..WAVES, self.at..self.at + CHUNK + 1, &self.device);
        let (x, next) = (values.clone().narrow(1, 0, CHUNK), values.narrow(1, 1, CHUNK));
        let resets =
            |wave| (0..CHUNK).filter(|t| self.documents && changes(wave, self.at + t)).collect();
        let resets: Vec<Vec<usize>> = (0..WAVES).map(resets).collect();
        let segments =
            Segments::new(WAVES, CHUNK).with_resets(&resets).expect("steps of the chunk");
        let (forecast, state) = self.network.forward(x, &segments, self.state.take());
        let loss = (forecast - next).powi_scalar(2).mean();
        let reported = loss.clone().into_scalar();
        let gradients = GradientsParams::from_grads(loss.backward(), &self.network);
        self.network = self.optimizer.step(5e-3, self.network.clone(), gradients);
        self.state = Some(state.detach());
        self.at += CHUNK;
        reported
    }
}
