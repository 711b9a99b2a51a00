// The gated delta rule: S = exp(decay) S, S += k u^T with u = beta (v - S^T k), y = S^T q * SCALE.
// A workgroup does LANES columns of one head's S, a lane a column, token after token.
//
// S stands still for a span of positions, counted from the sequence's start, and beside it a span
// keeps its keys k, updates u and summed decays G (as rust/kernels/delta.rs has it):
//
//     u_i = beta_i (v_i - exp(G_i) S^T k_i - sum over j < i of exp(G_i - G_j) (k_j k_i) u_j)
//     y_i = SCALE (exp(G_i) S^T q_i + sum over j <= i of exp(G_i - G_j) (k_j q_i) u_j)
//
// A span begins by folding the one before into S: exp(G) S + sum of exp(G - G_j) k_j u_j^T. Spans
// take turns with two places for all of this, so what a span overwrites is two spans back, and
// tokens of the last two can be taken back.

// include sequence

override HEADS: u32;
override KEY_HEADS: u32;
override KEY_SIZE: u32;
override VALUE_SIZE: u32;
override BLOCKS: u32;  // of LANES columns, that a head has
override SPAN: u32;
override SCALE: f32;
override TURNS: bool;  // key heads are dealt out, instead of each serving a run of heads
override K_STRIDE: u32;
override K_OFFSET: u32 = 0;
override V_STRIDE: u32;
override V_OFFSET: u32 = 0;
override DECAY_STRIDE: u32;
override DECAY_OFFSET: u32 = 0;
override BETA_STRIDE: u32;
override BETA_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> q: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> k: array<f32>;
@group(0) @binding(6) var<storage, read> v: array<f32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;
@group(0) @binding(8) var<storage, read> decay: array<f32>;
@group(0) @binding(9) var<storage, read> beta: array<f32>;
@group(0) @binding(10) var<storage, read_write> state: array<f32>;

// A place holds S [KEY_SIZE, LANES], keys [KEY_SIZE, SPAN], updates [SPAN, LANES], decays [SPAN].
struct At { s: u32, keys: u32, updates: u32, decays: u32 }

fn place(block: u32, span: u32) -> At {
    let size = KEY_SIZE * LANES + KEY_SIZE * SPAN + SPAN * LANES + SPAN;
    let s = (2 * block + span % 2) * size;
    let keys = s + KEY_SIZE * LANES;
    let updates = keys + KEY_SIZE * SPAN;
    return At(s, keys, updates, updates + SPAN * LANES);
}

var<workgroup> key: array<f32, KEY_SIZE>;
var<workgroup> query: array<f32, KEY_SIZE>;
var<workgroup> by_k: array<f32, SPAN>;
var<workgroup> by_q: array<f32, SPAN>;

@compute @workgroup_size(LANES)
fn delta_rule(
    @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32
) {
    if !is_first(group.y) { return; }
    let sequence = step[sequence_at(group.y)];
    let block = sequence * HEADS * BLOCKS + group.x;
    for (var t = group.y; t < step[STEP_TOKENS]; t++) {
        if step[sequence_at(t)] != sequence { continue; }
        let position = step[position_at(t)];
        if position % SPAN == 0 && position > 0 {
            fold(place(block, position / SPAN - 1), place(block, position / SPAN), lane,
                position == SPAN);
        }
        token(t, position, place(block, position / SPAN), group.x, lane);
    }
}

// S of the span `to` from that of the span `before`, which is zero if that was the first.
fn fold(before: At, to: At, lane: u32, first: bool) {
    let all = state[before.decays + SPAN - 1];
    for (var j = lane; j < SPAN; j += LANES) { by_k[j] = exp(all - state[before.decays + j]); }
    workgroupBarrier();
    let fade = exp(all);
    for (var d = 0u; d < KEY_SIZE; d++) {
        var sum = 0.0;
        if !first { sum = fade * state[before.s + d * LANES + lane]; }
        for (var j = 0u; j < SPAN; j++) {
            let factor = by_k[j] * state[before.keys + d * SPAN + j];
            sum = fma(factor, state[before.updates + j * LANES + lane], sum);
        }
        state[to.s + d * LANES + lane] = sum;
    }
    workgroupBarrier();
}

fn token(t: u32, position: u32, at: At, which: u32, lane: u32) {
    let i = position % SPAN;
    let head = which / BLOCKS;
    let key_head = select(head / (HEADS / KEY_HEADS), head % KEY_HEADS, TURNS);
    var summed = decay[t * DECAY_STRIDE + DECAY_OFFSET + head];
    if i > 0 { summed += state[at.decays + i - 1]; }
    for (var d = lane; d < KEY_SIZE; d += LANES) {
        key[d] = k[t * K_STRIDE + K_OFFSET + key_head * KEY_SIZE + d];
        query[d] = q[t * STRIDE + OFFSET + key_head * KEY_SIZE + d];
        state[at.keys + d * SPAN + i] = key[d];
    }
    storageBarrier();
    workgroupBarrier();
    if lane == 0 { state[at.decays + i] = summed; }
    for (var pair = lane; pair < 2 * SPAN; pair += LANES) {
        let j = pair % SPAN;
        if j > i { continue; }
        var fade = 1.0;
        if j < i { fade = exp(summed - state[at.decays + j]); }
        var by = 0.0;
        for (var d = 0u; d < KEY_SIZE; d++) {
            by = fma(select(query[d], key[d], pair < SPAN), state[at.keys + d * SPAN + j], by);
        }
        if pair < SPAN { by_k[j] = fade * by; } else { by_q[j] = fade * by; }
    }
    workgroupBarrier();
    column(t, position, at, which, lane, summed);
    storageBarrier();
    workgroupBarrier();
}

fn column(t: u32, position: u32, at: At, which: u32, lane: u32, summed: f32) {
    let i = position % SPAN;
    let head = which / BLOCKS;
    let own = which % BLOCKS * LANES + lane;
    if own >= VALUE_SIZE { return; }
    var seen = 0.0;
    var result = 0.0;
    if position >= SPAN {
        for (var d = 0u; d < KEY_SIZE; d++) {
            let s = state[at.s + d * LANES + lane];
            seen = fma(key[d], s, seen);
            result = fma(query[d], s, result);
        }
        let fade = exp(summed);
        seen *= fade;
        result *= fade;
    }
    for (var j = 0u; j < i; j++) {
        let u = state[at.updates + j * LANES + lane];
        seen = fma(by_k[j], u, seen);
        result = fma(by_q[j], u, result);
    }
    let wanted = v[t * V_STRIDE + V_OFFSET + head * VALUE_SIZE + own];
    let u = beta[t * BETA_STRIDE + BETA_OFFSET + head] * (wanted - seen);
    state[at.updates + i * LANES + lane] = u;
    y[(t * HEADS + head) * VALUE_SIZE + own] = fma(by_q[i], u, result) * SCALE;
}
