//! The sizes of a call, as the kernels read them, and where everything lies in their buffers.
//!
//! WebGPU promises eight storage buffers a stage, and wgpu keeps one: what is written together, read together
//! and of one type shares a buffer.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

use super::variant::Variant;
use crate::op::options::SabOptions;
use crate::op::score::ScoreKind;
use crate::op::settings::{SabSettings, Sparsifier};
use crate::op::tensors::Dims;

/// Numbers that go to a kernel when it is launched.
macro_rules! numbers {
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

numbers! {
    /// Sizes and the calendar of a call.
    Sizes, SizesLaunch {
        batch,
        time,
        input,
        carried,
        slots,
        places,
        /// Columns of the left operand of the product that gives the gradients of W_hh, W_ih and the bias.
        width,
        k_top,
        /// The step that stores the first slot; every `k_att`-th after it stores another.
        first_store,
        k_att,
        /// The first step that starts a truncation window; every `k_trunc`-th after it starts another.
        first_window,
        k_trunc,
        /// Gradients to run side by side.
        lanes,
    }
}

numbers! {
    /// Where things lie in what the caller gets; the hidden states, `[B, T, H]`, come first.
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

numbers! {
    /// Where things lie in what forward keeps in the type of the tensors; all slots, `[B, M, H]`, come first.
    KeptAt, KeptAtLaunch {
        /// Keys, `[B, A, M]`: units that score neighbouring slots read neighbouring numbers.
        keys,
        /// c before and after every step, `[B, T + 1, H]`.
        cells,
        /// Queries, `[B, T, A]`; backward puts their gradients in their place.
        queries,
        /// Gradients that backward leaves: of the keys, `[B, M, A]`,
        grad_keys,
        /// of h and c before the first step, `[B, H]` each,
        grad_h0,
        grad_c0,
        /// of the carried slots, `[B, M0, H]`,
        grad_carried,
        /// and of the score's vectors, `[B, vectors]`.
        grad_vectors,
    }
}

numbers! {
    /// Where things lie among the notes, words of 32 bits: floats in their bits, slots as they are.
    NotesAt, NotesAtLaunch {
        /// Retrieved slots for the caller, `[B, T, K]`.
        places,
        /// Scores of the present step, a scratch area of each unit: `[rows of all cubes, M]`.
        scores,
        /// Ranked slots, best first, `[B, T, ranks]`.
        ranked,
        /// Their weights, `[B, T, ranks]`.
        weights,
        /// What the weights were divided by, `[B, T]`.
        sums,
    }
}

numbers! {
    /// Where things lie in what backward adds up, in f32; gradients of the slots on their way, `[B, M, H]`, twice
    /// with lanes, come first.
    WorkAt, WorkAtLaunch {
        /// Of the keys, `[B, M, A]`.
        keys,
        /// Of the keys on their way, `[B, M, A]` twice, with lanes.
        lane_keys,
        /// Of h and c before the first step, `[B, H]` each.
        h0,
        c0,
        /// Of the carried slots, `[B, M0, H]`.
        carried,
        /// Of the score's vectors, `[B, vectors]`.
        vectors,
        /// Of the pre-activations, `[B, T, 4H]`, with lanes.
        gates,
        /// Of the queries, `[B, T, A]`, with lanes.
        queries,
    }
}

/// Where everything lies.
#[derive(CubeType, CubeLaunch, Clone, Copy, Debug)]
pub(super) struct Layout {
    pub states: StatesAt,
    pub kept: KeptAt,
    pub notes: NotesAt,
    pub work: WorkAt,
    /// In the left operands of products: the provisional hidden states, `[B T, provisional width]`, behind
    /// `[h before | x | 1 | 0 ..]`, `[B T, width]`.
    pub provisional: usize,
}

impl Layout {
    pub fn to_launch(self) -> LayoutLaunch {
        LayoutLaunch::new(
            self.states.to_launch(),
            self.kept.to_launch(),
            self.notes.to_launch(),
            self.work.to_launch(),
            self.provisional,
        )
    }
}

/// Numbers in each buffer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lengths {
    pub packed: usize,
    pub states: usize,
    pub kept: usize,
    pub operands: usize,
    pub notes: usize,
    pub work: usize,
}

impl Lengths {
    /// Numbers in the largest buffer, one of `record` numbers among them.
    pub fn largest(&self, record: usize) -> usize {
        self.stored(record).max(self.notes).max(self.work)
    }

    /// Bytes of the largest buffer, stored numbers taking `size` bytes.
    pub fn largest_bytes(&self, record: usize, size: usize) -> usize {
        (self.stored(record) * size).max(self.notes.max(self.work) * size_of::<f32>())
    }

    fn stored(&self, record: usize) -> usize {
        record.max(self.packed).max(self.states).max(self.kept).max(self.operands)
    }
}

/// What a call leaves behind beside hidden states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    /// What backward needs.
    pub keep: bool,
    /// Summaries, retrieved slots and their weights.
    pub reminders: bool,
    /// The stored slots by themselves: where every step stores one they are the hidden states.
    pub stored: bool,
}

