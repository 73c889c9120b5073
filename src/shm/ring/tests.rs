//! One ring, alone and with threads.

use super::super::at;
use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

/// Memory of a ring: ends, then data.
pub struct Memory(Vec<Word>, usize);

impl Memory {
    pub fn new(size: usize) -> Memory {
        Memory((0..(size_of::<Ends>() + 128 + size) / 8).map(|_| Word::new(0)).collect(), size)
    }

    pub fn ring(&self) -> Ring<'_> {
        let skip = self.0.as_ptr().cast::<u8>().align_offset(128) / 8;
        let (ends, data) = self.0[skip..].split_at(size_of::<Ends>() / 8);
        Ring::new(at(ends).unwrap(), &data[..self.1 / 8]).unwrap()
    }
}

proptest! {
    /// Puts and takes in any order, of any size: what comes out is what went in.
    #[test]
    fn order_and_content_are_kept(steps in prop::collection::vec((any::<bool>(), 0usize..130), 1..400)) {
        let memory = Memory::new(256);
        let (mut producer, mut consumer) = (memory.ring().producer(), memory.ring().consumer());
        let mut model: VecDeque<Vec<u8>> = VecDeque::new();
        for (i, (put, length)) in steps.into_iter().enumerate() {
            if put {
                let record = vec![i as u8; length];
                let half = record.len() / 2;
                match producer.put([&record[..half], &record[half..], b""]) {
                    Ok(()) => model.push_back(record),
                    Err(NoRoom) => prop_assert!(length > Ring::longest(256) || !model.is_empty() || consumer.head != consumer.next),
                }
            } else {
                prop_assert_eq!(consumer.take().map(<[u8]>::to_vec), model.pop_front());
            }
        }
        while let Some(expected) = model.pop_front() {
            prop_assert_eq!(consumer.take().map(<[u8]>::to_vec), Some(expected));
        }
        prop_assert_eq!(consumer.take(), None);
    }

    /// Whatever another process scribbled: no panic, nothing out of bounds, no endless loop.
    #[test]
    fn garbage_is_survived(words in prop::collection::vec(any::<u64>(), 80), tail in any::<u64>(), head in any::<u64>()) {
        let memory = Memory::new(256);
        for (to, from) in memory.0.iter().zip(&words) {
            to.store(*from, Ordering::Relaxed);
        }
        let ring = memory.ring();
        ring.ends.tail.store(tail, Ordering::Relaxed);
        ring.ends.head.store(head, Ordering::Relaxed);
        let mut consumer = ring.consumer();
        for _ in 0..100 {
            if let Some(record) = consumer.take() {
                prop_assert!(record.len() < 256);
            }
        }
    }
}

#[test]
fn a_successor_goes_on_behind_what_was_handed_out() {
    let memory = Memory::new(256);
    let mut producer = memory.ring().producer();
    for name in [b"one", b"two"] {
        producer.put([name, b"", b""]).unwrap();
    }
    assert_eq!(memory.ring().consumer().take(), Some(&b"one"[..])); // and dies
    let mut successor = memory.ring().consumer();
    assert_eq!(successor.take(), Some(&b"two"[..]));
    // a producer that dies has published whole records or none
    memory.ring().producer().put([b"three", b"", b""]).unwrap();
    assert_eq!(successor.take(), Some(&b"three"[..]));
    assert_eq!(successor.take(), None);
}

/// While the consumer keeps up, the start of the ring is used again and again; what a lagging
/// one has not taken is never written over.
#[test]
#[cfg_attr(miri, ignore = "much to copy, by the same few lines")]
fn a_consumer_that_keeps_up_keeps_the_ring_small() {
    let memory = Memory::new(4 * HOT);
    let (mut producer, mut consumer) = (memory.ring().producer(), memory.ring().consumer());
    let record = |i: u32| [[i as u8; 1000].as_slice(), &i.to_ne_bytes()].concat();
    let mut furthest = 0;
    for i in 0..5000 {
        producer.put([&record(i), b"", b""]).unwrap();
        furthest = furthest.max(4 * HOT - producer.ring.lap(producer.tail));
        assert_eq!(consumer.take(), Some(&record(i)[..]));
    }
    assert!(furthest <= HOT, "{furthest}");
    let put = (0..).take_while(|i| producer.put([&record(*i), b"", b""]).is_ok()).count();
    assert!(put >= HOT / 2 / 1024, "{put}");
    for i in 0..put as u32 {
        assert_eq!(consumer.take(), Some(&record(i)[..]));
    }
    assert_eq!(consumer.take(), None);
}

#[test]
fn room_is_told_once() {
    let memory = Memory::new(256);
    let (mut producer, mut consumer) = (memory.ring().producer(), memory.ring().consumer());
    while producer.put([&[7; 50], b"", b""]).is_ok() {}
    assert!(!producer.want_room());
    while consumer.take().is_some() {}
    assert!(consumer.wanted());
    assert!(!consumer.wanted());
    assert!(producer.put([&[7; 50], b"", b""]).is_ok());
}

#[test]
fn two_threads_agree() {
    let count = if cfg!(miri) { 200 } else { 20_000u32 };
    let memory = Memory::new(1024);
    let (mut producer, mut consumer) = (memory.ring().producer(), memory.ring().consumer());
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..count {
                let tail = vec![i as u8; i as usize % 97];
                while producer.put([&i.to_ne_bytes(), &tail, b""]).is_err() {
                    std::thread::yield_now();
                }
            }
        });
        for i in 0..count {
            let record = loop {
                if let Some(record) = consumer.take() {
                    break record.to_vec();
                }
                std::thread::yield_now();
            };
            assert_eq!(record[..4], i.to_ne_bytes());
            assert!(
                record.len() == 4 + i as usize % 97 && record[4..].iter().all(|b| *b == i as u8)
            );
        }
    });
}

#[test]
fn a_ring_of_skipped_room_ends() {
    // each word says that eight bytes are skipped, and the tail is centuries away
    let memory = Memory::new(256);
    let words = memory.0.iter();
    words.for_each(|word| word.store(PAD | 8, Ordering::Relaxed));
    let ring = memory.ring();
    for end in [&ring.ends.head, &ring.ends.taken] {
        end.store(0, Ordering::Relaxed);
    }
    ring.ends.tail.store(1 << 60, Ordering::Relaxed);
    let mut consumer = ring.consumer();
    assert_eq!(consumer.take(), None);
    assert!(consumer.is_empty());
}
