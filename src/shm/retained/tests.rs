//! Unit tests, and the same steps played on a map.

mod crash;
mod garbage;
mod threads;

use super::block::Sought;
use super::lock::fuse;
use super::region::{self, GRANULE, WORDS_MIN};
use super::room::Extent;
use super::*;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};

/// By name and key: the value and its sequence number.
type Values = HashMap<(Vec<u8>, Vec<u8>), (Vec<u8>, u64)>;

pub struct Zone(Vec<AtomicU64>);

impl Zone {
    /// So many bytes, initialised.
    pub fn new(size: usize) -> Self {
        let zone = Zone((0..size / 8).map(|_| AtomicU64::new(0)).collect());
        assert!(Retained::<fn(Pid) -> bool>::init(&zone.0));
        zone
    }

    /// As the process sees it that thinks that everybody lives.
    pub fn seen_by(&self, pid: u32) -> Retained<'_, fn(Pid) -> bool> {
        self.seen_by_with(pid, |_| true)
    }

    pub fn seen_by_with<A: Fn(Pid) -> bool>(&self, pid: u32, alive: A) -> Retained<'_, A> {
        Retained::attach(&self.0, Pid(pid), alive).unwrap()
    }
}

impl<A: Fn(Pid) -> bool> Retained<'_, A> {
    /// All values, after a look at everything that follows from the chains and holds: the bitmap
    /// covers them and nothing else, no two blocks overlap, and the counts are right.
    pub fn audit(&self) -> Values {
        let mut taken = BTreeSet::new();
        let mut take = |extent: Extent| {
            for granule in extent.at..extent.at + extent.granules {
                assert!(granule < self.region.granules());
                assert!(taken.insert(granule), "two blocks on granule {granule}");
            }
        };
        let (mut values, mut counted) = (HashMap::new(), HashMap::<Vec<u8>, u64>::new());
        let mut records = HashMap::new();
        for bucket in self.region.buckets {
            for block in self.region.chain(bucket) {
                take(Extent::of(block));
                let (mut name, mut key, mut value) = (vec![], vec![], vec![]);
                block.read_name(&mut name);
                block.read_key(&mut key);
                block.read_value(&mut value);
                match block.record() {
                    Some(record) => {
                        let number = record.values.load(Ordering::Relaxed);
                        assert!(records.insert(name, number).is_none(), "two records of a name");
                    }
                    None => {
                        let sequence = block.sequence.load(Ordering::Relaxed);
                        assert!(sequence <= self.sequence());
                        *counted.entry(name.clone()).or_default() += 1;
                        let twice = values.insert((name, key), (value, sequence));
                        assert!(twice.is_none(), "two values of a key");
                    }
                }
            }
        }
        for hold in self.region.holds.chunks(region::HOLD) {
            let extent = Extent::unpack(hold[1].load(Ordering::Relaxed));
            if hold[0].load(Ordering::Relaxed) != 0 && !self.is_linked(extent.at) {
                take(extent);
            }
        }
        let marked = self.region.taken.iter().enumerate().flat_map(|(i, word)| {
            let word = word.load(Ordering::Relaxed);
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| i * 64 + bit)
        });
        assert!(marked.eq(taken.iter().copied()), "the bitmap is not what is in use");
        assert_eq!(self.bytes_used(), taken.len() * GRANULE * 8);
        assert_eq!(self.len(), values.len());
        assert_eq!(records, counted);
        values
    }
}

const SMALL: usize = 16 << 10;

#[test]
fn the_last_value_of_a_key_is_there() {
    let zone = Zone::new(SMALL);
    let (a, b) = (zone.seen_by(1), zone.seen_by(2));
    let mut value = vec![];
    assert_eq!(a.get(b"name", b"key", &mut value), Ok(None));
    assert_eq!(a.set(b"name", b"key", b"first"), Ok(1));
    assert_eq!(b.set(b"name", b"key", b"second, and longer"), Ok(2));
    assert_eq!(b.set(b"name", b"", b""), Ok(3));
    assert_eq!(b.set(b"", b"key", b"another"), Ok(4));
    assert_eq!(a.get(b"name", b"key", &mut value), Ok(Some(2)));
    assert_eq!(value, b"second, and longer");
    assert_eq!(a.get(b"name", b"", &mut value), Ok(Some(3)));
    assert_eq!(value, b"");
    assert_eq!((a.len(), a.sequence()), (3, 4));
    assert_eq!(a.delete(b"name", b"key"), Ok(Some(5)));
    assert_eq!(a.delete(b"name", b"key"), Ok(None));
    assert_eq!(b.get(b"name", b"key", &mut value), Ok(None));
    a.delete(b"name", b"").unwrap();
    a.delete(b"", b"key").unwrap();
    assert_eq!((a.bytes_used(), a.is_empty()), (0, true));
    a.audit();
}

