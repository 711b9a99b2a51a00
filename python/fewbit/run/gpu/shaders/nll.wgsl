// Negative log-likelihood: -ln softmax(logits)[target] for rows of VOCAB, one workgroup per row.
//
// Result: (nll, 1 if a logit is not finite, 0, 0). The host computes the rows with such a logit.

// include reduce
// include softmax
// include logarithm

override VOCAB: u32;

@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> found: array<vec4f>;
@group(0) @binding(5) var<storage, read> targets: array<u32>;

@compute @workgroup_size(LANES)
fn nll(@builtin(workgroup_id) workgroup_id: vec3u, lane: Lane) {
    let start = workgroup_id.y * VOCAB;
    var highest = LOWEST;
    var any_not_finite = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        let v = logits[start + i];
        any_not_finite = max(any_not_finite, is_not_finite(v));
        highest = max(highest, v);
    }
    highest = workgroup_max(highest, lane);
    any_not_finite = workgroup_max(any_not_finite, lane);
    var others = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        others += exp_below(logits[start + i] - highest);
    }
    // the most likely token is exactly 1 of the sum; log_1p of the rest is accurate near certainty
    others = max(workgroup_sum(vec4f(others, 0, 0, 0), lane).x - 1, 0);
    if lane.index == 0 {
        let target_logit = logits[start + targets[workgroup_id.y]] - highest;
        found[workgroup_id.y] = vec4f(log_1p(others) - target_logit, any_not_finite, 0, 0);
    }
}
