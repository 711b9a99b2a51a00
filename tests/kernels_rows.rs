//! Tests of gates, norms, experts and recurrent ops: all instruction sets give the bits of plain Rust.
//!
//! Plain Rust in turn agrees with the formulas in f64.

use fewbit::kernels::ops::delta::{CHUNK_TOKENS, DeltaState, DeltaToken, Place};
use fewbit::kernels::ops::gram::TILE;
use fewbit::kernels::shape::LANES;
use fewbit::kernels::{Kernels, available};
use shared::{Random, same_bits, scalar};

mod shared;

const LENGTHS: [usize; 9] = [1, 7, 15, 16, 17, 31, 40, 64, 300];
const LIMIT: f32 = 3.5;

/// Random numbers, among them both zeros, a subnormal number and large magnitudes.
fn edges(random: &mut Random, n: usize) -> Vec<f32> {
    let mut x = random.floats(n);
    for (x, edge) in x.iter_mut().zip([0.0, -0.0, 1e-40, -95.0, 95.0, 88.5, -88.5]) {
        *x = edge;
    }
    x
}

/// The results of all ops of one or two rows, each with its name.
fn results(kernels: &Kernels, x: &[f32], y: &[f32], z: &[f32]) -> Vec<(&'static str, Vec<f32>)> {
    let n = x.len();
    let mut out: Vec<(&str, Vec<f32>)> = [
        "layer_norm",
        "l2_norm",
        "gelu",
        "silu",
        "sigmoid",
        "scale",
        "softcap",
        "mul",
        "geglu",
        "clamped_swiglu",
        "swiglu",
        "add",
        "rms_norm",
    ]
    .map(|name| (name, vec![7f32; n + 1]))
    .into();
    let (x, y, z) = (x.as_ptr(), y.as_ptr(), z.as_ptr());
    for (name, out) in &mut out {
        let out = out.as_mut_ptr();
        // SAFETY: every buffer holds n floats; `available` lists what the CPU has.
        unsafe {
            match *name {
                "layer_norm" => (kernels.layer_norm)(x, [y, z], out, n, 1e-5),
                "l2_norm" => (kernels.l2_norm)(x, out, n, 1e-6),
                "gelu" => (kernels.gelu)(x, out, n),
                "silu" => (kernels.silu)(x, out, n),
                "sigmoid" => (kernels.sigmoid)(x, out, n),
                "scale" => (kernels.scale)(x, out, n, 0.3),
                "softcap" => (kernels.softcap)(x, out, n, 30.0),
                "mul" => (kernels.mul)(x, y, out, n),
                "geglu" => (kernels.geglu)(x, y, out, n),
                "clamped_swiglu" => (kernels.clamped_swiglu)(x, y, out, n, [1.702, LIMIT]),
                "swiglu" => (kernels.swiglu)(x, y, out, n),
                "add" => (kernels.add)(x, y, out, n),
                _ => (kernels.rms_norm)(x, y, out, n, 1e-5),
            }
        }
    }
    out
}

/// Element `i` of an op in f64, and its tolerance beside 1e-5 of its value.
fn formula(name: &str, x: &[f64], y: &[f64], z: &[f64], i: usize) -> (f64, f64) {
    let n = x.len() as f64;
    let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
    let gelu = |v: f64| {
        v * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v))
    };
    let mean = x.iter().sum::<f64>() / n;
    let squares = |by: f64| x.iter().map(|x| (x - by).powi(2)).sum::<f64>();
    let far = x.iter().map(|x| x.abs()).fold(0.0, f64::max);
    match name {
        "layer_norm" => {
            let root = (squares(mean) / n + 1e-5).sqrt();
            ((x[i] - mean) / root * y[i] + z[i], 1e-5 * (far / root * y[i].abs() + z[i].abs()))
        }
        "l2_norm" => (x[i] / (squares(0.0) + 1e-6).sqrt(), 0.0),
        "rms_norm" => (x[i] / (squares(0.0) / n + 1e-5).sqrt() * y[i], 0.0),
        "gelu" => (gelu(x[i]), 0.0),
        "silu" => (x[i] * sigmoid(x[i]), 0.0),
        "sigmoid" => (sigmoid(x[i]), 0.0),
        "scale" => (x[i] * f64::from(0.3f32), 0.0),
        "softcap" => (30.0 * (x[i] / 30.0).tanh(), 1e-5),
        "mul" => (x[i] * y[i], 0.0),
        "geglu" => (gelu(x[i]) * y[i], 0.0),
        "clamped_swiglu" => {
            let (g, u) = (x[i].min(3.5), y[i].clamp(-3.5, 3.5));
            (g * sigmoid(f64::from(1.702f32) * g) * (u + 1.0), 1e-6)
        }
        "swiglu" => (x[i] * sigmoid(x[i]) * y[i], 0.0),
        _ => (x[i] + y[i], 0.0),
    }
}

