// The next token from a row of logits, as python/fewbit/sampling.py has it: top-k, top-p, min-p,
// temperature, then one draw. One workgroup; the token becomes the next step's, a position on.
//
// The likeliest tokens are found one after the other, each the greatest of those behind the last
// in order of logit, then of id; so nothing is sorted and no copy is made. K = 1 is greedy. A logit
// that is NaN or +inf makes the token NONE.

override VOCAB: u32;
override K: u32;  // at most 256
override TOP_P: f32 = 1;
override MIN_LOG: f32 = -3e38;  // the logarithm of min-p
override TEMPERATURE: f32 = 1;
override RING: u32;

@group(0) @binding(3) var<storage, read> logits: array<f32>;
@group(0) @binding(4) var<storage, read_write> history: array<u32>;
@group(0) @binding(5) var<storage, read> draws: array<f32>;  // from 0 to 1, one for each token
@group(0) @binding(7) var<storage, read_write> step: array<u32>;

const STEP_COUNT: u32 = 2;
const NONE: u32 = 0xffffffff;
const SIZE: u32 = 256;

var<workgroup> ids: array<u32, SIZE>;
var<workgroup> bests: array<f32, SIZE>;
var<workgroup> kept_ids: array<u32, SIZE>;
var<workgroup> kept: array<f32, SIZE>;

@compute @workgroup_size(256)
fn choose(@builtin(local_invocation_index) lane: u32) {
    var wrong = 0u;
    for (var i = lane; i < VOCAB; i += SIZE) {
        let bits = bitcast<u32>(logits[i]);
        if (bits & 0x7f800000) == 0x7f800000 && bits != 0xff800000 { wrong = 1; }
    }
    ids[lane] = wrong;
    workgroupBarrier();
    var damaged = 0u;
    for (var i = 0u; i < SIZE; i++) { damaged |= ids[i]; }
    workgroupBarrier();
    for (var k = 0u; k < min(K, VOCAB); k++) {
        find(lane, k);
    }
    workgroupBarrier();
    if lane == 0 {
        var token = NONE;
        if damaged == 0 { token = kept_ids[draw(min(K, VOCAB))]; }
        history[step[STEP_COUNT] % RING] = token;
        step[token_at(0)] = select(token, 0, token == NONE);
        step[position_at(0)] += 1;
        step[STEP_COUNT] += 1;
    }
}

// Candidate k: the greatest logit behind candidate k - 1, the lowest id of equals.
fn find(lane: u32, k: u32) {
    var best = NONE;
    var highest = 0.0;
    for (var i = lane; i < VOCAB; i += SIZE) {
        let v = logits[i];
        var behind = k == 0;
        if k > 0 {
            let last = kept[k - 1];
            behind = v < last || (v == last && i > kept_ids[k - 1]);
        }
        if behind && (best == NONE || v > highest) { best = i; highest = v; }
    }
    ids[lane] = best;
    bests[lane] = highest;
    for (var half = SIZE / 2; half > 0; half >>= 1) {
        workgroupBarrier();
        if lane < half {
            let other = ids[lane + half];
            let v = bests[lane + half];
            let own = ids[lane];
            if other != NONE
                && (own == NONE || v > bests[lane] || (v == bests[lane] && other < own)) {
                ids[lane] = other;
                bests[lane] = v;
            }
        }
    }
    workgroupBarrier();
    if lane == 0 { kept_ids[k] = ids[0]; kept[k] = bests[0]; }
    workgroupBarrier();
}

// Which of the candidates, after the filters.
fn draw(found: u32) -> u32 {
    var count = found;
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
