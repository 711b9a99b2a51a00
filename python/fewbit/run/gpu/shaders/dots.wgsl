// A lane's share of the products of a place with four rows of W, in f32. Neighbouring lanes take
// neighbouring fours of columns, so their loads are one run of memory; the x that they load once
// serves four rows.

// include activations

fn dots(place: u32, rows: vec4u, lane: u32) -> vec4f {
    let start = x_start(place);
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
