//! The kernels by themselves: GB/s of weights that a product with one token reads, beside the
//! memory's own rate, and multiply-adds per second of a prompt, per format and instruction set.
//!
//! ```text
//! cargo bench --bench kernels [-- FORMAT... ISA...]
//! ```
//!
//! Matrices are larger than any cache for the first, one per layer of a small model for the second.
//! The best of several passes counts: what a neighbour took away is not the kernel's.

#![allow(clippy::print_stdout)] // a table is what a bench is for

use std::ops::Range;
use std::time::Instant;

use fewbit::formats::Format;
use fewbit::kernels::activations::Acts;
use fewbit::kernels::isa::{CHUNK, LANES};
use fewbit::kernels::linear::{Output, Scratch};
use fewbit::kernels::packed::Packed;
use fewbit::kernels::{Kernels, available};
use fewbit::read_rate::read_rate;

const FORMATS: &[&str] = &[
    "BF16",
    "Q8_0",
    "Q6_K",
    "Q5_0",
    "Q5_K",
    "Q4_0",
    "Q4_1",
    "Q4_K",
    "Q3_K",
    "Q2_K",
    "Q1_0",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL",
    "IQ4_XS",
    "MXFP4",
    "NVFP4",
    "IQ3_S",
    "IQ2_S",
    "IQ1_M",
    "sym4-g32",
    "asym3-g64",
];
const PASSES: usize = 7;
/// Rows that are encoded; the matrix repeats them.
const DISTINCT: usize = 64;

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{:<10} {:<7} {:>9} {:>9} {:>10}", "format", "isa", "1 thread", threads, "prompt");
    println!("{:<10} {:<7} {:>9} {:>9} {:>10}", "", "", "GB/s", "GB/s", "GMAC/s");
    let asked = |known: &[&str], name: &str| {
        let mut some = wanted.iter().filter(|w| known.contains(&w.as_str())).peekable();
        some.peek().is_none() || some.any(|w| w == name)
    };
    let sets: Vec<_> = available().iter().map(|kernels| kernels.name).collect();
    for name in FORMATS.iter().filter(|name| asked(FORMATS, name)) {
        let format = Format::parse(name).expect("a format of the list");
        let (large, small) = (matrix(format, 16384, 8192), matrix(format, 2048, 2048));
        for kernels in available().into_iter().filter(|k| asked(&sets, k.name)) {
            let bytes = large.bytes() as f64 / 1e9;
            let one = bytes / seconds(kernels, &large, 1, 1);
            let all = bytes / seconds(kernels, &large, 1, threads);
            let work = 512.0 * 2048.0 * 2048.0 / 1e9;
            let prompt = work / seconds(kernels, &small, 512, threads);
            println!("{name:<10} {:<7} {one:>9.1} {all:>9.1} {prompt:>10.0}", kernels.name);
        }
    }
    let (one, all) = (read_rate(1).expect("memory"), read_rate(threads).expect("memory"));
    println!("{:<10} {:<7} {one:>9.1} {all:>9.1}", "memory", "read");
}

fn matrix(format: Format, rows: usize, columns: usize) -> Packed {
    let row_bytes = format.row_bytes(columns).expect("columns of whole blocks");
    let mut data = vec![0u8; rows * row_bytes];
    for row in 0..DISTINCT {
        let x: Vec<f32> = (0..columns).map(|k| noise(row * columns + k)).collect();
        format.encode_row(&x, None, &mut data[row * row_bytes..][..row_bytes]);
    }
    for first in (DISTINCT..rows).step_by(DISTINCT) {
        data.copy_within(..DISTINCT * row_bytes, first * row_bytes);
    }
    Packed::new(&data, format, rows, columns).expect("finite weights")
}

/// A number of about -1..1 from its index.
fn noise(index: usize) -> f32 {
    let mixed = (index as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64 >> 7);
    (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// The fewest seconds of a product with `n` tokens, blocks of rows split among `threads`.
fn seconds(kernels: &'static Kernels, w: &Packed, n: usize, threads: usize) -> f64 {
    let x: Vec<f32> = (0..n * w.columns).map(noise).collect();
    let chunks = w.columns.div_ceil(CHUNK);
    let (mut q, mut d) = (vec![0i8; n * chunks * CHUNK], vec![0f32; n * chunks]);
    let mut sums = vec![0i32; 2 * n * chunks];
    let acts = Acts { q: q.as_mut_ptr(), d: d.as_mut_ptr(), sums: sums.as_mut_ptr(), chunks };
    for row in 0..n {
        // SAFETY: `x` and `acts` hold n rows; the CPU has what `available` lists.
        unsafe { (kernels.quantize_row)(x[row * w.columns..].as_ptr(), w.columns, &acts, row) };
    }
    let mut out = vec![0f32; n * w.rows];
    let job = Job {
        kernels,
        w,
        n,
        x: x.as_ptr(),
        acts,
        out: Output { data: out.as_mut_ptr(), stride: w.rows, bias: None },
    };
    let blocks = w.rows / LANES;
    let pass = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in 0..threads {
                let job = &job;
                let range = part * blocks / threads..(part + 1) * blocks / threads;
                scope.spawn(move || job.run(range));
            }
        });
        start.elapsed().as_secs_f64()
    };
    (0..PASSES).map(|_| pass()).fold(f64::INFINITY, f64::min)
}

/// One product; threads take different blocks of rows of it.
struct Job<'a> {
    kernels: &'static Kernels,
    w: &'a Packed,
    n: usize,
    x: *const f32,
    acts: Acts,
    out: Output,
}

// SAFETY: the activations are only read, and every thread writes its own rows of the output.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    fn run(&self, blocks: Range<usize>) {
        let mut scratch = Scratch::default();
        // SAFETY: `seconds` allocated what the product reads and writes.
        unsafe {
            if self.w.takes_int8() {
                (self.kernels.linear_int8)(
                    self.w,
                    blocks,
                    &self.acts,
                    self.n,
                    self.out,
                    &mut scratch,
                );
            } else {
                (self.kernels.linear_f32)(self.w, blocks, self.x, self.n, self.out, &mut scratch);
            }
        }
    }
}
