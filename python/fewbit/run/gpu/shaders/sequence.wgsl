// Ops with a state go through the tokens of a sequence in order: the workgroups of its first token
// in the step do all of them, those of later ones nothing.

fn is_first(token: u32) -> bool {
    let own = step[sequence_at(token)];
    for (var t = token; t > 0; t--) {
        if step[sequence_at(t - 1)] == own { return false; }
    }
    return true;
}
