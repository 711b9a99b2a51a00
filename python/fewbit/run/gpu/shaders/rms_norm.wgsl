// x / sqrt(mean(x^2) + eps) * weight over parts of SIZE. With ROUNDS, all that reads it would round it
// first, as round_activations.wgsl does: it is done here.

// include norm
// include rounding

override ROUNDS: bool = false;

@group(0) @binding(5) var<storage, read> weight: array<f32>;

@compute @workgroup_size(LANES)
fn rms_norm(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = start_of(group);
    let to = target_of(group);
    let root = sqrt(squares(start, 0, lane) / f32(SIZE) + EPS);
    if !ROUNDS {
        for (var i = lane.index; i < SIZE; i += LANES) {
            y[to + i] = x[start + i] / root * weight[i];
        }
        return;
    }
    for (var first = GROUP * lane.index; first < SIZE; first += GROUP * LANES) {
        let end = min(first + GROUP, SIZE);
        let span = first / SPAN * SPAN;
        var amax = 0.0;
        for (var i = span; i < min(span + SPAN, SIZE); i++) {
            amax = max(amax, abs(x[start + i] / root * weight[i]));
        }
        let by = rounding(amax);
        var sums = vec2i();
        for (var i = first; i < end; i += 4) {
            let a = vec4f(x[start + i], x[start + i + 1], x[start + i + 2], x[start + i + 3]);
            let w = vec4f(weight[i], weight[i + 1], weight[i + 2], weight[i + 3]);
            let four = a / root * w;
            if PACKED {
                sums += pack(group.y, SIZE, i, four, by);
            } else {
                for (var k = 0u; k < 4; k++) { y[to + i + k] = rounded(four[k], by); }
            }
        }
        if PACKED { pack_scale(group.y, SIZE, first, by.x, sums); }
    }
}
