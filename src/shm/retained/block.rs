//! One block of the arena: a header, then a name, a key and a value, each padded to whole words.
//! Reads and writes go word by word through atomics, so that a reader who is overtaken by a writer
//! reads nonsense and not undefined behaviour; every length is bounded by the arena.

use super::atomic::{AtomicU64, Ordering};
use super::lock::put;
use super::region::GRANULE;

/// Words before the name.
const HEADER: usize = 4;
const KEY_BITS: u32 = 16;
const VALUE_BITS: u32 = 39;
const NAME_BITS: u32 = 8;

/// What a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A retained value.
    Value = 0,
    /// What is known of a name: see [`Record`].
    Record,
}

/// What a block is looked up by.
#[derive(Clone, Copy)]
pub struct Sought<'a> {
    kind: Kind,
    /// Of all of it.
    pub hash: u64,
    pub name: &'a [u8],
    key: &'a [u8],
}

impl<'a> Sought<'a> {
    pub fn value(name: &'a [u8], key: &'a [u8]) -> Self {
        let hash = hash(hash(Kind::Value as u64, name), key);
        Sought { kind: Kind::Value, hash, name, key }
    }

    pub fn record(name: &'a [u8]) -> Self {
        Sought { kind: Kind::Record, hash: hash(Kind::Record as u64, name), name, key: &[] }
    }

    /// Granules of a block of it with a value of so many bytes.
    pub fn granules(&self, value: usize) -> usize {
        self.shape(value).granules()
    }

    fn shape(&self, value: usize) -> Shape {
        Shape { kind: self.kind, name: self.name.len(), key: self.key.len(), value }
    }
}

/// A block's kind and lengths, in bytes; one word.
#[derive(Clone, Copy)]
pub struct Shape {
    pub kind: Kind,
    name: usize,
    key: usize,
    value: usize,
}

impl Shape {
    fn pack(self) -> u64 {
        let lengths = (self.name as u64) << KEY_BITS | self.key as u64;
        (lengths << VALUE_BITS | self.value as u64) << 1 | self.kind as u64
    }

    fn unpack(word: u64) -> Shape {
        let bits = |skip: u32, bits: u32| ((word >> skip) & ((1 << bits) - 1)) as usize;
        Shape {
            kind: if word & 1 == 0 { Kind::Value } else { Kind::Record },
            value: bits(1, VALUE_BITS),
            key: bits(1 + VALUE_BITS, KEY_BITS),
            name: bits(1 + VALUE_BITS + KEY_BITS, NAME_BITS),
        }
    }

    pub fn granules(self) -> usize {
        (HEADER + words(self.name) + words(self.key) + words(self.value)).div_ceil(GRANULE)
    }
}

/// A name's own block, whose value these are; they change in place, under the lock.
pub struct Record<'m> {
    /// The sequence of the last change.
    pub last: &'m AtomicU64,
    /// The sequence of the last change that took a value away, or made the record.
    pub removed: &'m AtomicU64,
    /// How many values have the name.
    pub values: &'m AtomicU64,
}

impl Record<'_> {
    /// Bytes of it.
    pub const SIZE: usize = 24;
}

/// A view of the words at a granule; what they say is believed only in a chain that stood still.
#[derive(Clone, Copy)]
pub struct Block<'m> {
    /// Its first granule.
    pub at: usize,
    /// The link to the chain's next block.
    pub next: &'m AtomicU64,
    hash: &'m AtomicU64,
    /// When it was published.
    pub sequence: &'m AtomicU64,
    shape: &'m AtomicU64,
    /// The rest of the arena.
    body: &'m [AtomicU64],
}

impl<'m> Block<'m> {
    /// The block that begins at a granule of the arena.
    pub fn at(arena: &'m [AtomicU64], at: usize) -> Option<Self> {
        let words = arena.get(at.checked_mul(GRANULE)?..)?;
        let [next, hash, sequence, shape, body @ ..] = words else { return None };
        Some(Block { at, next, hash, sequence, shape, body })
    }

    /// How a chain names it.
    pub fn link(self) -> u64 {
        self.at as u64 + 1
    }

    pub fn hash(self) -> u64 {
        self.hash.load(Ordering::Relaxed)
    }

    pub fn shape(self) -> Shape {
        Shape::unpack(self.shape.load(Ordering::Relaxed))
    }

    /// The words of name, key and value; None where they would not fit the arena.
    fn parts(self, shape: Shape) -> Option<[&'m [AtomicU64]; 3]> {
        let (name, rest) = self.body.split_at_checked(words(shape.name))?;
        let (key, rest) = rest.split_at_checked(words(shape.key))?;
        Some([name, key, rest.get(..words(shape.value))?])
    }

