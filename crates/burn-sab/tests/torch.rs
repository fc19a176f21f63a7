//! Weights that PyTorch wrote, and that PyTorch reads back. `torch/make.py` made the files.

#![cfg(feature = "safetensors")]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_sab::{
    MemoryLayers, SabBiLstm, SabLstm, SabLstmConfig, SabLstmStack, SabLstmStackConfig,
    SabLstmStackState, SabLstmState, ScoreConfig, Sparsifier, TorchError, TorchWeights,
};
use common::{cpu_devices, numbers};

/// What rounding in f32 leaves between two libraries.
const BOUND: f64 = 1e-6;

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

fn load(name: &str) -> TorchWeights {
    TorchWeights::load(fixture(name)).unwrap()
}

fn tensor<const D: usize>(weights: &TorchWeights, name: &str, device: &Device) -> Tensor<D> {
    Tensor::from_data(weights.get(name).unwrap().clone(), (device, DType::F32))
}

/// Without memory and truncation: what PyTorch has.
fn lstm() -> SabLstmConfig {
    SabLstmConfig::new(1, 1, true).without_memory().full_backpropagation()
}

fn stack(layer: SabLstmConfig) -> SabLstmStackConfig {
    SabLstmStackConfig::new(layer, 1)
}

fn assert_near<const D: usize>(what: &str, got: &Tensor<D>, want: &Tensor<D>) {
    assert_eq!(got.dims(), want.dims(), "{what}");
    let pairs = numbers(what, got).into_iter().zip(numbers(what, want));
    let worst = pairs.map(|(got, want)| (got - want).abs()).fold(0.0, f64::max);
    assert!(worst <= BOUND, "{what}: off by {worst:e}");
}

/// The states of layer and direction that PyTorch keeps in one tensor, `[layers, B, H]`.
fn state(file: &TorchWeights, device: &Device) -> SabLstmStackState {
    let (h0, c0) = (tensor::<3>(file, "h0", device), tensor::<3>(file, "c0", device));
    let layers = h0.iter_dim(0).zip(c0.iter_dim(0));
    let layers = layers.map(|(h, c)| SabLstmState::new(c.squeeze_dim(0), h.squeeze_dim(0)));
    SabLstmStackState { layers: layers.collect() }
}

fn assert_as_pytorch(stack: &SabLstmStack, file: &TorchWeights, device: &Device) {
    let (y, after) = stack.forward(tensor(file, "x", device), Some(state(file, device)));
    assert_near("y", &y, &tensor(file, "y", device));
    let hidden = after.layers.iter().map(|state| state.hidden.clone()).collect();
    assert_near("hn", &Tensor::<2>::stack::<3>(hidden, 0), &tensor(file, "hn", device));
    let cell = after.layers.iter().map(|state| state.cell.clone()).collect();
    assert_near("cn", &Tensor::<2>::stack::<3>(cell, 0), &tensor(file, "cn", device));
}

#[test]
fn a_stack_in_both_directions() {
    let file = load("stack.safetensors");
    for device in cpu_devices() {
        let stack = stack(lstm()).try_init_from_torch(&file.under("encoder.lstm."), &device);
        let stack = stack.unwrap();
        assert_eq!(stack.layers.len(), 2);
        assert_as_pytorch(&stack, &file, &device);
    }
}

#[test]
fn one_layer_without_biases() {
    let file = load("no-bias.safetensors");
    for device in cpu_devices() {
        let layer = lstm().try_init_from_torch(&file, &device).unwrap();
        assert!(layer.bias_ih.is_none() && layer.bias_hh.is_none());
        let before = state(&file, &device).layers.remove(0);
        let (y, after) = layer.forward(tensor(&file, "x", &device), Some(before));
        assert_near("y", &y, &tensor(&file, "y", &device));
        assert_near("cn", &after.cell.unsqueeze(), &tensor::<3>(&file, "cn", &device));
        // The same weights make a stack of one layer.
        let stack = stack(lstm()).try_init_from_torch(&file, &device).unwrap();
        assert_as_pytorch(&stack, &file, &device);
    }
}

#[test]
fn a_cell() {
    let file = load("cell.safetensors");
    for device in cpu_devices() {
        let layer = lstm().try_init_from_torch(&file, &device).unwrap();
        let (y, _) = layer.forward(tensor(&file, "x", &device), None);
        assert_near("y", &y, &tensor(&file, "y", &device));
        let stack = stack(lstm()).try_init_from_torch(&file, &device).unwrap();
        let (y, _) = stack.forward(tensor(&file, "x", &device), None);
        assert_near("y", &y, &tensor(&file, "y", &device));
    }
}

