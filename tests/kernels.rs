//! Every instruction set against plain Rust, bit for bit, and plain Rust against a naive loop.

use fewbit::formats::Format;
use fewbit::kernels::activations::Acts;
use fewbit::kernels::attention::{Head, Kept, Query};
use fewbit::kernels::isa::CHUNK;
use fewbit::kernels::linear::{Output, Scratch};
use fewbit::kernels::packed::Packed;
use fewbit::kernels::{Kernels, available};
use shared::{Random, same_bits, scalar};

mod shared;

/// Random blocks with finite scales: every f16 or f32 field gets a moderate exponent.
fn blocks(random: &mut Random, format: Format, rows: usize, columns: usize) -> Vec<u8> {
    let x = random.floats(rows * columns);
    let row_bytes = format.row_bytes(columns).unwrap();
    let mut out = vec![0; rows * row_bytes];
    let ones = vec![1.0; columns];
    for (x, out) in x.chunks_exact(columns).zip(out.chunks_exact_mut(row_bytes)) {
        format.encode_row(x, format.needs_importance().then_some(&ones[..]), out);
    }
    out
}

#[rustfmt::skip]
const FORMATS: &[&str] = &[
    "F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K",
    "Q6_K", "Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4", "IQ1_S",
    "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "sym1-g32", "sym2-g16", "sym3-g64",
    "sym7-g128", "asym8-g64", "asym6-g32", "asym2-g20", "sym5-g24",
];

/// (rows, columns, tokens): short and long rows, whole and broken blocks and tiles.
fn shapes(format: Format) -> Vec<(usize, usize, usize)> {
    let mut shapes =
        vec![(16, 256, 1), (35, 512, 4), (7, 256, 6), (48, 768, 9), (33, 1024, 2), (17, 256, 125)];
    if format.block() == 1 || format.name().contains("sym") {
        shapes.extend([(5, 172, 3), (17, 33, 5), (1, 1, 1), (20, 600, 5)]);
    }
    shapes
}

/// int8 activations of `n` rows, by the kernel of `kernels`.
struct Rounded {
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i32>,
    chunks: usize,
}

impl Rounded {
    fn new(kernels: &Kernels, x: &[f32], n: usize) -> Self {
        let columns = x.len() / n;
        let chunks = columns.div_ceil(CHUNK);
        let mut out = Self {
            q: vec![99; n * chunks * CHUNK],
            d: vec![9.0; n * chunks],
            sums: vec![9; 2 * n * chunks],
            chunks,
        };
        let acts = out.acts();
        for row in 0..n {
            // SAFETY: the buffers hold n rows; `available` lists what the CPU has.
            unsafe { (kernels.quantize_row)(x[row * columns..].as_ptr(), columns, &acts, row) };
        }
        out
    }

    fn acts(&mut self) -> Acts {
        Acts {
            q: self.q.as_mut_ptr(),
            d: self.d.as_mut_ptr(),
            sums: self.sums.as_mut_ptr(),
            chunks: self.chunks,
        }
    }
}

fn product(
    kernels: &Kernels,
    w: &Packed,
    x: &[f32],
    n: usize,
    bias: &[f32],
    int8: bool,
) -> Vec<f32> {
    let mut out = vec![7.0; n * w.rows];
    let bias = (!bias.is_empty()).then_some(bias.as_ptr());
    let target = Output { data: out.as_mut_ptr(), stride: w.rows, bias };
    let mut scratch = Scratch::default();
    let mut rounded = Rounded::new(kernels, x, n);
    // Two calls, as two threads would share the blocks.
    let half = w.blocks() / 2;
    for blocks in [half..w.blocks(), 0..half] {
        // SAFETY: the buffers hold n rows of the matrix's shape.
        unsafe {
            if int8 {
                (kernels.linear_int8)(w, blocks, &rounded.acts(), n, target, &mut scratch);
            } else {
                (kernels.linear_f32)(w, blocks, x.as_ptr(), n, target, &mut scratch);
            }
        }
    }
    out
}

