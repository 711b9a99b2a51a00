// gate / (1 + exp(-gate)) * up.

// include both

@compute @workgroup_size(LANES)
fn swiglu(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    let gate = x_of(id);
    // infinities are not portable: exp's argument stays where its result is a number
    put(id, gate / (1 + exp(clamp(-gate, -87, 87))) * other_of(id));
}
