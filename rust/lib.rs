//! The core of fewbit: number formats, quantization, SIMD kernels, the CPU executor and its gradients.
//!
//! How a Python call reaches a kernel:
//!
//! ```text
//! fewbit.quantize(array, "Q4_0")   python/fewbit/formats/tensors.py
//!   _core.encode                   rust/py/encode.rs          releases the GIL
//!   quantize::encode_tensor        rust/quantize/mod.rs       rows in parallel
//!   formats::Format::encode_row    rust/formats/encode.rs     chooses format and instruction set
//!   formats::legacy::encode_q4_0   rust/formats/legacy.rs     one row of blocks
//!
//! model.logits(ids)                python/fewbit/api.py
//!   _core.Executor.forward         rust/py/model.rs           releases the GIL
//!   exec::Executor::forward        rust/exec/mod.rs           all threads execute the plan
//!   exec::step::Step::products     rust/exec/ops/products.rs  each thread claims rows of the weights
//!   kernels::Kernels::linear_int8  rust/kernels/mod.rs        chosen once per process
//!   product::int8::linear_int8     rust/kernels/product/int8.rs  one algorithm, generic over `Isa`
//! ```
//!
//! Modules import only from those below them, top to bottom: `py`, `backward`, `exec`, `kernels`,
//! `quantize`, `formats`, `sample`, then `measure`, `read_rate`, `threads`, `memory`, `floats` and
//! `error`. Only `py` names pyo3; everything else builds and tests without Python.

pub mod backward;
pub mod error;
pub mod exec;
pub mod floats;
pub mod formats;
pub mod kernels;
pub mod measure;
pub mod memory;
#[cfg(feature = "python")]
mod py;
pub mod quantize;
pub mod read_rate;
pub mod sample;
pub mod threads;
