// For each channel the sum over the last KERNEL positions of weight * x; an invocation a channel.
//
// `state` keeps the inputs of the last KEPT positions, [sequences, KEPT, WIDTH]: a kernel's, and
// those of tokens that may be taken back.

// include sequence

override WIDTH: u32;
override KERNEL: u32;
override KEPT: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> weight: array<f32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;
@group(0) @binding(10) var<storage, read_write> state: array<f32>;

@compute @workgroup_size(LANES)
fn short_conv(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH || !is_first(id.y) { return; }
    let sequence = step[sequence_at(id.y)];
    let kept = sequence * KEPT * WIDTH + id.x;
    for (var t = id.y; t < step[STEP_TOKENS]; t++) {
        if step[sequence_at(t)] != sequence { continue; }
        let position = step[position_at(t)];
        state[kept + position % KEPT * WIDTH] = x[t * STRIDE + OFFSET + id.x];
        var sum = 0.0;
        for (var j = 0u; j < KERNEL; j++) {
            let back = KERNEL - 1 - j;
            if back <= position {
                let v = state[kept + (position - back) % KEPT * WIDTH];
                sum = fma(weight[id.x * KERNEL + j], v, sum);
            }
        }
        y[t * WIDTH + id.x] = sum;
    }
}
