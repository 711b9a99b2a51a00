// Sum and maximum over a workgroup of LANES (a power of two), through workgroup memory.

struct Lane { @builtin(local_invocation_index) index: u32 }

var<workgroup> reduction: array<vec4f, LANES>;

fn workgroup_sum(value: vec4f, lane: Lane) -> vec4f {
    reduction[lane.index] = value;
    for (var half = LANES / 2; half > 0; half >>= 1) {
        workgroupBarrier();
        if lane.index < half { reduction[lane.index] += reduction[lane.index + half]; }
    }
    workgroupBarrier();
    let total = reduction[0];
    workgroupBarrier();
    return total;
}

fn workgroup_max(value: f32, lane: Lane) -> f32 {
    reduction[lane.index].x = value;
    for (var half = LANES / 2; half > 0; half >>= 1) {
        workgroupBarrier();
        if lane.index < half {
            reduction[lane.index].x = max(reduction[lane.index].x, reduction[lane.index + half].x);
        }
    }
    workgroupBarrier();
    let highest = reduction[0].x;
    workgroupBarrier();
    return highest;
}
