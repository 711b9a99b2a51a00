// Op `part`: from each X_PIECE columns of x, the Y_PIECE columns from START on.

// include unary

override X_PIECE: u32;
override Y_PIECE: u32;
override START: u32;

@compute @workgroup_size(LANES)
fn part(@builtin(global_invocation_id) id: vec3u) {
    let column = id.x / Y_PIECE * X_PIECE + START + id.x % Y_PIECE;
    if is_inside(id) { write_y(id, x_at(vec3u(column, id.yz))); }
}
