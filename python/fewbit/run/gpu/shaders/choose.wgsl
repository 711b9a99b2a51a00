// The next token from a row of logits, as python/fewbit/sampling.py has it: top-k, top-p, min-p,
// temperature, then one draw. One workgroup; the token becomes the next step's, a position on. K = 1 is
// greedy. A logit that is NaN or +inf makes the token NONE.

// include greatest

override TOP_P: f32 = 1;
override MIN_LOG: f32 = -3e38;  // the logarithm of min-p
override TEMPERATURE: f32 = 1;
override RING: u32;

@group(0) @binding(4) var<storage, read_write> history: array<u32>;
@group(0) @binding(5) var<storage, read> draws: array<f32>;  // from 0 to 1, one for each token
@group(0) @binding(7) var<storage, read_write> step: array<u32>;

const STEP_COUNT: u32 = 2;

@compute @workgroup_size(LANES)
fn choose(@builtin(local_invocation_index) lane: u32) {
    var wrong = 0u;
    for (var i = lane; i < COUNT; i += LANES) {
        let bits = bitcast<u32>(x[i]);
        if (bits & 0x7f800000) == 0x7f800000 && bits != 0xff800000 { wrong = 1; }
    }
    ids[lane] = wrong;
    workgroupBarrier();
    var damaged = 0u;
    for (var i = 0u; i < LANES; i++) { damaged |= ids[i]; }
    workgroupBarrier();
    keep_greatest(0, lane);
    if lane == 0 {
        var token = NONE;
        if damaged == 0 { token = kept_ids[draw()]; }
        history[step[STEP_COUNT] % RING] = token;
        step[token_at(0)] = select(token, 0, token == NONE);
        step[position_at(0)] += 1;
        step[STEP_COUNT] += 1;
    }
}

// Which of the candidates, after the filters.
fn draw() -> u32 {
    var count = K;
    if TOP_P < 1 {
        var total = 0.0;
        for (var i = 0u; i < count; i++) { total += exp(kept[i] - kept[0]); }
        var reached = 0.0;
        for (var i = 0u; i < count; i++) {
            reached += exp(kept[i] - kept[0]);
            if reached >= TOP_P * total { count = i + 1; }
        }
    }
    while count > 1 && kept[count - 1] - kept[0] < MIN_LOG { count--; }
    var total = 0.0;
    for (var i = 0u; i < count; i++) { total += exp((kept[i] - kept[0]) / TEMPERATURE); }
    let wanted = draws[step[STEP_COUNT] % RING] * total;
    var reached = 0.0;
    for (var i = 0u; i < count; i++) {
        reached += exp((kept[i] - kept[0]) / TEMPERATURE);
        if reached > wanted { return i; }
    }
    return count - 1;
}
