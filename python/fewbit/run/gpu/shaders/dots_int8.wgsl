// As dots.wgsl, of rounded activations and integer levels: four products of bytes at a time, their sum
// an integer.

// include activations_int8

fn dots(place: u32, rows: vec4u, lane: u32) -> vec4f {
    let start = x_start(place);
    var sum = vec4f();
    for (var i = lane; i < COLUMNS / 4; i += LANES) {
        let x = packed[start.x + i];
        let d = bitcast<f32>(packed[start.y + i / 8 * 2]);
        let total = f32(dot4I8Packed(x, 0x01010101));
        sum = fma(vec4f(d), vec4f(
            product(rows.x, i, x, total), product(rows.y, i, x, total),
            product(rows.z, i, x, total), product(rows.w, i, x, total),
        ), sum);
    }
    return sum;
}

// Four columns of a row times four codes whose sum is `total`.
fn product(row: u32, four: u32, x: u32, total: f32) -> f32 {
    let s = scale_of(row, four);
    return fma(s.x, f32(dot4I8Packed(levels4(row, four), x)), s.y * total);
}
