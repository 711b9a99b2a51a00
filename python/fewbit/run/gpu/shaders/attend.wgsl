// softmax(q k^T * scale) v over the cache, a workgroup for one head of one token; or, with SPLITS
// > 1, for one of so many parts of its positions, which attend_merge.wgsl puts together.
//
// Positions go by in blocks of LANES and no row of scores is ever whole: with each block the
// largest score so far may grow, and what was summed before is scaled down to it. Within a block
// first each lane takes a position, then each lane takes columns of the values.
// Heads have up to 4 * LANES columns.

// include attention

override SPLITS: u32 = 1;

var<workgroup> query: array<vec4f, SIZE / 4>;
var<workgroup> shares: array<f32, LANES>;
var<workgroup> sums: array<vec4f, LANES>;

@compute @workgroup_size(LANES)
fn attend(
    @builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, lane: Lane
) {
    let quads = SIZE / 4;
    let head = group.x / SPLITS;
    for (var i = lane.index; i < quads; i += LANES) {
        query[i] = q[(group.y * STRIDE + OFFSET) / 4 + head * quads + i] * SCALE;
    }
    workgroupBarrier();

    let position = step[position_at(group.y)];
    // a head of the cache, position 0
    let own = step[sequence_at(group.y)] * CAPACITY * KV_HEADS + head * KV_HEADS / HEADS;
    var first = 0u;
    if WINDOW > 0 && position + 1 > WINDOW { first = position + 1 - WINDOW; }
    let blocks = (position + LANES - first) / LANES;
    let share_of = (blocks + SPLITS - 1) / SPLITS * LANES;
    first += group.x % SPLITS * share_of;
    let end = min(first + share_of, position + 1);

    // LANES / quads lanes share a column of the values, each every so many positions
    let column = lane.index % quads;
    let turn = lane.index / quads;
    let turns = max(LANES / quads, 1);
    var highest = LOWEST;
    var total = 0.0;
    if SINKS && SPLITS == 1 {  // a score without a value, which is first of all the largest
        highest = sinks[head];
        total = 1.0;
    }
    var sum = vec4f();
    for (var block = first; block < end; block += LANES) {
        let at = block + lane.index;
        var score = LOWEST;
        if at < end {
            score = 0.0;
            let key = own + at * KV_HEADS;
            for (var i = 0u; i < quads; i++) { score += dot(query[i], key4(key, i)); }
            score *= key_scale(key);
        }
        let grown = max(highest, workgroup_max(score, lane));
        var share = 0.0;
        if at < end {
            share = exp(score - grown);
            shares[lane.index] = share * value_scale(own + at * KV_HEADS);
        }
        let shrink = exp(max(highest - grown, -87.0));
        total = total * shrink + workgroup_sum(vec4f(share, 0, 0, 0), lane).x;
        workgroupBarrier();
        highest = grown;
        sum *= shrink;
        if turn < turns {
            let count = min(LANES, end - block);
            for (var k = turn; k < count; k += turns) {
                sum = fma(vec4f(shares[k]), value4(own + (block + k) * KV_HEADS, column), sum);
            }
        }
        workgroupBarrier();
    }
    sums[lane.index] = sum;
    workgroupBarrier();
    if lane.index < quads {
        for (var k = 1u; k < turns; k++) { sum += sums[k * quads + lane.index]; }
        if SPLITS > 1 {
            y[(group.y * groups.x + group.x) * (quads + 1) + lane.index] = sum;
        } else {
            y[(group.y * HEADS + head) * quads + lane.index] = sum / total;
        }
    }
    if SPLITS > 1 && lane.index == 0 {
        y[(group.y * groups.x + group.x) * (quads + 1) + quads] = vec4f(highest, total, 0, 0);
    }
}
