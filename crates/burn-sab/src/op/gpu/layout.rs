//! The sizes of a call that the kernels read, and the layout of their buffers: one struct of offsets per
//! buffer.
//!
//! WebGPU guarantees eight storage buffers per stage, and wgpu reserves one. Arrays of one type that are
//! written together and read together therefore share a buffer.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::schedule::table_len;
use super::variant::Variant;
use crate::op::options::SabOptions;
use crate::op::score::ScoreKind;
use crate::op::settings::{SabSettings, Sparsifier};
use crate::op::tensors::Dims;

/// Defines a struct of scalars that are launch arguments of a kernel.
macro_rules! scalars {
    ($(#[$about:meta])* $name:ident, $launch:ident { $($(#[$what:meta])* $field:ident),* $(,)? }) => {
        $(#[$about])*
        #[derive(CubeType, CubeLaunch, Clone, Copy, Debug, Default)]
        pub(super) struct $name {
            $($(#[$what])* pub $field: usize,)*
        }

        impl $name {
            pub fn to_launch(self) -> $launch {
                $launch::new($(self.$field),*)
            }
        }
    };
}

scalars! {
    /// The sizes and the schedule of a call.
    Sizes, SizesLaunch {
        batch,
        time,
        input,
        carried,
        slots,
        places,
        /// Columns of the left operand of the product that computes the gradients of W_hh, W_ih and the
        /// bias.
        width,
        k_top,
        /// The step that stores the first slot; every `k_att`-th after it stores another.
        first_store,
        k_att,
        /// The first step that starts a truncation window; every `k_trunc`-th after it starts another.
        first_window,
        k_trunc,
        /// Number of parallel gradients.
        lanes,
    }
}

scalars! {
    /// Offsets in the buffer of the outputs; the hidden states, `[B, T, H]`, come first.
    StatesAt, StatesAtLaunch {
        /// h and c after the last step, `[B, H]` each.
        last,
        cell,
        /// The slots of this call, `[B, M - M0, H]`, unless every step stores one.
        stored,
        /// `[B, T, H]`
        summary,
        /// `[B, T, K]`
        weights,
    }
}

scalars! {
    /// Offsets in the buffer of saved activations, in the data type of the tensors; all slots,
    /// `[B, M, H]`, come first.
    SavedAt, SavedAtLaunch {
        /// Keys, `[B, A, M]`: units that score neighbouring slots read neighbouring elements.
        keys,
        /// c before and after every step, `[B, T + 1, H]`.
        cells,
        /// Queries, `[B, T, A]`; the backward kernel replaces them by their gradients.
        queries,
        /// Gradients of the keys, `[B, M, A]`; the backward kernel writes these and the following
        /// gradients.
        grad_keys,
        /// Gradients of h and c before the first step, `[B, H]` each.
        grad_h0,
        grad_c0,
        /// Gradients of the carried slots, `[B, M0, H]`.
        grad_carried,
        /// Gradients of the score's vectors and of the factors on the summary, `[B, vectors]`.
        grad_vectors,
    }
}

scalars! {
    /// Offsets in the word buffer: 32-bit words that hold slot indices or the bits of f32 values.
    NotesAt, NotesAtLaunch {
        /// Retrieved slots for the caller, `[B, T, K]`.
        places,
        /// Scores of the current step, scratch memory of each unit: `[rows of all cubes, M]`.
        scores,
        /// Ranked slots, best first, `[B, T, ranks]`.
        ranked,
        /// Their weights, `[B, T, ranks]`.
        weights,
        /// The divisors that normalised the weights, `[B, T]`.
        sums,
    }
}

scalars! {
    /// Offsets in the f32 accumulators of the backward kernel. The gradients of the slots, `[B, M, H]`,
    /// come first; with lanes there are two copies.
    WorkAt, WorkAtLaunch {
        /// Gradients of the keys, `[B, M, A]`.
        keys,
        /// With lanes: the gradients of the keys that the lanes exchange, two copies of `[B, M, A]`.
        lane_keys,
        /// Gradients of h and c before the first step, `[B, H]` each.
        h0,
        c0,
        /// Gradients of the carried slots, `[B, M0, H]`.
        carried,
        /// Gradients of the score's vectors and of the factors on the summary, `[B, vectors]`.
        vectors,
        /// With lanes: gradients of the pre-activations, `[B, T, 4H]`.
        gates,
        /// With lanes: gradients of the queries, `[B, T, A]`.
        queries,
    }
}

/// The offsets in all buffers.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
pub(super) struct Layout {
    pub states: StatesAt,
    pub saved: SavedAt,
    pub notes: NotesAt,
    pub work: WorkAt,
    /// Offset of the provisional hidden states, `[B T, provisional width]`, in the buffer of the left
    /// operands. They follow `[h before | x | 1 | 0 ..]`, `[B T, width]`.
    pub provisional: usize,
}

impl Layout {
    pub fn to_launch(self) -> LayoutLaunch {
        LayoutLaunch::new(
            self.states.to_launch(),
            self.saved.to_launch(),
            self.notes.to_launch(),
            self.work.to_launch(),
            self.provisional,
        )
    }
}

/// The number of elements in each buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub packed: usize,
    pub states: usize,
    pub saved: usize,
    pub operands: usize,
    pub notes: usize,
    pub work: usize,
    /// Of the table of rows that differ.
    pub schedule: usize,
}

impl Lengths {
    /// Elements of the largest buffer; the gates' buffer has `record` elements.
    pub fn largest(&self, record: usize) -> usize {
        self.stored(record).max(self.words())
    }

    /// Bytes of the largest buffer, for stored elements of `size` bytes.
    pub fn largest_bytes(&self, record: usize, size: usize) -> usize {
        (self.stored(record) * size).max(self.words() * size_of::<f32>())
    }

    fn words(&self) -> usize {
        self.notes.max(self.work).max(self.schedule)
    }

    fn stored(&self, record: usize) -> usize {
        record.max(self.packed).max(self.states).max(self.saved).max(self.operands)
    }
}

/// The results that a call needs in addition to the hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// The saved activations for the backward pass.
    pub keep: bool,
    /// Summaries, retrieved slots and their weights.
    pub reminders: bool,
    /// The stored slots as a separate array. If every step of every row stores a slot, the hidden states serve
    /// instead.
    pub stored: bool,
}

impl Layout {
    /// Computes the layout. `alignment` is that of the device's memory, and `size` that of an element,
    /// both in bytes.
    pub fn of(
        dims: &Dims,
        places: usize,
        v: &Variant,
        wanted: Wanted,
        lanes: bool,
        alignment: usize,
        size: usize,
    ) -> (Self, Lengths) {
        let Dims { batch, time, hidden, attention, carried, .. } = *dims;
        let slots = dims.slots();
        let word = size_of::<u32>();
        let only = |given: bool, len: usize| if given { len } else { 0 };
        let steps = batch * time;
        let (keep, reminders) = (wanted.keep, wanted.reminders);
        let matrices = v.score != ScoreKind::Additive;

        let mut regions = Regions::new(alignment, size);
        regions.take(steps * hidden);
        let states = StatesAt {
            last: regions.take(batch * hidden),
            cell: regions.take(batch * hidden),
            stored: regions.take(only(wanted.stored, batch * (slots - carried) * hidden)),
            summary: regions.take(only(reminders, steps * hidden)),
            weights: regions.take(only(reminders, steps * places)),
        };
        let states_len = regions.len();

        let mut regions = Regions::new(alignment, size);
        regions.take(batch * slots * hidden);
        let saved = SavedAt {
            keys: regions.take(batch * attention * slots),
            cells: regions.take(only(keep, batch * (time + 1) * hidden)),
            queries: regions.take(only(keep && matrices, steps * attention)),
            grad_keys: regions.take(only(keep && matrices, batch * slots * attention)),
            grad_h0: regions.take(only(keep, batch * hidden)),
            grad_c0: regions.take(only(keep, batch * hidden)),
            grad_carried: regions.take(only(keep, batch * carried * hidden)),
            grad_vectors: regions.take(only(keep, batch * v.vectors())),
        };
        let saved_len = regions.len();

        let mut regions = Regions::new(alignment, word);
        let notes = NotesAt {
            places: regions.take(only(reminders, steps * places)),
            scores: regions.take(batch.next_multiple_of(v.rows) * slots),
            ranked: regions.take(only(keep, steps * v.ranks)),
            weights: regions.take(only(keep, steps * v.ranks)),
            sums: regions.take(only(keep, steps)),
        };
        let notes_len = regions.len();

        let mut regions = Regions::new(alignment, size_of::<f32>());
        let copies = if lanes { 2 } else { 1 };
        regions.take(copies * batch * slots * hidden);
        let work = WorkAt {
            keys: regions.take(batch * slots * attention),
            lane_keys: regions.take(only(lanes, 2 * batch * slots * attention)),
            h0: regions.take(batch * hidden),
            c0: regions.take(batch * hidden),
            carried: regions.take(batch * carried * hidden),
            vectors: regions.take(batch * v.vectors()),
            gates: regions.take(only(lanes, steps * 4 * hidden)),
            queries: regions.take(only(lanes && matrices, steps * attention)),
        };
        let work_len = regions.len();

        let mut regions = Regions::new(alignment, size);
        regions.take(only(keep, steps * operand_width(hidden, dims.input)));
        let provisional = regions.take(only(keep && matrices, steps * v.provisional_width()));
        let operands_len = regions.len();

        let packed = Packed::of(v).states + batch * (2 + carried) * hidden;
        let lengths = Lengths {
            packed,
            states: states_len,
            saved: saved_len,
            operands: operands_len,
            notes: notes_len,
            work: work_len,
            schedule: only(v.ragged, table_len(batch, time)),
        };
        (Self { states, saved, notes, work, provisional }, lengths)
    }
}

/// Columns of `[h | x | 1]`, rounded up to a multiple of four elements, the most that a unit loads at a
/// time.
pub(super) fn operand_width(hidden: usize, input: usize) -> usize {
    (hidden + input + 1).next_multiple_of(4)
}

/// Offsets in the buffer of packed parameters. Matrices are stored twice: as given, and transposed. The
/// transposed copies let neighbouring units read neighbouring elements in the backward kernel, too.
pub(super) struct Packed {
    /// `[H, 4H]`
    pub w_hh: usize,
    /// `[4H]`
    pub bias: usize,
    /// W_q of dot and mlp, `[H, A]`; u of additive scores.
    pub query: usize,
    /// W_k, W_m, `[H, A]`; v of additive scores.
    pub key: usize,
    /// b and v of mlp scores, `[A]` each.
    pub query_bias: usize,
    pub v: usize,
    /// The factors on the summary, `[H]`, if they are learned.
    pub summary_gain: usize,
    /// `[4H, H]`
    pub transposed_w_hh: usize,
    /// `[A, H]`; for a vector, the vector itself.
    pub transposed_query: usize,
    pub transposed_key: usize,
    /// h and c before the first step, `[B, H]` each, and the carried slots, `[B, M0, H]`. The backward
    /// pass replaces h and c by the gradients of h and c after the last step.
    pub states: usize,
}

impl Packed {
    pub fn of(v: &Variant) -> Self {
        let (h, a) = (v.hidden, v.attention);
        let vectors = if v.score == ScoreKind::Mlp { a } else { 0 };
        let bias = 4 * h * h;
        let query = bias + 4 * h;
        let key = query + h * a;
        let query_bias = key + h * a;
        let v_at = query_bias + vectors;
        let summary_gain = v_at + vectors;
        let transposed_w_hh = summary_gain + if v.learned_gain { h } else { 0 };
        let (transposed_query, transposed_key, states) = if v.score == ScoreKind::Additive {
            (query, key, transposed_w_hh + 4 * h * h)
        } else {
            let transposed = transposed_w_hh + 4 * h * h;
            (transposed, transposed + h * a, transposed + 2 * h * a)
        };
        Self {
            w_hh: 0,
            bias,
            query,
            key,
            query_bias,
            v: v_at,
            summary_gain,
            transposed_w_hh,
            transposed_query,
            transposed_key,
            states,
        }
    }
}

impl Sizes {
    pub fn new(dims: &Dims, places: usize, options: &SabOptions) -> Self {
        // Larger than any length, and small enough that no sum of two such values overflows in the
        // kernels.
        let never = 1 << 30;
        let SabSettings { k_top, k_att, k_trunc, .. } = options.settings;
        let offset = options.settings.truncation_offset();
        let phase = (options.first_step % k_trunc + offset % k_trunc) % k_trunc;
        let first_window = match (k_trunc - phase) % k_trunc {
            0 if !options.starts_window(0) => k_trunc,
            first => first,
        };
        Self {
            batch: dims.batch,
            time: dims.time,
            input: dims.input,
            carried: dims.carried,
            slots: dims.slots(),
            places,
            width: operand_width(dims.hidden, dims.input),
            k_top: k_top.min(never),
            first_store: (k_att - 1 - options.first_step % k_att).min(never),
            k_att: k_att.min(never),
            first_window: first_window.min(never),
            k_trunc: k_trunc.min(never),
            lanes: options.lanes(),
        }
    }
}

/// Whether step `t` is one of `first`, `first + every`, `first + 2 every`, ...
#[cube]
pub(super) fn falls_on(t: usize, first: usize, every: usize) -> bool {
    t >= first && (t - first) % every == 0
}

/// The number of highest scores, out of `m`, that decide the weights.
#[cube]
pub(super) fn ranks(m: usize, k_top: usize, #[comptime] sparsifier: Sparsifier) -> usize {
    let mut most = k_top;
    if comptime!(sparsifier == Sparsifier::Threshold) {
        most = k_top + 1;
    }
    min(most, m)
}

/// Divides a buffer into regions that can serve as separate tensors.
struct Regions {
    end: usize,
    align: usize,
}

impl Regions {
    /// Starts an empty buffer. `alignment` is that of the device's memory, and `size` that of an
    /// element, both in bytes.
    pub fn new(alignment: usize, size: usize) -> Self {
        Self { end: 0, align: (alignment / size).max(1) }
    }

    /// Returns the offset of the next region, of `len` elements.
    pub fn take(&mut self, len: usize) -> usize {
        let at = self.end;
        self.end = (at + len).next_multiple_of(self.align);
        at
    }

    /// The total number of elements; at least 1, because no buffer may be empty.
    pub fn len(&self) -> usize {
        self.end.max(1)
    }
}
