// Sums and maxima over a workgroup of LANES: first within subgroups, whose size is only known here,
// then over one value of each.

struct Lane {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) within: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

var<workgroup> reduction: array<vec4f, LANES>;

fn workgroup_sum(value: vec4f, lane: Lane) -> vec4f {
    let part = subgroupAdd(value);
    if lane.subgroups == 1 { return part; }
    if lane.within == 0 { reduction[lane.subgroup] = part; }
    workgroupBarrier();
    var total = reduction[0];
    for (var i = 1u; i < lane.subgroups; i++) { total += reduction[i]; }
    workgroupBarrier();
    return total;
}

fn workgroup_max(value: f32, lane: Lane) -> f32 {
    let part = subgroupMax(value);
    if lane.subgroups == 1 { return part; }
    if lane.within == 0 { reduction[lane.subgroup].x = part; }
    workgroupBarrier();
    var highest = reduction[0].x;
    for (var i = 1u; i < lane.subgroups; i++) { highest = max(highest, reduction[i].x); }
    workgroupBarrier();
    return highest;
}