#[test]
fn what_is_too_long_is_refused_and_changes_nothing() {
    let zone = Zone::new(SMALL);
    let a = zone.seen_by(1);
    a.set(b"n", b"k", b"stays").unwrap();
    assert_eq!(a.set(&[b'n'; 255], b"", b""), Err(SetError::NameTooLong));
    assert_eq!(a.set(b"n", &[b'k'; KEY_MAX + 1], b""), Err(SetError::KeyTooLong));
    assert_eq!(a.set(b"n", b"k", &vec![0; a.capacity()]), Err(SetError::TooLong));
    assert_eq!(a.set(b"n", b"k", &vec![0; a.capacity() - 150]), Err(SetError::NoRoom));
    a.set(&[b'n'; 254], &[b'k'; KEY_MAX], b"longest").unwrap();
    let mut value = vec![];
    assert_eq!(a.get(b"n", b"k", &mut value), Ok(Some(1)));
    assert_eq!(value, b"stays");
    a.delete(&[b'n'; 254], &[b'k'; KEY_MAX]).unwrap();
    a.delete(b"n", b"k").unwrap();
    assert!(a.set(b"n", b"k", &vec![7; a.capacity() - 192]).is_ok());
    a.audit();
}

#[test]
fn memory_of_another_size_or_layout_is_not_taken() {
    let zone = Zone::new(SMALL);
    let attach = |memory, pid| Retained::attach(memory, Pid(pid), |_| true).is_some();
    assert!(attach(&zone.0[..], 1));
    assert!(!attach(&zone.0[..zone.0.len() - 1], 1));
    assert!(!attach(&zone.0[1..], 1));
    assert!(!attach(&[], 1));
    assert!(!attach(&zone.0[..], 0) && !attach(&zone.0[..], 1 << 22));
    assert!(!Retained::<fn(Pid) -> bool>::init(&zone.0[..WORDS_MIN - 1]));
    let least = Zone::new(SIZE_MIN);
    assert_eq!(least.seen_by(1).set(b"n", b"k", b"v"), Ok(1));
    zone.0[0].fetch_add(1, Ordering::Relaxed); // another layout
    assert!(!attach(&zone.0[..], 1));
}

/// What a visit shows, and what it says.
fn visit<A: Fn(Pid) -> bool>(a: &Retained<'_, A>, name: &str, since: u64) -> (Vec<String>, Seen) {
    let mut shown = vec![];
    let seen = a.visit(name.as_bytes(), since, |v| {
        let (key, value) = (String::from_utf8_lossy(v.key), String::from_utf8_lossy(v.value));
        shown.push(format!("{key}={value}@{}", v.sequence));
    });
    (shown, seen.unwrap())
}

#[test]
fn a_visit_shows_what_is_new_and_says_when_that_is_not_all() {
    let zone = Zone::new(SMALL);
    let a = zone.seen_by(1);
    assert_eq!(visit(&a, "n", 0), (vec![], Seen { sequence: 0, afresh: false }));
    for key in ["a", "b", "c"] {
        a.set(b"n", key.as_bytes(), b"1").unwrap();
        a.set(b"other", key.as_bytes(), b"1").unwrap();
    }
    assert_eq!(a.last(b"n"), Ok(5));
    let all = vec!["a=1@1".to_string(), "b=1@3".into(), "c=1@5".into()];
    assert_eq!(visit(&a, "n", 0), (all, Seen { sequence: 5, afresh: true }));
    assert_eq!(visit(&a, "n", 5), (vec![], Seen { sequence: 5, afresh: false }));
    a.set(b"n", b"a", b"2").unwrap();
    let new = (vec!["a=2@7".to_string()], Seen { sequence: 7, afresh: false });
    assert_eq!(visit(&a, "n", 5), new);
    a.delete(b"n", b"b").unwrap();
    let afresh = (vec!["c=1@5".to_string(), "a=2@7".into()], Seen { sequence: 8, afresh: true });
    assert_eq!(visit(&a, "n", 7), afresh);
    assert_eq!(visit(&a, "n", 8), (vec![], Seen { sequence: 8, afresh: false }));
    let mut names = a.names().unwrap();
    names.sort();
    assert_eq!(names, [(b"n".to_vec(), 8), (b"other".to_vec(), 6)]);
    // a name that was gone and came back is new to those who knew the old one
    a.delete(b"n", b"a").unwrap();
    a.delete(b"n", b"c").unwrap();
    assert_eq!(visit(&a, "n", 8), (vec![], Seen { sequence: 0, afresh: true }));
    a.set(b"n", b"a", b"3").unwrap();
    assert_eq!(visit(&a, "n", 8), (vec!["a=3@11".into()], Seen { sequence: 11, afresh: true }));
}