/// The definition, with the weights decoded from the format's own bytes.
fn naive(format: Format, data: &[u8], rows: usize, x: &[f32], n: usize, bias: &[f32]) -> Vec<f32> {
    let columns = x.len() / n;
    let mut w = vec![0f32; columns];
    let mut out = vec![0f32; n * rows];
    for (row, bytes) in data.chunks_exact(data.len() / rows).enumerate() {
        format.decode_row(bytes, &mut w);
        for (t, x) in x.chunks_exact(columns).enumerate() {
            let sum = w.iter().zip(x).fold(0f32, |sum, (w, x)| w.mul_add(*x, sum));
            out[t * rows + row] = if bias.is_empty() { sum } else { sum + bias[row] };
        }
    }
    out
}

/// The definition with int8 activations, group by group.
fn naive_int8(
    format: Format,
    data: &[u8],
    rows: usize,
    x: &Rounded,
    n: usize,
    columns: usize,
) -> Vec<f32> {
    let codes = format.codes().unwrap();
    let groups = (x.chunks * CHUNK).div_ceil(codes.group);
    let (mut q, mut scale, mut min) = (vec![0u8; columns], vec![0f32; groups], vec![0f32; groups]);
    let mut out = vec![0f32; n * rows];
    let part = codes.group.min(CHUNK);
    for (row, bytes) in data.chunks_exact(data.len() / rows).enumerate() {
        format.unpack_row(bytes, columns, &mut q, &mut scale, &mut min);
        for t in 0..n {
            let a = &x.q[t * x.chunks * CHUNK..];
            let mut acc = 0f32;
            for start in (0..columns).step_by(part) {
                let end = columns.min(start + part);
                let dot: i32 = (start..end)
                    .map(|k| (i32::from(q[k]) - i32::from(codes.offset)) * i32::from(a[k]))
                    .sum();
                let sum: i32 = (start..end).map(|k| i32::from(a[k])).sum();
                let d = x.d[t * x.chunks + start / CHUNK];
                let group = start / codes.group;
                acc = (dot as f32).mul_add(scale[group] * d, acc);
                if codes.has_min {
                    acc = min[group].mul_add(d * sum as f32, acc);
                }
            }
            out[t * rows + row] = acc;
        }
    }
    out
}

/// Products of all instruction sets with `n` rows of random activations, against the definitions.
fn check_products(
    random: &mut Random,
    format: Format,
    data: &[u8],
    (rows, columns, n): (usize, usize, usize),
) {
    let w = Packed::new(data, format, rows, columns).unwrap();
    let x = random.floats(n * columns);
    let bias = if n % 2 == 0 { random.floats(rows) } else { Vec::new() };
    let f32_want = naive(format, data, rows, &x, n, &bias);
    let int8_want = w.takes_int8().then(|| {
        let rounded = Rounded::new(scalar(), &x, n);
        naive_int8(format, data, rows, &rounded, n, columns)
    });
    for kernels in available() {
        let what = format!("{} {rows}x{columns} n={n} {}", format.name(), kernels.name);
        let got = product(kernels, &w, &x, n, &bias, false);
        same_bits(&format!("{what} f32"), &got, &f32_want);
        if let Some(want) = &int8_want {
            let got = product(kernels, &w, &x, n, &[], true);
            same_bits(&format!("{what} int8"), &got, want);
        }
    }
}

#[test]
fn products_have_the_same_bits_everywhere() {
    let mut random = Random(1);
    for name in FORMATS {
        let format = Format::parse(name).unwrap();
        for shape in shapes(format) {
            let data = blocks(&mut random, format, shape.0, shape.1);
            check_products(&mut random, format, &data, shape);
        }
    }
}

#[test]
fn looked_up_codes_may_be_any_bytes() {
    // What no encoder writes: all indices, all signs, and bytes that are no five trits.
    let mut random = Random(2);
    for name in ["TQ1_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"] {
        let format = Format::parse(name).unwrap();
        for (rows, columns, n) in [(35, 512, 1), (16, 1024, 3)] {
            let bytes = rows * format.row_bytes(columns).unwrap();
            let mut data: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
            for block in data.chunks_exact_mut(format.block_bytes()) {
                // A scale of 1: IQ1_M keeps it four bits at a time, in the top of its last halves.
                match name {
                    "TQ1_0" => block[52..54].copy_from_slice(&[0x00, 0x3c]),
                    "IQ1_M" => {
                        for (byte, nibble) in [(49, 0), (51, 0), (53, 0xc), (55, 0x3)] {
                            block[byte] = block[byte] & 15 | nibble << 4;
                        }
                    }
                    _ => block[..2].copy_from_slice(&[0x00, 0x3c]),
                }
            }
            check_products(&mut random, format, &data, (rows, columns, n));
        }
    }
}

