//! Plans that no architecture writes: refused when they are read, with the op's number.

use fewbit::exec::plan::parse;

fn refusal(ops: &str) -> String {
    match parse(ops) {
        Ok(_) => panic!("{ops} was taken"),
        Err(error) => error.message,
    }
}

const EMBED: &str = r#"{"op":"embed","inputs":[],"weights":["e"],"width":16}"#;

#[test]
fn experts_come_from_a_route_among_as_many() {
    let unrouted = format!(
        r#"[{EMBED},{{"op":"expert_linear","inputs":[0,0],"weights":["w"],"width":16,"experts":9}}]"#
    );
    let found = refusal(&unrouted);
    assert!(found.contains("op 1") && found.contains("no route"), "{found}");
    let route = r#"{"op":"route","inputs":[0],"weights":[],"width":4,"used":2,"normalize":true}"#;
    let fewer = format!(
        r#"[{EMBED},{route},{{"op":"expert_linear","inputs":[0,1],"weights":["w"],"width":32,"experts":9}}]"#
    );
    let found = refusal(&fewer);
    assert!(found.contains("op 2") && found.contains("among 16"), "{found}");
}

#[test]
fn widths_do_not_overflow() {
    let huge = (1u64 << 63) + 8;
    let route = r#"{"op":"route","inputs":[0],"weights":[],"width":4,"used":2,"normalize":true}"#;
    let found = refusal(&format!(
        r#"[{EMBED},{route},{{"op":"expert_sum","inputs":[0,1],"weights":[],"width":{huge}}}]"#
    ));
    assert!(found.contains("op 2") && found.contains("more than"), "{found}");
}
