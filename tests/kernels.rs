//! Tests of matrix products: all instruction sets give the bits of plain Rust and of a naive loop.

use fewbit::formats::Format;
use fewbit::kernels::data::{Acts, Output};
use fewbit::kernels::layout::packed::{Packed, Storage};
use fewbit::kernels::product::scratch::Scratch;
use fewbit::kernels::shape::CHUNK;
use fewbit::kernels::{Kernels, available};
use shared::{Random, same_bits, scalar};

mod shared;

/// Random floats, encoded.
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

/// (rows, columns, tokens): short and long rows, full and partial blocks and tiles.
fn shapes(format: Format) -> Vec<(usize, usize, usize)> {
    let mut shapes = vec![
        (16, 256, 1),
        (35, 512, 4),
        (40, 512, 3),
        (19, 256, 8),
        (7, 256, 6),
        (48, 768, 9),
        (33, 1024, 2),
        (17, 768, 16),
        (17, 256, 125),
    ];
    if format.block() == 1 || format.name().contains("sym") {
        shapes.extend([
            (5, 172, 3),
            (17, 33, 5),
            (1, 1, 1),
            (20, 600, 5),
            (9, 301, 31),
            (5, 601, 123),
        ]);
    }
    shapes
}

/// `n` rows of activations rounded to int8 by `kernels`.
struct Rounded {
    q: Vec<i8>,
    d: Vec<f32>,
    sums: Vec<i32>,
    chunks: usize,
    sharing: usize,
}

