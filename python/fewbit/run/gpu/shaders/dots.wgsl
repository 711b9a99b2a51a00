// One lane's partial sums of the products of a row of x with four rows of W, in f32.
//
// Neighbouring lanes load neighbouring groups of four columns, so a load is one contiguous run of
// memory, and each x that a lane loads serves four rows.

// include activations

fn dots(y_row: u32, rows: vec4u, lane: u32) -> vec4f {
    let start = x_start(y_row);
    var sum = vec4f();
    for (var i = lane; i < COLUMNS / 4; i += LANES) {
        let v = x4(start + i);
        sum += vec4f(
            dot(v, weights4(rows.x, i)), dot(v, weights4(rows.y, i)),
            dot(v, weights4(rows.z, i)), dot(v, weights4(rows.w, i)),
        );
    }
    return sum;
}
