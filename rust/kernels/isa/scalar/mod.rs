//! Plain Rust: always compiled, always tested, the meaning of every other instruction set.

mod bytes;
mod floats;
mod look_up;

/// Plain Rust, on any CPU.
#[derive(Clone, Copy)]
pub struct Scalar;

/// Lane by lane; a macro, as a closure would not be inlined with an entry point's features.
macro_rules! lanes {
    ($i:ident => $value:expr) => {{
        let mut out = [Default::default(); LANES];
        for $i in 0..LANES {
            out[$i] = $value;
        }
        out
    }};
}
use lanes;
