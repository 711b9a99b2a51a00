// As dots.wgsl, for int8 activations and integer levels: integer products of four bytes at a time.

// include activations_int8

fn dots(y_row: u32, rows: vec4u, lane: u32) -> vec4f {
    let start = x_start(y_row);
    var sum = vec4f();
    for (var i = lane; i < COLUMNS / 4; i += LANES) {
        let x = packed[start.x + i];
        let d = bitcast<f32>(packed[start.y + i / 8 * 2]);
        let x_sum = f32(dot4I8Packed(x, 0x01010101));
        sum = fma(vec4f(d), vec4f(
            product(rows.x, i, x, x_sum), product(rows.y, i, x, x_sum),
            product(rows.z, i, x, x_sum), product(rows.w, i, x, x_sum),
        ), sum);
    }
    return sum;
}

// Four columns of a row of W times four codes of x, whose sum is `x_sum`.
fn product(row: u32, quad: u32, x: u32, x_sum: f32) -> f32 {
    let s = scale_of(row, quad);
    return fma(s.x, f32(dot4I8Packed(levels4(row, quad), x)), s.y * x_sum);
}
