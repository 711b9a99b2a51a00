//! Cutting a plan into segments that are computed again in the backward pass, one at a time.
//!
//! A segment begins where a single value connects what lies before with what comes after, the
//! residual stream: only that value is stored in the forward pass. A transformer has a segment for
//! the embedding, one for each layer, and one from `take` on, the output layer.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::exec::plan::{Kind, Op};

/// Consecutive ops of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    pub ops: Range<usize>,
    /// The only earlier value that the segment reads; None for the first segment.
    pub input: Option<usize>,
}

/// The segments of a plan, the embedding first, the output layer last.
///
/// # Errors
///
/// `Unsupported` if the plan does not consist of layers connected by one value.
pub fn segments(ops: &[Op]) -> Result<Vec<Segment>> {
    let take = ops.iter().position(|op| matches!(op.kind, Kind::Take {})).unwrap_or(ops.len());
    let last_use = last_uses(ops);
    let mut found = vec![Segment { ops: 0..ops.len(), input: None }];
    let mut block = None;
    for (index, op) in ops.iter().enumerate().take(take + 1) {
        let next = ops[index..].iter().find_map(|op| op.weights.first()).map(|name| layer(name));
        let connected = (0..index).filter(|&value| last_use[value] >= index);
        let cut = match connected.collect::<Vec<_>>()[..] {
            [value] if ops[value].width == ops[0].width => Some(value),
            _ => None,
        };
        if let Some(input) = cut.filter(|_| index == take || next != block) {
            found.last_mut().expect("one is there").ops.end = index;
            found.push(Segment { ops: index..ops.len(), input: Some(input) });
        }
        if let Some(name) = op.weights.first() {
            block = Some(layer(name));
        }
    }
    if found.len() < 2 || found.last().is_some_and(|segment| segment.ops.start != take) {
        return Err(Error::unsupported("the plan has no output layer that starts with `take`")
            .hint("gradients need a decoder whose layers are connected by one residual stream"));
    }
    Ok(found)
}

/// For each value the last op that reads it.
fn last_uses(ops: &[Op]) -> Vec<usize> {
    let mut last: Vec<usize> = (0..ops.len()).collect();
    for (index, op) in ops.iter().enumerate() {
        for &input in &op.inputs {
            last[input] = index;
        }
    }
    last
}

/// The layer of a tensor: `blk.3` for `blk.3.attn_q.weight`, nothing for a tensor outside layers.
fn layer(name: &str) -> &str {
    let dots = name.match_indices('.').nth(1).filter(|_| name.starts_with("blk."));
    dots.map_or("", |(end, _)| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::plan::parse;

    const EMBED: &str = r#"{"op": "embed", "inputs": [], "weights": ["t"], "width": 4}"#;

    fn linear(input: usize, weight: &str) -> String {
        format!(r#"{{"op": "linear", "inputs": [{input}], "weights": ["{weight}"], "width": 4}}"#)
    }

    fn add(x: usize, y: usize) -> String {
        format!(r#"{{"op": "add", "inputs": [{x}, {y}], "weights": [], "width": 4}}"#)
    }

    #[test]
    fn layers_are_segments() {
        let take = r#"{"op": "take", "inputs": [6], "weights": [], "width": 4}"#;
        let layers = [linear(0, "blk.0.a"), add(0, 1), linear(2, "blk.0.b"), add(2, 3)];
        let more = [linear(4, "blk.10.a"), add(4, 5), take.to_owned(), linear(7, "t")];
        let all = [[EMBED.to_owned()].as_slice(), &layers, &more].concat().join(", ");
        let found = segments(&parse(&format!("[{all}]")).unwrap()).unwrap();
        let expected = [(0..1, None), (1..5, Some(0)), (5..7, Some(4)), (7..9, Some(6))];
        let expected = expected.map(|(ops, input)| Segment { ops, input });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_plan_without_an_output_layer_is_refused() {
        let plan = format!("[{EMBED}, {}, {}]", linear(0, "a"), add(0, 1));
        let error = segments(&parse(&plan).unwrap()).unwrap_err();
        assert!(error.message.contains("take"), "{error}");
    }
}
