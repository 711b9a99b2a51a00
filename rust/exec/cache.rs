//! The KV cache of all layers and sequences, and with it the state of recurrent ops (`state.rs`).

use super::program::{LayerShape, Shapes};
use super::state::State;
use crate::error::{Error, Result};
use crate::kernels::ops::attention::Head;
pub use crate::kernels::ops::attention::KvType;
use crate::kernels::shape::LANES;
use crate::memory::zeros;

pub(super) struct Layer {
    pub shape: LayerShape,
    /// [sequence][head][position / 16][element][16], of `KvType::bytes` each
    pub keys: Vec<u8>,
    /// [sequence][head][position][elements, padded to 16]
    pub values: Vec<u8>,
    /// [sequence][head][position], empty unless the type is int8
    pub key_scales: Vec<f32>,
    pub value_scales: Vec<f32>,
}

/// Keys and values of several sequences, each of up to `capacity` tokens.
pub struct Cache {
    pub(super) layers: Vec<Layer>,
    pub(super) state: State,
    pub(super) lengths: Vec<usize>,
    /// For each sequence the most tokens that it held since its memory was given back.
    pub(super) touched: Vec<usize>,
    capacity: usize,
    pub(super) kv_type: KvType,
}

impl Cache {
    /// An empty cache; the system gives memory only as tokens come.
    pub fn new(
        shapes: &[LayerShape],
        recurrent: &Shapes,
        sequences: usize,
        capacity: usize,
        kv_type: KvType,
    ) -> Result<Self> {
        let rounded = capacity.checked_next_multiple_of(LANES);
        let count = |width: usize| rounded?.checked_mul(sequences)?.checked_mul(width);
        let bytes = |width: usize| zeros(count(width)?.checked_mul(kv_type.bytes())?);
        let too_large = || {
            let what = format!(
                "a cache of {sequences} sequences of {capacity} tokens does not fit memory"
            );
            Error::input(what).hint("make it for fewer tokens or sequences")
        };
        let layer = |shape: LayerShape| {
            let scales = if kv_type == KvType::Int8 { shape.kv_heads } else { 0 };
            Some(Layer {
                shape,
                keys: bytes(shape.kv_heads * shape.elements)?,
                values: bytes(shape.kv_heads * shape.elements.next_multiple_of(LANES))?,
                key_scales: zeros(count(scales)?)?,
                value_scales: zeros(count(scales)?)?,
            })
        };
        let layers: Option<Vec<Layer>> = shapes.iter().copied().map(layer).collect();
        let layers = layers.ok_or_else(too_large)?;
        let mut lengths = Vec::new();
        lengths.try_reserve_exact(sequences).map_err(|_| too_large())?;
        lengths.resize(sequences, 0);
        let touched = lengths.clone();
        let state = State::new(recurrent, sequences).ok_or_else(too_large)?;
        Ok(Self { layers, state, lengths, touched, capacity, kv_type })
    }

    /// Tokens that each sequence can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.lengths.len()
    }

    /// True if the cache was made for layers of these shapes.
    pub fn fits(&self, shapes: &[LayerShape], recurrent: &Shapes) -> bool {
        self.layers.iter().map(|layer| layer.shape).eq(shapes.iter().copied())
            && self.state.shapes() == recurrent
    }

    /// The state of the recurrent ops.
    pub fn state(&mut self) -> &mut State {
        &mut self.state
    }

    /// Number of tokens in `sequence`.
    pub fn length(&self, sequence: usize) -> Result<usize> {
        self.lengths.get(sequence).copied().ok_or_else(|| self.unknown(sequence))
    }

    /// Forgets all but the first `length` tokens of `sequence`.
    pub fn truncate(&mut self, sequence: usize, length: usize) -> Result<()> {
        let present = self.length(sequence)?;
        if length > present {
            return Err(Error::input(format!(
                "sequence {sequence} has {present} tokens, cannot keep {length}"
            )));
        }
        if self.reachable(sequence, length)? != length {
            return Err(Error::input(format!(
                "sequence {sequence} has {present} tokens; its recurrent state can take back only \
                 the last {}",
                present - self.state.base(sequence)
            ))
            .hint("keep 0 and read the sequence again"));
        }
        self.lengths[sequence] = length;
        self.state.truncate(sequence, length);
        Ok(())
    }

    /// The longest beginning of `sequence`, up to `length` tokens, that `truncate` can leave: a
    /// recurrent state goes back a few tokens, or to the start.
    pub fn reachable(&self, sequence: usize, length: usize) -> Result<usize> {
        let length = length.min(self.length(sequence)?);
        Ok(if length < self.state.base(sequence) { 0 } else { length })
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.lengths.fill(0);
        self.state.reset();
    }

    /// Adds one token to the length of `sequence` and returns its position.
    pub fn advance(&mut self, sequence: usize) -> Result<usize> {
        let position = self.length(sequence)?;
        if position == self.capacity {
            return Err(Error::input(format!(
                "the cache is full: sequence {sequence} holds {position} tokens of {}",
                self.capacity
            ))
            .hint("make the cache larger, or truncate or reset the sequence"));
        }
        self.lengths[sequence] = position + 1;
        self.touched[sequence] = self.touched[sequence].max(position + 1);
        Ok(position)
    }

    /// Pointers into each layer, for threads that write different heads and positions.
    pub fn pointers(&mut self) -> impl Iterator<Item = LayerPointers> {
        let (kv_type, capacity) = (self.kv_type, self.capacity.next_multiple_of(LANES));
        self.layers.iter_mut().map(move |layer| LayerPointers {
            shape: layer.shape,
            kv_type,
            keys: layer.keys.as_mut_ptr(),
            values: layer.values.as_mut_ptr(),
            key_scales: layer.key_scales.as_mut_ptr(),
            value_scales: layer.value_scales.as_mut_ptr(),
            capacity,
        })
    }

    fn unknown(&self, sequence: usize) -> Error {
        Error::input(format!(
            "the cache has {} sequences, there is no sequence {sequence}",
            self.lengths.len()
        ))
    }
}

