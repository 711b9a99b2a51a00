//! The meaning of a format's codes, and its scales as kernels need them.

/// The meaning of a format's codes: value = scale * (code - offset) + min.
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

    /// True if all 16 scales of 256 elements are integers times one f16, and products sum the 256
    /// as integers. Q6_K is left out: rounding its activations by 256 costs a quarter of what its
    /// weights lose, and half a percent at 3 bits.
    pub const fn has_integer_scales(&self) -> bool {
        self.group == 16
            && match self.scales {
                Scales::Signed | Scales::Nibbles => self.stored_bits() < 4,
                Scales::Blocks => true,
                _ => false,
            }
    }

    /// Columns that share a scale of int8 activations; None where groups do not fit the kernels'
    /// chunks of 32, so that activations stay f32.
    pub const fn activation_group(&self) -> Option<usize> {
        match self.group {
            _ if self.has_integer_scales() => Some(256),
            16 => Some(32),
            group if group.is_multiple_of(32) => Some(32),
            _ => None,
        }
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
