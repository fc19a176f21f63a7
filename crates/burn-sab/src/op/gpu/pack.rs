//! Copies of parameters and states in one buffer, so that the kernels over time need no more storage
//! buffers than WebGPU guarantees. Matrices are also stored transposed, for the backward kernel, which
//! reads along their columns.

use burn_cubecl::cubecl;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

/// Units per cube, and maximum number of cubes per launch. The copy is limited by memory bandwidth, so
/// any medium value suffices.
const UNITS: usize = 256;
const MOST_CUBES: usize = 256;

/// Maximum number of parts per launch, in addition to the limit of the device. Tests need several
/// launches, as WebGPU's default limit does.
const MOST_PARTS: usize = if cfg!(test) { 3 } else { usize::MAX };

/// A matrix, or a vector as `[1, n]`, to copy.
pub(super) struct Part {
    pub tensor: CubeTensor,
    pub at: usize,
    pub rows: usize,
    pub columns: usize,
    /// Offset of the transposed copy, if one is needed.
    pub transposed_at: Option<usize>,
}

impl Part {
    /// A vector of `len` elements.
    pub fn list(tensor: CubeTensor, at: usize, len: usize) -> Self {
        Self { tensor, at, rows: 1, columns: len, transposed_at: None }
    }
}

/// Copies the parts into `out`, in one launch if the device binds that number of buffers.
pub(super) fn pack(parts: Vec<Part>, out: &CubeTensor, float: ElemType) {
    let hardware = &out.client.properties().hardware;
    // One binding is for `out`.
    let most = (hardware.max_bindings as usize).saturating_sub(1).clamp(1, MOST_PARTS);
    let units = UNITS.min(hardware.max_units_per_cube as usize);
    let mut parts = parts.into_iter().peekable();
    while parts.peek().is_some() {
        let now: Vec<Part> = parts.by_ref().take(most).collect();
        let largest = now.iter().map(|part| part.rows * part.columns).max().unwrap_or(0);
        let cubes = largest.div_ceil(units).clamp(1, MOST_CUBES);
        let mut sources = SequenceArg::new();
        for part in now {
            sources.push(SourceLaunch::new(
                into_contiguous(part.tensor).into_buffer_arg(),
                part.at,
                part.rows,
                part.columns,
                part.transposed_at.unwrap_or(0),
                part.transposed_at.is_some(),
            ));
        }
        pack_kernel::launch(
            &out.client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(units as u32),
            sources,
            out.clone().into_buffer_arg(),
            cubes * units,
            float,
        );
    }
}

/// A [`Part`] in the form of a kernel argument.
#[derive(CubeType, CubeLaunch)]
struct Source<F: Float> {
    elements: Box<[F]>,
    at: usize,
    rows: usize,
    columns: usize,
    transposed_at: usize,
    #[cube(comptime)]
    transpose: bool,
}

#[cube(launch)]
fn pack_kernel<F: Float>(
    sources: &Sequence<Source<F>>,
    out: &mut [F],
    units: usize,
    #[define(F)] _float: ElemType,
) {
    #[unroll]
    for i in 0..sources.len() {
        let source = &sources[i];
        let mut from = ABSOLUTE_POS;
        while from < source.rows * source.columns {
            out[source.at + from] = source.elements[from];
            if comptime!(source.transpose) {
                let transposed = (from % source.columns) * source.rows + from / source.columns;
                out[source.transposed_at + transposed] = source.elements[from];
            }
            from += units;
        }
    }
}
