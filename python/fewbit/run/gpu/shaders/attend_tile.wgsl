// Op `attend` for prompts: one workgroup for 32 queries that share a key/value head.
//
// The 32 queries are those of some heads of some tokens. Positions are read in blocks of 64, and
// each key and each value is loaded once for all 32 queries. 16 columns of all keys of a block are
// in workgroup memory at a time, then 16 positions of 64 columns of the values: 15 KB for heads of
// any size. An invocation holds the scores of four queries at four positions, then four columns of
// every 64 of the four queries' sums. If the tokens belong to several sequences, the workgroup
// attends to one sequence after the other, and masks the queries of the others. A head has up to
// 512 columns.

// include attention

const ROWS: u32 = 32;
const BLOCK: u32 = 64;
const DEPTH: u32 = 16;
const LANES_ACROSS: u32 = 16;  // invocations that share four queries
const SEGMENTS: u32 = 8;  // of 64 columns of a head
const ROW_PITCH: u32 = ROWS / 4 + 1;  // vectors per column; one more avoids bank conflicts
const PITCH: u32 = BLOCK / 4 + 1;

var<workgroup> left: array<vec4f, DEPTH * ROW_PITCH>;  // queries by column; or highest scores, sums
var<workgroup> right: array<vec4f, DEPTH * PITCH>;     // keys by column; or rows of values
var<workgroup> probabilities: array<vec4f, BLOCK * ROWS / 4>;  // of four queries at a position

// For the four queries of this invocation: the highest score so far, the sum of the probabilities
// at its own positions, and the sums of the weighted values, four columns each.
var<private> highest: vec4f;
var<private> total: vec4f;
var<private> sums: array<vec4f, 4 * SEGMENTS>;

@compute @workgroup_size(128)
fn attend_tile(
    @builtin(workgroup_id) workgroup_id: vec3u, @builtin(local_invocation_index) index: u32
) {
    let tokens = step[STEP_TOKENS];
    let row = workgroup_id.y * ROWS;  // query of this key/value head, counted token by token
    let begin = token_of(row);
    let end = min(token_of(row + ROWS - 1) + 1, tokens);
    let across = index % LANES_ACROSS;
    let first_query = row + 4 * (index / LANES_ACROSS);
    highest = vec4f(LOWEST);
    if HAS_SINKS {  // a sink is a score without a value; it starts as the highest
        for (var t = 0u; t < 4; t++) {
            highest[t] = sinks[head_of(first_query + t, workgroup_id.x)];
        }
        total = vec4f(select(0.0, 1.0, across == 0));
    }
    for (var token = begin; token < end; token++) {
        if is_first_of(token, begin) { attend_sequence(workgroup_id.x, row, token, end, index); }
    }
    let sum = workgroup_total(index);
    let quads = SIZE / 4;
    for (var t = 0u; t < 4; t++) {
        if token_of(first_query + t) >= tokens { break; }
        let head = head_of(first_query + t, workgroup_id.x);
        let to = (token_of(first_query + t) * HEADS + head) * quads;
        for (var i = across; i < quads; i += LANES_ACROSS) {
            y[to + i] = sums[4 * (i / LANES_ACROSS) + t] / sum[t];
        }
    }
}

// The token and the head of query `row` of a key/value head.
fn token_of(row: u32) -> u32 { return row / (HEADS / KV_HEADS); }
fn head_of(row: u32, kv_head: u32) -> u32 {
    return kv_head * (HEADS / KV_HEADS) + row % (HEADS / KV_HEADS);
}

// True if `token` is the first of its sequence from token `begin` on.
fn is_first_of(token: u32, begin: u32) -> bool {
    for (var t = token; t > begin; t--) {
        if step[sequence_at(t - 1)] == step[sequence_at(token)] { return false; }
    }
    return true;
}

// The first position that a token attends to.
fn first_seen(position: u32) -> u32 {
    return select(0u, position + 1 - WINDOW, WINDOW > 0 && position + 1 > WINDOW);
}

// Attends from the 32 queries from `row` on to the sequence of `token`, its first token here.
fn attend_sequence(kv_head: u32, row: u32, token: u32, end: u32, index: u32) {
    let sequence = step[sequence_at(token)];
    let low = step[position_at(token)];  // a sequence's positions ascend in a step
    var high = low;
    for (var t = token + 1; t < end; t++) {
        if step[sequence_at(t)] == sequence { high = step[position_at(t)]; }
    }
    let first_query = row + 4 * (index / LANES_ACROSS);
    var seen_from = vec4u();
    var seen_to = vec4u();  // no position for queries of other sequences
    for (var t = 0u; t < 4; t++) {
        let mine = token_of(first_query + t);
        if mine < end && step[sequence_at(mine)] == sequence {
            let position = step[position_at(mine)];
            seen_from[t] = first_seen(position);
            seen_to[t] = position + 1;
        }
    }
    let start = sequence * CAPACITY;
    for (var block = first_seen(low); block <= high; block += BLOCK) {
        let count = min(BLOCK, high + 1 - block);
        let at = (start + block) * KV_HEADS + kv_head;
        let first = block + 4 * (index % LANES_ACROSS);
        let scores = score(kv_head, row, at, count, index);
        let rescale = to_probabilities(scores, at, first, count, seen_from, seen_to, index);
        add_values(at, count, rescale, index);
    }
}

