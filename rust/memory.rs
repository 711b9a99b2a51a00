//! Memory that the system may refuse: large arrays of zeros.

use std::alloc::{Layout, alloc_zeroed};

/// Numbers whose zero is all zero bits.
///
/// # Safety
///
/// Zeroed memory holds values of the type.
pub unsafe trait Zero: Copy {}
// SAFETY: 0.0 has no bit set.
unsafe impl Zero for f32 {}
// SAFETY: 0.0 has no bit set.
unsafe impl Zero for f64 {}
// SAFETY: nor has 0.
unsafe impl Zero for u8 {}

/// `count` zeros that take memory only as they are written; None where memory is too small, for
/// which `vec![0.0; count]` would end the process.
pub fn zeros<T: Zero>(count: usize) -> Option<Vec<T>> {
    if count == 0 {
        return Some(Vec::new());
    }
    let layout = Layout::array::<T>(count).ok()?;
    // SAFETY: the layout is not empty; the vector takes over memory for `count` numbers, all zero.
    unsafe {
        let start = alloc_zeroed(layout).cast::<T>();
        (!start.is_null()).then(|| Vec::from_raw_parts(start, count, count))
    }
}
