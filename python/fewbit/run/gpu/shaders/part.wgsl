// From each part of SIZE columns of x the TAKEN from START on.

// include each

override SIZE: u32;
override TAKEN: u32;
override START: u32;

@compute @workgroup_size(LANES)
fn part(@builtin(global_invocation_id) id: vec3u) {
    let column = id.x / TAKEN * SIZE + START + id.x % TAKEN;
    if is_inside(id) { put(id, x_of(vec3u(column, id.yz))); }
}
