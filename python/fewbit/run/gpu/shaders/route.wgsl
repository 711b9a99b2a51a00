// Op `route`: the indices of the K largest of COUNT logits, largest first, then their weights.
//
// A weight is a softmax probability, over all logits or, with NORMALIZE, over the K largest. One
// workgroup per row.

// include reduce
// include top_k

override NORMALIZE: bool;

@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn route(@builtin(workgroup_id) workgroup_id: vec3u, lane: Lane) {
    let start = workgroup_id.y * STRIDE + OFFSET;
    find_top_k(start, lane.index);
    let highest = top_values[0];
    var sum = 0.0;
    if NORMALIZE {
        for (var k = lane.index; k < K; k += LANES) {
            sum += exp(max(top_values[k] - highest, -87));
        }
    } else {
        for (var i = lane.index; i < COUNT; i += LANES) {
            sum += exp(max(x[start + i] - highest, -87));
        }
    }
    let total = workgroup_sum(vec4f(sum, 0, 0, 0), lane).x;
    for (var k = lane.index; k < K; k += LANES) {
        y[2 * workgroup_id.y * K + k] = f32(top_ids[k]);
        y[2 * workgroup_id.y * K + K + k] = exp(max(top_values[k] - highest, -87)) / total;
    }
}
