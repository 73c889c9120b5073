//! The peers of this node, as far as signed calls go: my counter to each, and what is known of its
//! own (`proto::cluster::window`). Shared by all workers, because any of them may sign the next call
//! and any of them may get a replay. `modules::cluster` asks it for each call.
//!
//! All is done under one lock for a moment. Whoever is killed in it leaves the number of the row
//! that it worked on; the next one forgets that peer, which costs a challenge. So does the eviction
//! of the peer that was silent longest, when the table is full. A counter of mine never goes back,
//! whatever is forgotten.
#![forbid(unsafe_code)]

use super::lock::plain::{AtomicU64, Ordering::Relaxed};
use super::lock::{self, put};
use crate::proto::cluster::window::{Known, Nonce, Stamp, Verdict, WORDS, Window};
use crate::proto::ipc::Pid;

#[cfg(all(test, not(loom)))]
mod tests;

/// Longest name of a peer, in bytes: `HOST:PORT`.
pub const ID_MAX: usize = 64;
/// Peers that are remembered.
pub const PEERS: usize = 1024;
/// Bytes of the table for them.
pub const SIZE: usize = room(PEERS);

/// Words of the head.
const HEAD: usize = 16;
/// Words of a row: my counter, when it was used, its id, what is known of it.
const ROW: usize = 2 + ID + KNOWN;
const ID: usize = 1 + ID_MAX / 8;
const KNOWN: usize = 7 + 1 + WORDS;
/// Changes with every change of the layout.
const MAGIC: u64 = 0x6e67_6363_7065_6501;

/// In the place of a name's hash: a row that was never used, where a search ends; one that is free
/// again, where it does not.
const UNUSED: u64 = 0;
const FREE: u64 = 1;

/// Bytes of a table for so many peers.
pub const fn room(peers: usize) -> usize {
    (HEAD + peers * (1 + ROW)) * 8
}

/// Why nothing was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeersError {
    /// Another worker holds the table and does not go on.
    #[error("the table of peers is busy")]
    Busy,
    /// The name is empty or longer than [`ID_MAX`].
    #[error("the name of a node is empty or too long")]
    Name,
}

/// The peers, as one process sees them. One thread of a process at a time.
pub struct Peers<'m, A> {
    lock: &'m AtomicU64,
    /// Number of the row that is being changed, plus one; 0: none.
    editing: &'m AtomicU64,
    /// No counter of a forgotten peer is higher.
    base: &'m AtomicU64,
    epoch: &'m AtomicU64,
    key: &'m [AtomicU64],
    /// A hash of the name for each row.
    names: &'m [AtomicU64],
    rows: &'m [AtomicU64],
    me: u64,
    alive: A,
}

/// A row's parts.
#[derive(Clone, Copy)]
struct Row<'m> {
    counter: &'m AtomicU64,
    used: &'m AtomicU64,
    id: &'m [AtomicU64],
    known: &'m [AtomicU64],
}

/// A peer's name as a row holds it: its length, then its bytes.
type Id = [u64; ID];

impl<'m, A: Fn(Pid) -> bool> Peers<'m, A> {
    /// Makes zeroed memory a table, before any other process sees it: of a life of this node that
    /// no table had before, with a random key.
    pub fn init(memory: &[AtomicU64], epoch: u64, key: [u8; 32]) -> bool {
        let Some((head, names, _)) = parts(memory) else { return false };
        let [magic, size, _, _, _, mine, _, _, words @ ..] = head else { return false };
        for (word, value) in words.iter().zip(split::<32, 4>(&key)) {
            word.store(value, Relaxed);
        }
        mine.store(epoch.max(1), Relaxed);
        size.store(names.len() as u64, Relaxed);
        // the processes that attach are forked later
        magic.store(MAGIC, Relaxed);
        true
    }

