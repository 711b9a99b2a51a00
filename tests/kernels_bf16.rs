//! Tests of bfloat16 products: all instruction sets give the bits of a naive loop, for tiny numbers too.

use fewbit::formats::Format;
use fewbit::kernels::data::Output;
use fewbit::kernels::layout::packed::Packed;
use fewbit::kernels::product::scratch::Scratch;
use fewbit::kernels::{Kernels, available};
use half::bf16;
use shared::{Random, same_bits};

mod shared;

/// `x` rounded to bfloat16, with magnitudes below 2^-54 replaced by zero.
fn rounded(x: &[f32]) -> Vec<f32> {
    let round = |x: &f32| bf16::from_f32(*x).to_f32();
    x.iter().map(round).map(|x| if x.abs() < 2f32.powi(-54) { 0.0 } else { x }).collect()
}

fn bytes(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect()
}

fn product(kernels: &Kernels, w: &Packed, x: &[f32], bias: &[f32]) -> Vec<f32> {
    let n = x.len() / w.columns;
    let mut out = vec![7.0; n * w.rows];
    let bias = (!bias.is_empty()).then_some(bias.as_ptr());
    let target = Output { data: out.as_mut_ptr(), stride: w.rows, bias };
    let mut scratch = Scratch::default();
    let half = w.blocks() / 2;
    for blocks in [half..w.blocks(), 0..half] {
        // SAFETY: the buffers hold n rows of the matrix's shape.
        unsafe { (kernels.linear_bf16)(w, blocks, x.as_ptr(), n, target, &mut scratch) };
    }
    out
}

fn naive(w: &[f32], x: &[f32], columns: usize, bias: &[f32]) -> Vec<f32> {
    let mut out = Vec::new();
    for x in x.chunks_exact(columns) {
        for (row, w) in w.chunks_exact(columns).enumerate() {
            let sum = w.iter().zip(x).fold(0f32, |sum, (w, x)| w.mul_add(*x, sum));
            out.push(if bias.is_empty() { sum } else { sum + bias[row] });
        }
    }
    out
}

/// Numbers just above 2^-54, whose products cancel down to multiples of 2^-122.
fn smallest(random: &mut Random, n: usize) -> Vec<f32> {
    let small = |x: f32| 2f32.powi(-54) * (1.0 + x.abs().fract()).copysign(x);
    random.floats(n).into_iter().map(small).collect()
}

#[test]
fn products_have_the_same_bits_everywhere() {
    let mut random = Random(7);
    for (rows, columns) in [(16, 256), (35, 512), (17, 33), (1, 1), (48, 601), (5, 2)] {
        for n in (1..20).chain([24, 25, 125]) {
            let mut w = random.floats(rows * columns);
            let mut x = random.floats(n * columns);
            if n % 3 == 0 {
                w = smallest(&mut random, w.len());
                x = smallest(&mut random, x.len());
                // Below 2^-54: one rounds up to it, one becomes zero.
                x[0] = 2f32.powi(-54) * (1.0 - 2f32.powi(-10));
                x[columns - 1] = 1e-17;
            }
            let w = rounded(&w);
            let packed = Packed::new(&bytes(&w), Format::BF16, rows, columns, false).unwrap();
            assert!(packed.takes_bf16());
            let bias = if n % 2 == 0 { random.floats(rows) } else { Vec::new() };
            let want = naive(&w, &rounded(&x), columns, &bias);
            for kernels in available() {
                let what = format!("{rows}x{columns} n={n} {}", kernels.name);
                same_bits(&what, &product(kernels, &packed, &x, &bias), &want);
            }
        }
    }
}

#[test]
fn changed_activations_are_used_after_forget() {
    let w = Packed::new(&bytes(&[1.0; 64]), Format::BF16, 1, 64, false).unwrap();
    for (kernels, n) in available().into_iter().flat_map(|set| [(set, 6), (set, 30)]) {
        for linear in [kernels.linear_bf16, kernels.linear_f32] {
            let (mut x, mut out, mut scratch) =
                (vec![1.0; 64 * n], vec![0f32; n], Scratch::default());
            for value in [1.0, 2.0] {
                x.fill(value);
                scratch.forget();
                let target = Output { data: out.as_mut_ptr(), stride: 1, bias: None };
                // SAFETY: the buffers hold n rows.
                unsafe { linear(&w, 0..1, x.as_ptr(), n, target, &mut scratch) };
                assert_eq!(out, vec![64.0 * value; n], "{} n={n}", kernels.name);
            }
        }
    }
}

#[test]
fn tiny_weights_keep_f32_activations() {
    for (weight, takes) in [(0.0, true), (-0.0, true), (2f32.powi(-54), true), (-1e-17, false)] {
        let mut data = bytes(&[0.0; 300]);
        data[598..].copy_from_slice(&bf16::from_f32(weight).to_le_bytes());
        let w = Packed::new(&data, Format::BF16, 3, 100, false).unwrap();
        assert_eq!(w.takes_bf16(), takes, "{weight:e}");
    }
    let halves = Packed::new(&vec![0; 600], Format::F16, 3, 100, false).unwrap();
    assert!(!halves.takes_bf16());
}
