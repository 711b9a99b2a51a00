//! Memory for packed weights, and prefetching.

use memmap2::MmapMut;

/// Prefetches `bytes` bytes at `p` into the caches; the address need not be valid.
#[inline(always)]
pub fn prefetch(p: *const u8, bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for at in (0..bytes).step_by(64) {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch may be of any address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (p, bytes);
}

/// Zeroed memory, aligned to cache lines.
///
/// It is mapped, not allocated: the system provides zero pages when they are first written, by the
/// thread that writes them, and huge pages if it has them.
pub struct Aligned {
    pages: Option<MmapMut>,
}

impl Aligned {
    /// `bytes` zero bytes.
    ///
    /// # Panics
    ///
    /// Panics if the system is out of memory, as an allocation does.
    pub fn zeroed(bytes: usize) -> Self {
        if bytes == 0 {
            return Self { pages: None };
        }
        let pages = MmapMut::map_anon(bytes)
            .unwrap_or_else(|error| panic!("{bytes} bytes of memory for weights: {error}"));
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage); // not every system has huge pages
        Self { pages: Some(pages) }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        self.pages.as_deref().unwrap_or_default()
    }

    /// The bytes, to write.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.pages.as_deref_mut().unwrap_or_default()
    }

    /// The first byte, aligned to a cache line.
    pub fn as_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr()
    }
}

/// A pointer for threads that write disjoint ranges.
pub struct SharedBytes(pub *mut u8);

// SAFETY: `range` is only called for disjoint ranges.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// `length` bytes from byte `start` on.
    ///
    /// # Safety
    ///
    /// The range must be allocated, and no two live ranges may overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn range(&self, start: usize, length: usize) -> &mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
    }
}
