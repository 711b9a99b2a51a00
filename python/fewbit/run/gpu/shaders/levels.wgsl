// Integer formats include this: a weight is scale * level + minimum.
//
// The file of a format defines `levels4` (four signed bytes) and `scale_of` (scale, minimum), both
// for columns 4 quad .. 4 quad + 3 of a row.

override SCALE_GROUP: u32;  // columns with one scale; divides 32
override HAS_MINIMUM: bool;

fn weights4(row: u32, quad: u32) -> vec4f {
    let s = scale_of(row, quad);
    return fma(vec4f(s.x), to_floats(levels4(row, quad)), vec4f(s.y));
}
