//! What the fuzz targets share.

pub mod fixture;
pub mod memory;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Largest allocation that is allowed; a target sets it before the first input.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// No single allocation may be larger from now on.
pub fn allow_allocations_up_to(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// The system's allocator, which ends the process on a request that is too large: a length that came
/// from outside was believed.
struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

fn check(bytes: usize) {
    if bytes > LIMIT.load(Ordering::Relaxed) {
        // The message allocates too.
        LIMIT.store(usize::MAX, Ordering::Relaxed);
        eprintln!("an allocation of {bytes} bytes is over the limit");
        std::process::abort();
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        check(layout.size());
        // SAFETY: the caller's promises are handed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        check(bytes);
        // SAFETY: the caller's promises are handed on.
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are handed on.
        unsafe { System.dealloc(at, layout) }
    }
}
