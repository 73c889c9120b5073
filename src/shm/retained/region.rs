//! Where things are in the memory of the retained values: a head, the holds, the arena, the buckets
//! of the hash index, from which the arena's blocks hang in chains, and a bitmap of the granules
//! that are taken. Decides nothing about who may change what; `retained`, `lock` and `room` do.

use super::atomic::{AtomicU64, Ordering, fence};
use super::block::Block;
use super::lock::put;

/// Words of the unit in which the arena is given out: a cache line.
pub const GRANULE: usize = 8;
/// Words of a hold: who, and what.
pub const HOLD: usize = 2;
/// Holds: how many processes can copy at the same instant. More are told to come back.
pub const HOLDS: usize = if cfg!(loom) { 2 } else { 64 };
/// Most blocks in a chain. A bucket serves two granules, so that only keys made to collide reach it;
/// it bounds every walk, whatever the memory holds.
pub const CHAIN_MAX: usize = 64;
/// How often a reader looks again at a chain that changes under it before it takes the lock.
const TRIES: usize = if cfg!(loom) { 1 } else { 4 };

const HEAD: usize = 8;
/// Classes of lengths: 1, 2, up to 4, up to 8 and so on, all longer ones in the last.
pub const CLASSES: usize = 8;
/// Granules of a chunk, which is what one word of the bitmap stands for.
pub const CHUNK_GRANULES: usize = if cfg!(loom) { 8 } else { 64 };
const CHUNK_BUCKETS: usize = CHUNK_GRANULES / 2;
const CHUNK: usize = 1 + CHUNK_BUCKETS + CHUNK_GRANULES * GRANULE;
/// Words that every region has, and the least that one can work with.
const FIXED: usize = HEAD + 2 * CLASSES + HOLD * HOLDS;
pub const WORDS_MIN: usize = FIXED + CHUNK;

/// Bits of a granule's number plus one (0 is "none") in a bucket; the rest counts its changes.
const LINK_BITS: u32 = 28;
const LINK: u64 = (1 << LINK_BITS) - 1;

/// Changes with every change of the layout.
const MAGIC: u64 = 0x6e67_6363_7265_7401;

/// The parts of the memory.
pub struct Region<'m> {
    magic: &'m AtomicU64,
    size: &'m AtomicU64,
    /// See `lock`.
    pub lock: &'m AtomicU64,
    /// The last sequence number given out.
    pub sequence: &'m AtomicU64,
    /// How many values are linked.
    pub values: &'m AtomicU64,
    /// How many granules are taken.
    pub used: &'m AtomicU64,
    /// For each class of lengths: no free extent of it begins below. May lag behind.
    pub hints: &'m [AtomicU64],
    /// For each class: where an extent became free last.
    pub spares: &'m [AtomicU64],
    pub holds: &'m [AtomicU64],
    pub taken: &'m [AtomicU64],
    pub buckets: &'m [AtomicU64],
    pub arena: &'m [AtomicU64],
    bytes: usize,
}

impl<'m> Region<'m> {
    /// Lays a region over the memory, whatever it holds; None where it is too small.
    pub fn over(memory: &'m [AtomicU64]) -> Option<Self> {
        // a granule's number must fit a bucket
        let chunks =
            (memory.len().checked_sub(FIXED)? / CHUNK).min(LINK as usize / CHUNK_GRANULES - 1);
        if chunks == 0 {
            return None;
        }
        let [magic, size, lock, sequence, values, used, _, _, rest @ ..] = memory else {
            return None;
        };
        let (hints, rest) = rest.split_at_checked(CLASSES)?;
        let (spares, rest) = rest.split_at_checked(CLASSES)?;
        let (holds, rest) = rest.split_at_checked(HOLD * HOLDS)?;
        // the arena first: its granules are cache lines where the memory begins with one
        let (arena, rest) = rest.split_at_checked(chunks * CHUNK_GRANULES * GRANULE)?;
        let (buckets, rest) = rest.split_at_checked(chunks * CHUNK_BUCKETS)?;
        let taken = rest.get(..chunks)?;
        let bytes = size_of_val(memory);
        Some(Region {
            magic,
            size,
            lock,
            sequence,
            values,
            used,
            hints,
            spares,
            holds,
            taken,
            buckets,
            arena,
            bytes,
        })
    }

    /// Marks zeroed memory. Before any other process sees it.
    pub fn mark(&self) {
        self.size.store(self.bytes as u64, Ordering::Relaxed);
        self.magic.store(MAGIC, Ordering::Release); // pairs with fits()
    }

    /// Whether this layout's code marked it, at this size.
    pub fn fits(&self) -> bool {
        self.magic.load(Ordering::Acquire) == MAGIC // pairs with mark()
            && self.size.load(Ordering::Relaxed) == self.bytes as u64
    }

    /// Granules of the arena.
    pub fn granules(&self) -> usize {
        self.arena.len() / GRANULE
    }

