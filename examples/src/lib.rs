//! The program that `train_cpu` and `train_wgpu` share: a small network that is shown one of eight
//! symbols, then blanks, and is asked for the symbol at the end.

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{Linear, LinearConfig};
use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::{Device, Int, Tensor};
use burn_sab::{SabLstm, SabLstmConfig};
use burn_sab_tasks::{DataStream, Examples, Purpose, Target, Task};

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

/// Trains SAB, and as the negative control the same layer without slots, which is an LSTM with
/// truncated backpropagation, for so many updates each; prints and returns their accuracies, 0 to 1.
///
/// `device` is a device without autodiff; training switches it on.
pub fn compare(updates: usize, device: &Device) -> [f64; 2] {
    let sab = SabLstmConfig::new(TASK.d_input(), D_HIDDEN, true);
    let truncated = sab.clone().without_memory();
    let by_sab = train("SAB", &sab, updates, device);
    let by_truncated = train("truncated", &truncated, updates, device);
    println!("symbols named after {updates} updates (chance: 12.5 %)");
    println!("  SAB              {:5.1} %", 100.0 * by_sab);
    println!("  truncated BPTT   {:5.1} %", 100.0 * by_truncated);
    [by_sab, by_truncated]
}

/// Trains a network and returns its accuracy on held-out sequences.
fn train(name: &str, config: &SabLstmConfig, updates: usize, device: &Device) -> f64 {
    let training_device = device.clone().autodiff();
    training_device.seed(1);
    let mut network = Recall::new(config, &training_device);
    let clipping = GradientClippingConfig::Norm(1.0);
    let mut optimizer = AdamConfig::new().with_grad_clipping(Some(clipping)).init();
    let cross_entropy = CrossEntropyLossConfig::new().init(&training_device);
    let mut data = DataStream::new(1, Purpose::Training);

    for update in 1..=updates {
        let (sequences, symbols) = batch(&mut data, BATCH, &training_device);
        let loss = cross_entropy.forward(network.forward(sequences), symbols);
        if update == 1 || update.is_multiple_of(50) {
            println!("{name:10} update {update:4}   loss {:.3}", loss.clone().into_scalar::<f32>());
        }
        let gradients = GradientsParams::from_grads(loss.backward(), &network);
        network = optimizer.step(5e-3, network, gradients);
    }

    let (sequences, symbols) = batch(&mut DataStream::new(1, Purpose::Test), 256, device);
    let answers: Tensor<1, Int> = network.valid().forward(sequences).argmax(1).squeeze_dim(1);
    answers.equal(symbols).float().mean().into_scalar()
}

/// Sequences `[rows, time, d_input]` and their symbols `[rows]`.
fn batch(data: &mut DataStream, rows: usize, device: &Device) -> (Tensor<3>, Tensor<1, Int>) {
    let examples = Examples::load(TASK, None).expect("a task that needs no files");
    let batch = examples.training_batch(data, DELAY, rows, device);
    let Target::Symbols(symbols) = batch.target else { unreachable!("copying asks for symbols") };
    (batch.input, symbols.squeeze_dim(1))
}

/// The first argument of the program, or `default`.
///
/// # Panics
///
/// If the argument is not a whole number.
pub fn updates_or(default: usize) -> usize {
    std::env::args()
        .nth(1)
        .map_or(default, |argument| argument.parse().expect("the number of updates, such as 150"))
}
