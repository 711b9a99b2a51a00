// The K greatest of a row's COUNT elements, one after the other: each the greatest of those behind
// the last in order of value, then of index. So nothing is sorted and no copy is made. A workgroup
// does a row; K is at most COUNT.

override COUNT: u32;
override K: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;

const NONE: u32 = 0xffffffff;

var<workgroup> ids: array<u32, LANES>;
var<workgroup> bests: array<f32, LANES>;
var<workgroup> kept_ids: array<u32, K>;
var<workgroup> kept: array<f32, K>;

// Keep them all, of the row that begins at `start`. Of NaN nothing is behind: then it is some element.
fn keep_greatest(start: u32, lane: u32) {
    for (var k = 0u; k < K; k++) { find(start, k, lane); }
}

fn find(start: u32, k: u32, lane: u32) {
    var best = NONE;
    var highest = 0.0;
    for (var i = lane; i < COUNT; i += LANES) {
        let v = x[start + i];
        var behind = k == 0;
        if k > 0 { behind = v < kept[k - 1] || (v == kept[k - 1] && i > kept_ids[k - 1]); }
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
        kept_ids[k] = min(ids[0], COUNT - 1);
        kept[k] = bests[0];
    }
    workgroupBarrier();
}
