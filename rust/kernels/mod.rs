//! Kernels: one generic algorithm each, a thin file per instruction set, chosen once at run time.
//!
//! `FEWBIT_ISA=scalar|avx2|avx-vnni|avx512|avx512-vbmi|avx512-bf16|neon|neon-dotprod|neon-i8mm` forces an instruction
//! set, so that one machine tests all it has; all of them give the same bits.

pub mod isa;
pub mod layout;
pub mod ops;
pub mod peak;
pub mod product;
mod unpack;

use std::ops::Range;
use std::sync::OnceLock;

#[cfg(target_arch = "aarch64")]
use isa::neon::floats as neon;
use isa::scalar::floats as scalar;
#[cfg(target_arch = "x86_64")]
use isa::{avx2::floats as avx2, avx512::floats as avx512};
use layout::packed::Packed;
use ops::activations::Acts;
use ops::attention::{Head, Query};
use ops::delta::{DeltaState, DeltaToken, Place};
use ops::{activations, attention, delta, experts, gates, rows};
use product::int8::{Output, Scratch};
use product::{bf16 as linear_bf16, floats as linear_f32, int8 as linear};

use crate::error::{Error, Result};

/// A product with rows of floats.
pub type LinearFloats = unsafe fn(&Packed, Range<usize>, *const f32, usize, Output, &mut Scratch);

/// The entry points of one instruction set. The functions' contracts are those of the generic
/// functions of the same name; that the CPU has the instruction set holds by construction.
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
    pub peak: unsafe fn(*const u8, *const i8) -> i32,
}

