// x / sqrt(mean(x^2) + eps) * weight over parts of SIZE; a workgroup does one part of one row. With
// ROUNDS, all that reads it would round it first, as round_activations.wgsl does: it is done here.

override SIZE: u32;
override PARTS: u32 = 1;
override EPS: f32;
override ROUNDS: bool = false;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> weight: array<f32>;

@compute @workgroup_size(LANES)
fn rms_norm(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = group.y * STRIDE + OFFSET + group.x * SIZE;
    let to = (group.y * PARTS + group.x) * SIZE;
    var squares = 0.0;
    for (var i = lane.index; i < SIZE; i += LANES) {
        squares = fma(x[start + i], x[start + i], squares);
    }
    let sum = workgroup_sum(vec4f(squares, 0, 0, 0), lane).x;
    let root = sqrt(sum / f32(SIZE) + EPS);
    if !ROUNDS {
        for (var i = lane.index; i < SIZE; i += LANES) {
            y[to + i] = x[start + i] / root * weight[i];
        }
        return;
    }
    for (var first = GROUP * lane.index; first < SIZE; first += GROUP * LANES) {
        let end = min(first + GROUP, SIZE);
        var amax = 0.0;
        for (var i = first; i < end; i++) {
            amax = max(amax, abs(x[start + i] / root * weight[i]));
        }
        let by = rounding(amax);
        for (var i = first; i < end; i += 4) {
            let a = vec4f(x[start + i], x[start + i + 1], x[start + i + 2], x[start + i + 3]);
            let w = vec4f(weight[i], weight[i + 1], weight[i + 2], weight[i + 3]);
            let four = a / root * w;
            for (var k = 0u; k < 4; k++) { y[to + i + k] = rounded(four[k], by); }
            pack(group.y, SIZE, i, four, by);
        }
    }
}
