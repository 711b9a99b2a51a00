// Sum and maximum over a workgroup of LANES: within each subgroup, then across subgroups.
//
// The size of a subgroup is known only when the shader runs.

struct Lane {
    @builtin(local_invocation_index) index: u32,
    @builtin(subgroup_invocation_id) lane_in_subgroup: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
}

var<workgroup> reduction: array<vec4f, LANES>;

fn workgroup_sum(value: vec4f, lane: Lane) -> vec4f {
    let own = subgroupAdd(value);
    if lane.subgroups == 1 { return own; }
    if lane.lane_in_subgroup == 0 { reduction[lane.subgroup] = own; }
    workgroupBarrier();
    var total = reduction[0];
    for (var i = 1u; i < lane.subgroups; i++) { total += reduction[i]; }
    workgroupBarrier();
    return total;
}

fn workgroup_max(value: f32, lane: Lane) -> f32 {
    let own = subgroupMax(value);
    if lane.subgroups == 1 { return own; }
    if lane.lane_in_subgroup == 0 { reduction[lane.subgroup].x = own; }
    workgroupBarrier();
    var highest = reduction[0].x;
    for (var i = 1u; i < lane.subgroups; i++) { highest = max(highest, reduction[i].x); }
    workgroupBarrier();
    return highest;
}
