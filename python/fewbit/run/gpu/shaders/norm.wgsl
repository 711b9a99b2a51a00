// Norms over the heads of a row include this: HEADS heads of SIZE columns, one workgroup per head.

// include reduce

override SIZE: u32;
override HEADS: u32 = 1;
override EPS: f32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// First column of a workgroup's head in x, and in y.
fn x_start(workgroup_id: vec3u) -> u32 {
    return workgroup_id.y * STRIDE + OFFSET + workgroup_id.x * SIZE;
}
fn y_start(workgroup_id: vec3u) -> u32 {
    return (workgroup_id.y * HEADS + workgroup_id.x) * SIZE;
}

// The sum of (x - mean)^2.
fn squares(start: u32, mean: f32, lane: Lane) -> f32 {
    var sum = 0.0;
    for (var i = lane.index; i < SIZE; i += LANES) {
        let deviation = x[start + i] - mean;
        sum = fma(deviation, deviation, sum);
    }
    return workgroup_sum(vec4f(sum, 0, 0, 0), lane).x;
}
