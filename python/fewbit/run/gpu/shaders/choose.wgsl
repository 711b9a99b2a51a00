// Chooses the next token from a row of logits and makes it the token of the next step.
//
// The filters and the order are those of run/sampling.py: top-k, top-p, min-p, temperature, then
// one random draw. K = 1 is greedy. One workgroup. A logit that is NaN or +inf gives the token
// NONE.

// include top_k

override TOP_P: f32 = 1;
override LOG_MIN_P: f32 = -3e38;  // the logarithm of min-p
override TEMPERATURE: f32 = 1;
override RING: u32;

@group(0) @binding(4) var<storage, read_write> history: array<u32>;
@group(0) @binding(5) var<storage, read> draws: array<f32>;  // uniform in 0..1, one per token
@group(0) @binding(7) var<storage, read_write> step: array<u32>;

const STEP_COUNT: u32 = 2;

@compute @workgroup_size(LANES)
fn choose(@builtin(local_invocation_index) lane: u32) {
    var not_finite = 0u;
    for (var i = lane; i < COUNT; i += LANES) {
        let bits = bitcast<u32>(x[i]);
        if (bits & 0x7f800000) == 0x7f800000 && bits != 0xff800000 { not_finite = 1; }
    }
    best_ids[lane] = not_finite;
    workgroupBarrier();
    var any_not_finite = 0u;
    for (var i = 0u; i < LANES; i++) { any_not_finite |= best_ids[i]; }
    workgroupBarrier();
    find_top_k(0, lane);
    if lane == 0 {
        var token = NONE;
        if any_not_finite == 0 { token = top_ids[draw_candidate()]; }
        history[step[STEP_COUNT] % RING] = token;
        step[token_at(0)] = select(token, 0, token == NONE);
        step[position_at(0)] += 1;
        step[STEP_COUNT] += 1;
    }
}

// Filters the candidates and draws one of them.
fn draw_candidate() -> u32 {
    var count = K;
    if TOP_P < 1 {
        var total = 0.0;
        for (var i = 0u; i < count; i++) { total += exp(top_values[i] - top_values[0]); }
        var cumulative = 0.0;
        for (var i = 0u; i < count; i++) {
            cumulative += exp(top_values[i] - top_values[0]);
            if cumulative >= TOP_P * total { count = i + 1; }
        }
    }
    while count > 1 && top_values[count - 1] - top_values[0] < LOG_MIN_P { count--; }
    var total = 0.0;
    for (var i = 0u; i < count; i++) {
        total += exp((top_values[i] - top_values[0]) / TEMPERATURE);
    }
    let threshold = draws[step[STEP_COUNT] % RING] * total;
    var cumulative = 0.0;
    for (var i = 0u; i < count; i++) {
        cumulative += exp((top_values[i] - top_values[0]) / TEMPERATURE);
        if cumulative > threshold { return i; }
    }
    return count - 1;
}
