//! The learner on made-up digits, one device and two; and the files of `torch.save`, which need a build of their own.

use std::collections::HashMap;
use std::f32::consts::TAU;
use std::fs;
use std::path::{Path, PathBuf};

use burn::data::dataloader::batcher::Batcher;
use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::{Device, Tensor};
use burn::train::{ExecutionStrategy, MultiDeviceOptim, TrainStep};
use burn_sab::TorchWeights;
use burn_sab_learner::digits::{BANDS, Batches, Recording, Recordings, features, samples};
use burn_sab_learner::network::SpokenDigits;
use burn_sab_learner::{Settings, accuracy, train};

/// A tone for each digit, as a WAV file.
fn wav(digit: usize, index: usize) -> Vec<u8> {
    let hertz = 300.0 + 300.0 * digit as f32;
    let count = 1_500 + 100 * index;
    let sample = |n: usize| (8_000.0 * (TAU * hertz * n as f32 / 8_000.0).sin()) as i16;
    let data: Vec<u8> = (0..count).flat_map(|n| sample(n).to_le_bytes()).collect();
    let mut file = b"RIFF\0\0\0\0WAVEfmt ".to_vec();
    file.extend(16u32.to_le_bytes());
    file.extend([1u16, 1].iter().flat_map(|n| n.to_le_bytes()));
    file.extend([8_000u32, 16_000].iter().flat_map(|n| n.to_le_bytes()));
    file.extend([2u16, 16].iter().flat_map(|n| n.to_le_bytes()));
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

fn folder(digits: usize, indices: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for digit in 0..digits {
        for index in 0..indices {
            let path = folder.path().join(format!("{digit}_tone_{index}.wav"));
            fs::write(path, wav(digit, index)).unwrap();
        }
    }
    folder
}

fn load(folder: &Path) -> Recordings {
    Recordings::load(folder, usize::MAX).unwrap()
}

#[test]
fn recordings_are_read() {
    let folder = folder(3, 7);
    let all = load(folder.path());
    assert_eq!((all.train.len(), all.test.len()), (3 * 2, 3 * 5));
    let fewer = Recordings::load(folder.path(), 10).unwrap();
    assert!(fewer.train.len() + fewer.test.len() <= 10);
    // A tone is loudest in the band that it lies in, and bands rise with the tone.
    let loudest = |recording: &Recording| {
        let first = &recording.features[..BANDS];
        (0..BANDS).max_by(|a, b| first[*a].total_cmp(&first[*b])).unwrap()
    };
    let bands: Vec<_> = (0..3)
        .map(|digit| loudest(all.test.iter().find(|recording| recording.digit == digit).unwrap()))
        .collect();
    assert!(bands.is_sorted() && bands[0] < bands[2], "{bands:?}");
    // Windows of 256 samples, 128 apart.
    assert_eq!(features(&vec![0.0; 256 + 128]).len(), 2 * BANDS);
    assert_eq!(features(&[0.0; 3]).len(), BANDS);
}

#[test]
fn what_is_no_recording_is_refused() {
    let message = |folder: &Path| Recordings::load(folder, usize::MAX).unwrap_err();
    assert!(message(Path::new("no-such-folder")).contains("free-spoken-digit-dataset"));
    let empty = tempfile::tempdir().unwrap();
    assert!(message(empty.path()).contains("0 recordings for training"));
    let file = wav(1, 1);
    for damaged in [&file[..7], &file[..30], &[0; 60][..]] {
        assert!(samples(damaged).unwrap_err().contains("WAV"), "{damaged:?}");
    }
    let mut stereo = file.clone();
    stereo[22] = 2;
    assert!(samples(&stereo).unwrap_err().contains("mono"));
    assert_eq!(samples(&file).unwrap().len(), 1_600);
}

/// The whole program learns to tell tones apart, which chance names in half of the cases.
#[test]
fn training_learns() {
    let folder = folder(2, 12);
    let out = tempfile::tempdir().unwrap();
    let recordings = load(folder.path());
    let test = recordings.test.clone();
    let settings = Settings { epochs: 15, batch: 4, d_hidden: 16, learning_rate: 1e-2 };
    let device = Device::flex();
    let result = train(
        recordings,
        settings,
        out.path(),
        ExecutionStrategy::single(device.clone().autodiff()),
    );
    assert!(result.error.is_none(), "{:?}", result.error);
    let share = accuracy(&result.model.valid(), test, &device);
    assert!(share > 0.9, "{share}");
    assert!(out.path().join("checkpoint").is_dir(), "checkpoints");
}

/// The CPU devices of this build.
#[allow(deprecated)] // NdArray: a second CPU device
fn devices() -> Vec<Device> {
    vec![Device::flex().autodiff(), Device::ndarray().autodiff()]
}

struct Collect<'a> {
    gradients: &'a GradientsParams,
    found: HashMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = self.gradients.get::<D>(param.id).expect("every parameter is trained");
        let gradient = gradient.into_data().iter::<f32>().collect();
        self.found.insert(param.id.to_string(), gradient);
    }
}

