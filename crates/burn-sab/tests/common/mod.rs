//! What the tests share: layers and inputs drawn from a seed, and a run that returns every value and every
//! gradient under its name.

#![allow(dead_code)] // each test binary uses its part

pub mod extent;
pub mod generate;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use burn_sab::{SabLstm, SabLstmConfig, SabLstmOutput, SabLstmState, Strategy};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// A named list of numbers.
pub type Named = Vec<(String, Vec<f64>)>;

/// The CPU backends of this build, each with autodiff.
#[allow(deprecated)] // NdArray: users are still on it
pub fn cpu_devices() -> Vec<Device> {
    let devices = vec![
        #[cfg(feature = "flex")]
        Device::flex().autodiff(),
        #[cfg(feature = "ndarray")]
        Device::ndarray().autodiff(),
    ];
    assert!(
        !devices.is_empty(),
        "a test without a backend proves nothing: build with feature flex or ndarray"
    );
    devices
}

/// One CPU device with autodiff.
pub fn cpu() -> Device {
    cpu_devices().swap_remove(0)
}

/// Standard normal numbers times `scale`.
pub fn normal<const D: usize>(
    rng: &mut ChaCha8Rng,
    dims: [usize; D],
    scale: f64,
    dtype: DType,
    device: &Device,
) -> Tensor<D> {
    let values = (0..dims.iter().product::<usize>())
        .map(|_| {
            let (a, b): (f64, f64) = (rng.random(), rng.random());
            scale * (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
        })
        .collect::<Vec<_>>();
    Tensor::from_data(TensorData::new(values, dims), (device, dtype))
}

struct Randomise<'a> {
    rng: &'a mut ChaCha8Rng,
    dtype: DType,
}

impl ModuleMapper for Randomise<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (device, dims) = (param.device(), param.dims());
        // Half of 1/sqrt(fan_in) keeps the gates out of saturation; scores stay distinct.
        let fan_in = if D == 2 { dims[0] } else { 4 };
        let scale = 1.0 / (fan_in as f64).sqrt();
        Param::from_tensor(normal(self.rng, dims, scale, self.dtype, &device))
    }
}

/// Gives every parameter another data type.
pub struct Cast(pub DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        Param::from_tensor(param.val().cast(self.0).detach())
    }
}

/// A layer, its input and its initial state, drawn from a seed.
pub struct Setup {
    pub layer: SabLstm,
    pub x: Tensor<3>,
    pub state: SabLstmState,
    /// Upstream gradients of hidden, summary and last cell state.
    pub up: (Tensor<3>, Tensor<3>, Tensor<2>),
    /// The steps that are read out, where not all are.
    pub steps: Option<Vec<usize>>,
}

/// Draws everything; the same numbers for every dtype and device.
pub fn setup(
    config: &SabLstmConfig,
    batch: usize,
    time: usize,
    seed: u64,
    dtype: DType,
    device: &Device,
) -> Setup {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let layer = config.init(device).map(&mut Randomise { rng: &mut rng, dtype });
    let mut draw = |dims, scale| normal(&mut rng, dims, scale, dtype, device);
    let (input, hidden) = (config.d_input, config.d_hidden);
    let x = draw([batch, time, input], 1.0);
    let up = (draw([batch, time, hidden], 1.0), draw([batch, time, hidden], 1.0));
    let mut draw = |dims, scale| normal(&mut rng, dims, scale, dtype, device);
    let state = SabLstmState::new(draw([batch, hidden], 0.5), draw([batch, hidden], 0.3));
    Setup { layer, x, state, up: (up.0, up.1, draw([batch, hidden], 1.0)), steps: None }
}

/// All numbers of a tensor; panics if one is not finite.
pub fn numbers<const D: usize>(name: &str, tensor: &Tensor<D>) -> Vec<f64> {
    let values: Vec<f64> = tensor.to_data().iter::<f64>().collect();
    assert!(values.iter().all(|value| value.is_finite()), "{name} has a number that is not finite");
    values
}

struct Collect<'a> {
    grads: &'a Gradients,
    path: Vec<String>,
    found: Named,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let name = self.path.join(".");
        let grad = gradient(&name, &param.val(), self.grads);
        self.found.push((name, grad));
    }
}

