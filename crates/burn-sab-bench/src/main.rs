//! The bench of burn-sab.

fn main() {}
