//! Layers above each other equal the same layers one by one.

mod common;

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::LayerNorm;
use burn::tensor::{DType, Device, Distribution, Tensor};
use burn_sab::{
    ConfigError, InitialSlot, MemoryLayers, SabLstm, SabLstmConfig, SabLstmStack,
    SabLstmStackConfig, SabLstmStackState, SabLstmState, Segments,
};
use common::{Cast, assert_close, cpu_devices, gradient, normal, numbers};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

const INPUT: usize = 3;
const HIDDEN: usize = 4;
const LAYERS: usize = 3;

/// Few slots, short windows, and storing beside every other step.
fn layer() -> SabLstmConfig {
    SabLstmConfig::new(INPUT, HIDDEN, true).with_k_top(2).with_k_att(2).with_k_trunc(3)
}

fn config() -> SabLstmStackConfig {
    SabLstmStackConfig::new(layer(), LAYERS)
}

fn init(config: &SabLstmStackConfig, device: &Device) -> SabLstmStack {
    device.seed(5);
    config.init(device).map(&mut Cast(DType::F64))
}

fn input(batch_first: bool, batch: usize, time: usize, device: &Device) -> Tensor<3> {
    let dims = if batch_first { [batch, time, INPUT] } else { [time, batch, INPUT] };
    normal(&mut ChaCha8Rng::seed_from_u64(2), dims, 1.0, DType::F64, device)
}

/// A state that is not zero.
fn state(stack: &SabLstmStack, batch: usize, device: &Device) -> SabLstmStackState {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut draw = || normal(&mut rng, [batch, HIDDEN], 0.5, DType::F64, device);
    let count = stack.layers.iter().map(|layer| 1 + layer.reverse.iter().count()).sum();
    SabLstmStackState { layers: (0..count).map(|_| SabLstmState::new(draw(), draw())).collect() }
}

/// The definition: each layer by itself.
fn by_layers(
    stack: &SabLstmStack,
    x: Tensor<3>,
    state: SabLstmStackState,
) -> (Tensor<3>, Vec<SabLstmState>) {
    let mut states = state.layers.into_iter();
    let mut after = Vec::new();
    let mut y = x;
    for (index, layer) in stack.layers.iter().enumerate() {
        let below = y.clone();
        let z = match &layer.norm {
            Some(norm) => norm.forward(y),
            None => y,
        };
        let mut parts = Vec::new();
        for direction in [Some(&layer.forward), layer.reverse.as_ref()].into_iter().flatten() {
            let (hidden, last) = direction.forward(z.clone(), states.next());
            parts.push(hidden);
            after.push(last);
        }
        y = Tensor::cat(parts, 2);
        if stack.residual && index > 0 {
            y = y + below;
        }
    }
    (y, after)
}

#[rstest::rstest]
fn equals_its_layers(
    #[values(1, 7)] time: usize,
    #[values(false, true)] bidirectional: bool,
    #[values(false, true)] layer_norm: bool,
    #[values(false, true)] residual: bool,
    #[values(false, true)] batch_first: bool,
) {
    for device in cpu_devices() {
        let config = SabLstmStackConfig::new(layer().with_batch_first(batch_first), LAYERS)
            .with_bidirectional(bidirectional)
            .with_layer_norm(layer_norm)
            .with_residual(residual)
            .with_memory(MemoryLayers::Only(vec![0, 2]));
        let stack = init(&config, &device);
        let run =
            |call: &dyn Fn(Tensor<3>, SabLstmStackState) -> (Tensor<3>, Vec<SabLstmState>)| {
                let x = input(batch_first, 2, time, &device).require_grad();
                let (y, after) = call(x.clone(), state(&stack, 2, &device));
                let last = after.iter().map(|state| state.cell.clone().sum());
                let loss = last.fold(y.clone().powi_scalar(2).sum(), |sum, cell| sum + cell);
                let grads = loss.backward();
                let weights = &stack.layers[0].forward.weight_hh.val();
                let mut named = vec![
                    ("y".to_owned(), numbers("y", &y)),
                    ("x".to_owned(), gradient("x", &x, &grads)),
                    ("weights below".to_owned(), gradient("w", weights, &grads)),
                ];
                for (index, state) in after.iter().enumerate() {
                    named.push((format!("hidden {index}"), numbers("hidden", &state.hidden)));
                    named.push((format!("step {index}"), vec![state.step as f64]));
                    named.push((format!("slots {index}"), vec![state.num_slots() as f64]));
                }
                named
            };
        let got = run(&|x, state| {
            let (y, after) = stack.forward(x, Some(state));
            (y, after.layers)
        });
        let want = run(&|x, state| by_layers(&stack, x, state));
        assert_close(&config.to_string(), &got, &want, 1e-12);
    }
}

