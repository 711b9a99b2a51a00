// `attend` for many tokens of few sequences: a workgroup for 32 queries that share a key/value
// head, some heads of some tokens.
//
// Positions go by in blocks of 64, and each key and value is loaded once for all 32 queries. Of a
// block 16 columns of all keys are in workgroup memory at a time, then 16 positions of 64 columns
// of the values: 15 KB for heads of any size. An invocation keeps the scores of four queries with
// four positions, and after them four columns of each 64 of the four queries' sums. Where tokens
// belong to several sequences, each sequence is walked in turn, its queries alone seeing it.
// Heads have up to 512 columns.

// include attention

const ROWS: u32 = 32;
const BLOCK: u32 = 64;
const DEPTH: u32 = 16;
const LANES_ACROSS: u32 = 16;  // invocations that share four queries
const CHUNKS: u32 = 8;         // of 64 columns
const ROW_PITCH: u32 = ROWS / 4 + 1;  // vectors from column to column: one more spreads the banks
const PITCH: u32 = BLOCK / 4 + 1;

var<workgroup> left: array<vec4f, DEPTH * ROW_PITCH>;  // queries column by column; or maxima, totals
var<workgroup> right: array<vec4f, DEPTH * PITCH>;     // keys column by column; or rows of values
var<workgroup> shares: array<vec4f, BLOCK * ROWS / 4>; // of four queries in a position's value

// Of this invocation's four queries: the largest score so far, the sum of the shares of its own
// positions, and the values summed by all shares, column by column of four.
var<private> highest: vec4f;
var<private> total: vec4f;
var<private> sums: array<vec4f, 4 * CHUNKS>;

@compute @workgroup_size(128)
fn attend_tile(
    @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) index: u32
) {
    let tokens = step[STEP_TOKENS];
    let row = group.y * ROWS;  // of this key/value head's queries, token by token
    let begin = token_of(row);
    let end = min(token_of(row + ROWS - 1) + 1, tokens);
    let across = index % LANES_ACROSS;
    let own = row + 4 * (index / LANES_ACROSS);
    highest = vec4f(LOWEST);
    if SINKS {  // a score without a value, which is first of all the largest
        for (var t = 0u; t < 4; t++) {
            highest[t] = sinks[head_of(own + t, group.x)];
        }
        total = vec4f(select(0.0, 1.0, across == 0));
    }
    for (var token = begin; token < end; token++) {
        if is_first_of(token, begin) { walk(group.x, row, token, end, index); }
    }
    let sum = workgroup_total(index);
    let quads = SIZE / 4;
    for (var t = 0u; t < 4; t++) {
        if token_of(own + t) >= tokens { break; }
        let to = (token_of(own + t) * HEADS + head_of(own + t, group.x)) * quads;
        for (var i = across; i < quads; i += LANES_ACROSS) {
            y[to + i] = sums[4 * (i / LANES_ACROSS) + t] / sum[t];
        }
    }
}

// Query `row` of a key/value head belongs to this token and head.
fn token_of(row: u32) -> u32 { return row / (HEADS / KV_HEADS); }
fn head_of(row: u32, kv_head: u32) -> u32 {
    return kv_head * (HEADS / KV_HEADS) + row % (HEADS / KV_HEADS);
}

// Whether no token from `begin` on belongs to the sequence of `token`.
fn is_first_of(token: u32, begin: u32) -> bool {
    for (var t = token; t > begin; t--) {
        if step[sequence_at(t - 1)] == step[sequence_at(token)] { return false; }
    }
    return true;
}

// The first position that a token sees.
fn first_seen(position: u32) -> u32 {
    return select(0u, position + 1 - WINDOW, WINDOW > 0 && position + 1 > WINDOW);
}

// Take in what the queries from `row` on see of the sequence of `token`, the first of it.
fn walk(kv_head: u32, row: u32, token: u32, end: u32, index: u32) {
    let sequence = step[sequence_at(token)];
    let low = step[position_at(token)];  // a sequence's positions ascend in a step
    var high = low;
    for (var t = token + 1; t < end; t++) {
        if step[sequence_at(t)] == sequence { high = step[position_at(t)]; }
    }
    let own = row + 4 * (index / LANES_ACROSS);
    var seen_from = vec4u();
    var seen_to = vec4u();  // nothing, for other sequences
    for (var t = 0u; t < 4; t++) {
        let mine = token_of(own + t);
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
        let shrink = share(scores, at, first, count, seen_from, seen_to, index);
        add_values(at, count, shrink, index);
    }
}

