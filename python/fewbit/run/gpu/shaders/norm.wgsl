// What norms begin with: parts of SIZE, PARTS to a row, a workgroup a part.

// include reduce

override SIZE: u32;
override PARTS: u32 = 1;
override EPS: f32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;

// Where a workgroup's part begins in x, and in y.
fn start_of(group: vec3u) -> u32 { return group.y * STRIDE + OFFSET + group.x * SIZE; }
fn target_of(group: vec3u) -> u32 { return (group.y * PARTS + group.x) * SIZE; }

// The sum of (x - mean)^2.
fn squares(start: u32, mean: f32, lane: Lane) -> f32 {
    var sum = 0.0;
    for (var i = lane.index; i < SIZE; i += LANES) {
        let apart = x[start + i] - mean;
        sum = fma(apart, apart, sum);
    }
    return workgroup_sum(vec4f(sum, 0, 0, 0), lane).x;
}
