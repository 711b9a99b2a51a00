// g sigmoid(ALPHA g) (u + 1) with g at most LIMIT and u within -LIMIT..LIMIT.

// include both
// include gates

override ALPHA: f32;
override LIMIT: f32;

@compute @workgroup_size(LANES)
fn clamped_swiglu(@builtin(global_invocation_id) id: vec3u) {
    if !is_inside(id) { return; }
    let g = min(x_of(id), LIMIT);
    put(id, g * logistic(ALPHA * g) * (clamp(other_of(id), -LIMIT, LIMIT) + 1));
}