#[test]
fn extreme_codes_do_not_overflow() {
    for name in ["Q8_0", "Q4_0", "Q5_0", "Q6_K", "sym7-g32", "asym8-g32", "asym6-g32"] {
        let format = Format::parse(name).unwrap();
        let (rows, columns) = (16, 256);
        for fill in [0x00, 0x80, 0xff, 0x7f] {
            let mut data = vec![fill; rows * format.row_bytes(columns).unwrap()];
            let block_bytes = format.block_bytes();
            for block in data.chunks_exact_mut(block_bytes) {
                // A scale of 1 wherever a format keeps it; other bytes stay at the extreme.
                match name {
                    _ if name.contains("sym") => block[..4].copy_from_slice(&1f32.to_le_bytes()),
                    "Q6_K" => block[208..210].copy_from_slice(&[0x00, 0x3c]),
                    _ => block[..2].copy_from_slice(&[0x00, 0x3c]),
                }
            }
            let w = Packed::new(&data, format, rows, columns).unwrap();
            for sign in [1.0, -1.0] {
                let x: Vec<f32> =
                    (0..4 * columns).map(|i| if i % 3 == 0 { -sign } else { sign }).collect();
                let rounded = Rounded::new(scalar(), &x, 4);
                let want = naive_int8(format, &data, rows, &rounded, 4, columns);
                for kernels in available() {
                    let got = product(kernels, &w, &x, 4, &[], true);
                    same_bits(&format!("{name} {fill:#x} {}", kernels.name), &got, &want);
                }
            }
        }
    }
}

#[test]
fn rounding_activations_has_the_same_bits_everywhere() {
    let mut random = Random(2);
    for columns in [1, 15, 16, 31, 32, 33, 100, 256] {
        let mut x = random.floats(3 * columns);
        x[0] = 2.5;
        x[columns..2 * columns].fill(0.0);
        x[2 * columns..].iter_mut().for_each(|x| *x *= 1e-32);
        let want = Rounded::new(scalar(), &x, 3);
        assert!(want.q.iter().all(|&q| (-127..=127).contains(&q)));
        for kernels in available() {
            let got = Rounded::new(kernels, &x, 3);
            assert_eq!((&got.q, &got.sums), (&want.q, &want.sums), "{} {columns}", kernels.name);
            same_bits(kernels.name, &got.d, &want.d);
        }
        let amax = x[..columns.min(32)].iter().fold(0f32, |m, x| m.max(x.abs()));
        same_bits("scale", &want.d[..1], &[amax / 127.0]);
        assert_eq!(want.q[0], (2.5 * (127.0 / amax)).round_ties_even() as i8);
    }
}

#[test]
fn row_kernels_have_the_same_bits_everywhere() {
    let mut random = Random(3);
    for n in [1, 7, 16, 17, 40, 64, 300] {
        let (x, y) = (random.floats(n), random.floats(n));
        let run = |kernels: &Kernels| {
            let mut out = vec![vec![0f32; n]; 3];
            // SAFETY: every buffer holds n floats.
            unsafe {
                (kernels.rms_norm)(x.as_ptr(), y.as_ptr(), out[0].as_mut_ptr(), n, 1e-5);
                (kernels.add)(x.as_ptr(), y.as_ptr(), out[1].as_mut_ptr(), n);
                (kernels.swiglu)(x.as_ptr(), y.as_ptr(), out[2].as_mut_ptr(), n);
            }
            out
        };
        let want = run(scalar());
        for kernels in available() {
            for (op, (got, want)) in run(kernels).iter().zip(&want).enumerate() {
                same_bits(&format!("{} op {op} n={n}", kernels.name), got, want);
            }
        }
        let square = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n as f64;
        for i in 0..n {
            let (x, y) = (f64::from(x[i]), f64::from(y[i]));
            let norm = x / (square + 1e-5).sqrt() * y;
            assert!((f64::from(want[0][i]) - norm).abs() <= 2e-6 * norm.abs() + 1e-30);
            let gate = x / (1.0 + (-x).exp()) * y;
            assert!((f64::from(want[2][i]) - gate).abs() <= 1e-6 * gate.abs() + 1e-30, "{x} {y}");
        }
    }
}

