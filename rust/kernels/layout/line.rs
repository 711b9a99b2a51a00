//! Buffers made of cache lines.

/// A cache line of 64 bytes; loading a vector that straddles two lines takes about 1.5 times as long.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub struct Line(#[allow(dead_code)] pub [u8; 64]);

impl Default for Line {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// Makes `buffer` at least `n` long; its contents do not matter.
pub fn grow<T: Clone + Default>(buffer: &mut Vec<T>, n: usize) {
    if buffer.len() < n {
        buffer.resize(n, T::default());
    }
}
