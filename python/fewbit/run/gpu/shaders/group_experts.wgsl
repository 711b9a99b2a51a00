// The places of all rows by expert, as grouped.wgsl has them, from what `route` chose; one workgroup.
// Where a place comes among those of its expert is left to chance, and changes no result.

// include grouped

override EXPERTS: u32;
override USED: u32;
override TILE: u32;

@group(0) @binding(3) var<storage, read> routed: array<f32>;
@group(0) @binding(4) var<storage, read_write> grouped: array<u32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

var<workgroup> counts: array<atomic<u32>, EXPERTS>;
var<workgroup> ends: array<atomic<u32>, EXPERTS>;  // of the places that are written

@compute @workgroup_size(LANES)
fn group_experts(@builtin(local_invocation_index) lane: u32) {
    let places = USED * select(step[STEP_TOKENS], step[STEP_OUTPUTS], AFTER_TAKE);
    for (var e = lane; e < EXPERTS; e += LANES) { atomicStore(&counts[e], 0); }
    workgroupBarrier();
    for (var i = lane; i < places; i += LANES) { atomicAdd(&counts[expert_of(i)], 1); }
    workgroupBarrier();
    for (var e = lane; e < EXPERTS; e += LANES) {
        var first = tile_at(places);  // there are not more tiles than places
        var tile = 0u;
        for (var before = 0u; before < e; before++) {
            let count = atomicLoad(&counts[before]);
            first += count;
            tile += (count + TILE - 1) / TILE;
        }
        atomicStore(&ends[e], first);
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
    for (var i = lane; i < places; i += LANES) {
        grouped[atomicAdd(&ends[expert_of(i)], 1)] = i;
    }
}

fn expert_of(place: u32) -> u32 {
    return u32(routed[place / USED * STRIDE + OFFSET + place % USED]);
}
