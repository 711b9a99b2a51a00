// -ln softmax(logits)[target] of rows of VOCAB, a workgroup a row: (nll, 1 if a logit is not
// finite, whose row is left to the host).

// include reduce
// include softmax
// include logarithm

override VOCAB: u32;

@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> found: array<vec4f>;
@group(0) @binding(5) var<storage, read> targets: array<u32>;

@compute @workgroup_size(LANES)
fn nll(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = group.y * VOCAB;
    var highest = LOWEST;
    var damage = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        let v = logits[start + i];
        damage = max(damage, damaged(v));
        highest = max(highest, v);
    }
    highest = workgroup_max(highest, lane);
    damage = workgroup_max(damage, lane);
    var rest = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        rest += exp_below(logits[start + i] - highest);
    }
    // the likeliest is 1 of the sum: what the others add to it is what counts where it is sure
    rest = max(workgroup_sum(vec4f(rest, 0, 0, 0), lane).x - 1, 0);
    if lane.index == 0 {
        let own = logits[start + targets[group.y]] - highest;
        found[group.y] = vec4f(log_of_1_and(rest) - own, damage, 0, 0);
    }
}
