// Activations rounded to 8 bits in groups of 32, the last of each part of WIDTH may be shorter. An
// invocation does one group.

// include rounding

override WIDTH: u32;
override PARTS: u32 = 1;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn round_activations(@builtin(global_invocation_id) id: vec3u) {
    let groups = (WIDTH + GROUP - 1) / GROUP;
    if id.x >= PARTS * groups { return; }
    let first = id.x % groups * GROUP;
    let count = min(GROUP, WIDTH - first);
    let column = id.x / groups * WIDTH + first;
    let start = id.y * STRIDE + OFFSET + column;
    let before = first % SPAN;
    let span = min(SPAN, WIDTH - first + before);
    var amax = 0.0;
    for (var i = 0u; i < span; i++) { amax = max(amax, abs(x[start - before + i])); }
    let by = rounding(amax);
    if !PACKED {
        for (var i = 0u; i < count; i++) {
            y[id.y * PARTS * WIDTH + column + i] = rounded(x[start + i], by);
        }
        return;
    }
    var sums = vec2i();
    for (var i = 0u; i < count; i += 4) {
        let four = vec4f(x[start + i], x[start + i + 1], x[start + i + 2], x[start + i + 3]);
        sums += pack(id.y, PARTS * WIDTH, column + i, four, by);
    }
    pack_scale(id.y, PARTS * WIDTH, column, by.x, sums);
}
