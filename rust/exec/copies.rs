//! Sequences of a cache as a whole: copy one, keep one for later, write one to bytes, free one.

use std::ops::Range;

use super::cache::{Cache, Layer};
use crate::error::{Error, Result};
use crate::kernels::ops::attention::KvType;
use crate::kernels::shape::LANES;
use crate::memory::give_back;

/// A sequence's recurrent state after some tokens; small beside its keys and values.
pub struct Snapshot {
    /// Number of tokens.
    pub length: usize,
    base: usize,
    state: Vec<f32>,
}

impl Snapshot {
    /// Bytes of the state.
    pub fn bytes(&self) -> usize {
        size_of_val(self.state.as_slice())
    }
}

/// Where one head of one sequence lies in a layer's memory.
struct Place {
    keys: Range<usize>,
    values: Range<usize>,
    scales: Range<usize>,
}

impl Layer {
    /// The first `tokens` tokens of each head; keys are stored by 16 of them.
    fn places(
        &self,
        kv_type: KvType,
        capacity: usize,
        sequence: usize,
        tokens: usize,
    ) -> impl Iterator<Item = Place> + use<> {
        let (heads, elements) = (self.shape.kv_heads, self.shape.elements);
        let (capacity, tokens) = (capacity.next_multiple_of(LANES), tokens.next_multiple_of(LANES));
        let padded = elements.next_multiple_of(LANES);
        let scaled = if kv_type == KvType::Int8 { tokens } else { 0 };
        (sequence * heads..(sequence + 1) * heads).map(move |head| {
            let row = head * capacity;
            let bytes = |width: usize| {
                let start = row * width * kv_type.bytes();
                start..start + tokens * width * kv_type.bytes()
            };
            let first = if scaled == 0 { 0 } else { row };
            Place { keys: bytes(elements), values: bytes(padded), scales: first..first + scaled }
        })
    }
}

impl Cache {
    /// Makes sequence `target` a copy of `source`; only the tokens that it has are copied.
    pub fn copy(&mut self, source: usize, target: usize) -> Result<()> {
        let length = self.length(source)?;
        self.length(target)?;
        let (kv_type, capacity) = (self.kv_type, self.capacity());
        for layer in &mut self.layers {
            let to = layer.places(kv_type, capacity, target, length);
            for (from, to) in layer.places(kv_type, capacity, source, length).zip(to) {
                layer.keys.copy_within(from.keys, to.keys.start);
                layer.values.copy_within(from.values, to.values.start);
                layer.key_scales.copy_within(from.scales.clone(), to.scales.start);
                layer.value_scales.copy_within(from.scales, to.scales.start);
            }
        }
        if length > 0 {
            self.state.copy(source, target);
        }
        self.lengths[target] = length;
        self.state.truncate(target, length);
        self.touched[target] = self.touched[target].max(length);
        Ok(())
    }

    /// Forgets a sequence and gives its memory back to the system.
    pub fn free(&mut self, sequence: usize) -> Result<()> {
        self.truncate(sequence, 0)?;
        let sequences = self.lengths.len();
        if std::mem::take(&mut self.touched[sequence]) == 0 {
            return Ok(());
        }
        for layer in &mut self.layers {
            for data in [&mut layer.keys, &mut layer.values] {
                give_back(piece(data, sequences, sequence));
            }
            for data in [&mut layer.key_scales, &mut layer.value_scales] {
                give_back(piece(data, sequences, sequence));
            }
        }
        self.state.pieces_mut(sequence).for_each(give_back);
        Ok(())
    }

    /// Bytes of keys, values and states that tokens have taken since the last `free`.
    pub fn bytes(&self) -> usize {
        let used = self.touched.iter().enumerate().filter(|pair| *pair.1 > 0);
        used.map(|(sequence, &tokens)| self.sequence_bytes(sequence, tokens)).sum()
    }

    /// Bytes of `tokens` tokens of a sequence and of its state, as `export` writes them.
    fn sequence_bytes(&self, sequence: usize, tokens: usize) -> usize {
        let state: usize = self.state.pieces(sequence).map(size_of_val).sum();
        let layer = |layer: &Layer| -> usize {
            let places = layer.places(self.kv_type, self.capacity(), sequence, tokens);
            places.map(|x| x.keys.len() + x.values.len() + 8 * x.scales.len()).sum()
        };
        state + self.layers.iter().map(layer).sum::<usize>()
    }

    /// Keeps the recurrent state of a sequence; of plans without recurrent ops only its length.
    ///
    /// # Errors
    /// `Input` for an unknown sequence, `Memory` if there is none for the state.
    pub fn snapshot(&self, sequence: usize) -> Result<Snapshot> {
        let length = self.length(sequence)?;
        let floats: usize = self.state.pieces(sequence).map(<[f32]>::len).sum();
        let mut state = Vec::new();
        state.try_reserve_exact(floats).map_err(|_| Error::memory(4 * floats))?;
        self.state.pieces(sequence).for_each(|piece| state.extend_from_slice(piece));
        Ok(Snapshot { length, base: self.state.base(sequence), state })
    }

