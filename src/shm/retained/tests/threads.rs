//! Writers and readers at once: every value read is one that was written, whole.

use super::*;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::{Duration, Instant};

const KEYS: u64 = 6;

/// A value that tells whether it is whole: one word, as often as the word says.
fn value(seed: u64) -> Vec<u8> {
    let word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word.to_le_bytes().repeat(times(word))
}

fn times(word: u64) -> usize {
    1 + (word >> 40) as usize % if word >> 60 == 0 { 800 } else { 30 }
}

fn assert_whole(bytes: &[u8]) {
    let word = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    assert!(bytes == word.to_le_bytes().repeat(times(word)), "half of one, half of another");
}

/// Small numbers that repeat.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

/// Rounds of a reader.
const ROUNDS: u32 = if cfg!(miri) { 50 } else { 40_000 };

/// One less of them when it ends, however it does.
struct Among<'a>(&'a AtomicU32);

impl Drop for Among<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn readers_see_whole_values_and_numbers_that_only_grow() {
    let zone = Zone::new(64 << 10);
    for (name, key) in (0..2).flat_map(|name| (0..KEYS).map(move |key| (name, key))) {
        zone.seen_by(1).set(&[name], &key.to_le_bytes(), &value(key)).unwrap();
    }
    let (reading, start) = (AtomicU32::new(3), Barrier::new(6));
    // Those to be killed live until they are: who is taken for dead while it writes, because its
    // thread has lost its core, spoils what others do in its place.
    let doomed = [const { AtomicU32::new(0) }; 4];
    let alive = |pid: Pid| {
        pid.0 < 100 || doomed.iter().any(|doomed| doomed.load(Ordering::Acquire) == pid.0)
    };
    thread::scope(|scope| {
        for pid in 1..4u32 {
            let (zone, reading, start, doomed) = (&zone, &reading, &start, &doomed);
            scope.spawn(move || {
                let mut dice = Dice(pid.into());
                let (mut next, mut life) = (u64::from(pid) << 32, 0);
                let mut last = 0;
                start.wait();
                while reading.load(Ordering::Relaxed) > 0 {
                    // some of the writers die and come back under another process id
                    life = (life + 1) % 1_000_000;
                    let name = [dice.below(2) as u8];
                    let key = dice.below(KEYS).to_le_bytes();
                    if dice.below(200) == 0 {
                        let mortal = 100 + pid * 1_000_000 + life;
                        doomed[pid as usize].store(mortal, Ordering::Relaxed);
                        let dying = zone.seen_by_with(mortal, alive);
                        fuse::until(dice.below(90), || {
                            dying.set(&name, &key, &value(next)).is_ok()
                        });
                        // as the kernel has it: who hears of an end sees all that came before it
                        doomed[pid as usize].store(0, Ordering::Release);
                        continue;
                    }
                    let me = zone.seen_by_with(pid, alive);
                    next += 1;
                    match dice.below(8) {
                        0 => drop(me.delete(&name, &key)),
                        _ => {
                            if let Ok(sequence) = me.set(&name, &key, &value(next)) {
                                assert!(sequence > last);
                                last = sequence;
                            }
                        }
                    }
                }
            });
        }
        for pid in 11..14u32 {
            let (zone, reading, start) = (&zone, &reading, &start);
            scope.spawn(move || {
                let _among = Among(reading);
                let me = zone.seen_by_with(pid, alive);
                let (mut got, mut seen) = (vec![], HashMap::new());
                let (mut dice, mut since, mut reads) = (Dice(pid.into()), [0; 2], 0u64);
                start.wait();
                for _ in 0..ROUNDS {
                    let (name, key) = (dice.below(2), dice.below(KEYS));
                    let sought = Sought::value(&[name as u8], &key.to_le_bytes()).hash;
                    let found = match dice.below(4) {
                        0 => {
                            let key = key.to_le_bytes();
                            me.get_held(&Sought::value(&[name as u8], &key), &mut got)
                        }
                        _ => me.get(&[name as u8], &key.to_le_bytes(), &mut got),
                    };
                    if let Ok(Some(sequence)) = found {
                        assert_whole(&got);
                        let last = seen.entry(sought).or_insert(0);
                        assert!(sequence >= *last, "an older value came back");
                        *last = sequence;
                        reads += 1;
                    }
                    let since = &mut since[name as usize];
                    let visited = me.visit(&[name as u8], *since, |v| assert_whole(v.value));
                    *since = visited.map_or(*since, |seen| seen.sequence);
                }
                assert!(reads > 0);
            });
        }
    });
    let me = zone.seen_by_with(50, |_| false);
    me.delete(b"x", b"").unwrap();
    let _ = me.set(b"x", b"", &vec![0; me.capacity() - 256]);
    for ((name, key), (bytes, _)) in me.audit() {
        assert_whole(&bytes);
        me.delete(&name, &key).unwrap();
    }
    assert_eq!(me.bytes_used(), 0);
}

/// The last to publish wins, and that is the one with the higher number.
#[test]
fn of_two_sets_of_a_key_the_later_number_stays() {
    let zone = Zone::new(SMALL);
    for round in 0..if cfg!(miri) { 10 } else { 300u32 } {
        let start = Barrier::new(2);
        let set = |pid: u32| {
            start.wait();
            (zone.seen_by(pid).set(b"n", b"k", &pid.to_le_bytes()).unwrap(), pid)
        };
        let (a, b) = thread::scope(|scope| {
            let other = scope.spawn(|| set(1 + round * 2));
            (set(2 + round * 2), other.join().unwrap())
        });
        let mut got = vec![];
        let found = zone.seen_by(9999).get(b"n", b"k", &mut got);
        let (sequence, pid) = a.max(b);
        assert_eq!((found, &got[..]), (Ok(Some(sequence)), &pid.to_le_bytes()[..]));
    }
}

/// Long values that are set without a pause, in a region with room for two: each reader comes
/// through all the same.
#[test]
#[cfg_attr(miri, ignore = "much to copy, by the same few lines")]
fn writers_do_not_starve_a_reader() {
    let zone = Zone::new(1 << 20);
    let end = AtomicBool::new(false);
    zone.seen_by(1).set(b"n", b"k", &7u64.to_le_bytes().repeat(50_000)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut word = 0u64;
            while !end.load(Ordering::Relaxed) {
                word += 1;
                let _ = zone.seen_by(1).set(b"n", b"k", &word.to_le_bytes().repeat(50_000));
            }
        });
        let _end = AtTheEnd(&end); // also where an assertion fails
        let (me, mut got, began) = (zone.seen_by(2), vec![], Instant::now());
        let mut worst = Duration::ZERO;
        while began.elapsed() < Duration::from_millis(500) {
            let before = Instant::now();
            assert!(me.get(b"n", b"k", &mut got).unwrap().is_some());
            worst = worst.max(before.elapsed());
            assert!(got.len() == 400_000 && got.chunks(8).all(|chunk| chunk == &got[..8]));
        }
        println!("slowest read {worst:?}");
    });
}

struct AtTheEnd<'a>(&'a AtomicBool);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
