//! What a call computes, which variant of the kernels computes it, and where everything lies.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::HardwareProperties;
use cubecl::prelude::*;

use crate::op::options::{SabOptions, Sparsifier};

/// The score function, as far as the kernels have to know it when they are compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ScoreKind {
    Additive,
    Mlp,
    Dot,
}

/// The sizes of a call, all at least 1 but `carried` and `slots`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub batch: usize,
    pub time: usize,
    pub hidden: usize,
    /// Size of a key; 1 for additive scores, whose keys are numbers.
    pub attention: usize,
    /// Slots before the call, M0.
    pub carried: usize,
    /// Slots at its end, M.
    pub slots: usize,
    /// Places in the user's list of retrieved slots, K.
    pub places: usize,
}

/// What is fixed when a kernel is compiled. Lengths, batch and number of slots are not: a curriculum over
/// lengths compiles once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub score: ScoreKind,
    pub sparsifier: Sparsifier,
    pub hidden: usize,
    pub attention: usize,
    /// Most slots that decide the weights of a step.
    pub ranks: usize,
    /// Units (threads) of a cube.
    pub units: usize,
    /// Rows of the batch that a cube owns; their products share every weight that is loaded.
    pub rows: usize,
    /// Whether the gates pass between units through the record in global memory: shared memory is too
    /// small for `4 H` numbers.
    pub gates_in_global: bool,
}

/// Units of a cube: WebGPU's default limit, and two columns of the gates each at H 128.
const UNITS: usize = 256;

/// Most rows of a cube. Measured on software Vulkan only (B 8, H 128): 1 row 6.3 s, 4 rows 3.1 s, 8 rows
/// 2.5 s; the gates of 4 rows are what fits 16 KiB of shared memory at H 128.
const MOST_ROWS: usize = 4;

/// Cubes to aim at where the runtime does not tell the number of multiprocessors (wgpu does not): that of
/// a middle-sized GPU.
const USUAL_MULTIPROCESSORS: usize = 32;

/// Most ranks: the reductions cost two barriers a rank, and one unit handles each.
const MOST_RANKS: usize = 128;

/// Slots are counted in f32 among what forward keeps: exact below 2^24.
const MOST_SLOTS: usize = 1 << 24;

/// Most storage buffers that a kernel binds. WebGPU promises 8, of which wgpu keeps one for itself.
pub(super) const BINDINGS: usize = 7;

impl Variant {
    /// The variant for a call, or why there is none.
    pub fn choose(
        shape: &Shape,
        score: ScoreKind,
        options: &SabOptions,
        hardware: &HardwareProperties,
    ) -> Result<Self, String> {
        if (hardware.max_bindings as usize) < BINDINGS {
            return Err(format!(
                "the device binds {} storage buffers at a time and the kernels need {BINDINGS}",
                hardware.max_bindings
            ));
        }
        if options.summary_scale != 1.0 {
            return Err(format!(
                "summary_scale is {} and the kernels know 1 alone",
                options.summary_scale
            ));
        }
        let needed = options.ranks(shape.slots);
        if needed > MOST_RANKS {
            return Err(format!("{needed} slots decide a step; the kernels rank {MOST_RANKS}"));
        }
        if shape.slots >= MOST_SLOTS {
            return Err(format!("{} slots; the kernels count to {MOST_SLOTS}", shape.slots));
        }
        let most_units = hardware.max_units_per_cube.min(hardware.max_cube_dim.0).max(1);
        // Growing sequences have ever more slots until there are k_top: a power of two compiles seldom.
        let ranks = options.ranks(usize::MAX).min(needed.max(1).next_power_of_two());
        let base = Self {
            score,
            sparsifier: options.sparsifier,
            hidden: shape.hidden,
            attention: shape.attention,
            ranks,
            // A power of two, so that the rows share the units evenly.
            units: UNITS.min(1 << most_units.ilog2()),
            rows: 1,
            gates_in_global: false,
        };
        let multiprocessors = hardware
            .num_streaming_multiprocessors
            .map_or(USUAL_MULTIPROCESSORS, |count| count as usize);
        let fits = |variant: &Self| variant.shared_bytes() <= hardware.max_shared_memory_size;
        let mut rows = MOST_ROWS;
        while rows > 1 {
            let variant = Self { rows, ..base };
            // Fewer rows than multiprocessors: rather leave none of these idle.
            if shape.batch.div_ceil(rows) >= multiprocessors.min(shape.batch) && fits(&variant) {
                return Ok(variant);
            }
            rows /= 2;
        }
        [base, Self { gates_in_global: true, ..base }].into_iter().find(fits).ok_or_else(|| {
            format!(
                "H {} and A {} take {} bytes of shared memory; the device has {}",
                shape.hidden,
                shape.attention,
                Self { gates_in_global: true, ..base }.shared_bytes(),
                hardware.max_shared_memory_size
            )
        })
    }

