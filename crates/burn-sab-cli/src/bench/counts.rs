//! Counts that no noise touches: heap memory, allocations, autodiff nodes, reached steps.

use std::alloc::{GlobalAlloc, Layout};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::autodiff::NodeId;
use burn_sab::SabLstmOutput;
use mimalloc::MiMalloc;

use super::case::Case;

/// An allocator that keeps freed memory for the next training step, where the system's takes it back and
/// has every page touched anew (a sixth of a training step, docs/src/performance.md), counted: two relaxed
/// additions for an allocation, one for its end, far below what the rest takes. It is there in all of the program, so that every model, Burn's own
/// included, is counted alike and nothing has to be built for it.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Bytes on the heap; wraps, as differences may be negative.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    LIVE.fetch_add(bytes, Ordering::Relaxed);
    CALLS.fetch_add(1, Ordering::Relaxed);
}

// SAFETY: each method hands its arguments to `MiMalloc` unchanged and returns what that returns; counting
// neither allocates nor unwinds.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is that of `MiMalloc`.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as in `alloc`.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `memory` came from `MiMalloc` with this layout, through one of these methods.
        unsafe { MiMalloc.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size.wrapping_sub(layout.size()));
        // SAFETY: as in `dealloc`; the caller vouches for `size`.
        unsafe { MiMalloc.realloc(memory, layout, size) }
    }
}

/// Bytes on the heap that came since `made` began to run, and what it made, still alive.
pub fn heap_growth<T>(made: impl FnOnce() -> T) -> (T, isize) {
    let before = LIVE.load(Ordering::Relaxed);
    let made = made();
    (made, LIVE.load(Ordering::Relaxed).wrapping_sub(before) as isize)
}

/// Allocations of the whole program so far.
pub fn allocations() -> usize {
    CALLS.load(Ordering::Relaxed)
}

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
    let lanes = case.max_hops.map_or(1, |hops| hops.min(time) + 1);
    let mut count = 0;
    for row in 0..batch {
        let mut reached = vec![false; time * lanes];
        reached[(time - 1) * lanes] = true;
        for t in (0..time).rev() {
            // The specification's steps 1 and 5, backwards.
            let here = (row * time + t) * places;
            for lane in 0..lanes {
                if !reached[t * lanes + lane] {
                    continue;
                }
                count += 1;
                if t > 0 && !case.starts_window(t) {
                    reached[(t - 1) * lanes + lane] = true;
                }
                let next = if case.max_hops.is_some() { lane + 1 } else { lane };
                if next == lanes {
                    continue;
                }
                let live = slots[here..][..places].iter().zip(&weights[here..][..places]);
                for (&slot, _) in live.filter(|(slot, weight)| **weight != 0.0 && **slot > 0) {
                    // Slot 0 is the initial state, slot j the state after step j k_att - 1.
                    reached[(slot as usize * case.k_att - 1) * lanes + next] = true;
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
    fn what_is_alive_counts() {
        // Other tests allocate meanwhile: a size that they do not come near.
        let (kept, bytes) = heap_growth(|| Vec::<u8>::with_capacity(1 << 30));
        assert!((bytes - (1 << 30)).abs() < 1 << 28, "{bytes}");
        let (_, bytes) = heap_growth(|| drop(kept));
        assert!((bytes + (1 << 30)).abs() < 1 << 28, "{bytes}");
        assert!(allocations() > 0);
    }

    #[test]
    fn peak_memory_is_known_on_linux() {
        assert_eq!(peak_rss_mib().is_some(), cfg!(target_os = "linux"));
    }
}