/// The gradient of a tensor, zeros if none reached it.
pub fn gradient<const D: usize>(name: &str, tensor: &Tensor<D>, grads: &Gradients) -> Vec<f64> {
    match tensor.grad(grads) {
        Some(grad) => numbers(name, &grad),
        None => vec![0.0; tensor.dims().iter().product()],
    }
}

/// Gradients of all parameters.
pub fn parameter_gradients(layer: &SabLstm, grads: &Gradients) -> Named {
    let mut collect = Collect { grads, path: vec![], found: vec![] };
    layer.visit(&mut collect);
    collect.found
}

impl Setup {
    /// `sum(up_h h) + sum(up_s s) + sum(up_c c)`, with the last hidden state and half the squares of all
    /// slots as well: whatever carries gradient.
    pub fn loss(&self, output: &SabLstmOutput) -> Tensor<1> {
        let (mut up_h, mut up_s, up_c) = self.up.clone();
        if let Some(steps) = &self.steps {
            let at = |up: Tensor<3>| {
                Tensor::cat(steps.iter().map(|step| up.clone().narrow(1, *step, 1)).collect(), 1)
            };
            (up_h, up_s) = (at(up_h), at(up_s));
        }
        let loss = (up_h * output.hidden.clone()).sum()
            + (up_s * output.summary.clone()).sum()
            + (up_c.clone() * output.state.cell.clone()).sum()
            + (up_c * output.state.hidden.clone()).sum();
        match output.state.slots() {
            Some(slots) => loss + (slots.clone() * slots).sum().mul_scalar(0.5),
            None => loss,
        }
    }

    /// Outputs and gradients of the [`loss`](Self::loss), by name.
    pub fn run(&self) -> (Named, Named) {
        let x = self.x.clone().require_grad();
        let mut state = self.state.clone();
        state.cell = state.cell.require_grad();
        state.hidden = state.hidden.require_grad();
        let carried = self.state.slots().map(|slots| slots.require_grad());
        if let Some(slots) = &carried {
            state = state.with_slots(slots.clone());
        }
        let (h0, c0) = (state.hidden.clone(), state.cell.clone());
        let output = match &self.steps {
            None => self.layer.forward_with_reminders(x.clone(), Some(state)),
            Some(steps) => self.layer.forward_at(x.clone(), steps, Some(state)),
        };
        let loss = self.loss(&output);
        let grads = loss.backward();
        let slots: Vec<f64> = output.slots.to_data().iter::<f64>().collect();
        let weights = numbers("weights", &output.weights);
        // Where a weight is zero the slot is padding.
        let slots =
            slots.iter().zip(&weights).map(|(s, w)| if *w == 0.0 { 0.0 } else { *s }).collect();
        let values = vec![
            ("hidden".to_owned(), numbers("hidden", &output.hidden)),
            ("summary".to_owned(), numbers("summary", &output.summary)),
            ("cell".to_owned(), numbers("cell", &output.state.cell)),
            ("last".to_owned(), numbers("last", &output.state.hidden)),
            ("slots".to_owned(), slots),
            ("weights".to_owned(), weights),
        ];
        let mut gradients = parameter_gradients(&self.layer, &grads);
        gradients.push(("x".to_owned(), gradient("x", &x, &grads)));
        gradients.push(("h0".to_owned(), gradient("h0", &h0, &grads)));
        gradients.push(("c0".to_owned(), gradient("c0", &c0, &grads)));
        if let Some(slots) = &carried {
            gradients.push(("carried".to_owned(), gradient("carried", slots, &grads)));
        }
        (values, gradients)
    }
}

/// Largest `|got - want| / max(1, max |want|)`; names and lengths have to agree.
pub fn largest_error(got: &Named, want: &Named) -> f64 {
    assert_eq!(got.len(), want.len(), "other lists");
    let mut worst = 0.0f64;
    for ((name, got), (other, want)) in got.iter().zip(want) {
        assert_eq!(name, other, "other names");
        assert_eq!(got.len(), want.len(), "{name}: other lengths");
        let largest = want.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
        // The values are finite: `max` hides no NaN.
        worst =
            got.iter().zip(want).fold(worst, |worst, (g, w)| worst.max((g - w).abs() / largest));
    }
    worst
}

