//! Training: one symbol over a delay of twenty steps, with windows of ten.
//!
//! ```sh
//! cargo run --release --example train
//! cargo run --release --features wgpu --example train        # on a GPU
//! ```
//!
//! Expect: SAB names at least 95 % of the symbols. The negative control, the same layer without slots
//! on the same updates, stays near chance (12.5 %): its windows do not reach the symbol. A GPU gives the
//! numbers of the CPU up to rounding; on software Vulkan a few updates (`-- 3`) show that it runs.

use burn_sab_examples::{compare, device, first_argument_or};

/// Enough to learn it.
const UPDATES: usize = 400;

fn main() {
    let updates = first_argument_or(UPDATES);
    let [by_sab, by_truncated] = compare(updates, &device());
    if updates >= UPDATES {
        assert!(by_sab >= 0.95 && by_truncated < 0.3, "not what this example promises");
    }
}