/// One entry point: the generic function `NAME` of a module under an instruction set's features.
macro_rules! entry {
    ($isa:ty, $(#[$feature:meta])? $module:ident::$name:ident($($arg:ident: $type:ty),* $(,)?)) => {
        $(#[$feature])?
        unsafe fn $name($($arg: $type),*) {
            // SAFETY: the caller's promise.
            unsafe { $module::$name::<$isa>($($arg),*) }
        }
    };
}

/// Writes an instruction set's entry points: the generic functions under its target features.
macro_rules! entry_points {
    ($table:ident, $name:literal, $isa:ty $(, #[$feature:meta])?) => {
        const $table: Kernels = {
            type I = $isa;
            $(#[$feature])?
            unsafe fn linear_int8(
                w: &Packed, blocks: Range<usize>, acts: &Acts, n: usize, out: Output, s: &mut Scratch,
            ) {
                // SAFETY: the caller's promise.
                unsafe { linear::linear_int8::<I>(w, blocks, acts, n, out, s) }
            }
            $(#[$feature])?
            unsafe fn linear_f32(
                w: &Packed, blocks: Range<usize>, x: *const f32, n: usize, out: Output, s: &mut Scratch,
            ) {
                // SAFETY: the caller's promise.
                unsafe { linear_f32::linear_f32::<I>(w, blocks, x, n, out, s) }
            }
            entry!(I, $(#[$feature])? linear_bf16::linear_bf16(
                w: &Packed, blocks: Range<usize>, x: *const f32, n: usize, out: Output,
                scratch: &mut Scratch
            ));
            $(#[$feature])?
            unsafe fn quantize_row(x: *const f32, columns: usize, acts: &Acts, row: usize) {
                // SAFETY: the caller's promise.
                unsafe { activations::quantize_row::<I>(x, columns, acts, row) }
            }
            $(#[$feature])?
            unsafe fn rms_norm(x: *const f32, w: *const f32, out: *mut f32, n: usize, eps: f32) {
                // SAFETY: the caller's promise.
                unsafe { rows::rms_norm::<I>(x, w, out, n, eps) }
            }
            $(#[$feature])?
            unsafe fn add(x: *const f32, y: *const f32, out: *mut f32, n: usize) {
                // SAFETY: the caller's promise.
                unsafe { rows::add::<I>(x, y, out, n) }
            }
            $(#[$feature])?
            unsafe fn swiglu(gate: *const f32, up: *const f32, out: *mut f32, n: usize) {
                // SAFETY: the caller's promise.
                unsafe { rows::swiglu::<I>(gate, up, out, n) }
            }
            $(#[$feature])?
            unsafe fn attend(queries: &[Query], head: Head, scores: &mut Vec<f32>) {
                // SAFETY: the caller's promise.
                unsafe { attention::attend::<I>(queries, head, scores) }
            }
            entry!(I, $(#[$feature])? gates::layer_norm(
                x: *const f32, w: [*const f32; 2], out: *mut f32, n: usize, eps: f32
            ));
            entry!(I, $(#[$feature])? gates::l2_norm(x: *const f32, out: *mut f32, n: usize, eps: f32));
            entry!(I, $(#[$feature])? gates::gelu(x: *const f32, out: *mut f32, n: usize));
            entry!(I, $(#[$feature])? gates::silu(x: *const f32, out: *mut f32, n: usize));
            entry!(I, $(#[$feature])? gates::sigmoid(x: *const f32, out: *mut f32, n: usize));
            entry!(I, $(#[$feature])? gates::scale(x: *const f32, out: *mut f32, n: usize, by: f32));
            entry!(I, $(#[$feature])? gates::softcap(x: *const f32, out: *mut f32, n: usize, cap: f32));
            entry!(I, $(#[$feature])? gates::mul(
                x: *const f32, y: *const f32, out: *mut f32, n: usize
            ));
            entry!(I, $(#[$feature])? gates::geglu(
                gate: *const f32, up: *const f32, out: *mut f32, n: usize
            ));
            entry!(I, $(#[$feature])? gates::clamped_swiglu(
                gate: *const f32, up: *const f32, out: *mut f32, n: usize, shape: [f32; 2]
            ));
            entry!(I, $(#[$feature])? experts::route(
                logits: *const f32, n: usize, out: *mut f32, used: usize, normalize: bool
            ));
            entry!(I, $(#[$feature])? experts::expert_sum(
                x: *const f32, weights: *const f32, out: *mut f32, used: usize, n: usize
            ));
            entry!(I, $(#[$feature])? delta::delta_rule(
                head: DeltaState, place: Place, tokens: &[DeltaToken], scratch: &mut Vec<f32>
            ));
            entry!(I, $(#[$feature])? delta::short_conv(
                rows: &[*const f32], weights: &[*const f32], out: *mut f32, n: usize
            ));
            $(#[$feature])?
            unsafe fn peak(codes: *const u8, acts: *const i8) -> i32 {
                // SAFETY: the caller's promise.
                unsafe { peak::peak::<I>(codes, acts) }
            }
            Kernels {
                name: $name, linear_int8, linear_f32, linear_bf16, quantize_row, rms_norm, add, swiglu,
                attend,
                layer_norm, l2_norm, gelu, silu, sigmoid, scale, softcap, mul, geglu,
                clamped_swiglu, route, expert_sum, delta_rule, short_conv, peak,
            }
        };
    };
}

entry_points!(SCALAR, "scalar", scalar::Scalar);
#[cfg(target_arch = "x86_64")]
entry_points!(
    AVX2, "avx2", avx2::Avx2<{ avx2::PLAIN }>, #[target_feature(enable = "avx2,fma,f16c")]
);
#[cfg(target_arch = "x86_64")]
const AVX_VNNI: Kernels = {
    type I = avx2::Avx2<{ avx2::VNNI }>;
    entry!(
        I,
        #[target_feature(enable = "avx2,fma,f16c")]
        linear::linear_int8(
            w: &Packed, blocks: Range<usize>, acts: &Acts, n: usize, out: Output,
            scratch: &mut Scratch
        )
    );
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn peak(codes: *const u8, acts: *const i8) -> i32 {
        // SAFETY: the caller's promise.
        unsafe { peak::peak::<I>(codes, acts) }
    }
    Kernels { name: "avx-vnni", linear_int8, peak, ..AVX2 }
};
#[cfg(target_arch = "x86_64")]
entry_points!(
    AVX512, "avx512", avx512::Avx512<{ avx512::PLAIN }>,
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
);
#[cfg(target_arch = "x86_64")]
const AVX512_VBMI: Kernels = {
    type I = avx512::Avx512<{ avx512::VBMI }>;
    entry!(
        I,
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        linear::linear_int8(
            w: &Packed, blocks: Range<usize>, acts: &Acts, n: usize, out: Output,
            scratch: &mut Scratch
        )
    );
    entry!(
        I,
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        linear_f32::linear_f32(
            w: &Packed, blocks: Range<usize>, x: *const f32, n: usize, out: Output,
            scratch: &mut Scratch
        )
    );
    Kernels { name: "avx512-vbmi", linear_int8, linear_f32, ..AVX512 }
};
#[cfg(target_arch = "x86_64")]
const AVX512_BF16: Kernels = {
    entry!(
        avx512::Avx512<{ avx512::BF16 }>,
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
        linear_bf16::linear_bf16(
            w: &Packed, blocks: Range<usize>, x: *const f32, n: usize, out: Output,
            scratch: &mut Scratch
        )
    );
    Kernels { name: "avx512-bf16", linear_bf16, ..AVX512_VBMI }
};

#[cfg(target_arch = "aarch64")]
entry_points!(NEON, "neon", neon::Neon<{ neon::PLAIN }>);
#[cfg(target_arch = "aarch64")]
const NEON_DOT: Kernels = neon_products::<{ neon::DOT }>("neon-dotprod");
#[cfg(target_arch = "aarch64")]
const NEON_MATRIX: Kernels = neon_products::<{ neon::MATRIX }>("neon-i8mm");

/// `NEON` with other products of bytes.
#[cfg(target_arch = "aarch64")]
const fn neon_products<const KIND: u8>(name: &'static str) -> Kernels {
    let linear_int8 = linear::linear_int8::<neon::Neon<KIND>>;
    Kernels { name, linear_int8, peak: peak::peak::<neon::Neon<KIND>>, ..NEON }
}

/// The instruction sets that this CPU has, the best first.
pub fn available() -> Vec<&'static Kernels> {
    let mut found: Vec<&'static Kernels> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vnni");
        let vbmi = avx2 && avx512 && is_x86_feature_detected!("avx512vbmi");
        if vbmi && is_x86_feature_detected!("avx512bf16") {
            found.push(&AVX512_BF16);
        }
        if vbmi {
            found.push(&AVX512_VBMI);
        }
        if avx2 && avx512 {
            found.push(&AVX512);
        }
        if avx2 && is_x86_feature_detected!("avxvnni") {
            found.push(&AVX_VNNI);
        }
        if avx2 {
            found.push(&AVX2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                found.push(&NEON_MATRIX);
            }
            found.push(&NEON_DOT);
        }
        found.push(&NEON);
    }
    found.push(&SCALAR);
    found
}

/// The instruction set called `name`, or the best one where it is None.
pub fn find(name: Option<&str>) -> Result<&'static Kernels> {
    let sets = available();
    let Some(name) = name else { return Ok(sets[0]) };
    sets.iter().copied().find(|set| set.name == name).ok_or_else(|| {
        let known: Vec<_> = sets.iter().map(|set| set.name).collect();
        Error::unsupported(format!("this CPU has no instruction set `{name}`"))
            .hint(format!("FEWBIT_ISA may be {}", known.join(", ")))
    })
}

/// The kernels of this process: the best set, or the one that `FEWBIT_ISA` names.
pub fn chosen() -> Result<&'static Kernels> {
    static CHOSEN: OnceLock<Result<&'static Kernels>> = OnceLock::new();
    CHOSEN.get_or_init(|| find(std::env::var("FEWBIT_ISA").ok().as_deref())).clone()
}
