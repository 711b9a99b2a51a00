// Op `layer_norm`: (x - mean) / sqrt(mean((x - mean)^2) + eps) * weight + bias, over a row.

// include norm

@group(0) @binding(5) var<storage, read> weight: array<f32>;
@group(0) @binding(6) var<storage, read> bias: array<f32>;

@compute @workgroup_size(LANES)
fn layer_norm(@builtin(workgroup_id) workgroup_id: vec3u, lane: Lane) {
    let start = x_start(workgroup_id);
    var sum = 0.0;
    for (var i = lane.index; i < SIZE; i += LANES) { sum += x[start + i]; }
    let mean = workgroup_sum(vec4f(sum, 0, 0, 0), lane).x / f32(SIZE);
    let root = sqrt(squares(start, mean, lane) / f32(SIZE) + EPS);
    for (var i = lane.index; i < SIZE; i += LANES) {
        y[y_start(workgroup_id) + i] = fma((x[start + i] - mean) / root, weight[i], bias[i]);
    }
}
