//! The plan of a call: the limits of the device, the kernel variant, and the layout of the buffers. It
//! also decides whether the kernels cover the call.

use burn::backend::TensorMetadata;
use burn::tensor::DType;
use burn_cubecl::CubeDevice;
use burn_cubecl::cubecl::features::TypeUsage;
use burn_cubecl::cubecl::ir::{DeviceProperties, ElemType, FloatKind, HardwareProperties};

use super::CubeLaunch;
use super::layout::{Layout, Lengths, Sizes, Wanted};
use super::variant::Variant;
use crate::op::coverage::NotCovered;
use crate::op::options::SabOptions;
use crate::op::score::ScoreKind;
use crate::op::tensors::{BackendInputs, Dims};

/// The plan of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(super) dims: Dims,
    /// Entries per step in the list of retrieved slots, K.
    pub(super) places: usize,
    pub(super) variant: Variant,
    pub(super) sizes: Sizes,
    pub(super) summary_scale: f32,
    pub(super) wanted: Wanted,
    pub(super) at: Layout,
    pub(super) lengths: Lengths,
    /// Data type of the tensors and of stored elements.
    pub(super) dtype: DType,
    pub(super) element: ElemType,
    /// Whether the number of hops is limited.
    pub(super) limited: bool,
}

/// The limits of a device that a plan depends on.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    pub hardware: HardwareProperties,
    /// Alignment of buffers, in bytes.
    pub alignment: usize,
    /// Maximum size of a buffer, in bytes.
    pub largest_buffer: u64,
    /// Whether the kernels can store the data type and compute with it.
    pub has_type: bool,
    pub llvmpipe: bool,
}

/// Iterations after which Mesa's llvmpipe ends the loops of a shader without an error, counted over all
/// loops together (LP_MAX_TGSI_LOOP_ITERATIONS in its sources). No GPU has such a limit.
const LLVMPIPE_ITERATIONS: usize = 65_535;

/// Maximum elements of a buffer: the kernels count in 32 bits, and their loop indices exceed the end a
/// little before they stop.
const MOST_ELEMENTS: usize = 1 << 31;

impl Limits {
    fn of(properties: &DeviceProperties, element: Option<ElemType>) -> Self {
        let uses = TypeUsage::Buffer | TypeUsage::Conversion | TypeUsage::Arithmetic;
        Self {
            hardware: properties.hardware.clone(),
            alignment: properties.memory.alignment as usize,
            largest_buffer: properties.memory.max_page_size,
            has_type: element.is_some_and(|of| properties.type_usage(of).is_superset(uses)),
            llvmpipe: properties.identity.name.contains("llvmpipe"),
        }
    }
}

/// Returns CubeCL's element type for a data type; `None` for types that the kernels do not store.
fn element(dtype: DType) -> Option<ElemType> {
    let kind = match dtype {
        DType::F32 => FloatKind::F32,
        DType::F16 => FloatKind::F16,
        DType::BF16 => FloatKind::BF16,
        _ => return None,
    };
    Some(ElemType::Float(kind))
}

/// Plans a call, which saves activations if `keep`.
///
/// # Errors
///
/// Returns the reason if the kernels do not cover the call.
pub(super) fn plan<B: CubeLaunch<Device = CubeDevice>>(
    inputs: &BackendInputs<B>,
    options: &SabOptions,
    keep: bool,
) -> Result<Plan, NotCovered> {
    let dtype = inputs.x.dtype();
    let client = inputs.x.device().client();
    let limits = Limits::of(client.properties(), element(dtype));
    let dims = Dims::of::<B>(inputs, options);
    Plan::choose(dims, inputs.score.kind(), options, dtype, keep, &limits)
}

