//! Memory for weights: zero, on cache lines, written by many threads.

use memmap2::MmapMut;

/// Asks for `bytes` bytes at `p` to come nearer; they need not exist.
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

/// Memory on cache lines, of any length.
///
/// It is mapped, not allocated: the system gives zero pages as they are first written, by the
/// thread that writes them, and large pages where it has them.
pub struct Aligned {
    pages: Option<MmapMut>,
}

impl Aligned {
    /// `bytes` zero bytes.
    ///
    /// # Panics
    ///
    /// Panics where the system has no more memory, as an allocation would.
    pub fn zeroed(bytes: usize) -> Self {
        if bytes == 0 {
            return Self { pages: None };
        }
        let pages = MmapMut::map_anon(bytes)
            .unwrap_or_else(|error| panic!("{bytes} bytes of memory for weights: {error}"));
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage); // a system without them is as good
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

    /// The first byte, on a cache line.
    pub fn as_ptr(&self) -> *const u8 {
        self.as_slice().as_ptr()
    }
}

/// Shares a pointer between threads that write disjoint parts.
pub struct SharedBytes(pub *mut u8);

// SAFETY: `part` is only called for disjoint ranges.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// # Safety
    ///
    /// The range must be allocated and no two live parts may overlap.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn part(&self, start: usize, length: usize) -> &mut [u8] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), length) }
    }
}