/// The outputs of chosen steps, of chunks with a carried state, and of single steps are those of the whole.
#[rstest::rstest]
fn steps_chunks_and_given_steps(
    #[values(false, true)] layer_norm: bool,
    #[values(false, true)] residual: bool,
) {
    let time = 11;
    for device in cpu_devices() {
        let config = config().with_layer_norm(layer_norm).with_residual(residual);
        let stack = init(&config, &device).valid();
        let x = input(true, 3, time, &device).inner();
        let (whole, last) = stack.forward(x.clone(), None);

        let steps = [0, 4, 10];
        let (at, after) = stack.forward_at(x.clone(), &steps, None);
        for (place, step) in steps.into_iter().enumerate() {
            let (got, want) = (at.clone().narrow(1, place, 1), whole.clone().narrow(1, step, 1));
            assert_close("given steps", &named(&got), &named(&want), 1e-12);
        }
        assert_eq!(after.layers[2].num_slots(), last.layers[2].num_slots());

        let (first, state) = stack.forward(x.clone().narrow(1, 0, 4), None);
        let (second, state) = stack.forward(x.clone().narrow(1, 4, 7), Some(state));
        let chunks = Tensor::cat(vec![first, second], 1);
        assert_close("chunks", &named(&chunks), &named(&whole), 1e-12);
        assert_eq!(state.layers[0].step, time);

        let mut state = None;
        let mut outputs = Vec::new();
        for step in x.iter_dim(1) {
            let (output, next) = stack.step(step.squeeze_dim(1), state);
            outputs.push(output);
            state = Some(next);
        }
        let stepped = Tensor::stack::<3>(outputs, 1);
        assert_close("steps", &named(&stepped), &named(&whole), 1e-12);
    }
}

fn named(tensor: &Tensor<3>) -> common::Named {
    vec![("y".to_owned(), numbers("y", tensor))]
}

/// In both directions and with time first, too.
#[test]
fn given_steps_in_both_directions() {
    for device in cpu_devices() {
        for batch_first in [true, false] {
            let layer = layer().with_batch_first(batch_first);
            let config = SabLstmStackConfig::new(layer, 2);
            let stack = init(&config.with_bidirectional(true).with_residual(true), &device).valid();
            let x = input(batch_first, 2, 9, &device).inner();
            let (whole, _) = stack.forward(x.clone(), None);
            let (at, _) = stack.forward_at(x, &[2, 7], None);
            let time = if batch_first { 1 } else { 0 };
            let parts = [2, 7].map(|step| whole.clone().narrow(time, step, 1));
            let want = Tensor::cat(parts.to_vec(), time);
            assert_eq!(at.dims(), want.dims());
            assert_close("given steps", &named(&at), &named(&want), 1e-12);
        }
    }
}

#[test]
fn memory_lies_where_the_setting_says() {
    let device = &cpu_devices()[0];
    let slots = |memory: MemoryLayers| {
        let stack = init(&config().with_memory(memory), device);
        let (_, state) = stack.forward(input(true, 1, 10, device), None);
        state.layers.iter().map(SabLstmState::num_slots).collect::<Vec<_>>()
    };
    // The initial slot, and one for every second step.
    assert_eq!(slots(MemoryLayers::All), [6, 6, 6]);
    assert_eq!(slots(MemoryLayers::Top), [0, 0, 6]);
    assert_eq!(slots(MemoryLayers::Only(vec![1])), [0, 6, 0]);
    assert_eq!(slots(MemoryLayers::Only(vec![])), [0, 0, 0]);
}