/// The release's cell, score and readout give the release's outputs, with its settings.
#[test]
fn the_authors_release() {
    let file = load("release.safetensors");
    for device in cpu_devices() {
        let config = SabLstmConfig::released(1, 1).with_k_top(3);
        let (layer, readout) = config.try_init_from_release(&file, &device).unwrap();
        assert_eq!(layer.scorer.config(), ScoreConfig::Additive);
        assert_eq!(layer.settings.sparsifier, Sparsifier::Released);
        let output = layer.forward_with_reminders(tensor(&file, "x", &device), None);
        let y = readout.forward(Tensor::cat(vec![output.hidden, output.summary], 2));
        assert_near("y", &y, &tensor(&file, "y", &device));
    }
}

/// Bit for bit what PyTorch wrote, by way of a layer and of a file.
#[test]
fn exported_weights_are_those_of_pytorch() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported.safetensors");
    for device in cpu_devices() {
        let all = load("stack.safetensors").under("encoder.lstm.");
        let exported = stack(SabLstmConfig::new(1, 1, true))
            .try_init_from_torch(&all, &device)
            .unwrap()
            .to_torch()
            .unwrap();
        assert_eq!(exported, all);
        exported.within("encoder.").save(&path).unwrap();
        assert_eq!(TorchWeights::load(&path).unwrap().under("encoder."), all);

        let is_weight = |name: &str| name.starts_with("weight") || name.starts_with("bias");
        let weights = |file: &TorchWeights| -> TorchWeights {
            let names = file.names().filter(|name| is_weight(name));
            names.map(|name| (name.to_owned(), file.get(name).unwrap().clone())).collect()
        };
        let cell = load("cell.safetensors");
        let layer = lstm().try_init_from_torch(&cell, &device).unwrap();
        assert_eq!(layer.to_torch_cell().unwrap(), weights(&cell));
        let one = load("no-bias.safetensors");
        let layer = lstm().try_init_from_torch(&one, &device).unwrap();
        assert_eq!(layer.to_torch().unwrap(), weights(&one));
    }
}

