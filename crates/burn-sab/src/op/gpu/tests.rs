//! Tests of the GPU kernels: the variant per device, every reason for falling back to backend
//! primitives, and a run on buffers of NaN.

use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::ir::HardwareProperties;
use burn_cubecl::tensor::CubeTensor;

use super::layout::operand_width;
use super::plan::{Limits, Plan};
use super::variant::Variant;
use crate::op::coverage::NotCovered;
use crate::op::options::SabOptions;
use crate::op::rows::Row;
use crate::op::score::ScoreKind;
use crate::op::settings::{SabSettings, Sparsifier};
use crate::op::tensors::Dims;

/// WebGPU's default limits: 16 KiB of shared memory, 256 units, 8 storage buffers, of which wgpu
/// reserves one, and 128 MiB per buffer.
fn webgpu() -> Limits {
    Limits {
        hardware: HardwareProperties {
            load_width: 128,
            vector_register_count: None,
            plane_size_min: 0,
            plane_size_max: 0,
            max_bindings: 7,
            max_shared_memory_size: 16 << 10,
            max_cube_count: (65_535, 65_535, 65_535),
            max_units_per_cube: 256,
            max_cube_dim: (256, 256, 64),
            num_streaming_multiprocessors: None,
            num_cpu_cores: None,
            last_level_cache_size: None,
            num_tensor_cores: None,
            min_tensor_cores_dim: None,
            max_vector_size: 4,
            cube_mma_reserved_shared_memory: 0,
        },
        alignment: 256,
        largest_buffer: 128 << 20,
        has_type: true,
        llvmpipe: false,
    }
}

fn with_shared(kib: usize) -> Limits {
    let mut limits = webgpu();
    limits.hardware.max_shared_memory_size = kib << 10;
    limits
}

fn options() -> SabOptions {
    with(|_| {})
}

fn with(change: impl FnOnce(&mut SabSettings)) -> SabOptions {
    let mut settings = SabSettings { k_top: 5, truncation_offset: Some(0), ..Default::default() };
    change(&mut settings);
    SabOptions { settings, ..Default::default() }
}

/// Sizes of a call with dot scores, A 64, B rows and T steps.
fn dims(batch: usize, time: usize, hidden: usize) -> Dims {
    Dims { batch, time, input: 10, hidden, attention: 64, carried: 0, stored: time }
}

fn choose(dims: Dims, options: &SabOptions, limits: &Limits) -> Result<Plan, NotCovered> {
    Plan::choose(dims, ScoreKind::Dot, options, DType::F32, true, limits)
}

fn why(dims: Dims, options: &SabOptions, limits: &Limits) -> String {
    choose(dims, options, limits).expect_err("not covered").to_string()
}

/// Expected rows of a cube, and whether the gates pass through global memory, for a large batch. `None`
/// if a state does not fit.
#[test]
fn variants_follow_the_shared_memory() {
    let shared = |rows| Some((rows, false));
    let in_global = Some((1, true));
    let expected = [
        (16, [shared(4), shared(4), shared(1), in_global, None]),
        (32, [shared(4), shared(4), shared(2), shared(1), in_global]),
        (48, [shared(4), shared(4), shared(2), shared(1), in_global]),
        (228, [shared(4), shared(4), shared(4), shared(4), shared(4)]),
    ];
    for (kib, variants) in expected {
        for (hidden, expected) in [16, 128, 512, 1024, 2048].into_iter().zip(variants) {
            let hardware = with_shared(kib).hardware;
            let dims = dims(128, 10, hidden);
            let variant = Variant::choose(&dims, ScoreKind::Dot, &options(), &hardware);
            let got = variant.as_ref().ok().map(|v| (v.rows, v.gates_in_global));
            assert_eq!(got, expected, "{kib} KiB, H {hidden}: {variant:?}");
        }
    }
}