/// Keys or values of one head as `kept` has them, with their scales, and what they stand for.
fn keep(kept: Kept, x: &[f32], scales: &[f32], of: impl Fn(usize) -> usize) -> (Vec<u8>, Vec<f64>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for (i, &x) in x.iter().enumerate() {
        let scale = scales[of(i)];
        match kept {
            Kept::F32 => bytes.extend(x.to_ne_bytes()),
            Kept::F16 => bytes.extend(half::f16::from_f32(x).to_bits().to_ne_bytes()),
            Kept::Int8 => bytes.push((x / scale).round() as i8 as u8),
        }
        values.push(match kept {
            Kept::F32 => f64::from(x),
            Kept::F16 => half::f16::from_f32(x).to_f64(),
            Kept::Int8 => f64::from((x / scale).round() as i8) * f64::from(scale),
        });
    }
    (bytes, values)
}

#[test]
fn attention_has_the_same_bits_everywhere_and_in_every_tile() {
    let mut random = Random(4);
    let cases = [(8usize, 5usize), (16, 40), (24, 33), (64, 100), (20, 150)];
    for (kept, (elements, stored)) in
        [Kept::F32, Kept::F16, Kept::Int8].into_iter().flat_map(|k| cases.map(|case| (k, case)))
    {
        let padded = elements.next_multiple_of(16);
        // Without the outliers: they make scores of thousands, and errors to match.
        let mut mild =
            |n| random.floats(n).into_iter().map(|x| x.clamp(-4.0, 4.0)).collect::<Vec<_>>();
        let room = stored.next_multiple_of(16);
        let scales: Vec<f32> = mild(room).into_iter().map(|x| 0.04 + x.abs() / 100.0).collect();
        let position = |i: usize| i / (16 * elements) * 16 + i % 16;
        let (keys, k) = keep(kept, &mild(room * elements), &scales, position);
        let (values, v) = keep(kept, &mild(room * padded), &scales, |i| i / padded);
        let q = mild(QUERIES * elements);
        let (key_scales, value_scales) = (scales.as_ptr(), scales.as_ptr());
        let (keys, values) = (keys.as_ptr(), values.as_ptr());
        let head = Head { kept, keys, values, key_scales, value_scales, elements, scale: 0.1 };
        let range = |t: usize| t * t % (stored - 1)..stored - t % 2;
        let sink = |t: usize| if t % 4 == 3 { 0.5 } else { f32::NEG_INFINITY };
        let run = |kernels: &Kernels, sizes: &[usize]| {
            let mut out = vec![0f32; QUERIES * elements];
            let base = out.as_mut_ptr();
            let queries: Vec<Query> = (0..QUERIES)
                .map(|t| Query {
                    q: q[t * elements..].as_ptr(),
                    out: base.wrapping_add(t * elements),
                    first: range(t).start,
                    last: range(t).end - 1,
                    sink: sink(t),
                })
                .collect();
            let (mut scores, mut rest) = (Vec::new(), &queries[..]);
            for &size in sizes {
                // SAFETY: the cache holds whole blocks past every position.
                unsafe { (kernels.attend)(&rest[..size], head, &mut scores) };
                rest = &rest[size..];
            }
            out
        };
        let want = run(scalar(), &[1; QUERIES]);
        for kernels in available() {
            for sizes in [&[7][..], &[4, 3], &[2, 2, 3], &[6, 1], &[1; QUERIES]] {
                same_bits(kernels.name, &run(kernels, sizes), &want);
            }
        }
        for t in 0..QUERIES {
            let score = |p: usize| -> f64 {
                let at = p / 16 * 16 * elements + p % 16;
                let products =
                    (0..elements).map(|d| f64::from(q[t * elements + d]) * k[at + d * 16]);
                products.sum::<f64>() * f64::from(0.1f32)
            };
            let best = range(t).map(score).fold(f64::MIN, f64::max);
            let total = range(t).map(|p| (score(p) - best).exp()).sum::<f64>()
                + (f64::from(sink(t)) - best).exp();
            for d in 0..elements {
                let mix: f64 = range(t).map(|p| (score(p) - best).exp() * v[p * padded + d]).sum();
                let (got, want) = (f64::from(want[t * elements + d]), mix / total);
                assert!((got - want).abs() < 1e-4, "{kept:?} {elements} {t} {d}: {got} {want}");
            }
        }
    }
}

const QUERIES: usize = 7;
