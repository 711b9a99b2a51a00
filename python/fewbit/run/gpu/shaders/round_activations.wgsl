// Rounds activations to 8 bits, one invocation per chunk of 32 columns.
//
// A row of x has PIECES pieces of WIDTH columns (one for each expert); the last chunk of a piece
// may be shorter.

// include rounding

override WIDTH: u32;
override PIECES: u32 = 1;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(LANES)
fn round_activations(@builtin(global_invocation_id) id: vec3u) {
    let chunks = (WIDTH + CHUNK - 1) / CHUNK;
    if id.x >= PIECES * chunks { return; }
    let first = id.x % chunks * CHUNK;
    let count = min(CHUNK, WIDTH - first);
    let column = id.x / chunks * WIDTH + first;
    let start = id.y * STRIDE + OFFSET + column;
    let offset = first % GROUP;
    let group_width = min(GROUP, WIDTH - first + offset);
    var amax = 0.0;
    for (var i = 0u; i < group_width; i++) { amax = max(amax, abs(x[start - offset + i])); }
    let scales = scales_of(amax);
    if !PACKED {
        for (var i = 0u; i < count; i++) {
            y[id.y * PIECES * WIDTH + column + i] = round_to_scale(x[start + i], scales);
        }
        return;
    }
    var sums = vec2i();
    for (var i = 0u; i < count; i += 4) {
        let values = vec4f(x[start + i], x[start + i + 1], x[start + i + 2], x[start + i + 3]);
        sums += pack_quad(id.y, PIECES * WIDTH, column + i, values, scales);
    }
    pack_scale(id.y, PIECES * WIDTH, column, scales.x, sums);
}
