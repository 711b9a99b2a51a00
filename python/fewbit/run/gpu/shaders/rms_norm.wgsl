// Op `rms_norm`: x / sqrt(mean(x^2) + eps) * weight, for each head of SIZE columns.
//
// With ROUNDS it also rounds the result to 8 bits as round_activations.wgsl does, because every
// reader needs the rounded value.

// include norm
// include rounding

override ROUNDS: bool = false;

@group(0) @binding(5) var<storage, read> weight: array<f32>;

@compute @workgroup_size(LANES)
fn rms_norm(@builtin(workgroup_id) workgroup_id: vec3u, lane: Lane) {
    let start = x_start(workgroup_id);
    let to = y_start(workgroup_id);
    let root = sqrt(squares(start, 0, lane) / f32(SIZE) + EPS);
    if !ROUNDS {
        for (var i = lane.index; i < SIZE; i += LANES) {
            y[to + i] = x[start + i] / root * weight[i];
        }
        return;
    }
    for (var first = CHUNK * lane.index; first < SIZE; first += CHUNK * LANES) {
        let end = min(first + CHUNK, SIZE);
        let group_start = first / GROUP * GROUP;
        var amax = 0.0;
        for (var i = group_start; i < min(group_start + GROUP, SIZE); i++) {
            amax = max(amax, abs(x[start + i] / root * weight[i]));
        }
        let scales = scales_of(amax);
        var sums = vec2i();
        for (var i = first; i < end; i += 4) {
            let a = vec4f(x[start + i], x[start + i + 1], x[start + i + 2], x[start + i + 3]);
            let w = vec4f(weight[i], weight[i + 1], weight[i + 2], weight[i + 3]);
            let values = a / root * w;
            if PACKED {
                sums += pack_quad(workgroup_id.y, SIZE, i, values, scales);
            } else {
                for (var k = 0u; k < 4; k++) { y[to + i + k] = round_to_scale(values[k], scales); }
            }
        }
        if PACKED { pack_scale(workgroup_id.y, SIZE, first, scales.x, sums); }
    }
}
