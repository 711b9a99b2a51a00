//! The table of entry points that each instruction set fills in.

use std::ops::Range;

use super::data::{Acts, Output};
use super::layout::packed::Packed;
use super::ops::attention::{Head, Query};
use super::ops::delta::{DeltaState, DeltaToken, Place};
use super::product::scratch::Scratch;

/// A product with f32 activations.
pub type LinearFloats = unsafe fn(&Packed, Range<usize>, *const f32, usize, Output, &mut Scratch);

/// The entry points of one instruction set.
///
/// Each field has the contract of the generic function of the same name. A caller need not check that the
/// CPU has the instruction set: `available` lists only tables whose instruction sets were detected.
pub struct Kernels {
    pub name: &'static str,
    pub linear_int8: unsafe fn(&Packed, Range<usize>, &Acts, usize, Output, &mut Scratch),
    pub linear_f32: LinearFloats,
    pub linear_bf16: LinearFloats,
    pub quantize_row: unsafe fn(*const f32, usize, &Acts, usize),
    pub rms_norm: unsafe fn(*const f32, *const f32, *mut f32, usize, f32),
    pub add: unsafe fn(*const f32, *const f32, *mut f32, usize),
    pub swiglu: unsafe fn(*const f32, *const f32, *mut f32, usize),
    pub attend: unsafe fn(&[Query], Head, &mut Vec<f32>),
    pub layer_norm: unsafe fn(*const f32, [*const f32; 2], *mut f32, usize, f32),
    pub l2_norm: unsafe fn(*const f32, *mut f32, usize, f32),
    pub gelu: unsafe fn(*const f32, *mut f32, usize),
    pub silu: unsafe fn(*const f32, *mut f32, usize),
    pub sigmoid: unsafe fn(*const f32, *mut f32, usize),
    pub scale: unsafe fn(*const f32, *mut f32, usize, f32),
    pub softcap: unsafe fn(*const f32, *mut f32, usize, f32),
    pub mul: unsafe fn(*const f32, *const f32, *mut f32, usize),
    pub geglu: unsafe fn(*const f32, *const f32, *mut f32, usize),
    pub clamped_swiglu: unsafe fn(*const f32, *const f32, *mut f32, usize, [f32; 2]),
    pub route: unsafe fn(*const f32, usize, *mut f32, usize, bool),
    pub expert_sum: unsafe fn(*const f32, *const f32, *mut f32, usize, usize),
    pub delta_rule: unsafe fn(DeltaState, Place, &[DeltaToken], &mut Vec<f32>),
    pub short_conv: unsafe fn(&[*const f32], &[*const f32], *mut f32, usize),
    pub gram: unsafe fn(*const f32, *const f32, usize, *mut f64),
    pub peak: unsafe fn(*const u8, *const i8) -> i32,
}
