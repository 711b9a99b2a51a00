// Activations rounded to 8 bits in groups of 32, the last of each part of WIDTH may be shorter, and
// back: q * d with d = amax / 127, q = nearest(x * (127 / amax)). An invocation does one group.

override WIDTH: u32;
override PARTS: u32 = 1;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

const TINY: f32 = 0x1p-100;  // below, all is zero: 127 / amax would overflow

@compute @workgroup_size(LANES)
fn round_activations(@builtin(global_invocation_id) id: vec3u) {
    let groups = (WIDTH + 31) / 32;
    if id.x >= PARTS * groups { return; }
    let first = id.x % groups * 32;
    let count = min(32u, WIDTH - first);
    let column = id.x / groups * WIDTH + first;
    let start = id.y * STRIDE + OFFSET + column;
    var amax = 0.0;
    for (var i = 0u; i < count; i++) { amax = max(amax, abs(x[start + i])); }
    let scale = select(amax / 127, 0.0, amax < TINY);
    let inverse = select(127 / amax, 0.0, amax < TINY);
    for (var i = 0u; i < count; i++) {
        y[id.y * PARTS * WIDTH + column + i] = round(x[start + i] * inverse) * scale;
    }
}
