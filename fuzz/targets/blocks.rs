//! Any bytes as blocks of any format: decoded, packed, and multiplied with each instruction set.

#![no_main]

use fewbit::exec::weights::Weights;
use fewbit::exec::{Activations, Batch, Executor};
use fewbit::formats::Format;
use fewbit::kernels::available;
use fewbit::kernels::ops::attention::KvType;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [kind, acts, data @ ..] = data else { return };
    let formats: Vec<Format> = Format::all().collect();
    let format = formats[usize::from(*kind) % formats.len()];
    let columns = (2 * format.block()).max(32);
    let row_bytes = format.row_bytes(columns).expect("whole blocks");
    let rows = data.len() / row_bytes;
    let data = &data[..rows * row_bytes];
    let mut values = vec![0f32; columns];
    for row in data.chunks_exact(row_bytes) {
        format.decode_row(row, &mut values);
    }
    let table: Vec<u8> = (0..columns).flat_map(|i| (i as f32 - 9.0).to_le_bytes()).collect();
    for keep_file_size in [false, true] {
        let mut weights = Weights::new(keep_file_size);
        weights
            .add("e", Format::parse("F32").expect("known"), [1, 1, columns], &table)
            .expect("finite");
        if rows == 0 || weights.add("w", format, [1, rows, columns], data).is_err() {
            return;
        }
        let plan = format!(
            r#"[{{"op":"embed","inputs":[],"weights":["e"],"width":{columns}}},
                {{"op":"linear","inputs":[0],"weights":["w"],"width":{rows}}}]"#
        );
        for kernels in available() {
            let executor = Executor::new(&plan, &weights, 1, kernels).expect("a valid plan");
            let mut cache = executor.cache(1, 8, KvType::F32).expect("small");
            let activations = if acts & 1 == 0 { Activations::Int8 } else { Activations::F32 };
            let tokens = vec![0; 1 + usize::from(acts >> 1) % 6];
            let batch = Batch { tokens: &tokens, sequences: &tokens, outputs: &[0], activations };
            executor.forward(&mut cache, &batch).expect("tokens of the vocabulary");
        }
    }
});
