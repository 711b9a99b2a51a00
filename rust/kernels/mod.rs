//! Kernels: each algorithm is one generic function, compiled for each instruction set, chosen at run time.
//!
//! `FEWBIT_ISA=scalar|avx2|avx-vnni|avx512|avx512-vbmi|avx512-bf16|neon|neon-dotprod|neon-i8mm` forces an
//! instruction set, so that one machine can test all that it has; all of them give the same bits.
//!
//! Each line below imports only from lines under it:
//!
//! ```text
//! peak.rs       times the int8 multiply-adds of an instruction set
//! mod.rs        detects the CPU and chooses a table of entry points
//! entry/        the kernels compiled for each instruction set; target features are enabled here
//! table.rs      the table of entry points
//! product/      matrix products
//! unpack/       packed weights to bytes and f32 scales
//! outlined.rs   the functions that are compiled on their own
//! ops/          all other operations: norms, gates, attention, recurrent layers, experts
//! data.rs       the structs that kernels pass on
//! isa/          vector operations of each instruction set
//! layout/       how weights lie in memory
//! shape.rs      sizes: rows of a block, columns of a chunk and of a span
//! ```

pub mod data;
mod entry;
mod isa;
pub mod layout;
pub mod ops;
mod outlined;
pub mod peak;
pub mod product;
pub mod shape;
mod table;
mod unpack;

use std::sync::OnceLock;

use crate::error::{Error, Result};
#[cfg(target_arch = "aarch64")]
use entry::neon;
use entry::scalar;
#[cfg(target_arch = "x86_64")]
use entry::{avx2, avx512};

pub use table::{Kernels, LinearFloats};

/// The kernels of all instruction sets that this CPU has, the best first.
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
            found.push(&avx512::AVX512_BF16);
        }
        if vbmi {
            found.push(&avx512::AVX512_VBMI);
        }
        if avx2 && avx512 {
            found.push(&avx512::AVX512);
        }
        if avx2 && is_x86_feature_detected!("avxvnni") {
            found.push(&avx2::AVX_VNNI);
        }
        if avx2 {
            found.push(&avx2::AVX2);
        }
    }
    #[cfg(target_arch = "aarch64")]
    {
        if std::arch::is_aarch64_feature_detected!("dotprod") {
            if std::arch::is_aarch64_feature_detected!("i8mm") {
                found.push(&neon::NEON_MATRIX);
            }
            found.push(&neon::NEON_DOT);
        }
        found.push(&neon::NEON);
    }
    found.push(&scalar::SCALAR);
    found
}

/// The kernels of the instruction set `name`, or of the best one for None.
///
/// # Errors
///
/// `Unsupported` if this CPU has no such instruction set.
pub fn find(name: Option<&str>) -> Result<&'static Kernels> {
    let sets = available();
    let Some(name) = name else { return Ok(sets[0]) };
    sets.iter().copied().find(|set| set.name == name).ok_or_else(|| {
        let known: Vec<_> = sets.iter().map(|set| set.name).collect();
        Error::unsupported(format!("this CPU has no instruction set `{name}`"))
            .hint(format!("FEWBIT_ISA may be {}", known.join(", ")))
    })
}

/// The kernels of this process: of the best instruction set, or of the one that `FEWBIT_ISA` names.
///
/// # Errors
///
/// As `find`.
pub fn chosen() -> Result<&'static Kernels> {
    static CHOSEN: OnceLock<Result<&'static Kernels>> = OnceLock::new();
    CHOSEN.get_or_init(|| find(std::env::var("FEWBIT_ISA").ok().as_deref())).clone()
}
