// Op `short_conv`: for each channel the sum over the last KERNEL positions of weight * x.
//
// One invocation per channel. `state` holds the inputs of the last HISTORY positions, [sequences,
// HISTORY, WIDTH]: those of the kernel, and of tokens that `truncate` may remove.

// include sequence

override WIDTH: u32;
override KERNEL: u32;
override HISTORY: u32;

@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<storage, read> weight: array<f32>;
@group(0) @binding(7) var<storage, read> step: array<u32>;
@group(0) @binding(10) var<storage, read_write> state: array<f32>;

@compute @workgroup_size(LANES)
fn short_conv(@builtin(global_invocation_id) id: vec3u) {
    if id.x >= WIDTH || !is_first_of_sequence(id.y) { return; }
    let sequence = step[sequence_at(id.y)];
    let history = sequence * HISTORY * WIDTH + id.x;
    for (var t = id.y; t < step[STEP_TOKENS]; t++) {
        if step[sequence_at(t)] != sequence { continue; }
        let position = step[position_at(t)];
        state[history + position % HISTORY * WIDTH] = x[t * STRIDE + OFFSET + id.x];
        var sum = 0.0;
        for (var j = 0u; j < KERNEL; j++) {
            let back = KERNEL - 1 - j;
            if back <= position {
                let v = state[history + (position - back) % HISTORY * WIDTH];
                sum = fma(weight[id.x * KERNEL + j], v, sum);
            }
        }
        y[t * WIDTH + id.x] = sum;
    }
}
