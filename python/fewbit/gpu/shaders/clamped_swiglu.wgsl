// g sigmoid(ALPHA g) (u + 1) with g at most LIMIT and u within -LIMIT..LIMIT; rows of WIDTH, an
// invocation an element.

override WIDTH: u32;
override ALPHA: f32;
override LIMIT: f32;
override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;

@compute @workgroup_size(LANES)
fn clamped_swiglu(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let gate = x[id.y * STRIDE + OFFSET + id.x];
    let up = other[id.y * OTHER_STRIDE + OTHER_OFFSET + id.x];
    let g = min(gate, LIMIT);
    y[id.y * WIDTH + id.x] = g * logistic(ALPHA * g) * (clamp(up, -LIMIT, LIMIT) + 1);
}
