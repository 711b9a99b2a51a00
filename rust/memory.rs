//! Memory that the system may refuse, or take back: large arrays of zeros.

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

/// Tells the system that nobody needs these numbers any more: each is 0 or as it was, and memory is
/// taken again as they are written. Does nothing but on Linux.
#[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
pub fn give_back<T: Zero>(data: &mut [T]) {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: no requirements; a negative answer is an error, of which 4096 makes no harm.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let first = data.as_mut_ptr().addr();
        let (start, end) =
            (first.next_multiple_of(page), (first + size_of_val(data)) / page * page);
        if start < end {
            let pages = data.as_mut_ptr().cast::<u8>().wrapping_add(start - first);
            // SAFETY: whole pages of memory that the caller may write; private pages are zero
            // afterwards, which is a value of the type. A refusal leaves them as they are.
            unsafe { libc::madvise(pages.cast(), end - start, libc::MADV_DONTNEED) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_given_back_can_be_written_again() {
        let mut data = zeros::<f32>(1 << 18).unwrap();
        data.fill(3.0);
        give_back(&mut data[1000..200_000]);
        assert!(data[..1000].iter().chain(&data[200_000..]).all(|&x| x == 3.0));
        #[cfg(target_os = "linux")]
        assert!(data[1000..200_000].iter().filter(|&&x| x == 0.0).count() > 190_000);
        data.fill(4.0);
        assert!(data.iter().all(|&x| x == 4.0));
        give_back(&mut data[7..9]);
        assert_eq!(data[7..9], [4.0, 4.0]);
    }
}
