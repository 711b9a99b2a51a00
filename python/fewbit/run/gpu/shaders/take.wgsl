// The rows whose logits are wanted.

// include each

@group(0) @binding(7) var<storage, read> step: array<u32>;

@compute @workgroup_size(LANES)
fn take(@builtin(global_invocation_id) id: vec3u) {
    if is_inside(id) { put(id, x_of(vec3u(id.x, step[taken_at(id.y)], 0))); }
}
