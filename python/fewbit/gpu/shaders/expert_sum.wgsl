// The sum over a row's USED experts of weight * what the expert gave, WIDTH columns; an invocation
// a column.

override WIDTH: u32;
override USED: u32;
override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(6) var<storage, read> routed: array<f32>;

@compute @workgroup_size(LANES)
fn expert_sum(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let weights = id.y * OTHER_STRIDE + OTHER_OFFSET + USED;
    var sum = 0.0;
    for (var slot = 0u; slot < USED; slot++) {
        let v = x[id.y * STRIDE + OFFSET + slot * WIDTH + id.x];
        sum = fma(v, routed[weights + slot], sum);
    }
    y[id.y * WIDTH + id.x] = sum;
}