// Products of four queries with each of the four keys of an invocation.
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

// 16 columns from four `depth` on of the block's keys and of the queries, four by four: the fours
// of a row lie side by side, so neighbours take these.
fn load(kv_head: u32, row: u32, at: u32, count: u32, depth: u32, index: u32) {
    let column = depth + index % 4;
    let inside = column < SIZE / 4;
    var four: mat4x4f;
    if index < BLOCK {
        let k = index / 4 * 4;
        for (var e = 0u; e < 4; e++) {
            if k + e < count && inside { four[e] = key4(at + (k + e) * KV_HEADS, column); }
        }
        four = transpose(four);
        for (var e = 0u; e < 4; e++) { right[(4 * (index % 4) + e) * PITCH + k / 4] = four[e]; }
    } else if index < BLOCK + ROWS {
        let r = (index - BLOCK) / 4 * 4;
        for (var e = 0u; e < 4; e++) {
            let token = token_of(row + r + e);
            let start = token * STRIDE + OFFSET + head_of(row + r + e, kv_head) * SIZE;
            if token < step[STEP_TOKENS] && inside { four[e] = q[start / 4 + column] * SCALE; }
        }
        four = transpose(four);
        for (var e = 0u; e < 4; e++) { left[(4 * (index % 4) + e) * ROW_PITCH + r / 4] = four[e]; }
    }
}

// From scores to shares: the largest score may grow; by how much what was summed before shrinks.
fn share(
    scores: mat4x4f, at: u32, first: u32, count: u32, seen_from: vec4u, seen_to: vec4u, index: u32,
) -> vec4f {
    let across = index % LANES_ACROSS;
    let down = index / LANES_ACROSS;
    var scaled: array<vec4f, 4>;
    var most = vec4f(LOWEST);
    for (var j = 0u; j < 4; j++) {
        scaled[j] = vec4f(LOWEST);
        if 4 * across + j < count {
            let sees = (vec4u(first + j) >= seen_from) & (vec4u(first + j) < seen_to);
            let by = key_scale(at + (4 * across + j) * KV_HEADS);
            scaled[j] = select(vec4f(LOWEST), scores[j] * by, sees);
        }
        most = max(most, scaled[j]);
    }
    left[across * (ROWS / 4) + down] = most;
    workgroupBarrier();
    var grown = highest;
    for (var i = 0u; i < LANES_ACROSS; i++) { grown = max(grown, left[i * (ROWS / 4) + down]); }
    let shrink = exp(max(highest - grown, vec4f(-87)));
    highest = grown;
    total *= shrink;
    for (var j = 0u; j < 4; j++) {
        let part = select(vec4f(), exp(scaled[j] - grown), scaled[j] > vec4f(LOWEST));
        total += part;
        var by = 0.0;
        if 4 * across + j < count { by = value_scale(at + (4 * across + j) * KV_HEADS); }
        shares[(4 * across + j) * (ROWS / 4) + down] = part * by;
    }
    return shrink;
}

// The values of a block, by their shares, to sums that shrink before.
fn add_values(at: u32, count: u32, shrink: vec4f, index: u32) {
    let quads = SIZE / 4;
    let across = index % LANES_ACROSS;
    let down = index / LANES_ACROSS;
    for (var i = 0u; i < quads; i += 16) {
        let chunk = i / 4;
        var a = sums[chunk] * shrink.x;
        var b = sums[chunk + 1] * shrink.y;
        var c = sums[chunk + 2] * shrink.z;
        var d = sums[chunk + 3] * shrink.w;
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
                let part = shares[(depth + k) * (ROWS / 4) + down];
                let v = right[k * PITCH + across];
                a = fma(vec4f(part.x), v, a);
                b = fma(vec4f(part.y), v, b);
                c = fma(vec4f(part.z), v, c);
                d = fma(vec4f(part.w), v, d);
            }
            workgroupBarrier();
        }
        sums[chunk] = a;
        sums[chunk + 1] = b;
        sums[chunk + 2] = c;
        sums[chunk + 3] = d;
    }
}

// The totals of four queries, over all positions.
fn workgroup_total(index: u32) -> vec4f {
    let down = index / LANES_ACROSS;
    left[index % LANES_ACROSS * (ROWS / 4) + down] = total;
    workgroupBarrier();
    var sum = vec4f();
    for (var i = 0u; i < LANES_ACROSS; i++) { sum += left[i * (ROWS / 4) + down]; }
    return sum;
}
