// Op `clamped_swiglu`: g sigmoid(ALPHA g) (u + 1), g clamped to LIMIT, u to -LIMIT..LIMIT.

// include binary
// include gates

override ALPHA: f32;
override LIMIT: f32;

@compute @workgroup_size(LANES)
fn clamped_swiglu(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    let g = min(x_at(id), LIMIT);
    write_y(id, g * logistic(ALPHA * g) * (clamp(other_at(id), -LIMIT, LIMIT) + 1));
}