#[test]
fn gates_and_norms_have_the_same_bits_everywhere() {
    let mut random = Random(1);
    for n in LENGTHS {
        let (x, y, z) = (edges(&mut random, n), random.floats(n), random.floats(n));
        let want = results(scalar(), &x, &y, &z);
        for kernels in available() {
            for ((name, got), (_, want)) in results(kernels, &x, &y, &z).iter().zip(&want) {
                same_bits(&format!("{} {name} n={n}", kernels.name), got, want);
            }
        }
        let wide = |row: &[f32]| row.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
        let (x, y, z) = (wide(&x), wide(&y), wide(&z));
        for (name, got) in &want {
            assert!(got[n].to_bits() == 7f32.to_bits(), "{name} writes past its row");
            for (i, got) in got[..n].iter().enumerate() {
                let (value, off) = formula(name, &x, &y, &z, i);
                let deviation = (f64::from(*got) - value).abs();
                assert!(deviation <= 1e-5 * value.abs() + off + 1e-35, "{name} {i}: {got} {value}");
            }
        }
    }
}

#[test]
fn an_op_may_write_over_its_input() {
    let mut random = Random(2);
    for n in LENGTHS {
        let x = edges(&mut random, n);
        for kernels in available() {
            let mut separate = vec![0f32; n];
            let mut over = x.clone();
            for op in [kernels.gelu, kernels.silu, kernels.sigmoid] {
                // SAFETY: both buffers hold n floats.
                unsafe {
                    op(over.as_ptr(), separate.as_mut_ptr(), n);
                    let place = over.as_mut_ptr();
                    op(place, place, n);
                }
                same_bits(kernels.name, &over, &separate);
            }
        }
    }
}

#[test]
fn routes_have_the_same_bits_everywhere() {
    let mut random = Random(3);
    for (n, used) in [(1, 1), (5, 5), (8, 2), (40, 8), (128, 17), (300, 33)] {
        for normalize in [true, false] {
            let mut logits = random.floats(n);
            if n > 4 {
                logits[3] = logits[1]; // of equal logits the first is chosen first
            }
            let run = |kernels: &Kernels| {
                let mut out = vec![0f32; 2 * used];
                // SAFETY: n floats come in, 2 x used go out, used is at most n.
                unsafe {
                    (kernels.route)(logits.as_ptr(), n, out.as_mut_ptr(), used, normalize);
                }
                out
            };
            let want = run(scalar());
            for kernels in available() {
                same_bits(&format!("{} {n} {used}", kernels.name), &run(kernels), &want);
            }
            let mut order: Vec<usize> = (0..n).collect();
            order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]));
            let chosen: Vec<usize> = want[..used].iter().map(|&index| index as usize).collect();
            assert_eq!(chosen, order[..used], "{n} {used}");
            let counted = if normalize { &order[..used] } else { &order[..] };
            let e = |index: usize| f64::from(logits[index] - logits[order[0]]).exp();
            let total: f64 = counted.iter().map(|&index| e(index)).sum();
            for (slot, &index) in order[..used].iter().enumerate() {
                let (got, value) = (f64::from(want[used + slot]), e(index) / total);
                assert!((got - value).abs() <= 2e-5 * value + 1e-37, "{got} {value}");
            }
        }
    }
}

