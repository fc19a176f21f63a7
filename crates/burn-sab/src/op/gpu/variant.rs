//! Which variant of the kernels a call gets.

use burn_cubecl::cubecl::ir::HardwareProperties;

use crate::op::coverage::NotCovered;
use crate::op::options::SabOptions;
use crate::op::score::ScoreKind;
use crate::op::settings::Sparsifier;
use crate::op::tensors::Dims;

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
/// 2.5 s; 4 rows are what fits 16 KiB of shared memory at H 128.
const MOST_ROWS: usize = 4;

/// Cubes to aim at where the runtime does not tell the number of multiprocessors (wgpu does not): that of
/// a middle-sized GPU.
const USUAL_MULTIPROCESSORS: usize = 32;

/// Most ranks: the reductions cost two barriers a rank, and one unit handles each.
const MOST_RANKS: usize = 128;

/// Most storage buffers that a kernel binds. WebGPU promises 8, of which wgpu keeps one for itself.
pub(super) const BINDINGS: usize = 7;

impl Variant {
    /// The variant for a call, or why there is none.
    pub fn choose(
        dims: &Dims,
        score: ScoreKind,
        options: &SabOptions,
        hardware: &HardwareProperties,
    ) -> Result<Self, NotCovered> {
        if (hardware.max_bindings as usize) < BINDINGS {
            let available = hardware.max_bindings as usize;
            return Err(NotCovered::Bindings { available, needed: BINDINGS });
        }
        let needed = options.ranks(dims.slots());
        if needed > MOST_RANKS {
            return Err(NotCovered::Ranks { ranks: needed, most: MOST_RANKS });
        }
        let most_units = hardware.max_units_per_cube.min(hardware.max_cube_dim.0).max(1);
        // Growing sequences have ever more slots until there are k_top: a power of two compiles seldom.
        let ranks = options.ranks(usize::MAX).min(needed.max(1).next_power_of_two());
        let base = Self {
            score,
            sparsifier: options.settings.sparsifier,
            hidden: dims.hidden,
            attention: dims.attention,
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
            let busy = dims.batch.div_ceil(rows) >= multiprocessors.min(dims.batch);
            if busy && rows <= dims.batch && fits(&variant) {
                return Ok(variant);
            }
            rows /= 2;
        }
        let smallest = Self { gates_in_global: true, ..base };
        [base, smallest].into_iter().find(fits).ok_or_else(|| NotCovered::SharedMemory {
            hidden: dims.hidden,
            attention: dims.attention,
            needed: smallest.shared_bytes(),
            available: hardware.max_shared_memory_size,
        })
    }

    /// Shared memory of the hungrier kernel. Both have the gates and a query; forward two states, the finds of
    /// the units, and per rank two numbers; backward three states, four numbers and the parts of a sum per rank,
    /// and two flags.
    fn shared_bytes(&self) -> usize {
        let gates = if self.gates_in_global { 0 } else { 4 * self.hidden };
        let row = gates + self.attention;
        let forward = self.rows * (row + 2 * self.hidden + 2 * self.ranks) + 2 * self.finds();
        let backward = self.rows * (row + 3 * self.hidden + (4 + self.parts()) * self.ranks) + 2;
        // Where the gates are elsewhere, one number stands for them.
        size_of::<f32>() * (forward.max(backward) + usize::from(self.gates_in_global))
    }

    /// Finds that pass through shared memory: one of each unit, and behind them the best of each group.
    pub fn finds(&self) -> usize {
        self.units + self.rows * self.searchers().div_ceil(self.group())
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

    /// Numbers that each row adds to the gradients of the score's vectors: (u, v), or v, or none; b comes
    /// from a product.
    pub fn vectors(&self) -> usize {
        match self.score {
            ScoreKind::Additive => 2 * self.hidden,
            ScoreKind::Mlp => self.attention,
            ScoreKind::Dot => 0,
        }
    }

    /// Units that share a hidden unit in backward's product with W_hh, where there are enough of them.
    pub fn halves(&self) -> usize {
        if 2 * self.hidden <= self.units { 2 } else { 1 }
    }

    /// Columns of the left operand of the product that gives the gradients of W_q and, with mlp scores, of
    /// b: then a column of ones follows, and zeros up to four numbers, the most that a unit loads at a time.
    pub fn provisional_width(&self) -> usize {
        match self.score {
            ScoreKind::Mlp => (self.hidden + 1).next_multiple_of(4),
            ScoreKind::Additive | ScoreKind::Dot => self.hidden,
        }
    }
}
