//! Macros that write the entry points of an instruction set.
//!
//! The imports are those of the written code: users of the macros import `macros::*`.
//! `$features` is `[]` or `[#[target_feature(enable = "...")]]`.

pub(super) use std::ops::Range;

pub(super) use crate::formats::{Codes, Format};
pub(super) use crate::kernels::data::{ActivationTerms, Acts, Output, Product, Span, Stretch};
pub(super) use crate::kernels::layout::packed::Packed;
pub(super) use crate::kernels::layout::source::Source;
pub(super) use crate::kernels::ops::attention::{Head, Query};
pub(super) use crate::kernels::ops::delta::{DeltaState, DeltaToken, Place};
pub(super) use crate::kernels::outlined::Outlined;
pub(super) use crate::kernels::product::scratch::Scratch;
pub(super) use crate::kernels::table::Kernels;
pub(super) use crate::kernels::{ops, product};

/// Writes one entry point, the function `NAME` under an instruction set's target features:
/// `entry!(NAME, ISA, FEATURES)`.
macro_rules! entry {
    (@ $isa:ty, [$(#[$feature:meta])?],
        $floor:ident::$module:ident::$name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)?
    ) => {
        $(#[$feature])?
        unsafe fn $name($($arg: $type),*) $(-> $out)? {
            // SAFETY: the caller's promise.
            unsafe { $floor::$module::$name::<$isa>($($arg),*) }
        }
    };
    (linear_int8, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, product::int8::linear_int8(
            w: &Packed, blocks: Range<usize>, acts: &Acts, n: usize, out: Output,
            scratch: &mut Scratch,
        ));
    };
    (linear_f32, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, product::floats::linear_f32(
            w: &Packed, blocks: Range<usize>, x: *const f32, n: usize, out: Output,
            scratch: &mut Scratch,
        ));
    };
    (linear_bf16, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, product::bf16::linear_bf16(
            w: &Packed, blocks: Range<usize>, x: *const f32, n: usize, out: Output,
            scratch: &mut Scratch,
        ));
    };
    (quantize_row, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::activations::quantize_row(
            x: *const f32, columns: usize, acts: &Acts, row: usize,
        ));
    };
    (rms_norm, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::rows::rms_norm(
            x: *const f32, weight: *const f32, out: *mut f32, n: usize, eps: f32,
        ));
    };
    (add, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::rows::add(
            x: *const f32, y: *const f32, out: *mut f32, n: usize,
        ));
    };
    (swiglu, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::rows::swiglu(
            gate: *const f32, up: *const f32, out: *mut f32, n: usize,
        ));
    };
    (attend, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::attention::attend(
            queries: &[Query], head: Head, scratch: &mut Vec<f32>,
        ));
    };
    (layer_norm, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::layer_norm(
            x: *const f32, w: [*const f32; 2], out: *mut f32, n: usize, eps: f32,
        ));
    };
    (l2_norm, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::l2_norm(
            x: *const f32, out: *mut f32, n: usize, eps: f32,
        ));
    };
    (gelu, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::gelu(x: *const f32, out: *mut f32, n: usize));
    };
    (silu, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::silu(x: *const f32, out: *mut f32, n: usize));
    };
    (sigmoid, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::sigmoid(x: *const f32, out: *mut f32, n: usize));
    };
    (scale, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::scale(
            x: *const f32, out: *mut f32, n: usize, factor: f32,
        ));
    };
    (softcap, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::softcap(
            x: *const f32, out: *mut f32, n: usize, cap: f32,
        ));
    };
    (mul, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::mul(
            x: *const f32, y: *const f32, out: *mut f32, n: usize,
        ));
    };
    (geglu, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::geglu(
            gate: *const f32, up: *const f32, out: *mut f32, n: usize,
        ));
    };
    (clamped_swiglu, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gates::clamped_swiglu(
            gate: *const f32, up: *const f32, out: *mut f32, n: usize, shape: [f32; 2],
        ));
    };
    (route, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::experts::route(
            logits: *const f32, n: usize, out: *mut f32, used: usize, normalize: bool,
        ));
    };
    (expert_sum, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::experts::expert_sum(
            x: *const f32, weights: *const f32, out: *mut f32, used: usize, n: usize,
        ));
    };
    (delta_rule, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::delta::delta_rule(
            head: DeltaState, place: Place, tokens: &[DeltaToken], scratch: &mut Vec<f32>,
        ));
    };
    (short_conv, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::delta::short_conv(
            rows: &[*const f32], weights: &[*const f32], out: *mut f32, n: usize,
        ));
    };
    (gram, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, ops::gram::gram(
            x: *const f32, y: *const f32, rows: usize, sums: *mut f64,
        ));
    };
    (peak, $isa:ty, $features:tt) => {
        entry!(@ $isa, $features, product::peak_loop::peak(codes: *const u8, acts: *const i8) -> i32);
    };
}
pub(super) use entry;

