//! The five large kernel functions that are compiled on their own, not inlined into entry points.
//!
//! Kernels are inlined into entry points, because only those enable a CPU's target features. Inlining
//! everything into one entry point would take the compiler minutes, so entry points call these large
//! functions, which enable the same features.

use std::ops::Range;

use super::data::{ActivationTerms, Product, Span, Stretch};
use super::isa::look_up::LookUp;
use super::layout::packed::Packed;
use super::layout::source::Source;
use crate::formats::{Codes, Format};

/// An instruction set with its separately compiled functions, implemented by `outlined!` in `entry/`.
///
/// # Safety
///
/// That of `Isa`, and of the functions named.
#[allow(clippy::missing_safety_doc)] // the contract above is that of every method
pub unsafe trait Outlined: LookUp {
    /// `unpack::look_up::look_up_span`.
    unsafe fn look_up_span(format: Format, data: *const u8, integer_scales: bool, out: Span);
    /// `unpack::span::unpack_span`.
    unsafe fn unpack_span(
        w: &Packed,
        block: usize,
        first: usize,
        count: usize,
        integer_scales: bool,
        out: Span,
    );
    /// `unpack::scales::widen_span`.
    unsafe fn widen_span(
        codes: &Codes,
        source: Source,
        first: usize,
        count: usize,
        integer_scales: bool,
        out: Span,
    );
    /// `Product::multiply_spans` of `product/unpack_multiply.rs`.
    unsafe fn multiply_spans<
        const BITS: usize,
        const WIDTH: usize,
        const LOOK: bool,
        const GROUPS: usize,
        const INTEGER_SCALES: bool,
        const T: usize,
    >(
        product: &Product,
        blocks: Range<usize>,
        span: Span,
        terms: ActivationTerms,
        row: usize,
    );
    /// `Product::multiply_tiles` of `product/many_tokens.rs`.
    unsafe fn multiply_tiles<const WIDTH: usize, const GROUPS: usize, const INTEGER_SCALES: bool>(
        product: &Product,
        block: usize,
        span: Span,
        terms: ActivationTerms,
        at: Stretch,
    );
}
