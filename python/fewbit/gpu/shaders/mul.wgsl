// x * y, each element of a shorter y for PER of x; rows of WIDTH, an invocation an element.

override WIDTH: u32;
override PER: u32 = 1;
override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;

@compute @workgroup_size(LANES)
fn mul(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let v = x[id.y * STRIDE + OFFSET + id.x];
    let factor = other[id.y * OTHER_STRIDE + OTHER_OFFSET + id.x / PER];
    y[id.y * WIDTH + id.x] = v * factor;
}