#[test]
fn nan_and_infinite_logits_still_choose_experts() {
    for kernels in available() {
        for logits in [[f32::NAN; 4], [f32::NEG_INFINITY; 4], [f32::NAN, 1.0, f32::INFINITY, -1.0]]
        {
            let mut out = [9f32; 6];
            // SAFETY: 4 floats come in, 2 x 3 go out.
            unsafe { (kernels.route)(logits.as_ptr(), 4, out.as_mut_ptr(), 3, true) };
            let mut chosen: Vec<usize> = out[..3].iter().map(|&index| index as usize).collect();
            chosen.sort_unstable();
            chosen.dedup();
            assert!(chosen.len() == 3 && chosen[2] < 4, "{} {out:?}", kernels.name);
        }
    }
}

#[test]
fn sums_of_experts_and_convolutions_are_fused_in_order() {
    let mut random = Random(4);
    for n in LENGTHS {
        for used in [1, 2, 7] {
            let (x, weights) = (random.floats(used * n), random.floats(used));
            let channels = random.floats(used * n);
            let mut want = vec![vec![0f32; n]; 2];
            for slot in 0..used {
                for i in 0..n {
                    let x = x[slot * n + i];
                    want[0][i] = weights[slot].mul_add(x, want[0][i]);
                    want[1][i] = channels[slot * n + i].mul_add(x, want[1][i]);
                }
            }
            for kernels in available() {
                let mut got = vec![vec![0f32; n]; 2];
                let rows =
                    |data: &[f32]| data.chunks_exact(n).map(<[f32]>::as_ptr).collect::<Vec<_>>();
                // SAFETY: `used` rows of n floats come in, n go out.
                unsafe {
                    let out = got[0].as_mut_ptr();
                    (kernels.expert_sum)(x.as_ptr(), weights.as_ptr(), out, used, n);
                    (kernels.short_conv)(&rows(&x), &rows(&channels), got[1].as_mut_ptr(), n);
                }
                for (got, want) in got.iter().zip(&want) {
                    same_bits(&format!("{} n={n} {used}", kernels.name), got, want);
                }
            }
        }
    }
}

#[test]
fn products_of_columns_are_summed_in_runs_of_32_rows() {
    let mut random = Random(5);
    for rows in [0, 1, 31, 32, 33, 100] {
        let (x, y) = (random.floats(rows * TILE), random.floats(rows * TILE));
        let mut want = vec![1.5f64; TILE * TILE];
        for start in (0..rows).step_by(32) {
            for (i, sum) in want.iter_mut().enumerate() {
                let run = (start..rows.min(start + 32)).fold(0f32, |run, row| {
                    x[row * TILE + i / TILE].mul_add(y[row * TILE + i % TILE], run)
                });
                *sum += f64::from(run);
            }
        }
        for kernels in available() {
            let mut got = vec![1.5f64; TILE * TILE];
            // SAFETY: `rows` rows of TILE floats come in, the sums are TILE squared.
            unsafe { (kernels.gram)(x.as_ptr(), y.as_ptr(), rows, got.as_mut_ptr()) };
            assert!(
                got.iter().zip(&want).all(|(got, want)| got.to_bits() == want.to_bits()),
                "{} {rows}",
                kernels.name
            );
        }
    }
}

/// One head of the delta rule and its memory.
struct Head {
    memory: [Vec<f32>; 4],
    key_size: usize,
    value_size: usize,
}

/// Tokens of one head: q and k [n, key], v [n, value], decay and beta [n].
struct Tokens {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    decay: Vec<f32>,
    beta: Vec<f32>,
}

impl Head {
    fn new(key_size: usize, value_size: usize) -> Self {
        let width = value_size.next_multiple_of(LANES);
        // Memory before the first token must not matter.
        let floats =
            [key_size * width, key_size * CHUNK_TOKENS, CHUNK_TOKENS * width, CHUNK_TOKENS];
        Self { memory: floats.map(|n| vec![3.5f32; n]), key_size, value_size }
    }

