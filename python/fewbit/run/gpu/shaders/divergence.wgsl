// How rows of VOCAB logits diverge from those of a base, a workgroup a row: (-ln p(target) of the
// base, -ln q(target), the sum of p (ln p - ln q), flags: 1 if both have the same top, plus 2 if a
// logit is not finite, whose row is left to the host).
//
// With d = ln p - ln q up to a constant and t = d less its mean under p, the divergence is
// ln(1 + sum of p (e^-t - 1 + t)): no term is negative, and nothing is lost to cancellation, however
// near the rows are.

// include reduce
// include softmax
// include logarithm

override VOCAB: u32;

@group(0) @binding(3) var<storage, read> base: array<f32>;
@group(0) @binding(4) var<storage, read_write> found: array<vec4f>;
@group(0) @binding(5) var<storage, read> targets: array<u32>;
@group(0) @binding(6) var<storage, read> logits: array<f32>;

@compute @workgroup_size(LANES)
fn divergence(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = group.y * VOCAB;
    var high_p = LOWEST;
    var high_q = LOWEST;
    var damage = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        damage = max(damage, max(damaged(base[start + i]), damaged(logits[start + i])));
        high_p = max(high_p, base[start + i]);
        high_q = max(high_q, logits[start + i]);
    }
    damage = workgroup_max(damage, lane);
    high_p = workgroup_max(high_p, lane);
    high_q = workgroup_max(high_q, lane);
    var sums = vec4f();  // of exp(a), of exp(b), of exp(a) (a - b)
    var top_p = VOCAB;
    var top_q = VOCAB;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        let a = base[start + i] - high_p;
        let b = logits[start + i] - high_q;
        if a == 0 { top_p = min(top_p, i); }
        if b == 0 { top_q = min(top_q, i); }
        let e = exp_below(a);
        sums += vec4f(e, exp_below(b), e * (a - b), 0);
    }
    sums = workgroup_sum(sums, lane);
    let first_p = workgroup_max(-f32(top_p), lane);
    let first_q = workgroup_max(-f32(top_q), lane);
    let mean = sums.z / sums.x;
    let log_p = log_of_1_and(max(sums.x - 1, 0));
    let log_q = log_of_1_and(max(sums.y - 1, 0));
    var apart = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        let a = base[start + i] - high_p;
        let b = logits[start + i] - high_q;
        apart += term(exp_below(a) / sums.x, a - b - mean, b + mean - log_p);
    }
    apart = workgroup_sum(vec4f(apart, 0, 0, 0), lane).x;
    if lane.index == 0 {
        let target_p = base[start + targets[group.y]] - high_p;
        let target_q = logits[start + targets[group.y]] - high_q;
        let flags = select(0.0, 1.0, first_p == first_q) + 2 * damage;
        found[group.y] = vec4f(
            log_p - target_p, log_q - target_q, log_of_1_and(apart), flags
        );
    }
}

// p (e^-t - 1 + t), where ln(p e^-t) is `exponent`.
fn term(p: f32, t: f32, exponent: f32) -> f32 {
    if abs(t) > 0.5 { return max(exp(clamp(exponent, -87, 87)) - p + p * t, 0); }
    var series = 1.0 / 40320;
    series = fma(series, t, -1.0 / 5040);
    series = fma(series, t, 1.0 / 720);
    series = fma(series, t, -1.0 / 120);
    series = fma(series, t, 1.0 / 24);
    series = fma(series, t, -1.0 / 6);
    series = fma(series, t, 0.5);
    return p * t * t * series;
}
