// x / sqrt(sum of x^2 + eps) over parts of SIZE; a workgroup does one part of one row.

override SIZE: u32;
override PARTS: u32 = 1;
override EPS: f32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn l2_norm(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = group.y * STRIDE + OFFSET + group.x * SIZE;
    let to = (group.y * PARTS + group.x) * SIZE;
    var squares = 0.0;
    for (var i = lane.index; i < SIZE; i += LANES) {
        squares = fma(x[start + i], x[start + i], squares);
    }
    let root = sqrt(workgroup_sum(vec4f(squares, 0, 0, 0), lane).x + EPS);
    for (var i = lane.index; i < SIZE; i += LANES) {
        y[to + i] = x[start + i] / root;
    }
}
