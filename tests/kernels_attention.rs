//! Tests of attention and simple row kernels: all instruction sets give the bits of plain Rust.

use fewbit::kernels::ops::attention::{Head, KvType, Query};
use fewbit::kernels::{Kernels, available};
use shared::{Random, same_bits, scalar};

mod shared;

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

/// Keys or values of one head as bytes of type `kv_type`, and the values that these stand for.
fn store(
    kv_type: KvType,
    x: &[f32],
    scales: &[f32],
    of: impl Fn(usize) -> usize,
) -> (Vec<u8>, Vec<f64>) {
    let (mut bytes, mut values) = (Vec::new(), Vec::new());
    for (i, &x) in x.iter().enumerate() {
        let scale = scales[of(i)];
        match kv_type {
            KvType::F32 => bytes.extend(x.to_ne_bytes()),
            KvType::F16 => bytes.extend(half::f16::from_f32(x).to_bits().to_ne_bytes()),
            KvType::Int8 => bytes.push((x / scale).round() as i8 as u8),
        }
        values.push(match kv_type {
            KvType::F32 => f64::from(x),
            KvType::F16 => half::f16::from_f32(x).to_f64(),
            KvType::Int8 => f64::from((x / scale).round() as i8) * f64::from(scale),
        });
    }
    (bytes, values)
}

#[test]
fn attention_has_the_same_bits_everywhere_and_in_every_tile() {
    let mut random = Random(4);
    let cases = [(8usize, 5usize), (16, 40), (24, 33), (64, 100), (20, 150)];
    for (kv_type, (elements, stored)) in [KvType::F32, KvType::F16, KvType::Int8]
        .into_iter()
        .flat_map(|k| cases.map(|case| (k, case)))
    {
        let padded = elements.next_multiple_of(16);
        // No outliers: they make scores of thousands, with large errors.
        let mut mild =
            |n| random.floats(n).into_iter().map(|x| x.clamp(-4.0, 4.0)).collect::<Vec<_>>();
        let room = stored.next_multiple_of(16);
        let scales: Vec<f32> = mild(room).into_iter().map(|x| 0.04 + x.abs() / 100.0).collect();
        let position = |i: usize| i / (16 * elements) * 16 + i % 16;
        let (keys, k) = store(kv_type, &mild(room * elements), &scales, position);
        let (values, v) = store(kv_type, &mild(room * padded), &scales, |i| i / padded);
        let q = mild(QUERIES * elements);
        let (key_scales, value_scales) = (scales.as_ptr(), scales.as_ptr());
        let (keys, values) = (keys.as_ptr(), values.as_ptr());
        let head = Head { kv_type, keys, values, key_scales, value_scales, elements, scale: 0.1 };
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
                // SAFETY: the cache holds all blocks of 16 positions.
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
                assert!((got - want).abs() < 1e-4, "{kv_type:?} {elements} {t} {d}: {got} {want}");
            }
        }
    }
}

const QUERIES: usize = 7;