    /// Whether it is what is sought.
    pub fn is(self, sought: &Sought<'_>) -> bool {
        let shape = self.shape();
        self.hash() == sought.hash
            && shape.kind == sought.kind
            && shape.key == sought.key.len()
            && self.parts(shape).is_some_and(|[_, key, _]| equal(key, sought.key))
            && self.has_name(sought.name)
    }

    pub fn has_name(self, name: &[u8]) -> bool {
        let shape = self.shape();
        shape.name == name.len() && self.parts(shape).is_some_and(|[own, ..]| equal(own, name))
    }

    pub fn read_name(self, to: &mut Vec<u8>) {
        let shape = self.shape();
        read(self.parts(shape).map_or(&[], |[name, ..]| name), shape.name, to);
    }

    pub fn read_key(self, to: &mut Vec<u8>) {
        let shape = self.shape();
        read(self.parts(shape).map_or(&[], |[_, key, _]| key), shape.key, to);
    }

    pub fn read_value(self, to: &mut Vec<u8>) {
        let shape = self.shape();
        read(self.parts(shape).map_or(&[], |[.., value]| value), shape.value, to);
    }

    /// Whether its name and key are those that its hash was made of.
    pub fn is_sound(self) -> bool {
        let (mut name, mut key) = (Vec::new(), Vec::new());
        self.read_name(&mut name);
        self.read_key(&mut key);
        let sought = match self.shape().kind {
            Kind::Value => Sought::value(&name, &key),
            Kind::Record => Sought::record(&name),
        };
        // a record that is too short for its counts is none
        self.is(&sought) && (self.shape().kind == Kind::Value || self.record().is_some())
    }

    /// The record that it is, if it is one.
    pub fn record(self) -> Option<Record<'m>> {
        let shape = self.shape();
        let [.., value] = self.parts(shape).filter(|_| shape.kind == Kind::Record)?;
        let [last, removed, values, ..] = value else { return None };
        Some(Record { last, removed, values })
    }

    /// Writes all but link and sequence, while nobody else looks at it.
    pub fn fill(self, sought: &Sought<'_>, value: &[u8]) {
        let shape = sought.shape(value.len());
        put(self.hash, sought.hash, Ordering::Relaxed);
        put(self.shape, shape.pack(), Ordering::Relaxed);
        if let Some([own_name, own_key, own_value]) = self.parts(shape) {
            write(own_name, sought.name);
            write(own_key, sought.key);
            write(own_value, value);
        }
    }
}

const fn words(bytes: usize) -> usize {
    bytes.div_ceil(8)
}

/// Up to eight bytes as a word, padded with zeros.
fn word(bytes: &[u8]) -> u64 {
    <[u8; 8]>::try_from(bytes).map_or_else(
        |_| bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        u64::from_le_bytes,
    )
}

fn equal(own: &[AtomicU64], bytes: &[u8]) -> bool {
    own.len() == words(bytes.len())
        && own.iter().zip(bytes.chunks(8)).all(|(w, b)| w.load(Ordering::Relaxed) == word(b))
}

fn write(own: &[AtomicU64], bytes: &[u8]) {
    own.iter().zip(bytes.chunks(8)).for_each(|(w, b)| put(w, word(b), Ordering::Relaxed));
}

/// `bytes` bytes of the words, instead of what was in `to`.
fn read(own: &[AtomicU64], bytes: usize, to: &mut Vec<u8>) {
    to.clear();
    to.resize(bytes.min(own.len() * 8), 0);
    let mut chunks = to.chunks_exact_mut(8);
    let mut own = own.iter().map(|word| word.load(Ordering::Relaxed).to_le_bytes());
    for (chunk, word) in chunks.by_ref().zip(own.by_ref()) {
        chunk.copy_from_slice(&word); // both are eight bytes
    }
    for (byte, from) in chunks.into_remainder().iter_mut().zip(own.next().unwrap_or_default()) {
        *byte = from;
    }
}

/// Spreads well, resists nobody who makes keys collide: they only fill a chain of their own.
fn hash(seed: u64, bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let fold = |state: u64, word: u64| {
        let product = u128::from(state ^ word ^ ODD) * u128::from(0xd6e8_feb8_6659_fd93_u64);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let state = bytes.chunks(8).fold(seed.wrapping_mul(ODD), |state, b| fold(state, word(b)));
    fold(state, bytes.len() as u64)
}