#[test]
fn a_visitor_may_change_what_it_visits() {
    let zone = Zone::new(SMALL);
    let a = zone.seen_by(1);
    for i in 0..20u8 {
        a.set(b"n", &[i], &[i]).unwrap();
    }
    let mut shown = 0;
    a.visit(b"n", 0, |v| {
        shown += 1;
        a.delete(b"n", &[v.key[0] + 1]).unwrap();
        a.set(b"n", &[v.key[0] + 100], b"new").unwrap();
    })
    .unwrap();
    assert_eq!((shown, a.len()), (10, 20));
    a.audit();
}

#[test]
fn a_live_owner_of_the_lock_makes_others_come_again_and_a_dead_one_does_not() {
    let zone = Zone::new(SMALL);
    let a = zone.seen_by(1);
    a.set(b"n", b"k", b"v").unwrap();
    a.region.lock.store(2, Ordering::Relaxed);
    assert_eq!(a.set(b"n", b"k", b"w"), Err(SetError::Busy));
    assert_eq!(a.delete(b"n", b"k"), Err(SetError::Busy));
    let mut value = vec![];
    assert_eq!(a.get(b"n", b"k", &mut value), Ok(Some(1)));
    let b = zone.seen_by_with(3, |pid| pid != Pid(2));
    assert!(b.set(b"n", b"k", b"w").is_ok());
    assert!(a.set(b"n", b"k", b"x").is_ok());
    // a process id that lives again as somebody who takes part
    a.region.lock.store(1, Ordering::Relaxed);
    assert!(a.set(b"n", b"k", b"y").is_ok());
    a.audit();
}

/// What can happen to a writer while it copies.
#[test]
fn a_writer_notices_what_it_lost_while_it_copied() {
    let zone = Zone::new(SMALL);
    let (a, b) = (zone.seen_by(1), zone.seen_by_with(2, |_| false));
    let (sought, record) = (Sought::value(b"n", b"k"), Sought::record(b"n"));
    let reserve = |with_record| {
        let reserved = a.locked(|| a.reserve(&sought, &record, 5, with_record).unwrap()).unwrap();
        a.region.block(reserved.extent.at).unwrap().fill(&sought, b"value");
        reserved
    };
    let publish = |reserved| a.locked(|| a.publish(&reserved, &sought, &record)).unwrap();
    // the name's record, with the name's last value
    a.set(b"n", b"k", b"v").unwrap();
    let reserved = reserve(false);
    assert_eq!(reserved.record, None);
    a.delete(b"n", b"k").unwrap();
    assert_eq!(publish(reserved), Ok(None));
    assert_eq!(a.bytes_used(), 0);
    // the need for a record of its own
    let reserved = reserve(false);
    a.region.block(reserved.record.unwrap()).unwrap().fill(&record, &[0; 24]);
    b.set(b"n", b"other", b"v").unwrap();
    assert!(publish(reserved).unwrap().is_some());
    // its life, in the eyes of another who was short of room
    let reserved = reserve(false);
    b.locked(|| b.collect()).unwrap();
    b.set(b"x", b"k", b"where it was").unwrap();
    assert_eq!(publish(reserved), Err(SetError::Busy));
    assert_eq!(a.audit().len(), 3);
    // the lock; then whoever is short of room may have what was reserved
    let (used, extent) = (a.bytes_used(), reserve(false).extent);
    a.abandon(extent);
    zone.seen_by(3).locked(|| zone.seen_by(3).collect()).unwrap();
    assert_eq!(a.bytes_used(), used);
    a.audit();
}

