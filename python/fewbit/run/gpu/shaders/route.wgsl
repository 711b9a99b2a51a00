// The indices of the K largest of COUNT logits, the largest first, then their weights: their
// softmax, among all or, if NORMALIZE, among themselves. A workgroup does a row.

// include reduce
// include greatest

override NORMALIZE: bool;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn route(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = group.y * STRIDE + OFFSET;
    keep_greatest(start, lane.index);
    let peak = kept[0];
    var part = 0.0;
    if NORMALIZE {
        for (var k = lane.index; k < K; k += LANES) { part += exp(max(kept[k] - peak, -87)); }
    } else {
        for (var i = lane.index; i < COUNT; i += LANES) {
            part += exp(max(x[start + i] - peak, -87));
        }
    }
    let total = workgroup_sum(vec4f(part, 0, 0, 0), lane).x;
    for (var k = lane.index; k < K; k += LANES) {
        y[2 * group.y * K + k] = f32(kept_ids[k]);
        y[2 * group.y * K + K + k] = exp(max(kept[k] - peak, -87)) / total;
    }
}
