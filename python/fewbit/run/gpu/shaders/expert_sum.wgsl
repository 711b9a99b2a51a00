// The sum over a row's USED experts of weight * what the expert gave, WIDTH columns.

// include both

override USED: u32;

@compute @workgroup_size(LANES)
fn expert_sum(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    var sum = 0.0;
    for (var slot = 0u; slot < USED; slot++) {
        let v = x_of(vec3u(slot * WIDTH + id.x, id.yz));
        sum = fma(v, other_of(vec3u(USED + slot, id.yz)), sum);
    }
    put(id, sum);
}
