//! AVX2 with FMA and F16C, and AVX-VNNI: a vector is two registers.

mod bytes;
mod floats;
pub mod look_up;

/// AVX2, FMA and F16C, with the int8 products of `KIND`.
#[derive(Clone, Copy)]
pub struct Avx2<const KIND: u8>;

/// Products of AVX2.
pub const PLAIN: u8 = 0;
/// Dot products of AVX-VNNI.
pub const VNNI: u8 = 1;

/// Two registers.
#[derive(Clone, Copy)]
pub struct Pair<V>(pub V, pub V);

/// Applies a function to both registers.
macro_rules! both {
    ($f:ident, $x:expr) => {
        Pair($f($x.0), $f($x.1))
    };
    ($f:ident, $x:expr, $y:expr) => {
        Pair($f($x.0, $y.0), $f($x.1, $y.1))
    };
    ($f:ident, $x:expr, $y:expr, $z:expr) => {
        Pair($f($x.0, $y.0, $z.0), $f($x.1, $y.1, $z.1))
    };
}
use both;