/// A cube has only so many rows that every multiprocessor gets a cube. The number of units is a power of
/// two.
#[test]
fn variants_follow_the_batch_and_the_units() {
    let rows = |batch, multiprocessors| {
        let mut limits = with_shared(48);
        limits.hardware.num_streaming_multiprocessors = multiprocessors;
        choose(dims(batch, 10, 128), &options(), &limits).expect("covered").variant.rows
    };
    // wgpu does not report the number of multiprocessors: 32 are assumed.
    assert_eq!([1, 32, 63, 64, 127, 128].map(|batch| rows(batch, None)), [1, 1, 2, 2, 4, 4]);
    assert_eq!([128, 264, 528].map(|batch| rows(batch, Some(132))), [1, 2, 4]);
    for (most, units) in [(1, 1), (100, 64), (256, 256), (1024, 256)] {
        let mut limits = webgpu();
        limits.hardware.max_units_per_cube = most;
        limits.hardware.max_cube_dim.0 = most;
        let plan = choose(dims(1, 10, 128), &options(), &limits).expect("covered");
        assert_eq!(plan.variant.units, units, "of {most}");
    }
}

/// New lengths, batch sizes and numbers of slots cause no recompilation once there are `k_top` slots.
#[test]
fn a_curriculum_compiles_one_variant() {
    let variant =
        |time| choose(dims(16, time, 128), &options(), &webgpu()).expect("covered").variant;
    let first: Variant = variant(8);
    assert!([9, 100, 1000].iter().all(|time| variant(*time) == first));
}

#[test]
fn every_reason_is_reported() {
    let usual = dims(128, 10, 128);
    let all = options();
    assert!(choose(usual, &all, &webgpu()).is_ok());

    let mut limits = webgpu();
    limits.hardware.max_bindings = 6;
    let few = "the device binds 6 storage buffers at a time and the kernels need 7";
    assert_eq!(why(usual, &all, &limits), few);

    // Rows that differ need one more, for their table.
    let mut of_rows = options();
    of_rows.rows = Some(vec![Row::default(); 128].into());
    let few = "the device binds 7 storage buffers at a time and the kernels need 8";
    assert_eq!(why(usual, &of_rows, &webgpu()), few);
    limits.hardware.max_bindings = 8;
    assert!(choose(usual, &of_rows, &limits).is_ok());

    let many = with(|settings| settings.k_top = 129);
    let message = "129 slots decide a step; the kernels rank 128";
    assert_eq!(why(dims(1, 200, 128), &many, &webgpu()), message);
    assert!(choose(dims(1, 128, 128), &many, &webgpu()).is_ok(), "fewer slots than k_top");

    let message = "H 2048 and A 64 take 25564 bytes of shared memory; the device has 16384";
    assert_eq!(why(dims(1, 10, 2048), &all, &webgpu()), message);
    let hops = with(|settings| settings.max_hops = Some(1));
    let message = "max_hops at H 1024: shared memory is too small";
    assert_eq!(why(dims(128, 10, 1024), &hops, &webgpu()), message);

    let message = why(dims(64, 2000, 128), &all, &webgpu());
    assert!(
        message.starts_with("a buffer of ") && message.contains("allows 134217728: take"),
        "{message}"
    );
    let mut limits = webgpu();
    limits.largest_buffer = u64::MAX;
    let message = why(dims(64, 100_000, 128), &all, &limits);
    assert!(message.contains("the kernels count to 2147483648"), "{message}");

    let message = why(dims(1 << 19, 1, 1), &all, &limits);
    assert_eq!(message, "a batch of 524288 takes 131072 cubes; the device starts 65535 at a time");

    let mut limits = webgpu();
    limits.llvmpipe = true;
    let message = why(dims(1, 300, 128), &all, &limits);
    assert!(
        message.contains("Mesa's software Vulkan ends a shader's loops after 65535"),
        "{message}"
    );

    let of = |dtype, limits: &Limits| {
        Plan::choose(usual, ScoreKind::Dot, &options(), dtype, true, limits).map(|_| ())
    };
    assert_eq!(of(DType::BF16, &webgpu()), Ok(()));
    let mut limits = webgpu();
    limits.has_type = false;
    assert_eq!(of(DType::BF16, &limits), Err(NotCovered::DeviceDataType { dtype: DType::BF16 }));
    let error = of(DType::F64, &webgpu()).expect_err("not covered").to_string();
    assert_eq!(error, "the kernel computes in F32, F16 and BF16, not in F64");
}

/// Stored elements take half the bytes in f16, so twice the steps fit into a buffer.
#[test]
fn half_precision_halves_the_buffers() {
    let bytes = |dtype: DType| {
        let plan =
            Plan::choose(dims(64, 300, 128), ScoreKind::Dot, &options(), dtype, true, &webgpu());
        let lengths = plan.expect("covered").lengths;
        [lengths.saved, lengths.operands, lengths.states].map(|elements| elements * dtype.size())
    };
    let halves = bytes(DType::F32).map(|bytes| bytes / 2);
    for (half, expected) in bytes(DType::F16).into_iter().zip(halves) {
        // Up to the alignment of the regions.
        assert!(half.abs_diff(expected) < 10 * 256, "{half} bytes, not {expected}");
    }
    assert_eq!(operand_width(128, 10), 140);
}