/// Dropout acts between the layers, in training alone.
#[test]
fn dropout_is_of_training() {
    for device in cpu_devices() {
        let stack = init(&config().with_dropout(0.5), &device);
        let x = input(true, 2, 6, &device);
        let outputs = || numbers("y", &stack.forward(x.clone(), None).0);
        assert_ne!(outputs(), outputs(), "two draws");
        let (served, x) = (stack.valid(), x.clone().inner());
        let outputs = || numbers("y", &served.forward(x.clone(), None).0);
        assert_eq!(outputs(), outputs());
        // The first layer reads the input as it is.
        let one = init(&SabLstmStackConfig::new(layer(), 1).with_dropout(0.5), &device);
        let x = input(true, 2, 6, &device);
        let outputs = || numbers("y", &one.forward(x.clone(), None).0);
        assert_eq!(outputs(), outputs());
    }
}

/// A layer of burn with the same parameters.
#[test]
fn the_norm_is_burns() {
    let device = &cpu_devices()[0];
    let stack = init(&config().with_layer_norm(true), device);
    assert!(stack.layers[0].norm.is_none());
    let norm: &LayerNorm = stack.layers[1].norm.as_ref().unwrap();
    assert_eq!(norm.gamma.dims(), [HIDDEN]);
}

#[test]
fn bidirectional_layer_equals_its_directions() {
    for device in cpu_devices() {
        let layer = layer().init_bidirectional(&device).map(&mut Cast(DType::F64));
        let x = input(true, 2, 8, &device);
        let alone = |direction: &SabLstm| direction.forward(x.clone(), None);
        let ((ahead, _), (back, last)) = (alone(&layer.forward), alone(&layer.reverse));
        let (hidden, [_, reverse]) = layer.forward(x.clone(), None);
        let want = Tensor::cat(vec![ahead, back], 2);
        assert_close("hidden", &named(&hidden), &named(&want), 1e-12);
        assert_eq!(numbers("last", &reverse.hidden), numbers("last", &last.hidden));
        let (at, _) = layer.forward_at(x, &[0, 5], None);
        let parts = [0, 5].map(|step| want.clone().narrow(1, step, 1));
        assert_close("given", &named(&at), &named(&Tensor::cat(parts.to_vec(), 1)), 1e-12);
    }
}

#[test]
fn display() {
    let device = &cpu_devices()[0];
    let stack = config().with_dropout(0.1).init(device);
    assert_eq!(
        stack.to_string(),
        format!(
            "SabLstmStack {{d_input: 3, d_hidden: 4, num_layers: 3, bidirectional: false, dropout: 0.1, \
             layer_norm: false, residual: false, params: {}}}",
            stack.num_params()
        )
    );
    let both = layer().init_bidirectional(device);
    assert!(both.to_string().starts_with("SabBiLstm {d_input: 3, d_hidden: 4,"), "{both}");
}

#[test]
fn record_and_config_file() {
    let folder = tempfile::tempdir().unwrap();
    for device in cpu_devices() {
        let config = config().with_bidirectional(true).with_layer_norm(true);
        let stack = config.init(&device);
        let path = folder.path().join("stack.bpk");
        stack.clone().into_record().save(&path).unwrap();
        let x = Tensor::random([2, 5, INPUT], Distribution::Default, &device);
        let record = burn::store::ModuleRecord::load(&path).unwrap();
        let loaded = config.init(&device).load_record(record);
        let output = |stack: &SabLstmStack| numbers("y", &stack.forward(x.clone(), None).0);
        assert_eq!(output(&loaded), output(&stack));
    }
    let path = folder.path().join("config.json");
    let config = config().with_memory(MemoryLayers::Only(vec![1])).with_dropout(0.2);
    config.save(&path).unwrap();
    assert_eq!(SabLstmStackConfig::load(&path).unwrap().to_string(), config.to_string());
    // A later field has its default.
    let old = config.to_string().replace("\"residual\": false,", "");
    assert!(!old.contains("residual"));
    let old = SabLstmStackConfig::load_binary(old.as_bytes()).unwrap();
    assert_eq!(old.to_string(), config.to_string());
    assert!(SabLstmStackConfig::load_binary(b"{}").unwrap().validate().is_err());
}