    /// Runs all tokens, in runs of at most `sizes` in turn that end at the ends of chunks.
    fn run(&mut self, kernels: &Kernels, tokens: &Tokens, sizes: &[usize]) -> Vec<f32> {
        let (n, mut start) = (tokens.beta.len(), 0);
        let mut out = vec![0f32; n * self.value_size];
        let mut scratch = Vec::new();
        for &size in sizes.iter().cycle() {
            if start == n {
                return out;
            }
            let stop = n.min(start + size).min((start / CHUNK_TOKENS + 1) * CHUNK_TOKENS);
            let run: Vec<DeltaToken> = (start..stop)
                .map(|t| DeltaToken {
                    q: tokens.q[t * self.key_size..].as_ptr(),
                    k: tokens.k[t * self.key_size..].as_ptr(),
                    v: tokens.v[t * self.value_size..].as_ptr(),
                    out: out[t * self.value_size..].as_mut_ptr(),
                    decay: tokens.decay[t],
                    beta: tokens.beta[t],
                })
                .collect();
            let place =
                Place { position: start, fold: start > 0 && start.is_multiple_of(CHUNK_TOKENS) };
            let head = self.state();
            // SAFETY: the memory has the sizes that the state's fields say.
            unsafe { (kernels.delta_rule)(head, place, &run, &mut scratch) };
            start = stop;
        }
        unreachable!("the sizes repeat")
    }

    fn state(&mut self) -> DeltaState {
        let width = self.value_size.next_multiple_of(LANES);
        let [state, keys, updates, decays] = self.memory.each_mut().map(Vec::as_mut_ptr);
        DeltaState {
            state,
            keys,
            updates,
            decays,
            key_size: self.key_size,
            value_size: self.value_size,
            width,
            scale: 0.25,
        }
    }
}

/// The definition of the rule, in f64.
fn naive_delta(tokens: &Tokens, key_size: usize, value_size: usize) -> Vec<f64> {
    let mut state = vec![0f64; key_size * value_size];
    let mut out = Vec::new();
    for t in 0..tokens.beta.len() {
        let wide = |row: &[f32], size: usize| {
            row[t * size..][..size].iter().map(|&v| f64::from(v)).collect::<Vec<_>>()
        };
        let (q, k) = (wide(&tokens.q, key_size), wide(&tokens.k, key_size));
        let v = wide(&tokens.v, value_size);
        let (fade, beta) = (f64::from(tokens.decay[t]).exp(), f64::from(tokens.beta[t]));
        state.iter_mut().for_each(|s| *s *= fade);
        for j in 0..value_size {
            let predicted: f64 = (0..key_size).map(|d| state[d * value_size + j] * k[d]).sum();
            let update = beta * (v[j] - predicted);
            (0..key_size).for_each(|d| state[d * value_size + j] += k[d] * update);
            let read: f64 = (0..key_size).map(|d| state[d * value_size + j] * q[d]).sum();
            out.push(read * 0.25);
        }
    }
    out
}

#[test]
fn the_delta_rule_has_the_same_bits_everywhere_and_in_every_chunking() {
    let mut random = Random(5);
    for (key_size, value_size) in [(1, 1), (8, 16), (16, 5), (20, 33)] {
        let n = 2 * CHUNK_TOKENS + 7;
        let mild = |x: f32| x.clamp(-4.0, 4.0) / 8.0;
        let mut row = |size: usize| {
            random.floats(n * size).into_iter().map(move |x| mild(x) / (size as f32).sqrt() * 2.0)
        };
        let mut tokens = Tokens {
            q: row(key_size).collect(),
            k: row(key_size).collect(),
            v: row(value_size).collect(),
            decay: row(1).map(|x| -x.abs() / 4.0).collect(),
            beta: row(1).map(|x| x.abs() / 2.0).collect(),
        };
        tokens.decay[20] = -60.0;
        let want = Head::new(key_size, value_size).run(scalar(), &tokens, &[1]);
        for kernels in available() {
            for sizes in [&[1][..], &[n], &[2, 3], &[CHUNK_TOKENS], &[31, 1], &[5, 64, 1]] {
                let got = Head::new(key_size, value_size).run(kernels, &tokens, sizes);
                same_bits(&format!("{} {key_size} {sizes:?}", kernels.name), &got, &want);
            }
        }
        for (got, value) in want.iter().zip(naive_delta(&tokens, key_size, value_size)) {
            assert!((f64::from(*got) - value).abs() <= 1e-5, "{key_size}: {got} {value}");
        }
    }
}