/// Number of buffers that were filled with NaN.
static POISONED: AtomicUsize = AtomicUsize::new(0);

/// Allocates a buffer filled with NaN; words hold the bits of NaN. In these tests the kernels allocate
/// all their buffers here. An element that is read before it is written makes the results NaN.
pub(super) fn poisoned(like: &CubeTensor, len: usize, dtype: DType) -> CubeTensor {
    POISONED.fetch_add(1, Ordering::Relaxed);
    let nan: &[u8] = match dtype {
        DType::F16 => &[0x00, 0x7E],
        DType::BF16 => &[0xC0, 0x7F],
        DType::F32 | DType::U32 => &[0x00, 0x00, 0xC0, 0x7F],
        _ => unreachable!("the kernels allocate no {dtype:?}"),
    };
    let handle = like.client.create_from_slice(&nan.repeat(len));
    let (client, device) = (like.client.clone(), like.device.clone());
    CubeTensor::new_contiguous(client, device, Shape::from([len]), handle, dtype)
}

#[cfg(all(feature = "wgpu", feature = "flex", feature = "autodiff"))]
mod on_wgpu {
    use super::*;
    use crate::{SabLstm, SabLstmConfig, SabLstmState, ScoreConfig, Segments, Strategy};
    use burn::module::{Module, ModuleMapper, Param};
    use burn::tensor::{Device, Tensor, TensorData};

    const BATCH: usize = 3;
    const TIME: usize = 9;
    const INPUT: usize = 2;
    const HIDDEN: usize = 5;
    const CARRIED: usize = 2;

