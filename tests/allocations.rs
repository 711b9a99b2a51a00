//! Test that, after warm-up, generating a token allocates only its logits.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use fewbit::exec::weights::Weights;
use fewbit::exec::{Activations, Batch, Executor};
use fewbit::formats::Format;
use fewbit::kernels::find;
use fewbit::kernels::ops::attention::KvType;

/// The system's allocator with a counter; `realloc` and `alloc_zeroed` call `alloc`.
struct Counted;

thread_local! {
    /// Allocations of this thread; the test runner and idle thread pools allocate at any time.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, data: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(data, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// A plan with every op that has working memory: attention, a convolution, the delta rule and experts.
const PLAN: &str = r#"[
    {"op":"embed","inputs":[],"weights":["e"],"width":32},
    {"op":"rms_norm","inputs":[0],"weights":["n"],"width":32,"eps":1e-6,"heads":1},
    {"op":"linear","inputs":[1],"weights":["w"],"width":32},
    {"op":"attend","inputs":[2,2,2],"weights":[],"width":32,"layer":0,"heads":2,"kv_heads":2,
     "scale":0.1,"window":0},
    {"op":"short_conv","inputs":[2],"weights":["c"],"width":32,"layer":1},
    {"op":"linear","inputs":[4],"weights":["g"],"width":2},
    {"op":"sigmoid","inputs":[5],"weights":[],"width":2},
    {"op":"delta_rule","inputs":[4,4,4,6,6],"weights":[],"width":32,"layer":2,"heads":2,
     "key_heads":2,"scale":0.1,"sharing":"runs"},
    {"op":"add","inputs":[2,7],"weights":[],"width":32},
    {"op":"linear","inputs":[8],"weights":["r"],"width":4},
    {"op":"route","inputs":[9],"weights":[],"width":4,"used":2,"normalize":true},
    {"op":"expert_linear","inputs":[8,10],"weights":["x"],"width":64,"experts":4},
    {"op":"expert_sum","inputs":[11,10],"weights":[],"width":32},
    {"op":"take","inputs":[12],"weights":[],"width":32},
    {"op":"linear","inputs":[13],"weights":["e"],"width":9}
]"#;

fn weights() -> Weights {
    let mut weights = Weights::default();
    let ones = |count: usize| 1f32.to_le_bytes().repeat(count);
    for (name, rows, columns) in
        [("e", 9, 32), ("n", 1, 32), ("c", 32, 4), ("g", 2, 32), ("r", 4, 32)]
    {
        let format = Format::parse("F32").unwrap();
        weights.add(name, format, [1, rows, columns], &ones(rows * columns)).unwrap();
    }
    // A block of Q8_0: 1.0 as f16, and 32 codes.
    let block = [&[0x00, 0x3c][..], &[1; 32]].concat();
    let q8_0 = Format::parse("Q8_0").unwrap();
    weights.add("w", q8_0, [1, 32, 32], &block.repeat(32)).unwrap();
    weights.add("x", q8_0, [4, 32, 32], &block.repeat(4 * 32)).unwrap();
    weights
}

#[test]
fn a_token_allocates_only_its_logits() {
    // One thread, the caller's: of several threads, one may claim rows of an op for the first time in any step.
    let executor = Executor::new(PLAN, &weights(), 1, find(None).unwrap()).unwrap();
    for kv_type in [KvType::F32, KvType::F16, KvType::Int8] {
        for activations in [Activations::F32, Activations::Int8] {
            let mut cache = executor.cache(2, 16, kv_type).unwrap();
            // The tokens of both sequences have the same experts, whose rows are then gathered.
            for sequences in [&[0][..], &[0, 1]] {
                let tokens = [3; 2];
                let outputs: Vec<u32> = (0..sequences.len() as u32).collect();
                let tokens = &tokens[..sequences.len()];
                let batch = Batch { tokens, sequences, outputs: &outputs, activations };
                for step in 0..8 {
                    let before = ALLOCATIONS.get();
                    let logits = executor.forward(&mut cache, &batch).unwrap();
                    let taken = ALLOCATIONS.get() - before;
                    assert_eq!(logits.len(), 9 * sequences.len());
                    // The first two steps allocate working memory.
                    assert!(step < 2 || taken == 1, "step {step}: {taken} allocations");
                }
            }
        }
    }
}