impl Plan {
    pub(super) fn choose(
        dims: Dims,
        score: ScoreKind,
        options: &SabOptions,
        dtype: DType,
        keep: bool,
        limits: &Limits,
    ) -> Result<Self, NotCovered> {
        let Some(element) = element(dtype) else {
            return Err(NotCovered::DataType { dtype, supported: "F32, F16 and BF16" });
        };
        if !limits.has_type {
            return Err(NotCovered::DeviceDataType { dtype });
        }
        let variant = Variant::choose(&dims, score, options, &limits.hardware)?;
        let Dims { batch, time, hidden, stored, .. } = dims;
        let places = dims.places(options);
        // Where every step of every row stores a slot, the hidden states serve instead.
        let apart = options.rows.is_some() || stored < time;
        let wanted = Wanted { keep, reminders: options.reminders, stored: stored > 0 && apart };
        let lanes = options.lanes() > 1;
        if lanes && variant.gates_in_global {
            return Err(NotCovered::HopsSharedMemory { hidden });
        }
        let size = dtype.size();
        let (at, lengths) =
            Layout::of(&dims, places, &variant, wanted, lanes, limits.alignment, size);
        let plan = Self {
            dims,
            places,
            variant,
            sizes: Sizes::new(&dims, places, options),
            summary_scale: options.settings.summary_scale as f32,
            wanted,
            at,
            lengths,
            dtype,
            element,
            limited: options.settings.max_hops.is_some(),
        };
        let (cubes, most) = (plan.cubes(), limits.hardware.max_cube_count.0 as usize);
        if cubes > most {
            return Err(NotCovered::Batch { batch, cubes, most });
        }
        let iterations = plan.iterations();
        if limits.llvmpipe && iterations > LLVMPIPE_ITERATIONS {
            return Err(NotCovered::Iterations { iterations, most: LLVMPIPE_ITERATIONS });
        }
        let record = batch * time * 4 * hidden;
        let bytes = lengths.largest_bytes(record, size);
        if bytes as u64 > limits.largest_buffer {
            return Err(NotCovered::Buffer { bytes, most: limits.largest_buffer });
        }
        let elements = lengths.largest(record);
        if elements > MOST_ELEMENTS {
            return Err(NotCovered::Elements { elements, most: MOST_ELEMENTS });
        }
        Ok(plan)
    }

    pub(super) fn cubes(&self) -> usize {
        self.dims.batch.div_ceil(self.variant.rows)
    }

    /// Returns an upper bound on the iterations of all loops in one unit of the longer kernel. The terms
    /// are in the order of the kernels' sources.
    fn iterations(&self) -> usize {
        let Dims { time, hidden, attention, carried, .. } = self.dims;
        let (slots, places) = (self.dims.slots(), self.places);
        let v = &self.variant;
        let (rows, ranks, parts) = (v.rows, v.ranks, v.parts());
        let each = |items: usize| items.div_ceil(v.units);
        let shared = |items: usize| items.div_ceil(v.searchers());
        // The final evaluation of the loop condition counts as an iteration.
        let nested = |count: usize, inner: usize| count * (inner + 1) + 1;
        let plain = |count: usize| nested(count, 0);
        let (states, queries) = (each(rows * hidden), each(rows * attention));
        let (deciding, search) = (each(rows * ranks), shared(slots));
        let groups = v.searchers().div_ceil(v.group());
        let sum_of_row = plain(shared(hidden)) + plain(v.group()) + plain(groups);
        // Iterations of a query or key. Additive queries and keys are scalars, summed by all units of a
        // row.
        let product = nested(queries, plain(hidden)).max(sum_of_row);

        let forward = nested(each(4 * hidden), plain(hidden))
            + plain(states)
            + product
            + nested(search, plain(attention))
            + nested(ranks, plain(v.group()) + plain(groups) + plain(search))
            + plain(shared(ranks))
            + nested(states, plain(ranks))
            + plain(ranks)
            + plain(shared(ranks.max(places)))
            + product;
        let forward = nested(time, forward)
            + plain(states)
            + 2 * plain(each(rows * time * (self.sizes.width - hidden + 4)))
            + plain(each(rows * carried * hidden))
            + nested(each(rows * carried * attention), plain(hidden))
            + plain(states);
        let padding = |width: usize| plain(each(time * width));
        let unused = 3 * padding(hidden)
            + 2 * padding(places)
            + 2 * plain(each(slots * hidden))
            + plain(each(slots * attention));
        let forward = forward + if v.ragged { nested(rows, unused) } else { 0 };

        let backward = nested(states, plain(attention))
            + plain(deciding)
            + plain(queries)
            + nested(each(rows * ranks * parts), plain(hidden.div_ceil(parts)))
            + nested(deciding, plain(parts))
            + nested(deciding, 2 * plain(ranks))
            + (2 + usize::from(v.learned_gain)) * nested(states, plain(ranks))
            + nested(queries, plain(ranks))
            + nested(states, plain(attention))
            + nested(each(hidden * v.halves()), plain(4 * hidden / v.halves()));
        let sums = |lanes: usize| {
            plain(each(rows * slots * hidden)) * lanes
                + plain(each(rows * slots * attention)) * (2 * lanes - 1)
                + 2 * plain(states)
                + plain(each(rows * carried * hidden))
                + plain(each(rows * v.vectors()))
                + (lanes - 1) * plain(each(rows * time * 4 * hidden))
                + (lanes - 1) * plain(each(rows * time * attention))
        };
        let lanes = self.sizes.lanes;
        let backward = nested(lanes, 2 * plain(states) + nested(time, backward))
            + 2 * sums(lanes.min(2))
            + nested(states, nested(carried, plain(attention)) + plain(slots));
        let unused = padding(4 * hidden) + padding(attention);
        let backward = backward + if v.ragged { nested(rows, unused) } else { 0 };
        forward.max(backward)
    }
}