    /// Values between -1 and 1, without a short period.
    fn samples<const D: usize>(
        shape: [usize; D],
        phase: f64,
        dtype: DType,
        device: &Device,
    ) -> Tensor<D> {
        let count = shape.iter().product::<usize>();
        let values: Vec<f64> = (0..count).map(|i| (phase + 1.7 * i as f64).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), (device, dtype))
    }

    /// Sets the parameters to the same values in every run, with different values for each tensor.
    struct Fixed {
        phase: f64,
        dtype: DType,
    }

    impl ModuleMapper for Fixed {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            self.phase += 0.37;
            let shape: [usize; D] = param.dims();
            Param::from_tensor(samples(shape, self.phase, self.dtype, &param.device()))
        }
    }

    /// Returns outputs and gradients. The loss uses all outputs, or the hidden state of one step in the
    /// middle.
    fn run(
        layer: &SabLstm,
        segments: Option<&Segments>,
        everywhere: bool,
        device: &Device,
    ) -> Vec<Vec<f64>> {
        let dtype = layer.weight_ih.dtype();
        let x = samples([BATCH, TIME, INPUT], 0.0, dtype, device).require_grad();
        let slots = samples([BATCH, CARRIED, HIDDEN], 0.3, dtype, device).require_grad();
        let [cell, hidden] =
            [0.5, 0.9].map(|at| samples([BATCH, HIDDEN], at, dtype, device).require_grad());
        let state = SabLstmState::new(cell.clone(), hidden.clone()).with_slots(slots.clone());
        let output = match segments {
            None => layer.forward_with_reminders(x.clone(), Some(state)),
            Some(segments) => layer.forward_segments(x.clone(), segments, Some(state)),
        };
        let up = samples([BATCH, TIME, HIDDEN], 0.2, dtype, device);
        let loss = if everywhere {
            let all = output.state.slots().expect("slots");
            (output.hidden.clone() * up.clone()).sum()
                + (output.summary.clone() * up).sum()
                + (output.state.cell.clone() * output.state.hidden.clone()).sum()
                + all.sum()
        } else {
            (output.hidden.clone() * up).narrow(1, 4, 1).sum()
        };
        let grads = loss.backward();
        let values = |tensor: TensorData| tensor.iter::<f64>().collect::<Vec<_>>();
        let grad =
            |tensor: &Tensor<2>| values(tensor.grad(&grads).expect("a gradient").into_data());
        let gain = layer.summary_gain.as_ref().map_or(vec![], |gain| {
            values(gain.val().grad(&grads).expect("a gradient").into_data())
        });
        vec![
            gain,
            values(output.hidden.clone().into_data()),
            values(output.summary.into_data()),
            values(output.weights.into_data()),
            values(output.state.hidden.into_data()),
            values(output.state.cell.into_data()),
            grad(&layer.weight_ih.val()),
            grad(&layer.weight_hh.val()),
            values(layer.bias_hh.as_ref().expect("a bias").grad(&grads).expect("some").into_data()),
            grad(&cell),
            grad(&hidden),
            values(slots.grad(&grads).expect("a gradient").into_data()),
            values(x.grad(&grads).expect("a gradient").into_data()),
        ]
    }

    #[test]
    fn wgpu_kernels_read_nothing_unwritten() {
        let device = match Device::wgpu_options().init() {
            Ok(device) => device.autodiff(),
            Err(error) if std::env::var_os("SAB_REQUIRE_GPU").is_none() => {
                eprintln!(
                    "SKIPPED: no adapter for wgpu ({error}); install a Vulkan driver to run this"
                );
                return;
            }
            Err(error) => panic!("SAB_REQUIRE_GPU is set and there is no adapter: {error}"),
        };
        let flex = Device::flex().autodiff();
        let scores = [
            ScoreConfig::Additive,
            ScoreConfig::Mlp { d_attention: 3 },
            ScoreConfig::Dot { d_attention: 3 },
        ];
        for (score, sparsifier) in scores.into_iter().zip([
            Sparsifier::Released,
            Sparsifier::Softmax,
            Sparsifier::Threshold,
        ]) {
            for (max_hops, k_att, both) in
                [(None, 2, false), (Some(1), 1, false), (Some(1), 2, true)]
            {
                let config = SabLstmConfig::new(INPUT, HIDDEN, true)
                    .with_k_top(3)
                    .with_k_att(k_att)
                    .with_k_trunc(3)
                    .with_score(score)
                    .with_sparsifier(sparsifier)
                    .with_max_hops(max_hops)
                    .with_learned_gain(both)
                    .with_detach_scores(both);
                let layer = config.init(&flex);
                let single = layer.clone().map(&mut Fixed { phase: 0.0, dtype: DType::F32 });
                let double = layer.map(&mut Fixed { phase: 0.0, dtype: DType::F64 });
                let mut on_gpu = single.clone().fork(&device);
                on_gpu.settings.strategy = Strategy::Fused;
                let of_rows = Segments::new(BATCH, TIME).with_lengths(&[9, 5, 0]).unwrap();
                let of_rows = of_rows.with_resets(&[vec![4, 5], vec![0, 3, 6], vec![]]).unwrap();
                for (everywhere, segments) in
                    [(true, None), (false, None), (true, Some(&of_rows)), (false, Some(&of_rows))]
                {
                    let before = POISONED.load(Ordering::Relaxed);
                    let got = run(&on_gpu, segments, everywhere, &device);
                    // The forward pass allocates the parameters, states, saved activations, operands and
                    // words; the backward pass allocates the accumulators.
                    assert_eq!(POISONED.load(Ordering::Relaxed) - before, 6);
                    let single = run(&single, segments, everywhere, &flex);
                    let double = run(&double, segments, everywhere, &flex);
                    for (i, ((got, single), want)) in
                        got.iter().zip(&single).zip(&double).enumerate()
                    {
                        let what =
                            format!("{config}, everywhere: {everywhere}, {segments:?}, list {i}");
                        assert_eq!([got.len(), single.len()], [want.len(); 2], "{what}");
                        let largest = want.iter().fold(1.0, |m: f64, value| m.max(value.abs()));
                        // The bound is ten times the difference between f32 and f64 on the CPU, because
                        // some cases are ill-conditioned. A read of NaN makes an element NaN, which is
                        // not below the bound.
                        let rounding = single.iter().zip(want).map(|(a, b)| (a - b).abs());
                        let bound = 1e-4 * largest + 10.0 * rounding.fold(0.0, f64::max);
                        assert!(
                            bound < 0.1 * largest,
                            "{what}: bound {bound} is too large to detect an error"
                        );
                        for (got, want) in got.iter().zip(want) {
                            assert!((got - want).abs() < bound, "{what}: {got}, not {want}");
                        }
                    }
                }
            }
        }
    }
}