    /// The table in memory that [`Peers::init`] made one, at this size and layout. `alive` tells
    /// whether a process lives; a stopped one does.
    pub fn attach(memory: &'m [AtomicU64], pid: Pid, alive: A) -> Option<Self> {
        let (head, names, rows) = parts(memory)?;
        let [magic, size, lock, editing, base, epoch, _, _, key @ ..] = head else { return None };
        let fits = magic.load(Relaxed) == MAGIC && size.load(Relaxed) == names.len() as u64;
        let (key, me) = (key.get(..4)?, lock::identity(pid)?);
        fits.then_some(Peers { lock, editing, base, epoch, key, names, rows, me, alive })
    }

    /// This life of the node, as its calls say it.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Relaxed)
    }

    /// A random key that only this node's workers know.
    pub fn key(&self) -> [u8; 32] {
        let mut words = [0; 4];
        words.iter_mut().zip(self.key).for_each(|(to, word)| *to = word.load(Relaxed));
        join::<4, 32>(words)
    }

    /// The order of the next call to `receiver`: no two calls to it have the same. `now` is in
    /// milliseconds that go one way.
    pub fn next(
        &self,
        receiver: &[u8],
        nonce: Option<Nonce>,
        now: u64,
    ) -> Result<Stamp, PeersError> {
        let id = id(receiver).ok_or(PeersError::Name)?;
        self.locked(|| {
            let (_, row) = self.row(&id, now)?;
            let counter = row.counter.load(Relaxed).wrapping_add(1);
            put(row.counter, counter, Relaxed);
            Some(Stamp { epoch: self.epoch(), counter, nonce })
        })
    }

    /// Decides about a call of `sender` whose signature is right; see [`Known::admit`].
    pub fn admit(
        &self,
        sender: &[u8],
        stamp: Stamp,
        now: u64,
        fresh: Nonce,
    ) -> Result<Verdict, PeersError> {
        let id = id(sender).ok_or(PeersError::Name)?;
        self.locked(|| {
            let (number, row) = self.row(&id, now)?;
            let mut known = row.known();
            let verdict = known.admit(stamp, now, fresh);
            self.edit(number, || row.set_known(&known));
            Some(verdict)
        })
    }

    /// How many peers are known.
    pub fn len(&self) -> usize {
        self.names.iter().filter(|name| name.load(Relaxed) > FREE).count()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn locked<T>(&self, change: impl FnOnce() -> Option<T>) -> Result<T, PeersError> {
        let seized = lock::seize(self.lock, self.me, &self.alive)
            .map_err(|lock::Locked| PeersError::Busy)?;
        if seized.dead {
            self.repair();
        }
        let result = change();
        seized.release();
        result.ok_or(PeersError::Busy) // of a table without rows; there is none
    }

    /// Forgets the peer on which a dead process worked.
    fn repair(&self) {
        let number = (self.editing.load(Relaxed) as usize).wrapping_sub(1);
        if let (Some(name), Some(row)) = (self.names.get(number), self.at(number)) {
            self.keep_counter(row);
            put(name, FREE, Relaxed);
        }
        put(self.editing, 0, Relaxed);
    }

    /// Runs `change` so that a process killed in it leaves the row's number.
    fn edit(&self, number: usize, change: impl FnOnce()) {
        put(self.editing, number as u64 + 1, Relaxed);
        change();
        put(self.editing, 0, Relaxed);
    }

    fn at(&self, number: usize) -> Option<Row<'m>> {
        let row = self.rows.get(number.checked_mul(ROW)?..)?.get(..ROW)?;
        let ([counter, used, id @ ..], known) = row.split_at_checked(2 + ID)? else { return None };
        Some(Row { counter, used, id, known })
    }

    /// The peer's row; one that is free, or that of the one silent longest, becomes its row.
    fn row(&self, id: &Id, now: u64) -> Option<(usize, Row<'m>)> {
        let (name, count) = (hash(id), self.names.len());
        let home = (name % count.max(1) as u64) as usize;
        let mut free = None;
        for number in (home..count).chain(0..home) {
            let found = self.names.get(number)?.load(Relaxed);
            if found == name {
                let row = self.at(number)?;
                if row.is(id) {
                    put(row.used, now, Relaxed);
                    return Some((number, row));
                }
            } else if found <= FREE {
                free = free.or(Some(number));
                if found == UNUSED {
                    break;
                }
            }
        }
        let number = free.or_else(|| self.silent())?;
        let (place, row) = (self.names.get(number)?, self.at(number)?);
        if place.load(Relaxed) > FREE {
            self.keep_counter(row);
        }
        self.edit(number, || {
            put(place, FREE, Relaxed);
            put(row.counter, self.base.load(Relaxed), Relaxed);
            put(row.used, now, Relaxed);
            row.id.iter().zip(id).for_each(|(word, value)| put(word, *value, Relaxed));
            row.set_known(&Known::default());
            put(place, name, Relaxed);
        });
        Some((number, row))
    }

    /// The row that was not used for longest.
    fn silent(&self) -> Option<usize> {
        (0..self.names.len())
            .min_by_key(|number| self.at(*number).map(|row| row.used.load(Relaxed)))
    }

    /// New rows go on behind the counter of one that is forgotten.
    fn keep_counter(&self, row: Row<'_>) {
        let counter = row.counter.load(Relaxed);
        if counter > self.base.load(Relaxed) {
            put(self.base, counter, Relaxed);
        }
    }
}

