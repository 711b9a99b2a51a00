// Finds the K greatest of a row's COUNT elements, one workgroup per row; K is at most COUNT.
//
// Each round finds the greatest element that comes after the last one in order of value, then
// index: nothing is sorted and nothing is copied.

override COUNT: u32;
override K: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;

const NONE: u32 = 0xffffffff;

var<workgroup> best_ids: array<u32, LANES>;
var<workgroup> best_values: array<f32, LANES>;
var<workgroup> top_ids: array<u32, K>;
var<workgroup> top_values: array<f32, K>;

// Fills top_ids and top_values for the row at `start`. If a value is NaN, the ids are arbitrary but
// valid.
fn find_top_k(start: u32, lane: u32) {
    for (var k = 0u; k < K; k++) { find(start, k, lane); }
}

fn find(start: u32, k: u32, lane: u32) {
    var best = NONE;
    var highest = 0.0;
    for (var i = lane; i < COUNT; i += LANES) {
        let v = x[start + i];
        var follows = k == 0;
        if k > 0 {
            follows = v < top_values[k - 1] || (v == top_values[k - 1] && i > top_ids[k - 1]);
        }
        if follows && (best == NONE || v > highest) { best = i; highest = v; }
    }
    best_ids[lane] = best;
    best_values[lane] = highest;
    for (var half = LANES / 2; half > 0; half >>= 1) {
        workgroupBarrier();
        if lane < half {
            let other = best_ids[lane + half];
            let v = best_values[lane + half];
            let own = best_ids[lane];
            if other != NONE
                && (own == NONE || v > best_values[lane]
                    || (v == best_values[lane] && other < own)) {
                best_ids[lane] = other;
                best_values[lane] = v;
            }
        }
    }
    workgroupBarrier();
    if lane == 0 {
        top_ids[k] = min(best_ids[0], COUNT - 1);
        top_values[k] = best_values[0];
    }
    workgroupBarrier();
}
