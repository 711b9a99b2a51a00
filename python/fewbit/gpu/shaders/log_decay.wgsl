// rate * ln(1 + exp(x + bias)); rows of WIDTH, an invocation an element.

override WIDTH: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> rate: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

// ln(1 + e) for 0 <= e <= 1, which loses no small e to the 1: 2 atanh(e / (2 + e)) as its series,
// whose first term left out is below 2e-8 of it.
fn log_1p(e: f32) -> f32 {
    let s = e / (2 + e);
    let z = s * s;
    var series = 1.0 / 13;
    series = fma(series, z, 1.0 / 11);
    series = fma(series, z, 1.0 / 9);
    series = fma(series, z, 1.0 / 7);
    series = fma(series, z, 1.0 / 5);
    series = fma(series, z, 1.0 / 3);
    return 2 * fma(series * z, s, s);
}

@compute @workgroup_size(LANES)
fn log_decay(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let v = x[id.y * STRIDE + OFFSET + id.x] + bias[id.x];
    y[id.y * WIDTH + id.x] = rate[id.x] * (max(v, 0) + log_1p(exp(max(-abs(v), -87))));
}
