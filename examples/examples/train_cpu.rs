//! Training on the CPU: one symbol over a delay of twenty steps, with windows of ten.
//!
//! ```sh
//! cargo run --release --example train_cpu
//! ```
//!
//! Expect: SAB names at least 95 % of the symbols. The negative control, the same layer without slots
//! on the same updates, stays near chance (12.5 %): its windows do not reach the symbol.

use burn::tensor::Device;
use burn_sab_examples::{compare, updates_or};

fn main() {
    let device = Device::flex();
    let updates = updates_or(150);
    let [by_sab, by_truncated] = compare(updates, &device);
    if updates >= 150 {
        assert!(by_sab >= 0.95 && by_truncated < 0.3, "not what this example promises");
    }
}
