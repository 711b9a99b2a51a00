// Op `attend`: softmax(q k^T * scale) v over the KV cache, one workgroup for one head of one token.
//
// With SPLITS > 1 the positions of a head are divided among SPLITS workgroups, and
// attend_merge.wgsl combines their results.
//
// Positions are read in blocks of LANES, and no full row of scores is stored (online softmax): when
// a block raises the highest score, the sums of the earlier blocks are scaled down to it. In a
// block, each lane first computes the score of one position, then sums four columns of the values.
// The probabilities here are exp(score - highest): the division by their sum comes last. A head has
// up to 4 * LANES columns.

// include attention

override SPLITS: u32 = 1;

var<workgroup> query: array<vec4f, SIZE / 4>;
var<workgroup> probabilities: array<f32, LANES>;
var<workgroup> sums: array<vec4f, LANES>;

@compute @workgroup_size(LANES)
fn attend(
    @builtin(workgroup_id) workgroup_id: vec3u, @builtin(num_workgroups) num_workgroups: vec3u,
    lane: Lane,
) {
    let quads = SIZE / 4;
    let head = workgroup_id.x / SPLITS;
    for (var i = lane.index; i < quads; i += LANES) {
        query[i] = q[(workgroup_id.y * STRIDE + OFFSET) / 4 + head * quads + i] * SCALE;
    }
    workgroupBarrier();

    let position = step[position_at(workgroup_id.y)];
    // this key/value head of the cache at position 0
    let head_start =
        step[sequence_at(workgroup_id.y)] * CAPACITY * KV_HEADS + head * KV_HEADS / HEADS;
    var first = 0u;
    if WINDOW > 0 && position + 1 > WINDOW { first = position + 1 - WINDOW; }
    let blocks = (position + LANES - first) / LANES;
    let split_length = (blocks + SPLITS - 1) / SPLITS * LANES;
    first += workgroup_id.x % SPLITS * split_length;
    let end = min(first + split_length, position + 1);

    // for the values, lanes form rows of `quads` lanes; a row takes every lane_rows-th position
    let column = lane.index % quads;
    let lane_row = lane.index / quads;
    let lane_rows = max(LANES / quads, 1);
    var highest = LOWEST;
    var total = 0.0;
    if HAS_SINKS && SPLITS == 1 {  // a sink is a score without a value; it starts as the highest
        highest = sinks[head];
        total = 1.0;
    }
    var sum = vec4f();
    for (var block = first; block < end; block += LANES) {
        let at = block + lane.index;
        var score = LOWEST;
        if at < end {
            score = 0.0;
            let key = head_start + at * KV_HEADS;
            for (var i = 0u; i < quads; i++) { score += dot(query[i], key4(key, i)); }
            score *= key_scale(key);
        }
        let new_highest = max(highest, workgroup_max(score, lane));
        var probability = 0.0;
        if at < end {
            probability = exp(score - new_highest);
            probabilities[lane.index] = probability * value_scale(head_start + at * KV_HEADS);
        }
        let rescale = exp(max(highest - new_highest, -87.0));
        total = total * rescale + workgroup_sum(vec4f(probability, 0, 0, 0), lane).x;
        workgroupBarrier();
        highest = new_highest;
        sum *= rescale;
        if lane_row < lane_rows {
            let count = min(LANES, end - block);
            for (var k = lane_row; k < count; k += lane_rows) {
                let value = head_start + (block + k) * KV_HEADS;
                sum = fma(vec4f(probabilities[k]), value4(value, column), sum);
            }
        }
        workgroupBarrier();
    }
    sums[lane.index] = sum;
    workgroupBarrier();
    if lane.index < quads {
        for (var k = 1u; k < lane_rows; k++) { sum += sums[k * quads + lane.index]; }
        if SPLITS > 1 {
            y[(workgroup_id.y * num_workgroups.x + workgroup_id.x) * (quads + 1) + lane.index] =
                sum;
        } else {
            y[(workgroup_id.y * HEADS + head) * quads + lane.index] = sum / total;
        }
    }
    if SPLITS > 1 && lane.index == 0 {
        y[(workgroup_id.y * num_workgroups.x + workgroup_id.x) * (quads + 1) + quads] =
            vec4f(highest, total, 0, 0);
    }
}
