//! Takes an input apart: numbers and texts from its front, for as long as there is something.

/// What is left of the input.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next byte; 0 where there is none.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % bound.max(1)
    }

    /// A word: small, near the largest, a power of two or anything.
    pub fn word(&mut self) -> u64 {
        match self.byte() % 5 {
            0 => u64::from(self.byte()),
            1 => u64::MAX - u64::from(self.byte()),
            2 => 1u64.rotate_left(u32::from(self.byte())).wrapping_add(self.byte() as i8 as u64),
            3 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            _ => (0..8).fold(0, |word, _| word << 8 | u64::from(self.byte())),
        }
    }

    /// A text of up to `most` bytes, its length in front.
    pub fn text(&mut self, most: usize) -> &'a [u8] {
        let length = self.below(most + 1).min(self.0.len());
        let (text, rest) = self.0.split_at(length);
        self.0 = rest;
        text
    }

    /// The same, as UTF-8 as far as it is some.
    pub fn string(&mut self, most: usize) -> String {
        String::from_utf8_lossy(self.text(most)).into_owned()
    }
}
