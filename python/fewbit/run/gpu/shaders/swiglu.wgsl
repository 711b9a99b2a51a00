// Op `swiglu`: gate / (1 + exp(-gate)) * up.

// include binary

@compute @workgroup_size(LANES)
fn swiglu(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    let gate = x_at(id);
    // WGSL does not guarantee infinities: exp's argument is clamped to where the result is finite
    write_y(id, gate / (1 + exp(clamp(-gate, -87, 87))) * other_at(id));
}