impl Row<'_> {
    fn is(&self, id: &Id) -> bool {
        self.id.iter().zip(id).all(|(word, value)| word.load(Relaxed) == *value)
    }

    fn known(&self) -> Known {
        let mut words = [0; KNOWN];
        words.iter_mut().zip(self.known).for_each(|(to, word)| *to = word.load(Relaxed));
        let [epoch, floor, opened, by, pending, nonce, since, highest, bits @ ..] = words;
        Known {
            epoch,
            floor,
            opened_by: join([opened, by]),
            pending: join([pending, nonce]),
            since,
            window: Window { highest, bits },
        }
    }

    fn set_known(&self, known: &Known) {
        let [opened, by] = split(&known.opened_by);
        let [pending, nonce] = split(&known.pending);
        let Window { highest, bits } = &known.window;
        let head = [known.epoch, known.floor, opened, by, pending, nonce, known.since, *highest];
        for (word, value) in self.known.iter().zip(head.iter().chain(bits)) {
            if word.load(Relaxed) != *value {
                put(word, *value, Relaxed);
            }
        }
    }
}

/// The bytes of some words.
fn join<const WORDS: usize, const BYTES: usize>(words: [u64; WORDS]) -> [u8; BYTES] {
    let mut joined = [0; BYTES];
    for (bytes, word) in joined.chunks_exact_mut(8).zip(words) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    joined
}

/// And back.
fn split<const BYTES: usize, const WORDS: usize>(bytes: &[u8; BYTES]) -> [u64; WORDS] {
    let mut words = [0; WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.try_into().map_or(0, u64::from_ne_bytes);
    }
    words
}

/// Head, hashes of names, rows.
fn parts(memory: &[AtomicU64]) -> Option<(&[AtomicU64], &[AtomicU64], &[AtomicU64])> {
    let (head, rest) = memory.split_at_checked(HEAD)?;
    let peers = rest.len() / (1 + ROW);
    let (names, rows) = rest.split_at_checked(peers)?;
    (peers > 0).then_some((head, names, rows))
}

fn id(name: &[u8]) -> Option<Id> {
    let mut id = [0; ID];
    let (length, words) = id.split_first_mut()?;
    for (word, bytes) in words.iter_mut().zip(name.chunks(8)) {
        let mut padded = [0; 8];
        padded.iter_mut().zip(bytes).for_each(|(to, byte)| *to = *byte);
        *word = u64::from_ne_bytes(padded);
    }
    *length = name.len() as u64;
    (1..=ID_MAX).contains(&name.len()).then_some(id)
}

/// FNV-1a over words, well mixed; neither [`UNUSED`] nor [`FREE`].
fn hash(id: &Id) -> u64 {
    let mix = |hash: u64, word: &u64| {
        let hash = (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3);
        hash ^ hash >> 29
    };
    id.iter().fold(0xcbf2_9ce4_8422_2325, mix).max(FREE + 1)
}
