// Op `delta_rule`: the gated delta rule; one workgroup for LANES columns of a head's state S.
//
//     S = exp(decay) S,   S += k u^T  with  u = beta (v - S^T k),   y = S^T q * SCALE
//
// One lane per column, token after token. S is updated once per chunk of CHUNK_TOKENS positions,
// counted from the start of the sequence. Until then the chunk keeps its keys k, updates u and
// summed decays G (the same order of operations as the CPU kernel, rust/kernels):
//
//     u_i = beta_i (v_i - exp(G_i) S^T k_i - sum over j < i of exp(G_i - G_j) (k_j k_i) u_j)
//     y_i = SCALE (exp(G_i) S^T q_i + sum over j <= i of exp(G_i - G_j) (k_j q_i) u_j)
//
// A chunk starts by updating S with the previous chunk:
//
//     S = exp(G) S + sum of exp(G - G_j) k_j u_j^T
//
// Two chunk states are stored and used in turn, so a new chunk overwrites the state from two chunks
// before: tokens of the last two chunks can be removed.

// include sequence

override HEADS: u32;
override KEY_HEADS: u32;
override KEY_SIZE: u32;
override VALUE_SIZE: u32;
override COLUMN_BLOCKS: u32;  // blocks of LANES columns in a head
override CHUNK_TOKENS: u32;
override SCALE: f32;
override INTERLEAVED: bool;  // head h reads key head h % KEY_HEADS, else h / (HEADS / KEY_HEADS)
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

// Offsets of S [KEY_SIZE, LANES], keys [KEY_SIZE, CHUNK_TOKENS], updates [CHUNK_TOKENS, LANES] and
// decays [CHUNK_TOKENS] of a chunk.
struct ChunkState { s: u32, keys: u32, updates: u32, decays: u32 }

fn chunk_state(block: u32, index: u32) -> ChunkState {
    let size = KEY_SIZE * LANES + KEY_SIZE * CHUNK_TOKENS + CHUNK_TOKENS * LANES + CHUNK_TOKENS;
    let s = (2 * block + index % 2) * size;
    let keys = s + KEY_SIZE * LANES;
    let updates = keys + KEY_SIZE * CHUNK_TOKENS;
    return ChunkState(s, keys, updates, updates + CHUNK_TOKENS * LANES);
}

var<workgroup> key: array<f32, KEY_SIZE>;
var<workgroup> query: array<f32, KEY_SIZE>;
var<workgroup> key_factors: array<f32, CHUNK_TOKENS>;
var<workgroup> query_factors: array<f32, CHUNK_TOKENS>;

@compute @workgroup_size(LANES)
fn delta_rule(
    @builtin(workgroup_id) workgroup_id: vec3u, @builtin(local_invocation_index) lane: u32
) {
    if !is_first_of_sequence(workgroup_id.y) { return; }
    let sequence = step[sequence_at(workgroup_id.y)];
    let block = sequence * HEADS * COLUMN_BLOCKS + workgroup_id.x;
    for (var t = workgroup_id.y; t < step[STEP_TOKENS]; t++) {
        if step[sequence_at(t)] != sequence { continue; }
        let position = step[position_at(t)];
        if position % CHUNK_TOKENS == 0 && position > 0 {
            let previous = chunk_state(block, position / CHUNK_TOKENS - 1);
            let next = chunk_state(block, position / CHUNK_TOKENS);
            update_state(previous, next, lane, position == CHUNK_TOKENS);
        }
        take_token(t, position, chunk_state(block, position / CHUNK_TOKENS), workgroup_id.x, lane);
    }
}

