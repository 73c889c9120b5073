//! Shared memory that another process scribbles on.

use std::sync::atomic::Ordering;

use ngx_http_cc_module::shm::Word;

use crate::input::Input;

/// Bytes that the most demanding structure is aligned to.
const ALIGN: usize = 128;

/// Zeroed memory; what lies around it belongs to nobody, so that the address sanitizer sees who
/// leaves it.
pub struct Memory {
    words: Vec<Word>,
    skip: usize,
    length: usize,
}

impl Memory {
    /// Of so many bytes.
    pub fn new(bytes: usize) -> Memory {
        let length = bytes.div_ceil(8);
        let words: Vec<Word> = (0..length + ALIGN / 8).map(|_| Word::new(0)).collect();
        let skip = words.as_ptr().cast::<u8>().align_offset(ALIGN) / 8;
        Memory { words, skip, length }
    }

    /// All of it.
    pub fn words(&self) -> &[Word] {
        &self.words[self.skip..self.skip + self.length]
    }

    /// Writes what the input says where the input says: one word, or a run of the same.
    pub fn scribble(&self, input: &mut Input<'_>) {
        let words = self.words();
        let at = match input.byte() % 3 {
            0 => usize::from(input.byte()),
            1 => input.below(words.len()),
            _ => input.word() as usize,
        };
        let run = if input.byte() % 8 == 0 { input.below(512) } else { 1 };
        let value = input.word();
        for at in at..at.saturating_add(run) {
            words[at % words.len()].store(value, Ordering::Relaxed);
        }
    }

    /// Fills all of it with the input, over and over.
    pub fn fill(&self, input: &mut Input<'_>) {
        let pattern: Vec<u64> = (0..1 + input.below(64)).map(|_| input.word()).collect();
        for (word, value) in self.words().iter().zip(pattern.iter().cycle()) {
            word.store(*value, Ordering::Relaxed);
        }
    }
}
