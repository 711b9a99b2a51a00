//! Tests of malformed plans, which are refused with the number of the op, and of the limits of valid plans.

use fewbit::exec::plan::parse;
use fewbit::exec::weights::Weights;
use fewbit::exec::{Activations, Batch, Executor};
use fewbit::formats::Format;
use fewbit::kernels::find;
use fewbit::kernels::ops::attention::KvType;

fn refusal(ops: &str) -> String {
    match parse(ops) {
        Ok(_) => panic!("{ops} was taken"),
        Err(error) => error.message,
    }
}

const EMBED: &str = r#"{"op":"embed","inputs":[],"weights":["e"],"width":16}"#;

#[test]
fn experts_need_a_route_among_as_many_experts() {
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

#[test]
fn ops_after_a_take_use_only_taken_rows() {
    let take = r#"{"op":"take","inputs":[0],"weights":[],"width":16}"#;
    for (op, what) in [
        (r#"{"op":"add","inputs":[1,0],"weights":[],"width":16}"#, "from before the take of op 1"),
        (r#"{"op":"take","inputs":[1],"weights":[],"width":16}"#, "op 1 has taken already"),
        (EMBED, "a row for every token"),
        (
            r#"{"op":"embed_position","inputs":[],"weights":["p"],"width":16}"#,
            "a row for every token",
        ),
    ] {
        let found = refusal(&format!("[{EMBED},{take},{op}]"));
        assert!(found.contains("op 2") && found.contains(what), "{found}");
    }
    let fine = r#"{"op":"add","inputs":[1,1],"weights":[],"width":16}"#;
    assert_eq!(parse(&format!("[{EMBED},{take},{fine}]")).unwrap().len(), 3);
}

#[test]
fn a_route_chooses_among_experts_that_f32_can_count() {
    let many = (1 << 24) + 1;
    let wide = format!(r#"{{"op":"linear","inputs":[0],"weights":["w"],"width":{many}}}"#);
    let route = r#"{"op":"route","inputs":[1],"weights":[],"width":4,"used":2,"normalize":true}"#;
    let found = refusal(&format!("[{EMBED},{wide},{route}]"));
    assert!(found.contains("op 2") && found.contains("more than 16777216"), "{found}");
}

/// F32 tensors by name, `rows` x `columns` of ones.
fn tensors(shapes: &[(&str, usize, usize)]) -> Weights {
    let mut weights = Weights::default();
    for &(name, rows, columns) in shapes {
        let data = 1f32.to_le_bytes().repeat(rows * columns);
        weights.add(name, Format::parse("F32").unwrap(), [1, rows, columns], &data).unwrap();
    }
    weights
}

fn executor(ops: &str, weights: &Weights) -> Executor {
    Executor::new(ops, weights, 1, find(None).unwrap()).unwrap()
}

#[test]
fn tokens_and_positions_must_be_in_every_table() {
    let weights = tensors(&[("e", 9, 16), ("f", 5, 16), ("p", 30, 16), ("r", 20, 16)]);
    for tables in [["e", "f"], ["f", "e"]] {
        let op = |kind: &str, name: &str| {
            format!(r#"{{"op":"{kind}","inputs":[],"weights":["{name}"],"width":16}}"#)
        };
        let add = |x: usize, y: usize| {
            format!(r#"{{"op":"add","inputs":[{x},{y}],"weights":[],"width":16}}"#)
        };
        let ops = [op("embed", tables[0]), op("embed", tables[1]), add(0, 1)];
        let executor = executor(&format!("[{}]", ops.join(",")), &weights);
        let mut cache = executor.cache(1, 8, KvType::F32).unwrap();
        let mut run = |token| {
            let (tokens, zero) = ([token], [0]);
            let activations = Activations::F32;
            let batch = Batch { tokens: &tokens, sequences: &zero, outputs: &zero, activations };
            executor.forward(&mut cache, &batch)
        };
        assert_eq!(run(4).unwrap(), [2.0; 16]);
        assert_eq!(run(5).unwrap_err().message, "token 5 is not in the vocabulary of 5");
    }
    for tables in [["p", "r"], ["r", "p"]] {
        let ops = format!(
            r#"[{EMBED},{{"op":"embed_position","inputs":[],"weights":["{}"],"width":16}},
            {{"op":"embed_position","inputs":[],"weights":["{}"],"width":16}},
            {{"op":"add","inputs":[1,2],"weights":[],"width":16}}]"#,
            tables[0], tables[1]
        );
        let executor = executor(&ops, &weights);
        assert!(executor.cache(1, 20, KvType::F32).is_ok());
        assert!(
            executor
                .cache(1, 21, KvType::F32)
                .is_err_and(|e| e.message.contains("has 20 positions"))
        );
    }
}

#[test]
fn a_cache_larger_than_memory_is_an_error() {
    let weights = tensors(&[("e", 9, 16), ("c", 16, 4)]);
    let attend = format!(
        r#"[{EMBED},{{"op":"attend","inputs":[0,0,0],"weights":[],"width":16,"layer":0,"heads":2,
        "kv_heads":2,"scale":1.0,"window":0}}]"#
    );
    let conv = format!(
        r#"[{EMBED},{{"op":"short_conv","inputs":[0],"weights":["c"],"width":16,"layer":0}}]"#
    );
    // The state of a convolution does not depend on the capacity.
    for (ops, sizes) in [
        (attend, &[(1, usize::MAX), (1, 1 << 50), (1 << 50, 16), (usize::MAX, usize::MAX)][..]),
        (conv, &[(1 << 50, 16), (usize::MAX, 1)]),
    ] {
        let executor = executor(&ops, &weights);
        for &(sequences, capacity) in sizes {
            let found = executor
                .cache(sequences, capacity, KvType::F32)
                .err()
                .expect("no machine has so much");
            assert!(found.message.ends_with("does not fit memory"), "{}", found.message);
            assert!(found.hint.is_some());
        }
        assert!(executor.cache(2, 4, KvType::F32).is_ok());
    }
}
