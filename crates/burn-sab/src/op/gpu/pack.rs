//! Parameters and states in one buffer, so that the kernels over time stay within the few storage buffers
//! that WebGPU promises; matrices turned where the backward pass walks along their columns.

use burn_cubecl::cubecl;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::prelude::*;

use super::plan::BINDINGS;

/// Tensors that one launch copies, beside the buffer they go to.
const PARTS: usize = BINDINGS - 1;

/// Units of a cube and most cubes of a launch: the copy is bound by memory, any middling number does.
const UNITS: usize = 256;
const MOST_CUBES: usize = 256;

/// A matrix (or `[1, n]`, a list) to copy.
pub(super) struct Part {
    pub tensor: CubeTensor,
    pub at: usize,
    pub rows: usize,
    pub columns: usize,
    /// Whether to write it column by column.
    pub turned: bool,
}

/// Copies the parts into `out`.
pub(super) fn pack(parts: Vec<Part>, out: &CubeTensor) {
    let mut parts: Vec<Part> = parts
        .into_iter()
        .map(|part| Part { tensor: into_contiguous(part.tensor), ..part })
        .collect();
    while !parts.is_empty() {
        let mut now: Vec<Part> = parts.drain(..PARTS.min(parts.len())).collect();
        let largest = now.iter().map(|part| part.rows * part.columns).max().unwrap_or(0);
        while now.len() < PARTS {
            // A part of no rows; some buffer has to be bound.
            let tensor = now[0].tensor.clone();
            now.push(Part { tensor, at: 0, rows: 0, columns: 1, turned: false });
        }
        let mut buffers = now.iter().map(|part| part.tensor.clone().into_buffer_arg());
        let mut places = now
            .iter()
            .map(|part| PlaceLaunch::new(part.at, part.rows, part.columns, u32::from(part.turned)));
        let mut buffer = || buffers.next().expect("as many as parts");
        let mut place = || places.next().expect("as many as parts");
        let cubes = largest.div_ceil(UNITS).clamp(1, MOST_CUBES);
        let units = UNITS.min(out.client.properties().hardware.max_units_per_cube as usize);
        pack_kernel::launch(
            &out.client,
            CubeCount::Static(cubes as u32, 1, 1),
            CubeDim::new_1d(units as u32),
            buffer(),
            buffer(),
            buffer(),
            buffer(),
            buffer(),
            buffer(),
            out.clone().into_buffer_arg(),
            place(),
            place(),
            place(),
            place(),
            place(),
            place(),
            cubes * units,
        );
    }
}

/// Where a part goes.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
struct Place {
    at: usize,
    rows: usize,
    columns: usize,
    turned: u32,
}

#[cube(launch)]
#[allow(clippy::too_many_arguments)]
fn pack_kernel(
    a: &[f32],
    b: &[f32],
    c: &[f32],
    d: &[f32],
    e: &[f32],
    f: &[f32],
    out: &mut [f32],
    place_a: Place,
    place_b: Place,
    place_c: Place,
    place_d: Place,
    place_e: Place,
    place_f: Place,
    units: usize,
) {
    copy(a, out, &place_a, units);
    copy(b, out, &place_b, units);
    copy(c, out, &place_c, units);
    copy(d, out, &place_d, units);
    copy(e, out, &place_e, units);
    copy(f, out, &place_f, units);
}

#[cube]
fn copy(part: &[f32], out: &mut [f32], place: &Place, units: usize) {
    let mut to = ABSOLUTE_POS;
    while to < place.rows * place.columns {
        let mut from = to;
        if place.turned == 1 {
            from = (to % place.rows) * place.columns + to / place.rows;
        }
        out[place.at + to] = part[from];
        to += units;
    }
}
