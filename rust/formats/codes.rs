//! What the codes of a format mean, and what a kernel needs of its scales.

/// What the codes of a format mean: value = scale * (code - offset) + min.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Codes {
    /// Bits of a code as `unpack_row` gives it, 1 to 8.
    pub bits: u8,
    /// Elements that share a scale.
    pub group: usize,
    /// What is taken from a code.
    pub offset: u8,
    /// Whether a minimum is added.
    pub has_min: bool,
    /// How scales and minima are stored.
    pub scales: Scales,
    /// The codes by index, a power of two of them up to 16, where the index is stored.
    pub levels: &'static [u8],
    /// How often the f16 that `Signed` scales share is halved before it meets them.
    pub halvings: u8,
}

impl Codes {
    /// Bits that a block stores for an element.
    pub const fn stored_bits(&self) -> usize {
        match self.levels.len() {
            0 => self.bits as usize,
            levels => levels.ilog2() as usize,
        }
    }

    /// Whether the 16 groups of 256 elements have scales that are whole numbers times the same f16, and
    /// products sum all of them up as integers, whose activations then share a scale too. Not Q6_K: to
    /// round activations so costs a quarter of what its weights lose, and half a percent at 3 bits.
    pub const fn whole(&self) -> bool {
        self.group == 16
            && match self.scales {
                Scales::Signed | Scales::Nibbles => self.stored_bits() < 4,
                Scales::Blocks => true,
                _ => false,
            }
    }

    /// Elements that share a scale of the activations that meet them.
    pub const fn rounded(&self) -> usize {
        if self.whole() { 256 } else { 32 }
    }
}

/// How scales and minima are stored, in a file and for the kernels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scales {
    /// An f32 a group; a minimum likewise.
    F32,
    /// An f16 a group; a minimum likewise.
    F16,
    /// An f32 a group; its minimum is -(scale * byte).
    Zeros,
    /// A byte times the f16 of 256 elements; the minimum likewise, negative, with its own f16.
    Bytes,
    /// A signed byte times the f16 of 256 elements; no minimum.
    Signed,
    /// As `Bytes`, of four bits each: a scale in the low half of a byte, its minimum in the high.
    Nibbles,
    /// A byte e for 2^(e - 128); no minimum.
    Power,
    /// Half the float of 4 + 3 bits in a byte; no minimum.
    Float8,
    /// In the file's own blocks: kernels look the codes up there.
    Blocks,
}

/// The scales of one block as its bytes have them, where they are bytes: up to 16 groups.
#[derive(Default)]
pub struct ScaleBytes {
    /// The f16 that scales share, and that of minima.
    pub d: [u8; 2],
    pub dmin: [u8; 2],
    pub scale: [u8; 16],
    pub min: [u8; 16],
}
