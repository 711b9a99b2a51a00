// Sorts the (token, expert) pairs that `route` has chosen by expert, in the layout of grouped.wgsl.
//
// One workgroup. Pair `token * USED + slot` is a token with the expert in one of its slots. The
// order of the pairs of one expert varies from run to run and changes no result.

// include grouped

override EXPERTS: u32;
override USED: u32;
override TILE: u32;

@group(0) @binding(3) var<storage, read> route: array<f32>;
@group(0) @binding(4) var<storage, read_write> grouped: array<u32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

var<workgroup> counts: array<atomic<u32>, EXPERTS>;
var<workgroup> next_indices: array<atomic<u32>, EXPERTS>;  // where the next pair of an expert goes

@compute @workgroup_size(LANES)
fn group_experts(@builtin(local_invocation_index) lane: u32) {
    let pairs = USED * select(step[STEP_TOKENS], step[STEP_OUTPUTS], AFTER_TAKE);
    for (var e = lane; e < EXPERTS; e += LANES) { atomicStore(&counts[e], 0); }
    workgroupBarrier();
    for (var i = lane; i < pairs; i += LANES) { atomicAdd(&counts[expert_of(i)], 1); }
    workgroupBarrier();
    for (var e = lane; e < EXPERTS; e += LANES) {
        var first = tile_at(pairs);  // there are at most as many tiles as pairs
        var tile = 0u;
        for (var before = 0u; before < e; before++) {
            let count = atomicLoad(&counts[before]);
            first += count;
            tile += (count + TILE - 1) / TILE;
        }
        atomicStore(&next_indices[e], first);
        let count = atomicLoad(&counts[e]);
        for (var done = 0u; done < count; done += TILE) {
            let at = tile_at(tile);
            grouped[at] = e;
            grouped[at + 1] = first + done;
            grouped[at + 2] = min(count - done, TILE);
            tile++;
        }
        if e == EXPERTS - 1 { grouped[0] = tile; }
    }
    workgroupBarrier();
    for (var i = lane; i < pairs; i += LANES) {
        grouped[atomicAdd(&next_indices[expert_of(i)], 1)] = i;
    }
}

fn expert_of(pair: u32) -> u32 {
    return u32(route[pair / USED * STRIDE + OFFSET + pair % USED]);
}