// Dot products of an invocation's four queries with its four keys.
fn score(kv_head: u32, row: u32, at: u32, count: u32, index: u32) -> mat4x4f {
    var found: mat4x4f;
    for (var depth = 0u; depth < SIZE / 4; depth += DEPTH / 4) {
        load(kv_head, row, at, count, depth, index);
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            let a = left[k * ROW_PITCH + index / LANES_ACROSS];
            let b = right[k * PITCH + index % LANES_ACROSS];
            found[0] = fma(vec4f(b.x), a, found[0]);
            found[1] = fma(vec4f(b.y), a, found[1]);
            found[2] = fma(vec4f(b.z), a, found[2]);
            found[3] = fma(vec4f(b.w), a, found[3]);
        }
        workgroupBarrier();
    }
    return found;
}

// Loads 16 columns, from column 4 * depth on, of the block's keys and of the queries. An invocation
// loads four columns of four rows; neighbours load neighbouring columns of the same rows.
fn load(kv_head: u32, row: u32, at: u32, count: u32, depth: u32, index: u32) {
    let column = depth + index % 4;
    let inside = column < SIZE / 4;
    var quad: mat4x4f;
    if index < BLOCK {
        let k = index / 4 * 4;
        for (var e = 0u; e < 4; e++) {
            if k + e < count && inside { quad[e] = key4(at + (k + e) * KV_HEADS, column); }
        }
        quad = transpose(quad);
        for (var e = 0u; e < 4; e++) { right[(4 * (index % 4) + e) * PITCH + k / 4] = quad[e]; }
    } else if index < BLOCK + ROWS {
        let r = (index - BLOCK) / 4 * 4;
        for (var e = 0u; e < 4; e++) {
            let token = token_of(row + r + e);
            let start = token * STRIDE + OFFSET + head_of(row + r + e, kv_head) * SIZE;
            if token < step[STEP_TOKENS] && inside { quad[e] = q[start / 4 + column] * SCALE; }
        }
        quad = transpose(quad);
        for (var e = 0u; e < 4; e++) { left[(4 * (index % 4) + e) * ROW_PITCH + r / 4] = quad[e]; }
    }
}

// Turns scores into probabilities; the result is the factor for the sums of the earlier blocks.
fn to_probabilities(
    scores: mat4x4f, at: u32, first: u32, count: u32, seen_from: vec4u, seen_to: vec4u, index: u32,
) -> vec4f {
    let across = index % LANES_ACROSS;
    let down = index / LANES_ACROSS;
    var scaled: array<vec4f, 4>;
    var block_highest = vec4f(LOWEST);
    for (var j = 0u; j < 4; j++) {
        scaled[j] = vec4f(LOWEST);
        if 4 * across + j < count {
            let sees = (vec4u(first + j) >= seen_from) & (vec4u(first + j) < seen_to);
            let scale = key_scale(at + (4 * across + j) * KV_HEADS);
            scaled[j] = select(vec4f(LOWEST), scores[j] * scale, sees);
        }
        block_highest = max(block_highest, scaled[j]);
    }
    left[across * (ROWS / 4) + down] = block_highest;
    workgroupBarrier();
    var new_highest = highest;
    for (var i = 0u; i < LANES_ACROSS; i++) {
        new_highest = max(new_highest, left[i * (ROWS / 4) + down]);
    }
    let rescale = exp(max(highest - new_highest, vec4f(-87)));
    highest = new_highest;
    total *= rescale;
    for (var j = 0u; j < 4; j++) {
        let p = select(vec4f(), exp(scaled[j] - new_highest), scaled[j] > vec4f(LOWEST));
        total += p;
        var scale = 0.0;
        if 4 * across + j < count { scale = value_scale(at + (4 * across + j) * KV_HEADS); }
        probabilities[(4 * across + j) * (ROWS / 4) + down] = p * scale;
    }
    return rescale;
}

// Multiplies the sums by `rescale` and adds the block's values, weighted by their probabilities.
fn add_values(at: u32, count: u32, rescale: vec4f, index: u32) {
    let quads = SIZE / 4;
    let across = index % LANES_ACROSS;
    let down = index / LANES_ACROSS;
    for (var i = 0u; i < quads; i += 16) {
        let segment = i / 4;
        var a = sums[segment] * rescale.x;
        var b = sums[segment + 1] * rescale.y;
        var c = sums[segment + 2] * rescale.z;
        var d = sums[segment + 3] * rescale.w;
        for (var depth = 0u; depth < count; depth += DEPTH) {
            for (var k = down; k < DEPTH; k += ROWS / 4) {
                var v = vec4f();
                if depth + k < count && i + across < quads {
                    v = value4(at + (depth + k) * KV_HEADS, i + across);
                }
                right[k * PITCH + across] = v;
            }
            workgroupBarrier();
            for (var k = 0u; k < DEPTH; k++) {
                let p = probabilities[(depth + k) * (ROWS / 4) + down];
                let v = right[k * PITCH + across];
                a = fma(vec4f(p.x), v, a);
                b = fma(vec4f(p.y), v, b);
                c = fma(vec4f(p.z), v, c);
                d = fma(vec4f(p.w), v, d);
            }
            workgroupBarrier();
        }
        sums[segment] = a;
        sums[segment + 1] = b;
        sums[segment + 2] = c;
        sums[segment + 3] = d;
    }
}

// The sums of the probabilities of four queries over all positions.
fn workgroup_total(index: u32) -> vec4f {
    let down = index / LANES_ACROSS;
    left[index % LANES_ACROSS * (ROWS / 4) + down] = total;
    workgroupBarrier();
    var sum = vec4f();
    for (var i = 0u; i < LANES_ACROSS; i++) { sum += left[i * (ROWS / 4) + down]; }
    return sum;
}
