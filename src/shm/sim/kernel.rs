//! What a run is made of beside processes: numbers from a seed, lines and eventfds.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::super::ends::Bell;
use super::world::tick;

/// Numbers from a seed (splitmix64).
pub(super) struct Random(Cell<u64>);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(Cell::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)))
    }

    fn next(&self) -> u64 {
        self.0.set(self.0.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
        let z = self.0.get();
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn pick<T: Copy>(&self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// A record, and what was passed along.
type Datagram = (Vec<u8>, Option<Rc<Line>>);

/// A worker's line: whole records, so many.
pub(super) struct Line {
    records: RefCell<VecDeque<Datagram>>,
    room: usize,
    closed: Cell<bool>,
}

impl Line {
    /// An empty one for so many records.
    pub(super) fn new(room: usize) -> Line {
        Line { records: RefCell::default(), room, closed: Cell::new(false) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.borrow().is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.borrow().len() >= self.room
    }

    /// Nobody reads any more.
    pub(super) fn close(&self) {
        tick();
        self.closed.set(true);
        tick();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn push(&self, record: Vec<u8>, passed: Option<Rc<Line>>) {
        tick();
        self.records.borrow_mut().push_back((record, passed));
        tick();
    }

    pub(super) fn pop(&self) -> Option<Datagram> {
        tick();
        let record = self.records.borrow_mut().pop_front();
        tick();
        record
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(&[u8])) {
        self.records.borrow().iter().for_each(|(record, _)| f(record));
    }
}

/// The eventfds of a generation.
#[derive(Clone)]
pub(super) struct Eventfds(pub(super) Rc<[Cell<bool>]>);

impl Bell for Eventfds {
    fn ring(&self, worker: usize) {
        tick();
        self.0[worker].set(true);
        tick();
    }

    fn takes_part(&self) -> bool {
        true
    }

    // nothing is ever reordered here
    fn barrier(&self) {
        tick();
    }
}