#[test]
fn invalid_settings_say_what_to_change() {
    let message = |config: SabLstmStackConfig| config.validate().unwrap_err().to_string();
    assert!(message(SabLstmStackConfig::new(layer(), 0)).contains("num_layers = 0"));
    for dropout in [1.0, -0.1, f64::NAN] {
        assert!(message(config().with_dropout(dropout)).contains("dropout = "));
    }
    let beyond = message(config().with_memory(MemoryLayers::Only(vec![0, 3])));
    assert!(beyond.contains("layer 3 of 3"), "{beyond}");
    let reversed = SabLstmStackConfig::new(layer().with_reverse(true), 2).with_bidirectional(true);
    assert_eq!(reversed.validate(), Err(ConfigError::Reversed));
    let device = &cpu_devices()[0];
    assert_eq!(
        layer().with_reverse(true).try_init_bidirectional(device).err(),
        Some(ConfigError::Reversed)
    );
    let memory = config().with_memory(MemoryLayers::Top).try_init(device).unwrap();
    assert_eq!(memory.layers[0].forward.settings.initial_slot, InitialSlot::None);
}

#[test]
#[should_panic(expected = "needs the whole sequence")]
fn no_step_in_reverse() {
    let device = &cpu_devices()[0];
    let stack = config().with_bidirectional(true).init(device).valid();
    stack.step(Tensor::zeros([1, INPUT], &device.clone().inner()), None);
}

#[test]
#[should_panic(expected = "as many states as there are layers and directions")]
fn a_state_of_another_stack_panics_clearly() {
    let device = &cpu_devices()[0];
    let x = input(true, 2, 3, device);
    let two = init(&SabLstmStackConfig::new(layer(), 2), device);
    let (_, state) = two.forward(x.clone(), None);
    init(&config(), device).forward(x, Some(state));
}

/// Parameters of every layer are trained.
#[test]
fn gradient_reaches_every_parameter() {
    for device in cpu_devices() {
        let stack = init(&config().with_layer_norm(true), &device);
        let (y, _) = stack.forward(input(true, 2, 9, &device), None);
        let grads = y.powi_scalar(2).sum().backward();
        for (index, layer) in stack.layers.iter().enumerate() {
            let sum = |param: &Param<Tensor<2>>| {
                gradient("w", &param.val(), &grads).iter().map(|g| g.abs()).sum::<f64>()
            };
            let sums = [sum(&layer.forward.weight_ih), sum(&layer.forward.weight_hh)];
            assert!(sums.iter().all(|sum| *sum > 0.0), "layer {index}: {sums:?}");
        }
    }
}

/// A network on padded rows: outputs and the states of its layers.
type Padded<'a> = dyn Fn(Tensor<3>, &[usize]) -> (Tensor<3>, Vec<SabLstmState>) + 'a;

/// A loss over outputs and last cells, which padding does not enter, and what a call gives and its gradients, by name.
fn of_padded(
    run: &Padded,
    weights: &Tensor<2>,
    x: &Tensor<3>,
    lengths: &[usize],
) -> (Tensor<3>, Vec<Vec<f64>>, [Vec<f64>; 2]) {
    let x = x.clone().require_grad();
    let (y, states) = run(x.clone(), lengths);
    let last = states.iter().map(|state| state.cell.clone().sum());
    let loss = last.fold(y.clone().powi_scalar(2).sum(), |sum, cell| sum + cell);
    let grads = loss.backward();
    let cells = states.iter().map(|state| numbers("cell", &state.cell)).collect();
    (y, cells, [gradient("x", &x, &grads), gradient("w", weights, &grads)])
}