// Computes S of chunk `next` from chunk `previous`, whose own S is zero if it was the first.
fn update_state(previous: ChunkState, next: ChunkState, lane: u32, first: bool) {
    let total_decay = state[previous.decays + CHUNK_TOKENS - 1];
    for (var j = lane; j < CHUNK_TOKENS; j += LANES) {
        key_factors[j] = exp(total_decay - state[previous.decays + j]);
    }
    workgroupBarrier();
    let decay_factor = exp(total_decay);
    for (var d = 0u; d < KEY_SIZE; d++) {
        var sum = 0.0;
        if !first { sum = decay_factor * state[previous.s + d * LANES + lane]; }
        for (var j = 0u; j < CHUNK_TOKENS; j++) {
            let factor = key_factors[j] * state[previous.keys + d * CHUNK_TOKENS + j];
            sum = fma(factor, state[previous.updates + j * LANES + lane], sum);
        }
        state[next.s + d * LANES + lane] = sum;
    }
    workgroupBarrier();
}

fn take_token(t: u32, position: u32, chunk: ChunkState, head_block: u32, lane: u32) {
    let i = position % CHUNK_TOKENS;
    let head = head_block / COLUMN_BLOCKS;
    let key_head = select(head / (HEADS / KEY_HEADS), head % KEY_HEADS, INTERLEAVED);
    var summed_decay = decay[t * DECAY_STRIDE + DECAY_OFFSET + head];
    if i > 0 { summed_decay += state[chunk.decays + i - 1]; }
    for (var d = lane; d < KEY_SIZE; d += LANES) {
        key[d] = k[t * K_STRIDE + K_OFFSET + key_head * KEY_SIZE + d];
        query[d] = q[t * STRIDE + OFFSET + key_head * KEY_SIZE + d];
        state[chunk.keys + d * CHUNK_TOKENS + i] = key[d];
    }
    storageBarrier();
    workgroupBarrier();
    if lane == 0 { state[chunk.decays + i] = summed_decay; }
    for (var pair = lane; pair < 2 * CHUNK_TOKENS; pair += LANES) {
        let j = pair % CHUNK_TOKENS;
        if j > i { continue; }
        var decay_factor = 1.0;
        if j < i { decay_factor = exp(summed_decay - state[chunk.decays + j]); }
        var product = 0.0;
        for (var d = 0u; d < KEY_SIZE; d++) {
            let earlier = state[chunk.keys + d * CHUNK_TOKENS + j];
            product = fma(select(query[d], key[d], pair < CHUNK_TOKENS), earlier, product);
        }
        if pair < CHUNK_TOKENS {
            key_factors[j] = decay_factor * product;
        } else {
            query_factors[j] = decay_factor * product;
        }
    }
    workgroupBarrier();
    take_column(t, position, chunk, head_block, lane, summed_decay);
    storageBarrier();
    workgroupBarrier();
}

fn take_column(
    t: u32, position: u32, chunk: ChunkState, head_block: u32, lane: u32, summed_decay: f32
) {
    let i = position % CHUNK_TOKENS;
    let head = head_block / COLUMN_BLOCKS;
    let own_column = head_block % COLUMN_BLOCKS * LANES + lane;
    if own_column >= VALUE_SIZE { return; }
    var predicted = 0.0;
    var result = 0.0;
    if position >= CHUNK_TOKENS {
        for (var d = 0u; d < KEY_SIZE; d++) {
            let s = state[chunk.s + d * LANES + lane];
            predicted = fma(key[d], s, predicted);
            result = fma(query[d], s, result);
        }
        let decay_factor = exp(summed_decay);
        predicted *= decay_factor;
        result *= decay_factor;
    }
    for (var j = 0u; j < i; j++) {
        let u = state[chunk.updates + j * LANES + lane];
        predicted = fma(key_factors[j], u, predicted);
        result = fma(query_factors[j], u, result);
    }
    let value = v[t * V_STRIDE + V_OFFSET + head * VALUE_SIZE + own_column];
    let u = beta[t * BETA_STRIDE + BETA_OFFSET + head] * (value - predicted);
    state[chunk.updates + i * LANES + lane] = u;
    y[(t * HEADS + head) * VALUE_SIZE + own_column] = fma(query_factors[i], u, result) * SCALE;
}