/// An instruction set's table of entry points: all of them, or some that replace those of another table.
macro_rules! kernels {
    ($features:tt, $name:literal, $isa:ty) => {{
        kernels!(@entries $features, $isa,
            linear_int8 linear_f32 linear_bf16 quantize_row rms_norm add swiglu attend layer_norm
            l2_norm gelu silu sigmoid scale softcap mul geglu clamped_swiglu route expert_sum
            delta_rule short_conv gram peak
        );
        Kernels {
            name: $name, linear_int8, linear_f32, linear_bf16, quantize_row, rms_norm, add, swiglu,
            attend, layer_norm, l2_norm, gelu, silu, sigmoid, scale, softcap, mul, geglu,
            clamped_swiglu, route, expert_sum, delta_rule, short_conv, gram, peak,
        }
    }};
    ($features:tt, $name:literal, $isa:ty, $($entry:ident)+, ..$others:ident) => {{
        kernels!(@entries $features, $isa, $($entry)+);
        Kernels { name: $name, $($entry,)+ ..$others }
    }};
    (@entries $features:tt, $isa:ty, $($entry:ident)+) => {
        $(entry!($entry, $isa, $features);)+
    };
}
pub(super) use kernels;

/// Writes the methods of `Outlined`: generic functions that are not inlined and enable the target features.
///
/// `$codes` is the type that unpacks as this instruction set does, `$products` the one that multiplies as it
/// does: types that share a function name the same type, so that it is compiled once.
macro_rules! outlined {
    ([$(#[$feature:meta])?], $codes:ty, $products:ty) => {
        #[inline(always)]
        unsafe fn look_up_span(format: Format, data: *const u8, integer_scales: bool, out: Span) {
            $(#[$feature])?
            #[inline(never)]
            unsafe fn own<I: Outlined>(
                format: Format, data: *const u8, integer_scales: bool, out: Span,
            ) {
                use $crate::kernels::unpack::look_up::look_up_span;
                // SAFETY: the trait's contract.
                unsafe { look_up_span::<I>(format, data, integer_scales, out) }
            }
            // SAFETY: the trait's contract.
            unsafe { own::<$codes>(format, data, integer_scales, out) }
        }
        #[inline(always)]
        unsafe fn unpack_span(
            w: &Packed, block: usize, first: usize, count: usize, integer_scales: bool, out: Span,
        ) {
            $(#[$feature])?
            #[inline(never)]
            unsafe fn own<I: Outlined>(
                w: &Packed, block: usize, first: usize, count: usize, integer_scales: bool,
                out: Span,
            ) {
                use $crate::kernels::unpack::span::unpack_span;
                // SAFETY: the trait's contract.
                unsafe { unpack_span::<I>(w, block, first, count, integer_scales, out) }
            }
            // SAFETY: the trait's contract.
            unsafe { own::<$codes>(w, block, first, count, integer_scales, out) }
        }
        #[inline(always)]
        unsafe fn widen_span(
            codes: &Codes, source: Source, first: usize, count: usize, integer_scales: bool,
            out: Span,
        ) {
            $(#[$feature])?
            #[inline(never)]
            unsafe fn own<I: Outlined>(
                codes: &Codes, source: Source, first: usize, count: usize, integer_scales: bool,
                out: Span,
            ) {
                use $crate::kernels::unpack::scales::widen_span;
                // SAFETY: the trait's contract.
                unsafe { widen_span::<I>(codes, source, first, count, integer_scales, out) }
            }
            // SAFETY: the trait's contract.
            unsafe { own::<$codes>(codes, source, first, count, integer_scales, out) }
        }
        #[inline(always)]
        unsafe fn multiply_spans<
            const BITS: usize, const WIDTH: usize, const LOOK: bool, const GROUPS: usize,
            const INTEGER_SCALES: bool, const T: usize,
        >(
            product: &Product, blocks: Range<usize>, span: Span, terms: ActivationTerms, row: usize,
        ) {
            $(#[$feature])?
            #[inline(never)]
            unsafe fn own<
                I: Outlined, const BITS: usize, const WIDTH: usize, const LOOK: bool,
                const GROUPS: usize, const INTEGER_SCALES: bool, const T: usize,
            >(
                product: &Product, blocks: Range<usize>, span: Span, terms: ActivationTerms,
                row: usize,
            ) {
                // SAFETY: the trait's contract.
                unsafe {
                    product.multiply_spans::<I, BITS, WIDTH, LOOK, GROUPS, INTEGER_SCALES, T>(
                        blocks, span, terms, row,
                    )
                }
            }
            // SAFETY: the trait's contract.
            unsafe {
                if const { BITS == 0 } {
                    own::<Self, BITS, WIDTH, LOOK, GROUPS, INTEGER_SCALES, T>(
                        product, blocks, span, terms, row,
                    )
                } else {
                    own::<$products, BITS, WIDTH, LOOK, GROUPS, INTEGER_SCALES, T>(
                        product, blocks, span, terms, row,
                    )
                }
            }
        }
        #[inline(always)]
        unsafe fn multiply_tiles<
            const WIDTH: usize, const GROUPS: usize, const INTEGER_SCALES: bool,
        >(
            product: &Product, block: usize, span: Span, terms: ActivationTerms, at: Stretch,
        ) {
            $(#[$feature])?
            #[inline(never)]
            unsafe fn own<
                I: Outlined, const WIDTH: usize, const GROUPS: usize, const INTEGER_SCALES: bool,
            >(
                product: &Product, block: usize, span: Span, terms: ActivationTerms, at: Stretch,
            ) {
                // SAFETY: the trait's contract.
                unsafe {
                    product.multiply_tiles::<I, WIDTH, GROUPS, INTEGER_SCALES>(
                        block, span, terms, at,
                    )
                }
            }
            // SAFETY: the trait's contract.
            unsafe {
                own::<$products, WIDTH, GROUPS, INTEGER_SCALES>(product, block, span, terms, at)
            }
        }
    };
}
pub(super) use outlined;
