//! The allocator of the workspace's programs, and the counts it keeps.

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// Counts bytes and allocations, and leaves the work to mimalloc.
///
/// Mimalloc keeps freed memory for the next training step. The system's allocator returns it, and every page
/// is then faulted in anew: a sixth of a training step (docs/src/performance.md). Counting takes two relaxed
/// additions and a comparison for an allocation, and one addition for its end, far less than the allocation itself. Every program counts,
/// so that all models, Burn's own included, are counted alike and no special build is needed.
struct Counted;

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Bytes on the heap; wraps, as differences may be negative.
static LIVE: AtomicUsize = AtomicUsize::new(0);
static CALLS: AtomicUsize = AtomicUsize::new(0);
/// The most that [`LIVE`] was since [`heap_peak`] began.
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn count(bytes: usize) {
    let live = LIVE.fetch_add(bytes, Ordering::Relaxed).wrapping_add(bytes);
    CALLS.fetch_add(1, Ordering::Relaxed);
    if live > PEAK.load(Ordering::Relaxed) {
        PEAK.fetch_max(live, Ordering::Relaxed);
    }
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

/// Runs `work` and returns its result, with the bytes by which the heap of the whole process grew meanwhile.
/// The result is still alive and counts.
pub fn heap_growth<T>(work: impl FnOnce() -> T) -> (T, isize) {
    let before = LIVE.load(Ordering::Relaxed);
    let result = work();
    (result, LIVE.load(Ordering::Relaxed).wrapping_sub(before) as isize)
}

/// Runs `work` and returns its result, with the bytes by which the heap of the whole process exceeded its size
/// before at most. One at a time: another call begins anew.
pub fn heap_peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let result = work();
    (result, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

/// Returns how often the process has allocated or reallocated heap memory so far.
pub fn allocations() -> usize {
    CALLS.load(Ordering::Relaxed)
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
        let (_, bytes) = heap_peak(|| drop(Vec::<u8>::with_capacity(1 << 30)));
        assert!(bytes >= 1 << 30, "{bytes}");
    }
}
