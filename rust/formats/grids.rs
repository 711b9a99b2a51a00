//! The code books of the grid formats: their points, and for tuples between them the nearest ones.

use std::sync::LazyLock;

/// The words of every code book; the data and its notice are in that file.
const TEXT: &str = include_str!("../../reference/grids.txt");

/// A tuple of levels that is no point.
const NONE: u16 = u16::MAX;

/// A code book: points of 8 or 4 levels, `bits` bits a level in a word.
pub struct Grid {
    bits: usize,
    /// The points as levels 0, 1, 2, ...; those of four have zeros behind.
    pub points: Vec<[u8; 8]>,
    /// Per word its point, or `NONE`.
    index: Vec<u16>,
    /// Per word where its neighbours start; the word behind says where they end.
    starts: Vec<u32>,
    neighbours: Vec<u16>,
}

impl Grid {
    /// The book called `name`; tuples know the points at the `wanted` smallest distances.
    fn new(name: &str, levels: usize, wanted: usize) -> Self {
        let (dimensions, bits, words) = parse(name);
        let mut index = vec![NONE; 1 << (dimensions * bits)];
        for (point, &word) in words.iter().enumerate() {
            index[word] = point as u16;
        }
        let levels_of = |word: usize| {
            let mut point = [0; 8];
            for (j, level) in point.iter_mut().enumerate().take(dimensions) {
                *level = (word >> (bits * j) & ((1 << bits) - 1)) as u8;
            }
            point
        };
        let points: Vec<_> = words.iter().map(|&word| levels_of(word)).collect();
        let (mut starts, mut neighbours) = (Vec::with_capacity(index.len() + 1), Vec::new());
        for (word, &known) in index.iter().enumerate() {
            starts.push(neighbours.len() as u32);
            let tuple = levels_of(word);
            if known == NONE && tuple.iter().all(|&level| usize::from(level) < levels) {
                nearest_points(&points, &tuple, wanted, &mut neighbours);
            }
        }
        starts.push(neighbours.len() as u32);
        Self { bits, points, index, starts, neighbours }
    }

    /// The point with these levels, or else its neighbours, the nearest first.
    #[inline(always)]
    pub fn find(&self, levels: &[u8]) -> Result<u16, &[u16]> {
        let mut word = 0;
        for (j, &level) in levels.iter().enumerate() {
            word |= usize::from(level) << (self.bits * j);
        }
        match self.index[word] {
            NONE => {
                let (start, end) = (self.starts[word], self.starts[word + 1]);
                Err(&self.neighbours[start as usize..end as usize])
            }
            point => Ok(point),
        }
    }
}

/// Appends the points at the `wanted` smallest distances from `tuple`, by distance, then by index.
fn nearest_points(points: &[[u8; 8]], tuple: &[u8; 8], wanted: usize, out: &mut Vec<u16>) {
    let distance = |point: &[u8; 8]| -> usize {
        point.iter().zip(tuple).map(|(&a, &b)| usize::from(a.abs_diff(b)).pow(2)).sum()
    };
    let distances: Vec<usize> = points.iter().map(distance).collect();
    let mut found = vec![0usize; 8 * 49 + 1];
    for &d in &distances {
        found[d] += 1;
    }
    let near = found.iter().enumerate().filter(|(_, count)| **count > 0).take(wanted);
    for (d, _) in near {
        out.extend((0..points.len()).filter(|&j| distances[j] == d).map(|j| j as u16));
    }
}

/// Dimensions, bits a level and the words of a book.
fn parse(name: &str) -> (usize, usize, Vec<usize>) {
    let mut lines = TEXT.lines().skip_while(|line| line.split(' ').next() != Some(name));
    let head: Vec<usize> = lines
        .next()
        .map(|line| line.split(' ').skip(1).filter_map(|word| word.parse().ok()).collect())
        .unwrap_or_default();
    let words = lines
        .flat_map(str::split_whitespace)
        .take(head[0])
        .map(|word| usize::from_str_radix(word, 16).expect("the file holds hexadecimal words"));
    (head[1], head[2], words.collect())
}

/// 256 x 8, for IQ2_XXS.
pub static IQ2_XXS: LazyLock<Grid> = LazyLock::new(|| Grid::new("IQ2_XXS", 3, 2));
/// 512 x 8, for IQ2_XS.
pub static IQ2_XS: LazyLock<Grid> = LazyLock::new(|| Grid::new("IQ2_XS", 3, 2));
/// 1024 x 8, for IQ2_S.
pub static IQ2_S: LazyLock<Grid> = LazyLock::new(|| Grid::new("IQ2_S", 3, 1));
/// 256 x 4, for IQ3_XXS.
pub static IQ3_XXS: LazyLock<Grid> = LazyLock::new(|| Grid::new("IQ3_XXS", 8, 2));
/// 512 x 4, for IQ3_S.
pub static IQ3_S: LazyLock<Grid> = LazyLock::new(|| Grid::new("IQ3_S", 8, 3));
/// 2048 x 8, for IQ1_S and IQ1_M.
pub static IQ1: LazyLock<Grid> = LazyLock::new(|| Grid::new("IQ1", 3, 3));
