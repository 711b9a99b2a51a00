//! Pointers to the packed scales and minima of one block of 16 rows.

use super::memory::prefetch;

/// Where the scales of a block begin, and its minima.
#[derive(Clone, Copy)]
pub struct Source {
    pub scales: *const u8,
    pub mins: *const u8,
}

impl Source {
    /// Prefetches the scales and minima of span `span`, `bytes` bytes of each.
    #[inline(always)]
    pub fn prefetch(self, span: usize, bytes: [usize; 2]) {
        prefetch(self.scales.wrapping_add(span * bytes[0]), bytes[0]);
        prefetch(self.mins.wrapping_add(span * bytes[1]), bytes[1]);
    }
}
