//! Counts that no noise touches, beside those of the allocator: peak memory, autodiff nodes, reached steps.

use std::fs;

use burn::backend::autodiff::NodeId;
use burn_sab::SabLstmOutput;

use crate::case::Case;

/// Nodes that `pass` puts into the autodiff graph: identifiers are handed out one by one.
pub fn autodiff_nodes<T>(pass: impl FnOnce() -> T) -> (T, u64) {
    let before = NodeId::new().value;
    let made = pass();
    (made, NodeId::new().value - before - 1)
}

/// Most resident memory that this process had, in MiB; `None` where the system does not tell.
pub fn peak_rss_mib() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok().map(|kib: u64| kib / 1024)
}

/// Steps that gradient of the last step reaches, summed over the rows of the batch; a step that it
/// reaches after different numbers of reminders counts as often where these are limited, as it is
/// computed as often. The slot that only supplies a threshold is left out.
pub fn reached_steps(case: &Case, output: &SabLstmOutput) -> u64 {
    let [batch, time, places] = output.weights.dims();
    let slots: Vec<i64> = output.slots.to_data().iter::<i64>().collect();
    let weights: Vec<f64> = output.weights.to_data().iter::<f64>().collect();
    let lanes = case.settings.max_hops.map_or(1, |hops| hops.min(time) + 1);
    let mut count = 0;
    for row in 0..batch {
        let mut reached = vec![false; time * lanes];
        reached[(time - 1) * lanes] = true;
        for t in (0..time).rev() {
            // The algorithm's steps 1 and 5, in reverse.
            let here = (row * time + t) * places;
            for lane in 0..lanes {
                if !reached[t * lanes + lane] {
                    continue;
                }
                count += 1;
                if t > 0 && !case.starts_window(t) {
                    reached[(t - 1) * lanes + lane] = true;
                }
                let next = if case.settings.max_hops.is_some() { lane + 1 } else { lane };
                if next == lanes {
                    continue;
                }
                let live = slots[here..][..places].iter().zip(&weights[here..][..places]);
                for (&slot, _) in live.filter(|(slot, weight)| **weight != 0.0 && **slot > 0) {
                    // Slot 0 is the initial state, slot j the state after step j k_att - 1.
                    reached[(slot as usize * case.settings.k_att - 1) * lanes + next] = true;
                }
            }
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peak_memory_is_known_on_linux() {
        assert_eq!(peak_rss_mib().is_some(), cfg!(target_os = "linux"));
    }
}
