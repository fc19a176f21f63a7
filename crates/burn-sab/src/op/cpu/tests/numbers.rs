//! Numbers that tests draw.

/// Pseudo-random numbers from -1 to 1, from a fixed seed.
pub fn numbers() -> impl FnMut() -> f64 {
    let mut state = 1u64;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}