/// Asserts that the [`largest_error`] is within the bound, list by list.
pub fn assert_close(what: &str, got: &Named, want: &Named, bound: f64) {
    assert_eq!(got.len(), want.len(), "{what}: other lists");
    for (got, want) in got.iter().zip(want) {
        let error = largest_error(&vec![got.clone()], &vec![want.clone()]);
        assert!(error <= bound, "{what}, {}: off by {error:e}", got.0);
    }
}

/// What a run in `dtype` returns, unless it hangs on the last bits: a score beside the selection boundary, or
/// a sum of excesses near zero, magnifies rounding without limit, whoever computes. The reference tells such
/// draws: in f32 it strays from itself in f64, by as much more than the same draw in f64 errs as f32 rounds
/// more coarsely. A tenth of the bound is for the reference, the rest for what is compared with it.
pub fn conditioned(
    dtype: DType,
    bound: f64,
    reference: impl Fn(DType) -> (Named, Named),
) -> Option<(Named, Named)> {
    let (single, double) = (reference(DType::F32), reference(DType::F64));
    let coarser = match dtype {
        DType::F64 => f64::from(f32::EPSILON) / f64::EPSILON,
        _ => 1.0,
    };
    let stray = largest_error(&single.0, &double.0).max(largest_error(&single.1, &double.1));
    let tame = stray < bound / 10.0 * coarser;
    tame.then_some(if dtype == DType::F64 { double } else { single })
}

/// Strategies under test; `Auto` takes the backend's kernel where it has one.
const STRATEGIES: [Strategy; 2] = [Strategy::Primitives, Strategy::Auto];

/// Values and gradients of one strategy, from a memory of drawn slots.
pub fn run(
    config: &SabLstmConfig,
    [batch, time, carried]: [usize; 3],
    steps: Option<&[usize]>,
    seed: u64,
    dtype: DType,
    device: &Device,
) -> (Named, Named) {
    let mut setup = setup(config, batch, time, seed, dtype, device);
    setup.steps = steps.map(<[usize]>::to_vec);
    if carried > 0 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xCA);
        let slots = normal(&mut rng, [batch, carried, config.d_hidden], 1.0, dtype, device);
        setup.state = setup.state.with_slots(slots);
        setup.state.step = carried * config.settings.k_att;
    }
    setup.run()
}

/// Asserts that all strategies give what the reference gives.
pub fn agree(
    config: &SabLstmConfig,
    dims: [usize; 3],
    steps: Option<&[usize]>,
    seed: u64,
    dtype: DType,
    device: &Device,
) {
    // Sums of some hundred terms over some hundred steps; conformance is held to 1e-9 and 1e-4.
    let bound = if dtype == DType::F64 { 1e-10 } else { 1e-4 };
    let with = |strategy, seed, dtype| {
        run(&config.clone().with_strategy(strategy), dims, steps, seed, dtype, device)
    };
    let found = (0..300).find_map(|i| {
        let seed = seed.wrapping_add(i);
        let reference = |dtype| with(Strategy::Reference, seed, dtype);
        conditioned(dtype, bound, reference).map(|(values, gradients)| (seed, values, gradients))
    });
    let (seed, values, gradients) = found.expect("one draw in three hundred is well conditioned");
    for strategy in STRATEGIES {
        let what = format!("{strategy:?} {dtype:?} {device:?} {config}");
        let (got_values, got_gradients) = with(strategy, seed, dtype);
        assert_close(&what, &got_values, &values, bound);
        assert_close(&what, &got_gradients, &gradients, bound);
    }
}

/// The state after the steps `range` of the input, one by one; there must be one.
pub fn steps(
    layer: &SabLstm,
    x: &Tensor<3>,
    range: std::ops::Range<usize>,
    state: impl Into<Option<SabLstmState>>,
) -> SabLstmState {
    let state = range.fold(state.into(), |state, t| {
        Some(layer.step(x.clone().narrow(1, t, 1).squeeze_dim(1), state).1)
    });
    state.expect("at least one step")
}

/// The hidden state, cell state, slots and steps of a state, each with its name.
pub fn named(state: &SabLstmState) -> Named {
    vec![
        ("hidden".to_owned(), numbers("hidden", &state.hidden)),
        ("cell".to_owned(), numbers("cell", &state.cell)),
        ("slots".to_owned(), state.slots().map_or(vec![], |slots| numbers("slots", &slots))),
        ("steps".to_owned(), state.steps().into_iter().map(|step| step as f64).collect()),
    ]
}