    /// Shared memory of the hungrier kernel, backward: three states, the gates, a query, and per rank
    /// four numbers and the parts of a sum; forward has two states and a pair of numbers per unit.
    fn shared_bytes(&self) -> usize {
        let gates = if self.gates_in_global { 0 } else { 4 * self.hidden };
        let row = gates + self.attention;
        let forward = self.rows * (row + 2 * self.hidden + 2 * self.ranks) + 4 * self.units;
        let backward = self.rows * (row + 3 * self.hidden + (4 + self.parts()) * self.ranks);
        size_of::<f32>() * forward.max(backward)
    }

    /// Units that search the scores of one row together.
    pub fn searchers(&self) -> usize {
        self.units / self.rows
    }

    /// Searchers whose finds one of them compares: about the root, so that both rounds are short.
    pub fn group(&self) -> usize {
        let mut group = 1;
        while group * group < self.searchers() {
            group *= 2;
        }
        group
    }

    /// Units that sum one product over H in backward, neighbours in memory: at most 32, one plane.
    pub fn parts(&self) -> usize {
        let mut parts = 1;
        while parts < 32 && 2 * parts * self.rows * self.ranks <= self.units {
            parts *= 2;
        }
        parts
    }

    /// Numbers that each row adds to the gradients of the score's vectors: (u, v), or (b, v), or none.
    pub fn vectors(&self) -> usize {
        match self.score {
            ScoreKind::Additive => 2 * self.hidden,
            ScoreKind::Mlp => 2 * self.attention,
            ScoreKind::Dot => 0,
        }
    }
}

/// Sizes and the calendar of a call, as the kernels read them.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub batch: usize,
    pub time: usize,
    pub carried: usize,
    pub slots: usize,
    pub places: usize,
    pub k_top: usize,
    /// The step that stores the first slot; every `k_att`-th after it stores another.
    pub first_store: usize,
    pub k_att: usize,
    /// The first step that starts a truncation window; every `k_trunc`-th after it starts another.
    pub first_window: usize,
    pub k_trunc: usize,
    /// Gradients to run side by side.
    pub lanes: usize,
}

impl Sizes {
    pub fn new(shape: &Shape, options: &SabOptions) -> Self {
        // More than any length: in the kernels no sum of two of these overflows.
        let never = 1 << 30;
        let phase = (options.first_step % options.k_trunc
            + options.truncation_offset % options.k_trunc)
            % options.k_trunc;
        let first_window = match (options.k_trunc - phase) % options.k_trunc {
            0 if !options.starts_window(0) => options.k_trunc,
            first => first,
        };
        Self {
            batch: shape.batch,
            time: shape.time,
            carried: shape.carried,
            slots: shape.slots,
            places: shape.places,
            k_top: options.k_top.min(never),
            first_store: (options.k_att - 1 - options.first_step % options.k_att).min(never),
            k_att: options.k_att.min(never),
            first_window: first_window.min(never),
            k_trunc: options.k_trunc.min(never),
            lanes: options.lanes(),
        }
    }

    pub fn to_launch(self) -> SizesLaunch {
        SizesLaunch::new(
            self.batch,
            self.time,
            self.carried,
            self.slots,
            self.places,
            self.k_top,
            self.first_store,
            self.k_att,
            self.first_window,
            self.k_trunc,
            self.lanes,
        )
    }
}

/// Whether step `t` is one of `first`, `first + every`, `first + 2 every`, ...
#[cube]
pub(super) fn falls_on(t: usize, first: usize, every: usize) -> bool {
    t >= first && (t - first) % every == 0
}

/// How many of the best of `m` scores decide the weights.
#[cube]
pub(super) fn ranks(m: usize, k_top: usize, #[comptime] sparsifier: Sparsifier) -> usize {
    let mut most = k_top;
    if comptime!(sparsifier == Sparsifier::Threshold) {
        most = k_top + 1;
    }
    min(most, m)
}

/// Cuts a buffer into regions that can be used as tensors of their own.
pub(super) struct Regions {
    end: usize,
    align: usize,
}

impl Regions {
    /// `alignment` of the device's memory in bytes.
    pub fn new(alignment: u64) -> Self {
        let align = (alignment as usize / size_of::<f32>()).max(1);
        Self { end: 0, align }
    }

    /// Where the next region, of `len` numbers, begins.
    pub fn take(&mut self, len: usize) -> usize {
        let at = self.end;
        self.end = (at + len).next_multiple_of(self.align);
        at
    }

    /// Numbers in all; at least 1, as no buffer is empty.
    pub fn len(&self) -> usize {
        self.end.max(1)
    }
}
