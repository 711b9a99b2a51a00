//! AVX2 with FMA and F16C, and AVX-VNNI: a vector is two registers.

mod bytes;
mod floats;
pub mod look_up;

/// AVX2, FMA and F16C, with what `KIND` says for products of bytes.
#[derive(Clone, Copy)]
pub struct Avx2<const KIND: u8>;

/// Nothing; dot products (AVX-VNNI).
pub const PLAIN: u8 = 0;
pub const VNNI: u8 = 1;

#[derive(Clone, Copy)]
pub struct Pair<V>(pub V, pub V);

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
