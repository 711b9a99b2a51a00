// The indices of the USED largest of EXPERTS logits, the largest first, then their weights: their
// softmax, among all or, if NORMALIZE, among themselves. A workgroup does a row.
//
// They are found one after the other, each the greatest of those behind the last in order of logit,
// then of index.

override EXPERTS: u32;
override USED: u32;
override NORMALIZE: bool;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const NONE: u32 = 0xffffffff;

var<workgroup> ids: array<u32, LANES>;
var<workgroup> bests: array<f32, LANES>;
var<workgroup> chosen: array<u32, USED>;
var<workgroup> logits: array<f32, USED>;

@compute @workgroup_size(LANES)
fn route(@builtin(workgroup_id) group: vec3u, lane: Lane) {
    let start = group.y * STRIDE + OFFSET;
    for (var k = 0u; k < USED; k++) { find(start, k, lane.index); }
    let peak = logits[0];
    var part = 0.0;
    if NORMALIZE {
        for (var k = lane.index; k < USED; k += LANES) { part += exp(max(logits[k] - peak, -87)); }
    } else {
        for (var i = lane.index; i < EXPERTS; i += LANES) {
            part += exp(max(x[start + i] - peak, -87));
        }
    }
    let total = workgroup_sum(vec4f(part, 0, 0, 0), lane).x;
    for (var k = lane.index; k < USED; k += LANES) {
        y[2 * group.y * USED + k] = f32(chosen[k]);
        y[2 * group.y * USED + USED + k] = exp(max(logits[k] - peak, -87)) / total;
    }
}

fn find(start: u32, k: u32, lane: u32) {
    var best = NONE;
    var highest = 0.0;
    for (var i = lane; i < EXPERTS; i += LANES) {
        let v = x[start + i];
        var behind = k == 0;
        if k > 0 { behind = v < logits[k - 1] || (v == logits[k - 1] && i > chosen[k - 1]); }
        if behind && (best == NONE || v > highest) { best = i; highest = v; }
    }
    ids[lane] = best;
    bests[lane] = highest;
    for (var half = LANES / 2; half > 0; half >>= 1) {
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
    if lane == 0 {
        chosen[k] = min(ids[0], EXPERTS - 1);  // of NaN logits nothing is behind: some expert
        logits[k] = bests[0];
    }
    workgroupBarrier();
}
