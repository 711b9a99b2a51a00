// Ops with a recurrent state take the tokens of a sequence in order, in one workgroup.
//
// The workgroup of the first token of a sequence in the step does all of its tokens; the workgroups
// of the others do nothing.

fn is_first_of_sequence(token: u32) -> bool {
    let own = step[sequence_at(token)];
    for (var t = token; t > 0; t--) {
        if step[sequence_at(t - 1)] == own { return false; }
    }
    return true;
}
