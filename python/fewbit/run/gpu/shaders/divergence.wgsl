// KL divergence of rows of VOCAB logits from the rows of a base model, one workgroup per row.
//
// Result: (-ln p(target) of the base, -ln q(target), sum of p (ln p - ln q), flags). Flag 1: both
// have the same most likely token. Flag 2: a logit is not finite, and the host computes the row.
//
// With d = ln p - ln q up to a constant and t = d minus its mean under p, the divergence is
// ln(1 + sum of p (e^-t - 1 + t)). No term is negative, so nothing cancels, however close the rows.

// include reduce
// include softmax
// include logarithm

override VOCAB: u32;

@group(0) @binding(3) var<storage, read> base: array<f32>;
@group(0) @binding(4) var<storage, read_write> found: array<vec4f>;
@group(0) @binding(5) var<storage, read> targets: array<u32>;
@group(0) @binding(6) var<storage, read> logits: array<f32>;

@compute @workgroup_size(LANES)
fn divergence(@builtin(workgroup_id) workgroup_id: vec3u, lane: Lane) {
    let start = workgroup_id.y * VOCAB;
    var high_p = LOWEST;
    var high_q = LOWEST;
    var any_not_finite = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        let p = is_not_finite(base[start + i]);
        let q = is_not_finite(logits[start + i]);
        any_not_finite = max(any_not_finite, max(p, q));
        high_p = max(high_p, base[start + i]);
        high_q = max(high_q, logits[start + i]);
    }
    any_not_finite = workgroup_max(any_not_finite, lane);
    high_p = workgroup_max(high_p, lane);
    high_q = workgroup_max(high_q, lane);
    var sums = vec4f();  // of exp(a), exp(b), exp(a) (a - b)
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
    let log_p = log_1p(max(sums.x - 1, 0));
    let log_q = log_1p(max(sums.y - 1, 0));
    var kl_sum = 0.0;
    for (var i = lane.index; i < VOCAB; i += LANES) {
        let a = base[start + i] - high_p;
        let b = logits[start + i] - high_q;
        kl_sum += term(exp_below(a) / sums.x, a - b - mean, b + mean - log_p);
    }
    kl_sum = workgroup_sum(vec4f(kl_sum, 0, 0, 0), lane).x;
    if lane.index == 0 {
        let target_p = base[start + targets[workgroup_id.y]] - high_p;
        let target_q = logits[start + targets[workgroup_id.y]] - high_q;
        let flags = select(0.0, 1.0, first_p == first_q) + 2 * any_not_finite;
        found[workgroup_id.y] = vec4f(
            log_p - target_p, log_q - target_q, log_1p(kl_sum), flags
        );
    }
}

// p (e^-t - 1 + t), with `exponent` = ln(p e^-t); by its series for small t.
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