    /// The block that begins at a granule, whatever is written there.
    pub fn block(&self, at: usize) -> Option<Block<'m>> {
        Block::at(self.arena, at)
    }

    /// The bucket that such a hash belongs to.
    pub fn bucket(&self, hash: u64) -> Option<&'m AtomicU64> {
        let spread = (hash >> 32) * self.buckets.len() as u64;
        self.buckets.get((spread >> 32) as usize)
    }

    /// The blocks of a bucket.
    pub fn chain(&self, bucket: &AtomicU64) -> Chain<'m> {
        // pairs with the stores of link() and redirect()
        self.chain_of(bucket.load(Ordering::Acquire))
    }

    /// Whether a bucket has any block.
    pub fn leads(&self, bucket: &AtomicU64) -> bool {
        bucket.load(Ordering::Relaxed) & LINK != 0
    }

    fn chain_of(&self, word: u64) -> Chain<'m> {
        Chain { arena: self.arena, link: word & LINK, left: CHAIN_MAX }
    }

    /// What `look` says of a chain that nobody changed meanwhile; None if it never stood still.
    ///
    /// All that a look reads between two equal words of the bucket belongs together: a block's words
    /// change only after it left its chain, and before that its bucket's word did.
    pub fn still<T>(&self, bucket: &AtomicU64, mut look: impl FnMut(Chain<'m>) -> T) -> Option<T> {
        (0..TRIES).find_map(|_| {
            let before = bucket.load(Ordering::Acquire); // pairs with link() and redirect()
            let seen = look(self.chain_of(before));
            // Pairs with the fence of take(): whoever read a word of a block's next life sees that
            // the bucket changed before it.
            fence(Ordering::Acquire);
            (bucket.load(Ordering::Relaxed) == before).then_some(seen)
        })
    }

    /// Puts a filled block in front of a chain. Lock held.
    pub fn link(&self, bucket: &AtomicU64, block: Block<'_>) {
        let word = bucket.load(Ordering::Relaxed);
        put(block.next, word & LINK, Ordering::Relaxed);
        // pairs with chain() and still(): who sees the link sees the block
        put(bucket, changed(word, block.link()), Ordering::Release);
    }

    /// Puts a filled block in the place of another: one store, before it a reader finds the old
    /// block, after it the new one. Lock held.
    pub fn replace(&self, bucket: &AtomicU64, old: Block<'_>, new: Block<'_>) {
        put(new.next, old.next.load(Ordering::Relaxed), Ordering::Relaxed);
        self.redirect(bucket, old, new.link());
    }

    /// Takes a block out of its chain. Lock held.
    pub fn unlink(&self, bucket: &AtomicU64, old: Block<'_>) {
        self.redirect(bucket, old, old.next.load(Ordering::Relaxed) & LINK);
    }

    fn redirect(&self, bucket: &AtomicU64, old: Block<'_>, to: u64) {
        let word = bucket.load(Ordering::Relaxed);
        let mut head = word & LINK;
        if head == old.link() {
            head = to;
        } else if let Some(before) = self
            .chain_of(word)
            .find(|block| block.next.load(Ordering::Relaxed) & LINK == old.link())
        {
            put(before.next, to, Ordering::Release); // pairs with Chain::next()
        }
        // Also where the head stays: readers on the old block learn that it is no longer theirs.
        // pairs with chain() and still()
        put(bucket, changed(word, head), Ordering::Release);
    }

    /// Ends a chain before a block that cannot be, or after its last one. Lock held.
    pub fn cut(&self, bucket: &AtomicU64, last: Option<Block<'_>>) {
        match last {
            Some(block) => put(block.next, 0, Ordering::Release), // pairs with Chain::next()
            None => put(bucket, changed(bucket.load(Ordering::Relaxed), 0), Ordering::Release),
        }
    }

    /// Tells readers of a chain that it may have changed. Lock held.
    pub fn touch(&self, bucket: &AtomicU64) {
        let word = bucket.load(Ordering::Relaxed);
        put(bucket, changed(word, word & LINK), Ordering::Release); // pairs with still()
    }
}

/// A bucket's next word: one change later, and the chain begins at `link`.
fn changed(word: u64, link: u64) -> u64 {
    ((word >> LINK_BITS).wrapping_add(1) << LINK_BITS) | (link & LINK)
}

/// The blocks of a bucket, at most [`CHAIN_MAX`].
pub struct Chain<'m> {
    arena: &'m [AtomicU64],
    link: u64,
    left: usize,
}

impl<'m> Iterator for Chain<'m> {
    type Item = Block<'m>;

    fn next(&mut self) -> Option<Block<'m>> {
        self.left = self.left.checked_sub(1)?;
        let block = Block::at(self.arena, (self.link as usize).checked_sub(1)?)?;
        // pairs with redirect(): who sees the link sees the block
        self.link = block.next.load(Ordering::Acquire) & LINK;
        Some(block)
    }
}