impl Rounded {
    fn new(kernels: &Kernels, x: &[f32], n: usize, sharing: usize) -> Self {
        let columns = x.len() / n;
        let chunks = columns.div_ceil(CHUNK);
        let mut out = Self {
            q: vec![99; n * chunks * CHUNK],
            d: vec![9.0; n * chunks],
            sums: vec![9; 2 * n * chunks],
            chunks,
            sharing,
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
            sharing: self.sharing,
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
    let mut rounded = Rounded::new(kernels, x, n, w.sharing().unwrap_or(1));
    // Two calls, as if two threads divided the blocks.
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
    let size = codes.group.min(CHUNK);
    for (row, bytes) in data.chunks_exact(data.len() / rows).enumerate() {
        format.unpack_row(bytes, columns, &mut q, &mut scale, &mut min);
        for t in 0..n {
            let a = &x.q[t * x.chunks * CHUNK..];
            if codes.has_integer_scales() {
                let a = &a[..columns];
                let d = &x.d[t * x.chunks..][..x.chunks];
                out[t * rows + row] = naive_integer_scales(format, bytes, &q, &scale, a, d);
                continue;
            }
            let mut acc = 0f32;
            for start in (0..columns).step_by(size) {
                let end = columns.min(start + size);
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

/// One row of a format with integer scales: integers times one float that 256 columns share.
fn naive_integer_scales(
    format: Format,
    row: &[u8],
    q: &[u8],
    scale: &[f32],
    a: &[i8],
    d: &[f32],
) -> f32 {
    let codes = format.codes().unwrap();
    let mut acc = 0f32;
    for (i, block) in row.chunks_exact(format.block_bytes()).enumerate() {
        let scales = format.scale_bytes(block);
        let float = |bytes| half::f16::from_le_bytes(bytes).to_f32();
        let (mut dot, mut low) = (0, 0);
        for group in 0..16 {
            let here = 256 * i + 16 * group..256 * i + 16 * (group + 1);
            let sum: i32 = a[here.clone()].iter().map(|&a| i32::from(a)).sum();
            let product: i32 =
                here.map(|k| (i32::from(q[k]) - i32::from(codes.offset)) * i32::from(a[k])).sum();
            let byte = scales.scale[group];
            if format == Format::Q2_K {
                dot += i32::from(byte & 15) * product;
                low += i32::from(byte >> 4) * sum;
            } else {
                dot += i32::from(byte as i8) * product;
            }
        }
        if format == Format::Q2_K {
            acc = (low as f32).mul_add(-float(scales.dmin) * d[8 * i], acc);
        }
        // Decoding uses the same integers times the same float.
        let shared = float(scales.d) * 0.5f32.powi(codes.halvings.into());
        for group in 0..16 {
            let byte = scales.scale[group];
            let integer = if format == Format::Q2_K { (byte & 15) as i8 } else { byte as i8 };
            assert_eq!(scale[16 * i + group], shared * f32::from(integer));
        }
        acc = (dot as f32).mul_add(shared * d[8 * i], acc);
    }
    acc
}

/// The matrix packed in each layout that the format has, each checked to read back exactly.
fn packings(data: &[u8], format: Format, rows: usize, columns: usize) -> Vec<Packed> {
    let mut packed = vec![Packed::new(data, format, rows, columns, false).unwrap()];
    let compact = Packed::new(data, format, rows, columns, true).unwrap();
    if let Storage::Words(..) = compact.storage {
        packed.push(compact);
    }
    let (mut got, mut want) = (vec![0.0; columns], vec![0.0; columns]);
    for (row, bytes) in data.chunks_exact(data.len() / rows).enumerate() {
        format.decode_row(bytes, &mut want);
        for w in &packed {
            w.row(row, &mut got);
            same_bits(&format!("{} row {row} of {rows}x{columns}", format.name()), &got, &want);
        }
    }
    packed
}

/// Compares products of all instruction sets, with `n` rows of random activations, with the definitions.
fn check_products(
    random: &mut Random,
    format: Format,
    data: &[u8],
    (rows, columns, n): (usize, usize, usize),
) {
    let packed = packings(data, format, rows, columns);
    let x = random.floats(n * columns);
    let bias = if n % 2 == 0 { random.floats(rows) } else { Vec::new() };
    let f32_want = naive(format, data, rows, &x, n, &bias);
    let int8_want = packed[0].takes_int8().then(|| {
        let rounded = Rounded::new(scalar(), &x, n, packed[0].sharing().unwrap());
        naive_int8(format, data, rows, &rounded, n, columns)
    });
    for (kernels, w) in available().into_iter().flat_map(|set| packed.iter().map(move |w| (set, w)))
    {
        let what = format!("{} {rows}x{columns} n={n} {}", format.name(), kernels.name);
        let got = product(kernels, w, &x, n, &bias, false);
        same_bits(&format!("{what} f32"), &got, &f32_want);
        if let Some(want) = &int8_want {
            let got = product(kernels, w, &x, n, &[], true);
            same_bits(&format!("{what} int8"), &got, want);
        }
    }
}

/// `FEWBIT_EXPECT_ISA` lists instruction sets that this machine must have, so that none is skipped unnoticed.
#[test]
fn expected_sets_are_available() {
    let found: Vec<_> = available().iter().map(|kernels| kernels.name).collect();
    let expected = std::env::var("FEWBIT_EXPECT_ISA").unwrap_or_else(|_| "scalar".into());
    for name in expected.split(',') {
        assert!(found.contains(&name), "{name} is not among {}", found.join(", "));
    }
}

fn check_formats(names: &[&str]) {
    let mut random = Random(1);
    for name in names {
        let format = Format::parse(name).unwrap();
        for shape in shapes(format) {
            let data = blocks(&mut random, format, shape.0, shape.1);
            check_products(&mut random, format, &data, shape);
        }
    }
}

#[test]
fn products_of_floats_and_small_blocks_have_the_same_bits_everywhere() {
    check_formats(&["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]);
    check_formats(&["Q1_0", "Q2_0", "TQ1_0", "TQ2_0", "IQ4_NL", "IQ4_XS", "MXFP4", "NVFP4"]);
}

#[test]
fn products_of_k_formats_have_the_same_bits_everywhere() {
    check_formats(&["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"]);
}

#[test]
fn products_of_code_books_have_the_same_bits_everywhere() {
    check_formats(&["IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"]);
}

#[test]
fn products_of_run_time_codes_have_the_same_bits_everywhere() {
    check_formats(&["sym1-g32", "sym2-g16", "sym3-g64", "sym7-g128", "sym5-g24"]);
    check_formats(&["asym8-g64", "asym6-g32", "asym2-g20"]);
}

#[test]
fn looked_up_codes_may_be_any_bytes() {
    // Bytes that no encoder writes: all indices, all signs, and bytes that are not five ternary digits.
    let mut random = Random(2);
    for name in ["TQ1_0", "IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S"] {
        let format = Format::parse(name).unwrap();
        for (rows, columns, n) in [(35, 512, 1), (16, 1024, 3)] {
            let bytes = rows * format.row_bytes(columns).unwrap();
            let mut data: Vec<u8> = (0..bytes).map(|_| random.next() as u8).collect();
            for block in data.chunks_exact_mut(format.block_bytes()) {
                // A scale of 1: IQ1_M spreads it over the top four bits of its last four halves.
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
    for name in
        ["Q8_0", "Q4_0", "Q5_0", "Q2_K", "Q3_K", "Q6_K", "sym7-g32", "asym8-g32", "asym6-g32"]
    {
        let format = Format::parse(name).unwrap();
        let (rows, columns) = (16, 256);
        for fill in [0x00, 0x80, 0xff, 0x7f] {
            let mut data = vec![fill; rows * format.row_bytes(columns).unwrap()];
            let block_bytes = format.block_bytes();
            for block in data.chunks_exact_mut(block_bytes) {
                // A scale of 1, wherever the format stores it; the other bytes stay at the extreme.
                match name {
                    _ if name.contains("sym") => block[..4].copy_from_slice(&1f32.to_le_bytes()),
                    "Q2_K" => block[80..].copy_from_slice(&[0x00, 0x3c, 0x00, 0x3c]),
                    "Q3_K" | "Q6_K" => {
                        let end = block.len();
                        block[end - 2..].copy_from_slice(&[0x00, 0x3c]);
                    }
                    _ => block[..2].copy_from_slice(&[0x00, 0x3c]),
                }
            }
            let packed = packings(&data, format, rows, columns);
            for (sign, n) in [(1.0, 4), (-1.0, 4), (1.0, 17), (-1.0, 17)] {
                let x: Vec<f32> =
                    (0..n * columns).map(|i| if i % 3 == 0 { -sign } else { sign }).collect();
                let rounded = Rounded::new(scalar(), &x, n, packed[0].sharing().unwrap());
                let want = naive_int8(format, &data, rows, &rounded, n, columns);
                for (kernels, w) in
                    available().into_iter().flat_map(|set| packed.iter().map(move |w| (set, w)))
                {
                    let got = product(kernels, w, &x, n, &[], true);
                    same_bits(&format!("{name} {fill:#x} {}", kernels.name), &got, &want);
                }
            }
        }
    }
}

#[test]
fn rounding_activations_has_the_same_bits_everywhere() {
    let mut random = Random(2);
    for (columns, sharing) in [1, 15, 16, 31, 32, 33, 100, 256, 300, 768]
        .into_iter()
        .flat_map(|columns| [(columns, 1), (columns, 8)])
    {
        let mut x = random.floats(3 * columns);
        x[0] = 2.5;
        x[columns..2 * columns].fill(0.0);
        x[2 * columns..].iter_mut().for_each(|x| *x *= 1e-32);
        let want = Rounded::new(scalar(), &x, 3, sharing);
        assert!(want.q.iter().all(|&q| (-127..=127).contains(&q)));
        for kernels in available() {
            let got = Rounded::new(kernels, &x, 3, sharing);
            assert_eq!((&got.q, &got.sums), (&want.q, &want.sums), "{} {columns}", kernels.name);
            same_bits(kernels.name, &got.d, &want.d);
        }
        for (i, x) in x[..columns].chunks(CHUNK * sharing).enumerate() {
            let amax = x.iter().fold(0f32, |m, x| m.max(x.abs()));
            for (k, x) in x.iter().enumerate() {
                let at = CHUNK * sharing * i + k;
                same_bits("scale", &want.d[at / CHUNK..][..1], &[amax / 127.0]);
                assert_eq!(want.q[at], (x * (127.0 / amax)).round_ties_even() as i8);
            }
        }
    }
}
