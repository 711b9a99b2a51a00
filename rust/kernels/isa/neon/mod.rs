//! NEON (aarch64), with dot products and matrix products of bytes: a vector is four registers.

mod bytes;
mod floats;
mod look_up;

/// NEON, with the int8 products of `KIND`.
#[derive(Clone, Copy)]
pub struct Neon<const KIND: u8>;

/// Products of the base set.
pub const PLAIN: u8 = 0;
/// Dot products (`FEAT_DotProd`).
pub const DOT: u8 = 1;
/// Dot products and products of matrices (`FEAT_I8MM`).
pub const MATRIX: u8 = 2;

/// Four registers.
#[derive(Clone, Copy)]
pub struct Quad<V>(pub V, pub V, pub V, pub V);

/// Applies a function to each register.
macro_rules! each {
    ($f:ident, $x:expr) => {
        Quad($f($x.0), $f($x.1), $f($x.2), $f($x.3))
    };
    ($f:ident, $x:expr, $y:expr) => {
        Quad($f($x.0, $y.0), $f($x.1, $y.1), $f($x.2, $y.2), $f($x.3, $y.3))
    };
    ($f:ident, $x:expr, $y:expr, $z:expr) => {
        Quad($f($x.0, $y.0, $z.0), $f($x.1, $y.1, $z.1), $f($x.2, $y.2, $z.2), $f($x.3, $y.3, $z.3))
    };
}
use each;