/// One layer of a cache, as raw memory.
#[derive(Clone, Copy)]
pub struct LayerPointers {
    shape: LayerShape,
    kv_type: KvType,
    keys: *mut u8,
    values: *mut u8,
    key_scales: *mut f32,
    value_scales: *mut f32,
    capacity: usize,
}

// SAFETY: threads write different positions, and read only after a barrier.
unsafe impl Send for LayerPointers {}
// SAFETY: as above.
unsafe impl Sync for LayerPointers {}

impl LayerPointers {
    /// The cache of one head of one sequence.
    pub fn head(&self, sequence: usize, head: usize, scale: f32) -> Head {
        let LayerShape { kv_heads, elements } = self.shape;
        let row = (sequence * kv_heads + head) * self.capacity;
        let bytes = row * self.kv_type.bytes();
        // Plain arithmetic: the sequence and head were checked against the cache.
        Head {
            kv_type: self.kv_type,
            keys: self.keys.wrapping_add(bytes * elements),
            values: self.values.wrapping_add(bytes * elements.next_multiple_of(LANES)),
            key_scales: self.key_scales.wrapping_add(row),
            value_scales: self.value_scales.wrapping_add(row),
            elements,
            scale,
        }
    }

    /// Stores one token's keys and values, all heads.
    ///
    /// # Safety
    ///
    /// `k` and `v` hold kv_heads x elements floats, the position is below the capacity and nobody
    /// else touches it.
    pub unsafe fn append(&self, sequence: usize, position: usize, k: *const f32, v: *const f32) {
        let LayerShape { kv_heads, elements } = self.shape;
        let first = position / LANES * LANES * elements + position % LANES;
        let row = position * elements.next_multiple_of(LANES);
        for head in 0..kv_heads {
            let place = self.head(sequence, head, 1.0);
            // SAFETY: the caller's promise.
            unsafe {
                let k = std::slice::from_raw_parts(k.add(head * elements), elements);
                let v = std::slice::from_raw_parts(v.add(head * elements), elements);
                let (key_scale, value_scale) = match self.kv_type {
                    KvType::Int8 => (code_scale(k), code_scale(v)),
                    _ => (1.0, 1.0),
                };
                store(self.kv_type, k, key_scale, place.keys.cast_mut(), first, LANES);
                store(self.kv_type, v, value_scale, place.values.cast_mut(), row, 1);
                if self.kv_type == KvType::Int8 {
                    *place.key_scales.cast_mut().add(position) = key_scale;
                    *place.value_scales.cast_mut().add(position) = value_scale;
                }
            }
        }
    }
}

/// The scale that takes the largest of `x` to 127.
fn code_scale(x: &[f32]) -> f32 {
    x.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0
}

/// Writes `x` as elements `first`, `first + step`, ... of `out`.
///
/// # Safety
///
/// `out` holds these elements, and nobody else touches them.
unsafe fn store(kv_type: KvType, x: &[f32], scale: f32, out: *mut u8, first: usize, step: usize) {
    for (index, &x) in x.iter().enumerate() {
        let at = first + index * step;
        // SAFETY: the caller's promise.
        unsafe {
            match kv_type {
                KvType::F32 => out.cast::<f32>().add(at).write_unaligned(x),
                KvType::F16 => {
                    let bits = half::f16::from_f32(x).to_bits();
                    out.cast::<u16>().add(at).write_unaligned(bits);
                }
                KvType::Int8 => {
                    let code = if scale > 0.0 { (x / scale).round_ties_even() } else { 0.0 };
                    out.add(at).write(code as i8 as u8);
                }
            }
        }
    }
}