fn collect(network: &SpokenDigits, gradients: &GradientsParams) -> HashMap<String, Vec<f32>> {
    let mut collect = Collect { gradients, found: HashMap::new() };
    network.visit(&mut collect);
    collect.found
}

/// What `ExecutionStrategy::MultiDevice` computes: the gradients of two devices, each with half of a batch, add up to
/// twice those of one device with all of it.
#[test]
fn two_devices_have_the_gradients_of_one() {
    let devices = devices();
    let recordings = load(folder(4, 8).path()).test;
    let main = &devices[0];
    main.seed(1);
    let network = SpokenDigits::new(12, main);
    let whole = TrainStep::step(&network, Batches.batch(recordings.clone(), main)).grads;
    let want = collect(&network, &whole);
    let mut sum = GradientsAccumulator::<SpokenDigits>::new();
    for (device, half) in devices.iter().zip(recordings.chunks(recordings.len() / 2)) {
        let worker = network.clone().fork(device);
        let output = TrainStep::step(&worker, Batches.batch(half.to_vec(), device));
        sum.accumulate(&network, output.grads.to_device(main, &network));
    }
    let got = collect(&network, &sum.grads());
    assert_eq!(got.len(), want.len());
    for (name, want) in want {
        let got = &got[&name];
        assert_eq!(got.len(), want.len());
        let largest = want.iter().fold(0.0, |most: f32, g| most.max(g.abs()));
        assert!(largest > 0.0);
        for (got, want) in got.iter().zip(want) {
            assert!((got / 2.0 - want).abs() <= 1e-5 * largest.max(1e-2), "{got} and {want}");
        }
    }
}

/// The learner itself, on two devices.
#[test]
fn training_on_two_devices_learns() {
    let folder = folder(2, 12);
    let out = tempfile::tempdir().unwrap();
    let recordings = load(folder.path());
    let test = recordings.test.clone();
    let settings = Settings { epochs: 20, batch: 2, d_hidden: 16, learning_rate: 1e-2 };
    let strategy = ExecutionStrategy::multi(devices(), MultiDeviceOptim::OptimMainDevice);
    let result = train(recordings, settings, out.path(), strategy);
    assert!(result.error.is_none(), "{:?}", result.error);
    let share = accuracy(&result.model.valid(), test, &Device::flex());
    assert!(share > 0.9, "{share}");
}

/// A file that `torch.save` wrote holds the weights of the SafeTensors file beside it.
#[test]
fn files_of_torch_save() {
    let fixtures =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../crates/burn-sab/tests/torch");
    let pickled = TorchWeights::load_key(fixtures.join("stack.pt"), "state_dict").unwrap();
    let safetensors = TorchWeights::load(fixtures.join("stack.safetensors")).unwrap();
    assert_eq!(pickled, safetensors.under("encoder.lstm."));
    assert!(TorchWeights::load_key(fixtures.join("stack.pt"), "weights").is_err());
}
