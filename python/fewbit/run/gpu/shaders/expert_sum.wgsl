// Op `expert_sum`: sums weight * output over a token's USED experts, WIDTH columns each.

// include binary

override USED: u32;

@compute @workgroup_size(LANES)
fn expert_sum(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    var sum = 0.0;
    for (var slot = 0u; slot < USED; slot++) {
        let v = x_at(vec3u(slot * WIDTH + id.x, id.yz));
        sum = fma(v, other_at(vec3u(USED + slot, id.yz)), sum);
    }
    write_y(id, sum);
}