/// Rows of different lengths give what each gives alone: values, states and gradients.
fn assert_rows_are_alone(
    what: &str,
    run: &Padded,
    weights: &Tensor<2>,
    x: &Tensor<3>,
    lengths: &[usize],
) {
    let [_, time, _] = x.dims();
    let (y, cells, [of_x, of_weights]) = of_padded(run, weights, x, lengths);
    let named = |values: &[f64]| vec![(what.to_owned(), values.to_vec())];
    let mut sum = vec![0.0; of_weights.len()];
    for (row, length) in lengths.iter().enumerate() {
        let alone = x.clone().narrow(0, row, 1).narrow(1, 0, *length);
        let (want, want_cells, [of_alone, of_weights]) =
            of_padded(run, weights, &alone, &[*length]);
        let y = y.clone().narrow(0, row, 1);
        let got = numbers("y", &y.clone().narrow(1, 0, *length));
        assert_close(what, &named(&got), &named(&numbers("y", &want)), 1e-10);
        if *length < time {
            let padding = numbers("y", &y.narrow(1, *length, time - length));
            assert!(padding.iter().all(|y| *y == 0.0), "{what}: outputs at padding");
        }
        for (cells, want) in cells.iter().zip(&want_cells) {
            let got = &cells[row * HIDDEN..(row + 1) * HIDDEN];
            assert_close(what, &named(got), &named(want), 1e-10);
        }
        let of_row = &of_x[row * time * INPUT..(row + 1) * time * INPUT];
        let (steps, padding) = of_row.split_at(length * INPUT);
        assert_close(what, &named(steps), &named(&of_alone), 1e-10);
        assert!(padding.iter().all(|grad| *grad == 0.0), "{what}: gradient at padding");
        for (sum, grad) in sum.iter_mut().zip(of_weights) {
            *sum += grad;
        }
    }
    assert!(sum.iter().any(|grad| *grad != 0.0));
    assert_close(what, &named(&of_weights), &named(&sum), 1e-10);
}

#[rstest::rstest]
fn rows_of_different_lengths(
    #[values(false, true)] bidirectional: bool,
    #[values(false, true)] layer_norm: bool,
    #[values(false, true)] residual: bool,
) {
    for device in cpu_devices() {
        let config = config()
            .with_bidirectional(bidirectional)
            .with_layer_norm(layer_norm)
            .with_residual(residual);
        let stack = init(&config, &device);
        let run = |x, lengths: &[usize]| {
            let (y, state) = stack.forward_padded(x, lengths, None);
            (y, state.layers)
        };
        let weights = stack.layers[0].forward.weight_hh.val();
        let x = input(true, 4, 9, &device);
        assert_rows_are_alone(&config.to_string(), &run, &weights, &x, &[9, 4, 1, 6]);
    }
}

#[test]
fn rows_of_different_lengths_in_both_directions() {
    for device in cpu_devices() {
        device.seed(5);
        let layer = layer().init_bidirectional(&device).map(&mut Cast(DType::F64));
        let run = |x, lengths: &[usize]| {
            let (y, states) = layer.forward_padded(x, lengths, None);
            (y, states.to_vec())
        };
        for weights in [layer.forward.weight_hh.val(), layer.reverse.weight_hh.val()] {
            let x = input(true, 4, 9, &device);
            assert_rows_are_alone("both directions", &run, &weights, &x, &[9, 4, 1, 6]);
        }
    }
}

/// A reset is one in every layer.
#[test]
fn resets_go_through_all_layers() {
    for device in cpu_devices() {
        let stack = init(&config(), &device);
        let x = input(true, 2, 9, &device);
        let segments = Segments::new(2, 9).with_resets(&[vec![5], vec![]]).unwrap();
        let (y, state) = stack.forward_segments(x.clone(), &segments, None);
        assert!(state.layers.iter().all(|state| state.steps() == [4, 9]));
        let (after, _) = stack.forward(x.clone().narrow(0, 0, 1).narrow(1, 5, 4), None);
        let (other, _) = stack.forward(x.narrow(0, 1, 1), None);
        let named = |y: &Tensor<3>| vec![("y".to_owned(), numbers("y", y))];
        let got = y.clone().narrow(0, 0, 1).narrow(1, 5, 4);
        assert_close("after the reset", &named(&got), &named(&after), 1e-10);
        assert_close("the other row", &named(&y.narrow(0, 1, 1)), &named(&other), 1e-10);
    }
}