impl Layout {
    /// `alignment` of the device's memory and `size` of a number, in bytes.
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
        let kept = KeptAt {
            keys: regions.take(batch * attention * slots),
            cells: regions.take(only(keep, batch * (time + 1) * hidden)),
            queries: regions.take(only(keep && matrices, steps * attention)),
            grad_keys: regions.take(only(keep && matrices, batch * slots * attention)),
            grad_h0: regions.take(only(keep, batch * hidden)),
            grad_c0: regions.take(only(keep, batch * hidden)),
            grad_carried: regions.take(only(keep, batch * carried * hidden)),
            grad_vectors: regions.take(only(keep, batch * v.vectors())),
        };
        let kept_len = regions.len();

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
        let sides = if lanes { 2 } else { 1 };
        regions.take(sides * batch * slots * hidden);
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
            kept: kept_len,
            operands: operands_len,
            notes: notes_len,
            work: work_len,
        };
        (Self { states, kept, notes, work, provisional }, lengths)
    }
}

/// Columns of `[h | x | 1]`, rounded up to four numbers, the most that a unit loads at a time.
pub(super) fn operand_width(hidden: usize, input: usize) -> usize {
    (hidden + input + 1).next_multiple_of(4)
}

/// Where things lie in the packed parameters. Matrices are there twice: as they come, and turned, so that in
/// backward, too, neighbouring units read neighbouring numbers.
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
    /// `[4H, H]`
    pub transposed_w_hh: usize,
    /// `[A, H]`; what a vector is turned is the vector.
    pub transposed_query: usize,
    pub transposed_key: usize,
    /// h and c before the first step, `[B, H]` each, and the carried slots, `[B, M0, H]`. Backward puts the
    /// gradients of h and c after the last step in the place of h and c.
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
        let transposed_w_hh = v_at + vectors;
        let (transposed_query, transposed_key, states) = if v.score == ScoreKind::Additive {
            (query, key, transposed_w_hh + 4 * h * h)
        } else {
            let turned = transposed_w_hh + 4 * h * h;
            (turned, turned + h * a, turned + 2 * h * a)
        };
        Self {
            w_hh: 0,
            bias,
            query,
            key,
            query_bias,
            v: v_at,
            transposed_w_hh,
            transposed_query,
            transposed_key,
            states,
        }
    }
}

impl Sizes {
    pub fn new(dims: &Dims, places: usize, options: &SabOptions) -> Self {
        // More than any length: in the kernels no sum of two of these overflows.
        let never = 1 << 30;
        let SabSettings { k_top, k_att, k_trunc, truncation_offset, .. } = options.settings;
        let phase = (options.first_step % k_trunc + truncation_offset % k_trunc) % k_trunc;
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
struct Regions {
    end: usize,
    align: usize,
}

impl Regions {
    /// `alignment` of the device's memory and `size` of a number, in bytes.
    pub fn new(alignment: usize, size: usize) -> Self {
        Self { end: 0, align: (alignment / size).max(1) }
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
