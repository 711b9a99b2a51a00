// Combines the splits of `attend` for one head of one token, four columns per lane.
//
// Each split has left its sum of weighted values (SIZE / 4 vectors), then its highest score and the
// sum of its probabilities.

override SIZE: u32;
override HEADS: u32;
override HAS_SINKS: bool = false;
override SPLITS: u32;

@group(0) @binding(3) var<storage, read> splits: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> y: array<vec4f>;
@group(0) @binding(8) var<storage, read> sinks: array<f32>;

@compute @workgroup_size(LANES)
fn attend_merge(
    @builtin(workgroup_id) workgroup_id: vec3u, @builtin(local_invocation_index) lane: u32
) {
    let quads = SIZE / 4;
    if lane >= quads { return; }
    let split_size = quads + 1;
    let row = workgroup_id.y * HEADS + workgroup_id.x;
    var highest = splits[row * SPLITS * split_size + quads].x;
    for (var k = 1u; k < SPLITS; k++) {
        highest = max(highest, splits[(row * SPLITS + k) * split_size + quads].x);
    }
    var total = 0.0;
    if HAS_SINKS {
        highest = max(highest, sinks[workgroup_id.x]);
        total = exp(max(sinks[workgroup_id.x] - highest, -87));
    }
    var sum = vec4f();
    for (var k = 0u; k < SPLITS; k++) {
        let split = (row * SPLITS + k) * split_size;
        let rescale = exp(max(splits[split + quads].x - highest, -87));
        total = fma(rescale, splits[split + quads].y, total);
        sum = fma(vec4f(rescale), splits[split + lane], sum);
    }
    y[row * quads + lane] = sum / total;
}
