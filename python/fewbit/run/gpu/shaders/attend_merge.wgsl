// What the parts of `attend` found of one head of one token, put together: each part has its
// largest score, the sum of its shares and the values summed by them. A lane does four columns.

override SIZE: u32;
override HEADS: u32;
override SINKS: bool = false;
override SPLITS: u32;

@group(0) @binding(3) var<storage, read> parts: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(8) var<storage, read> sinks: array<f32>;

@compute @workgroup_size(LANES)
fn attend_merge(
    @builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32
) {
    let quads = SIZE / 4;
    if lane >= quads { return; }
    let pitch = quads + 1;
    let row = group.y * HEADS + group.x;
    var highest = parts[row * SPLITS * pitch + quads].x;
    for (var k = 1u; k < SPLITS; k++) {
        highest = max(highest, parts[(row * SPLITS + k) * pitch + quads].x);
    }
    var total = 0.0;
    if SINKS {
        highest = max(highest, sinks[group.x]);
        total = exp(max(sinks[group.x] - highest, -87));
    }
    var sum = vec4f();
    for (var k = 0u; k < SPLITS; k++) {
        let part = (row * SPLITS + k) * pitch;
        let share = exp(max(parts[part + quads].x - highest, -87));
        total = fma(share, parts[part + quads].y, total);
        sum = fma(vec4f(share), parts[part + lane], sum);
    }
    y[row * quads + lane] = sum / total;
}
