//! Placeholder until the K formats are merged.

macro_rules! absent {
    ($($unpack:ident $encode:ident),*) => {$(
        pub fn $unpack(_: &[u8], _: &mut [u8], _: &mut [f32], _: &mut [f32]) {
            unimplemented!()
        }
        pub fn $encode(_: &[f32], _: Option<&[f32]>, _: &mut [u8]) {
            unimplemented!()
        }
    )*};
}
absent!(unpack_q2_k encode_q2_k, unpack_q3_k encode_q3_k, unpack_q4_k encode_q4_k, unpack_q5_k encode_q5_k, unpack_q6_k encode_q6_k);
