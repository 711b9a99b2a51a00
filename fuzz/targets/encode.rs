//! Any floats into any format: refused, or finite when they are read back.

#![no_main]

use fewbit::formats::Format;
use fewbit::quantize::{decode_tensor, encode_tensor};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [kind, data @ ..] = data else { return };
    let affine =
        ["asym4-g32", "sym2-g64", "asym8-g7"].map(|name| Format::parse(name).expect("known"));
    let formats: Vec<Format> = Format::all().chain(affine).collect();
    let format = formats[usize::from(*kind) % formats.len()];
    let source = Format::parse("F32").expect("known");
    let columns = format.block();
    let rows = data.len() / (4 * columns);
    if rows < 2 {
        return;
    }
    let (first, data) = data[..rows * 4 * columns].split_at(4 * columns);
    let importance: Vec<f32> =
        first.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes).abs()).collect();
    let row_bytes = format.row_bytes(columns).expect("a block");
    let mut stored = vec![0; (rows - 1) * row_bytes];
    for importance in [Some(&importance[..]), Some(&vec![1.0; columns][..])] {
        if encode_tensor(data, source, &mut stored, format, rows - 1, columns, importance, 1)
            .is_ok()
        {
            let mut values = vec![0f32; (rows - 1) * columns];
            decode_tensor(&stored, format, &mut values, rows - 1, columns, 1)
                .expect("its own bytes");
            assert!(values.iter().all(|value| value.is_finite()), "{}", format.name());
        }
    }
});