    /// Takes `sequence` back to the tokens of a snapshot. Its first tokens must be those of the
    /// snapshot, whose keys and values are still in place, or were copied with `copy`.
    ///
    /// # Errors
    /// `Input` if the sequence has fewer tokens, or the snapshot is of another model.
    pub fn restore(&mut self, snapshot: &Snapshot, sequence: usize) -> Result<()> {
        let present = self.length(sequence)?;
        let floats: usize = self.state.pieces(sequence).map(<[f32]>::len).sum();
        if floats != snapshot.state.len() {
            return Err(Error::input("the snapshot was made for another plan"));
        }
        if present < snapshot.length {
            return Err(Error::input(format!(
                "sequence {sequence} has {present} tokens, the snapshot has {}",
                snapshot.length
            ))
            .hint("copy the snapshot's sequence first, or read the tokens again"));
        }
        self.lengths[sequence] = snapshot.length;
        let mut rest = snapshot.state.as_slice();
        for piece in self.state.pieces_mut(sequence) {
            piece.copy_from_slice(rest.split_off(..piece.len()).unwrap_or_default());
        }
        self.state.set_base(sequence, snapshot.base);
        Ok(())
    }

    /// Keys, values and state of a sequence as bytes, in the order of layers, heads and ops. The
    /// layout is that of the cache and belongs to this version of fewbit.
    ///
    /// # Errors
    /// `Input` for an unknown sequence, `Memory` if there is none for the bytes.
    pub fn export(&self, sequence: usize) -> Result<Vec<u8>> {
        let length = self.length(sequence)?;
        let size = 8 + self.sequence_bytes(sequence, length);
        let mut out = Vec::new();
        out.try_reserve_exact(size).map_err(|_| Error::memory(size))?;
        out.extend((self.state.base(sequence) as u64).to_le_bytes());
        for layer in &self.layers {
            for place in layer.places(self.kv_type, self.capacity(), sequence, length) {
                out.extend_from_slice(&layer.keys[place.keys]);
                out.extend_from_slice(&layer.values[place.values]);
                for scales in [&layer.key_scales, &layer.value_scales] {
                    out.extend(scales[place.scales.clone()].iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
        for piece in self.state.pieces(sequence) {
            out.extend(piece.iter().flat_map(|x| x.to_le_bytes()));
        }
        Ok(out)
    }

    /// Makes `sequence` the one of `length` tokens that `export` wrote from a cache of the same
    /// model and type; its capacity may be another.
    ///
    /// # Errors
    /// `Input` if the bytes are not as many as such a sequence has, or it does not fit.
    pub fn import(&mut self, sequence: usize, length: usize, data: &[u8]) -> Result<()> {
        self.length(sequence)?;
        let capacity = self.capacity();
        if length > capacity {
            return Err(Error::input(format!(
                "a sequence of {length} tokens, the cache holds {capacity}"
            )));
        }
        let expected = 8 + self.sequence_bytes(sequence, length);
        let Some((base, mut rest)) = data.split_first_chunk().filter(|_| data.len() == expected)
        else {
            let found = data.len();
            return Err(Error::input(format!(
                "a sequence of {length} tokens has {expected} bytes, found {found}"
            )));
        };
        let base = u64::from_le_bytes(*base);
        let Some(base) = usize::try_from(base).ok().filter(|&base| base <= length) else {
            return Err(Error::input(format!("the state of token {base} of {length}")));
        };
        let mut next = |size: usize| rest.split_off(..size).unwrap_or_default();
        for layer in &mut self.layers {
            for place in layer.places(self.kv_type, capacity, sequence, length) {
                layer.keys[place.keys.clone()].copy_from_slice(next(place.keys.len()));
                layer.values[place.values.clone()].copy_from_slice(next(place.values.len()));
                for scales in [&mut layer.key_scales, &mut layer.value_scales] {
                    read_floats(&mut scales[place.scales.clone()], next(4 * place.scales.len()));
                }
            }
        }
        for piece in self.state.pieces_mut(sequence) {
            let size = size_of_val(piece);
            read_floats(piece, next(size));
        }
        self.lengths[sequence] = length;
        self.state.set_base(sequence, base);
        self.touched[sequence] = self.touched[sequence].max(length);
        Ok(())
    }
}

fn read_floats(out: &mut [f32], bytes: &[u8]) {
    for (x, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
        *x = f32::from_le_bytes(*bytes);
    }
}

/// The values of one of `sequences` sequences.
fn piece<T>(data: &mut [T], sequences: usize, sequence: usize) -> &mut [T] {
    let size = data.len() / sequences;
    &mut data[sequence * size..(sequence + 1) * size]
}
