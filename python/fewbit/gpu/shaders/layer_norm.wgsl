// (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias; a workgroup does a row of SIZE.

override SIZE: u32;
override EPS: f32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> weight: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

@compute @workgroup_size(LANES)
fn layer_norm(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = group.y * STRIDE + OFFSET;
    var sum = 0.0;
    for (var i = lane.index; i < SIZE; i += LANES) { sum += x[start + i]; }
    let mean = workgroup_sum(vec4f(sum, 0, 0, 0), lane).x / f32(SIZE);
    var squares = 0.0;
    for (var i = lane.index; i < SIZE; i += LANES) {
        let apart = x[start + i] - mean;
        squares = fma(apart, apart, squares);
    }
    let root = sqrt(workgroup_sum(vec4f(squares, 0, 0, 0), lane).x / f32(SIZE) + EPS);
    for (var i = lane.index; i < SIZE; i += LANES) {
        y[group.y * SIZE + i] = fma((x[start + i] - mean) / root, weight[i], bias[i]);
    }
}