/// PyTorch itself computes with exported weights what it computed with its own.
#[test]
fn pytorch_reads_an_export() {
    let Some(python) = std::env::var_os("SAB_PYTHON") else {
        eprintln!("SAB_PYTHON names no Python with PyTorch: nothing is tested");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("exported.safetensors");
    let weights = load("stack.safetensors").under("encoder.lstm.");
    let device = &cpu_devices()[0];
    let stack = stack(lstm()).try_init_from_torch(&weights, device).unwrap();
    stack.to_torch().unwrap().save(&path).unwrap();
    let script = fixture("make.py");
    let output = Command::new(python).arg(script).arg("--check").arg(&path).output().unwrap();
    let told = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", told(&output.stdout), told(&output.stderr));
    assert!(told(&output.stdout).starts_with("largest difference"), "{}", told(&output.stdout));
}

/// Sizes and biases come from the weights, the rest from the configuration.
#[test]
fn settings_are_those_of_the_configuration() {
    let device = &cpu_devices()[0];
    let weights = load("stack.safetensors").under("encoder.lstm.");
    let config = stack(SabLstmConfig::new(100, 100, false).with_k_top(3))
        .with_memory(MemoryLayers::Top)
        .with_dropout(0.25);
    let stack = config.try_init_from_torch(&weights, device).unwrap();
    assert_eq!(stack.dropout.prob, 0.25);
    let [bottom, top] = &stack.layers[..] else { panic!("two layers") };
    assert_eq!(bottom.forward.weight_ih.dims(), [3, 16]);
    assert_eq!(top.forward.weight_ih.dims(), [8, 16]);
    assert!(top.forward.bias_ih.is_some());
    assert_eq!((top.forward.settings.k_top, top.forward.settings.k_att), (3, 1));
    let without = SabLstmConfig::new(1, 1, true).with_k_top(3).without_memory();
    assert_eq!(bottom.forward.settings, without.settings);
    assert!(top.reverse.as_ref().unwrap().reverse && !top.forward.reverse);
}

#[test]
fn errors_name_the_weight_and_the_remedy() {
    let device = &cpu_devices()[0];
    let weights = load("stack.safetensors").under("encoder.lstm.");
    let changed = |name: &str, data: Option<TensorData>| -> TorchWeights {
        let all = weights.names().map(|n| (n.to_owned(), weights.get(n).unwrap().clone()));
        let mut all: BTreeMap<_, _> = all.collect();
        match data {
            Some(data) => all.insert(name.to_owned(), data),
            None => all.remove(name),
        };
        all.into_iter().collect()
    };
    let message = |weights: &TorchWeights| {
        stack(lstm()).try_init_from_torch(weights, device).unwrap_err().to_string()
    };
    let zeros = |shape: &[usize]| Some(TensorData::zeros::<f32, _>(shape.to_vec()));

    let whole = message(&load("stack.safetensors"));
    assert!(whole.contains("weight_hh_l0") && whole.contains("under(prefix)"), "{whole}");
    let missing = message(&changed("bias_hh_l1_reverse", None));
    assert!(missing.contains("no weight \"bias_hh_l1_reverse\""), "{missing}");
    let shape = message(&changed("weight_ih_l1", zeros(&[16, 7])));
    assert!(shape.contains("weight_ih_l1 has shape [16, 7], expected [16, 8]"), "{shape}");
    let bias = message(&changed("bias_ih_l0", zeros(&[16, 1])));
    assert!(bias.contains("bias_ih_l0 has shape [16, 1], expected [16]"), "{bias}");
    let packed = message(&changed("weight_hh_l0", zeros(&[12, 4])));
    assert!(packed.contains("weight_hh_l0 has shape [12, 4], expected [4 H, H]"), "{packed}");
    let flat = message(&changed("weight_hh_l0", zeros(&[64])));
    assert!(flat.contains("weight_hh_l0 has shape [64], expected [any, any]"), "{flat}");
    let integers = TensorData::zeros::<i32, _>([16, 4]);
    let integers = message(&changed("weight_hh_l1", Some(integers)));
    assert!(integers.contains("weight_hh_l1 is I32, expected F32"), "{integers}");
    let projection = message(&changed("weight_hr_l0", zeros(&[2, 4])));
    assert!(projection.contains("proj_size"), "{projection}");

    let several = lstm().try_init_from_torch(&weights, device).unwrap_err().to_string();
    assert!(several.contains("SabLstmStackConfig::try_init_from_torch"), "{several}");
    let release = SabLstmConfig::released(1, 1);
    let release = release.try_init_from_release(&weights, device).unwrap_err().to_string();
    assert!(release.contains("\"lstm1.weight_hh\""), "{release}");
    let setting = lstm().with_k_top(0).try_init_from_torch(&load("cell.safetensors"), device);
    assert!(matches!(setting, Err(TorchError::Setting(_))), "{setting:?}");
    let coupled = lstm().with_input_forget(true);
    let coupled = coupled.try_init_from_torch(&load("cell.safetensors"), device).unwrap_err();
    assert!(coupled.to_string().contains("input_forget"), "{coupled}");
}

#[test]
fn what_pytorch_has_not_is_refused() {
    let device = &cpu_devices()[0];
    let config = SabLstmConfig::new(3, 4, true);
    let message = |layer: &SabLstm| layer.to_torch().unwrap_err().to_string();
    assert!(message(&config.clone().with_clip(Some(1.0)).init(device)).contains("clip"));
    assert!(message(&config.clone().with_input_forget(true).init(device)).contains("input_forget"));
    let reverse = config.clone().with_reverse(true).init(device);
    assert!(message(&reverse).contains("to_torch_cell"));
    assert!(reverse.to_torch_cell().is_ok());
    let base = SabLstmStackConfig::new(config, 2);
    let message = |stack: SabLstmStack| stack.to_torch().unwrap_err().to_string();
    assert!(message(base.clone().with_residual(true).init(device)).contains("residual"));
    assert!(message(base.with_layer_norm(true).init(device)).contains("layer_norm"));
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none.safetensors");
    let missing = TorchWeights::load(&path).unwrap_err().to_string();
    assert!(missing.contains("none.safetensors"), "{missing}");
    std::fs::write(&path, b"no weights").unwrap();
    let damaged = TorchWeights::load(&path).unwrap_err().to_string();
    assert!(damaged.contains("none.safetensors"), "{damaged}");
    let integers = [("n".to_owned(), TensorData::zeros::<i32, _>([1]))];
    let integers: TorchWeights = integers.into_iter().collect();
    assert!(matches!(integers.save(&path), Err(TorchError::DataType { .. })));
    #[cfg(not(feature = "pytorch"))]
    {
        let pickled = TorchWeights::load(fixture("stack.pt")).unwrap_err().to_string();
        assert!(pickled.contains("feature pytorch"), "{pickled}");
    }
}

/// A converted `BiLstm` computes what it computed.
#[test]
fn a_bidirectional_layer_of_burn() {
    for device in cpu_devices() {
        for batch_first in [true, false] {
            let lstm = burn::nn::BiLstmConfig::new(3, 4, true).with_batch_first(batch_first);
            let lstm = lstm.init(&device);
            let x = tensor::<3>(&load("stack.safetensors"), "x", &device);
            let (want, _) = lstm.forward(x.clone(), None);
            let mut layer = SabBiLstm::from(lstm);
            for direction in [&mut layer.forward, &mut layer.reverse] {
                direction.settings = self::lstm().settings;
            }
            assert_near("hidden", &layer.forward(x, None).0, &want);
        }
    }
}
