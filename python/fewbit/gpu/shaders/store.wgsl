// What `attend` does first: the keys and values of the new tokens go to their place in the cache,
// [sequences, CAPACITY, WIDTH]. An invocation an element.

override WIDTH: u32;
override CAPACITY: u32;
override OTHER_STRIDE: u32;
override OTHER_OFFSET: u32 = 0;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> keys: array<f32>;
@group(0) @binding(5) var<storage, read_write> values: array<f32>;
@group(0) @binding(6) var<storage, read> other: array<f32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;

@compute @workgroup_size(LANES)
fn store(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH { return; }
    let row = step[sequence_at(id.y)] * CAPACITY + step[position_at(id.y)];
    keys[row * WIDTH + id.x] = x[id.y * STRIDE + OFFSET + id.x];
    values[row * WIDTH + id.x] = other[id.y * OTHER_STRIDE + OTHER_OFFSET + id.x];
}
