//! The kernel variant of a call: the sizes and options that are fixed at compile time.

use burn_cubecl::cubecl::ir::HardwareProperties;

use crate::op::coverage::NotCovered;
use crate::op::options::SabOptions;
use crate::op::score::ScoreKind;
use crate::op::settings::Sparsifier;
use crate::op::tensors::Dims;

/// The compile-time parameters of a kernel. Sequence length, batch size and number of slots are not
/// among them, so a curriculum over lengths compiles once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Variant {
    pub score: ScoreKind,
    pub sparsifier: Sparsifier,
    /// Whether no gradient passes through the scores to the states.
    pub detach_scores: bool,
    /// Whether the factors on the summary are parameters.
    pub learned_gain: bool,
    /// Whether rows differ in what they do at a step.
    pub ragged: bool,
    pub hidden: usize,
    pub attention: usize,
    /// Maximum number of slots that decide the weights of a step.
    pub ranks: usize,
    /// Units (threads) of a cube.
    pub units: usize,
    /// Rows of the batch that a cube owns. Their products share every loaded weight.
    pub rows: usize,
    /// Whether the gates pass between units through the record in global memory, because shared memory
    /// is too small for `4 H` elements.
    pub gates_in_global: bool,
}

/// Units of a cube: WebGPU's default limit. At H 128 each unit computes two columns of the gates.
const UNITS: usize = 256;

/// Maximum rows of a cube. Measured on software Vulkan only (B 8, H 128): 1 row 6.3 s, 4 rows 3.1 s, 8
/// rows 2.5 s. Four rows fit into 16 KiB of shared memory at H 128.
const MOST_ROWS: usize = 4;

/// Target number of cubes if the runtime does not report the number of multiprocessors (wgpu does not):
/// that of a medium-sized GPU.
const USUAL_MULTIPROCESSORS: usize = 32;

/// Maximum number of ranks: the reductions cost two barriers per rank, and one unit handles each rank.
const MOST_RANKS: usize = 128;

/// Maximum storage buffers that a kernel binds. WebGPU guarantees 8, of which wgpu reserves one. Rows that differ
/// need one more, for their table.
const BINDINGS: usize = 7;

impl Variant {
    /// Returns the variant for a call, or the reason why there is none.
    pub fn choose(
        dims: &Dims,
        score: ScoreKind,
        options: &SabOptions,
        hardware: &HardwareProperties,
    ) -> Result<Self, NotCovered> {
        let ragged = options.rows.is_some();
        let (available, needed) = (hardware.max_bindings as usize, BINDINGS + usize::from(ragged));
        if available < needed {
            return Err(NotCovered::Bindings { available, needed });
        }
        let needed = options.ranks(dims.slots());
        if needed > MOST_RANKS {
            return Err(NotCovered::Ranks { ranks: needed, most: MOST_RANKS });
        }
        let most_units = hardware.max_units_per_cube.min(hardware.max_cube_dim.0).max(1);
        // Longer sequences have more slots, until there are k_top. A power of two keeps recompilations
        // rare.
        let ranks = options.ranks(usize::MAX).min(needed.max(1).next_power_of_two());
        let base = Self {
            score,
            sparsifier: options.settings.sparsifier,
            detach_scores: options.settings.detach_scores,
            learned_gain: options.settings.learned_gain,
            ragged,
            hidden: dims.hidden,
            attention: dims.attention,
            ranks,
            // A power of two, so that each row gets the same number of units.
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
            // With too many rows per cube, multiprocessors would be idle.
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

    /// Bytes of shared memory of the kernel that needs more. Both kernels hold the gates and a query.
    /// The forward kernel adds two states, the candidates of the units, and two elements per rank. The
    /// backward kernel adds three states, four elements and the partial sums per rank, and two flags.
    fn shared_bytes(&self) -> usize {
        let gates = if self.gates_in_global { 0 } else { 4 * self.hidden };
        let row = gates + self.attention;
        let forward = self.rows * (row + 2 * self.hidden + 2 * self.ranks) + 2 * self.candidates();
        let backward = self.rows * (row + 3 * self.hidden + (4 + self.parts()) * self.ranks) + 2;
        // If the gates are in global memory, one element stands for them.
        size_of::<f32>() * (forward.max(backward) + usize::from(self.gates_in_global))
    }

    /// Number of candidates in shared memory: one of each unit, followed by the best of each group.
    pub fn candidates(&self) -> usize {
        self.units + self.rows * self.searchers().div_ceil(self.group())
    }

    /// Units that search the scores of one row together.
    pub fn searchers(&self) -> usize {
        self.units / self.rows
    }

    /// Searchers whose candidates one of them compares: about the square root of their number, so that
    /// both stages are short.
    pub fn group(&self) -> usize {
        let mut group = 1;
        while group * group < self.searchers() {
            group *= 2;
        }
        group
    }

    /// Units that compute one dot product over H in the backward kernel: neighbours in memory, at most
    /// 32, one plane.
    pub fn parts(&self) -> usize {
        let mut parts = 1;
        while parts < 32 && 2 * parts * self.rows * self.ranks <= self.units {
            parts *= 2;
        }
        parts
    }

    /// Elements per row in the gradients of vectors: the score's, which are (u, v), or v, or none, and the
    /// factors on the summary, if they are learned. The gradient of b comes from a product.
    pub fn vectors(&self) -> usize {
        self.score_vectors() + if self.learned_gain { self.hidden } else { 0 }
    }

    /// Elements of the score's vectors among these, which come first.
    pub fn score_vectors(&self) -> usize {
        match self.score {
            ScoreKind::Additive => 2 * self.hidden,
            ScoreKind::Mlp => self.attention,
            ScoreKind::Dot => 0,
        }
    }

    /// Units per hidden unit in the backward product with W_hh: two if the cube has enough units.
    pub fn halves(&self) -> usize {
        if 2 * self.hidden <= self.units { 2 } else { 1 }
    }

    /// Columns of the left operand of the product that computes the gradients of W_q and, with mlp
    /// scores, of b. With mlp scores a column of ones follows. Zeros pad the width to a multiple of four
    /// elements, the most that a unit loads at a time.
    pub fn provisional_width(&self) -> usize {
        match self.score {
            ScoreKind::Mlp => (self.hidden + 1).next_multiple_of(4),
            ScoreKind::Additive | ScoreKind::Dot => self.hidden,
        }
    }
}