#[test]
fn a_full_chain_refuses_and_the_others_go_on() {
    let zone = Zone::new(256 << 10);
    let a = zone.seen_by(1);
    let bucket = |key: &u64| {
        let sought = Sought::value(b"n", &key.to_le_bytes()).hash;
        std::ptr::from_ref(a.region.bucket(sought).unwrap())
    };
    let first = bucket(&0);
    let mut collide = (0u64..).filter(|key| bucket(key) == first);
    let refused = collide.find(|key| a.set(b"n", &key.to_le_bytes(), b"v").is_err()).unwrap();
    assert_eq!(a.set(b"n", &refused.to_le_bytes(), b"v"), Err(SetError::NoRoom));
    assert!(a.len() >= region::CHAIN_MAX - 2);
    assert!(a.set(b"n", &0u64.to_le_bytes(), b"w").is_ok());
    assert!(a.set(b"other", b"k", b"v").is_ok());
    assert_eq!(a.audit().len(), a.len());
}

#[derive(Clone, Debug)]
enum Step {
    Set { name: u8, key: u8, length: usize },
    Delete { name: u8, key: u8 },
    Visit { name: u8 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let length = prop_oneof![4 => 0usize..64, 2 => 64usize..1000, 1 => 1000usize..9000];
    let step = prop_oneof![
        5 => (0u8..4, 0u8..12, length).prop_map(|(name, key, length)| Step::Set { name, key, length }),
        2 => (0u8..4, 0u8..12).prop_map(|(name, key)| Step::Delete { name, key }),
        1 => (0u8..4).prop_map(|name| Step::Visit { name }),
    ];
    prop::collection::vec(step, 1..150)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 60 }))]

    /// Sets and deletes in any order, in a region that they fill and break up. A visitor of each
    /// name that only asks for news knows what a map knows.
    #[test]
    fn it_is_a_map_with_a_bound(steps in steps(), size in SIZE_MIN..40 << 10) {
        let zone = Zone::new(size & !7);
        let processes = [zone.seen_by(1), zone.seen_by(2)];
        let mut model = Values::new();
        let mut known = HashMap::<u8, (u64, HashMap<_, _>)>::new();
        for (i, step) in steps.into_iter().enumerate() {
            let a = &processes[i % 2];
            match step {
                Step::Set { name, key, length } => {
                    let (name, key) = (vec![name; name as usize * 40], vec![key; key as usize]);
                    let value: Vec<u8> = (0..length).map(|byte| (byte + i) as u8).collect();
                    let used = a.bytes_used();
                    match a.set(&name, &key, &value) {
                        Ok(sequence) => {
                            prop_assert_eq!(sequence, a.sequence());
                            prop_assert_eq!(a.last(&name), Ok(sequence));
                            model.insert((name, key), (value, sequence));
                        }
                        Err(SetError::NoRoom | SetError::TooLong) => {
                            prop_assert_eq!(a.bytes_used(), used);
                            prop_assert!(used > 0 || length + 1024 > a.capacity());
                        }
                        Err(other) => prop_assert!(false, "{}", other),
                    }
                }
                Step::Delete { name, key } => {
                    let (name, key) = (vec![name; name as usize * 40], vec![key; key as usize]);
                    let there = a.delete(&name, &key).unwrap().is_some();
                    prop_assert_eq!(there, model.remove(&(name, key)).is_some());
                }
                Step::Visit { name } => {
                    let (since, values) = known.entry(name).or_default();
                    let name = vec![name; name as usize * 40];
                    let mut news = HashMap::new();
                    let seen = a.visit(&name, *since, |v| {
                        news.insert(v.key.to_vec(), v.value.to_vec());
                    }).unwrap();
                    if seen.afresh {
                        values.clear();
                    }
                    values.extend(news);
                    *since = seen.sequence;
                    let all = model.iter().filter(|((n, _), _)| *n == name);
                    let all: HashMap<_, _> =
                        all.map(|((_, key), (value, _))| (key.clone(), value.clone())).collect();
                    prop_assert_eq!(&*values, &all);
                }
            }
            let mut value = vec![];
            for ((name, key), (kept, sequence)) in &model {
                prop_assert_eq!(a.get(name, key, &mut value), Ok(Some(*sequence)));
                prop_assert_eq!(&value, kept);
            }
            prop_assert_eq!(a.audit(), model.clone());
        }
        for (name, key) in model.keys() {
            processes[0].delete(name, key).unwrap();
        }
        prop_assert_eq!(processes[0].bytes_used(), 0);
    }
}
