//! Any text as a plan, over weights of a few sizes: refused, or it runs.

#![no_main]

use fewbit::exec::weights::Weights;
use fewbit::exec::{Activations, Batch, Executor};
use fewbit::formats::Format;
use fewbit::kernels::find;
use fewbit::kernels::ops::attention::KvType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(plan) = std::str::from_utf8(data) else { return };
    let mut weights = Weights::new(false);
    let f32s = Format::parse("F32").expect("known");
    for (name, shape) in
        [("e", [1, 4, 16]), ("w", [1, 16, 16]), ("v", [1, 1, 16]), ("x", [4, 16, 16])]
    {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        weights.add(name, f32s, shape, &bytes).expect("zeros");
    }
    let kernels = find(Some("scalar")).expect("every machine has it");
    let Ok(executor) = Executor::new(plan, &weights, 1, kernels) else { return };
    let Ok(mut cache) = executor.cache(1, 8, KvType::F32) else { return };
    let batch = Batch {
        tokens: &[0, 3, 1],
        sequences: &[0, 0, 0],
        outputs: &[0, 2],
        activations: Activations::Int8,
    };
    let _ = executor.forward(&mut cache, &batch);
});
