//! What the examples share: where they compute, and the program of `train`, a small network that is shown
//! one of eight symbols, then blanks, and is asked for the symbol at the end.

pub mod forecast;
pub mod resident;

use std::process::exit;
use std::str::FromStr;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor};
use burn_sab::{SabLstm, SabLstmConfig};
use burn_sab_tasks::{DataStream, Examples, Purpose, Target, Task, draw};

/// One symbol out of eight: chance is 12.5 %.
const TASK: Task = Task::Copying { symbols: 1, alphabet: 8 };
/// Steps between the symbol and the question, twice what a window of the layer's default reaches.
const DELAY: usize = 20;
/// Sequences per update.
const BATCH: usize = 32;
/// Large enough to learn the task, small enough for seconds on one core.
const D_HIDDEN: usize = 32;

/// Reads a sequence and names the symbol.
#[derive(Module, Debug)]
struct Recall {
    memory: SabLstm,
    readout: Linear,
}

impl Recall {
    /// A network around the layer that `config` describes.
    fn new(config: &SabLstmConfig, device: &Device) -> Self {
        Self {
            memory: config.init(device),
            readout: LinearConfig::new(D_HIDDEN, TASK.d_output()).init(device),
        }
    }

    /// From sequences `[batch, time, d_input]` to logits `[batch, 8]`.
    fn forward(&self, sequences: Tensor<3>) -> Tensor<2> {
        let (_, state) = self.memory.forward(sequences, None);
        self.readout.forward(state.hidden)
    }
}

/// What training gave.
#[derive(Debug)]
pub struct Trained {
    /// The loss of each update, in nats.
    pub losses: Vec<f32>,
    /// The share of held-out sequences whose symbol is named, 0 to 1.
    pub accuracy: f64,
}

/// Trains SAB, and as the negative control the same layer without slots, which is an LSTM with
/// truncated backpropagation, for so many updates each; prints and returns their accuracies, 0 to 1.
///
/// `device` is a device without autodiff; training switches it on.
pub fn compare(updates: usize, device: &Device) -> [f64; 2] {
    let by_sab = train("SAB", &sab(), updates, device).accuracy;
    let by_truncated = train("truncated", &sab().without_memory(), updates, device).accuracy;
    println!("symbols named after {updates} updates (chance: 12.5 %)");
    println!("  SAB              {:5.1} %", 100.0 * by_sab);
    println!("  truncated BPTT   {:5.1} %", 100.0 * by_truncated);
    [by_sab, by_truncated]
}

/// The layer that is trained. Its windows are half as long as the delay.
pub fn sab() -> SabLstmConfig {
    SabLstmConfig::new(TASK.d_input(), D_HIDDEN, true).with_k_trunc(DELAY / 2)
}

/// Trains a network around the layer of `config`, printing under `name` how it goes. Weights and data are
/// those of seed 1 on every device.
pub fn train(name: &str, config: &SabLstmConfig, updates: usize, device: &Device) -> Trained {
    let training_device = device.clone().autodiff();
    let mut network = draw(1, &training_device, |device| Recall::new(config, device));
    let clipping = GradientClippingConfig::Norm(1.0);
    let mut optimizer = AdamConfig::new().with_grad_clipping(Some(clipping)).init();
    let cross_entropy = CrossEntropyLossConfig::new().init(&training_device);
    let mut data = DataStream::new(1, Purpose::Training);
    let mut losses = Vec::new();

    for update in 1..=updates {
        let (sequences, symbols) = batch(&mut data, BATCH, &training_device);
        let loss = cross_entropy.forward(network.forward(sequences), symbols);
        losses.push(loss.clone().into_scalar());
        if update == 1 || update.is_multiple_of(50) {
            println!("{name:10} update {update:4}   loss {:.3}", losses[update - 1]);
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = optimizer.step(5e-3, network, gradients);
    }

    let (sequences, symbols) = batch(&mut DataStream::new(1, Purpose::Test), 256, device);
    let answers: Tensor<1, Int> = network.valid().forward(sequences).argmax(1).squeeze_dim(1);
    Trained { losses, accuracy: answers.equal(symbols).float().mean().into_scalar() }
}

/// Sequences `[rows, time, d_input]` and their symbols `[rows]`.
fn batch(data: &mut DataStream, rows: usize, device: &Device) -> (Tensor<3>, Tensor<1, Int>) {
    let examples = Examples::load(TASK, None).expect("a task that needs no files");
    let batch = examples.training_batch(data, DELAY, rows, device);
    let Target::Symbols(symbols) = batch.target else { unreachable!("copying asks for symbols") };
    (batch.input, symbols.squeeze_dim(1))
}

/// The device that the environment variable `BURN_DEVICE` names (`flex`, `wgpu`, `cuda`, ...), else Burn's
/// choice among the backends of the build, GPUs first. Without autodiff.
///
/// Where there is no GPU this ends the program with one line; Burn would panic at the first use.
pub fn device() -> Device {
    let device = Device::default();
    #[cfg(feature = "wgpu")]
    if device == Device::wgpu(Default::default())
        && let Err(error) = Device::wgpu_options().init()
    {
        end(&format!(
            "there is no GPU that wgpu can use ({error}); install a Vulkan driver (mesa-vulkan-drivers \
             has one that runs on the CPU) or set BURN_DEVICE=flex"
        ));
    }
    device
}

/// The first argument of the program, or `default`; anything but a number ends it with one line.
pub fn first_argument_or<T: FromStr>(default: T) -> T {
    match std::env::args().nth(1).map(|argument| argument.parse().map_err(|_| argument)) {
        None => default,
        Some(Ok(value)) => value,
        Some(Err(argument)) => end(&format!("the argument has to be a number, not {argument}")),
    }
}

/// Ends the program with one line.
pub fn end(why: &str) -> ! {
    eprintln!("error: {why}");
    exit(2);
}
