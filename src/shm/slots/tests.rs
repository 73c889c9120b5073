//! Slots claimed, given back, inherited.

use super::*;
use crate::shm::{Word, at};
use proptest::prelude::*;
use std::collections::{HashMap, HashSet};

/// Zeroed memory of a table's size, and room to align it.
struct Zone(Vec<Word>);

impl Zone {
    fn new() -> Self {
        let words = (Table::SIZE + align_of::<Table>()) / 8;
        let zone = Zone((0..words).map(|_| Word::new(0)).collect());
        zone.table().init();
        zone
    }

    fn table(&self) -> &Table {
        let skip = self.0.as_ptr().cast::<u8>().align_offset(align_of::<Table>()) / 8;
        at(&self.0[skip..]).unwrap()
    }
}

fn seat(generation: u32, worker: u16) -> Seat {
    Seat { generation: Generation(generation), worker: WorkerId(worker) }
}

proptest! {
    #[test]
    fn an_identity_word_keeps_all_of_it(pid in 1u32..1 << 22, worker in 0u16..1024, generation in 0u32..1 << 29, state in 0usize..4) {
        let state = [State::Starting, State::Live, State::Retiring, State::Closed, State::Ousted][state];
        let w = Worker { pid: Pid(pid), seat: seat(generation, worker), state };
        prop_assert_eq!(Worker::unpack(w.pack()), Some(w));
    }

    #[test]
    fn any_word_is_read_without_harm(word in any::<u64>()) {
        if let Some(w) = Worker::unpack(word) {
            prop_assert!(usize::from(w.seat.worker.0) < SLOTS);
        }
    }

    /// Starts, crashes and exits in any order: each living process has one slot, and only
    /// the living and those that crashed since are in the table.
    #[test]
    fn slots_follow_the_living(steps in prop::collection::vec((0u8..3, 0u16..6, 1u32..3), 1..80)) {
        let zone = Zone::new();
        let table = zone.table();
        let mut living: HashMap<(u32, u16), (Pid, SlotId)> = HashMap::new();
        let mut next = 1;
        for (step, worker, generation) in steps {
            let key = (generation, worker);
            match step {
                0 => {
                    let pid = Pid(next);
                    next += 1;
                    living.remove(&key); // its process was killed before a successor starts
                    let alive: HashSet<Pid> = living.values().map(|l| l.0).collect();
                    let slot = table.claim(pid, seat(generation, worker), |p| alive.contains(&p));
                    living.insert(key, (pid, slot.ok_or(TestCaseError::fail("no slot"))?));
                }
                1 => { living.remove(&key); }
                _ => if let Some((pid, slot)) = living.remove(&key) { table.release(slot, pid) },
            }
            for ((generation, worker), (pid, _)) in &living {
                let found = table.find(*pid).and_then(|slot| table.worker(slot));
                prop_assert_eq!(found.map(|w| w.seat), Some(seat(*generation, *worker)));
            }
            prop_assert!(table.workers().count() <= 12);
        }
    }
}

#[test]
fn a_successor_takes_its_predecessors_slot_and_counters() {
    let zone = Zone::new();
    let table = zone.table();
    let first = table.claim(Pid(10), seat(1, 0), |_| true).unwrap();
    table.count(first, Counter::Sent, 5);
    let second = table.claim(Pid(11), seat(1, 0), |_| true).unwrap();
    assert_eq!(first, second);
    assert_eq!(table.find(Pid(10)), None);
    assert_eq!(table.total(Counter::Sent), 5);
    table.hold(second, 3);
    assert_eq!(table.claim(Pid(12), seat(1, 0), |_| true), Some(second));
    assert_eq!((table.total(Counter::Lost), table.total(Counter::Sent)), (3, 5));
    assert_eq!(table.claim(Pid(11), seat(1, 0), |_| true), Some(second));
    table.count(second, Counter::Sent, 2);
    let row = table.rows().find(|row| row.slot == second).unwrap();
    assert_eq!((row.owner.unwrap().pid, row.counters[0], row.own[0]), (Pid(11), 7, 2));
    assert_eq!((row.own[Counter::Lost as usize], row.held, table.rows().count()), (0, 0, 1));
    table.release(second, Pid(10)); // the dead one's late word changes nothing
    assert!(table.find(Pid(11)).is_some());
}

#[test]
fn who_is_asked_to_give_way_keeps_its_slot_until_it_is_dead() {
    let zone = Zone::new();
    let table = zone.table();
    let elder = table.claim(Pid(10), seat(1, 0), |_| true).unwrap();
    assert_eq!(table.oust(seat(1, 0), |_| false), None);
    assert_eq!(table.oust(seat(1, 1), |_| true), None);
    assert!(!table.is_wanted(elder, Pid(10)));
    assert_eq!(table.oust(seat(1, 0), |_| true), Some((elder, Pid(10))));
    assert!(table.is_wanted(elder, Pid(10)));
    // it does not answer in time
    let heir = table.claim(Pid(11), seat(1, 0), |_| true).unwrap();
    assert!(heir != elder && !table.is_wanted(heir, Pid(11)));
    table.set_state(elder, Worker { pid: Pid(10), seat: seat(1, 0), state: State::Ousted });
    table.set_state(heir, Worker { pid: Pid(11), seat: seat(1, 0), state: State::Live });
    let pids = |seat| table.workers().filter(move |w| w.seat == seat).map(|w| w.pid);
    assert_eq!(pids(seat(1, 0)).collect::<Vec<_>>(), [Pid(11)], "one is in the seat");
    assert_eq!(table.oust(seat(1, 0), |pid| pid == Pid(10)), None, "it has given way");
    // the heir dies: who follows takes its slot, and that of the elder only when that is dead, too
    assert_eq!(table.claim(Pid(12), seat(1, 0), |pid| pid != Pid(11)), Some(heir));
    assert_eq!(table.claim(Pid(13), seat(1, 0), |_| false), Some(elder));
    assert!(!table.is_wanted(elder, Pid(13)));
}

#[test]
fn the_dead_of_older_generations_are_buried_with_what_they_held() {
    let zone = Zone::new();
    let table = zone.table();
    table.next_generation(2);
    let old = table.claim(Pid(10), seat(1, 0), |_| true).unwrap();
    table.claim(Pid(11), seat(1, 1), |_| true).unwrap();
    table.hold(old, 3);
    let me = SlotId(SLOTS as u16 - 1);
    assert_eq!(table.bury(me, |_| false), 0); // successors come
    table.next_generation(2);
    assert_eq!(table.bury(me, |pid| pid == Pid(11)), 3);
    assert_eq!(table.total(Counter::Lost), 3);
    assert_eq!(table.find(Pid(10)), None);
    assert!(table.find(Pid(11)).is_some());
    assert_eq!(table.bury(me, |_| true), 0);
    assert_eq!(table.claim(Pid(12), seat(2, 0), |_| true), Some(old));
}

#[test]
#[cfg_attr(miri, ignore = "a look at each seat for each seat")]
fn a_full_table_of_living_workers_refuses() {
    let zone = Zone::new();
    let table = zone.table();
    for i in 0..SLOTS as u32 {
        assert!(table.claim(Pid(i + 1), seat(i / 512 + 1, (i % 512) as u16), |_| true).is_some());
    }
    assert_eq!(table.claim(Pid(9999), seat(9, 0), |_| true), None);
    assert!(table.claim(Pid(9999), seat(9, 0), |pid| pid != Pid(77)).is_some());
}

#[test]
fn generations_count_up() {
    let zone = Zone::new();
    assert_eq!(zone.table().current(), (Generation(0), 0));
    assert_eq!(zone.table().next_generation(4), Generation(1));
    assert_eq!(zone.table().next_generation(6), Generation(2));
    assert_eq!(zone.table().current(), (Generation(2), 6));
}

#[test]
fn who_comes_into_the_slot_of_one_that_was_asked_to_give_way_is_not_asked() {
    let zone = Zone::new();
    let table = zone.table();
    let elder = table.claim(Pid(10), seat(1, 0), |_| true).unwrap();
    let asked = table.oust(seat(1, 0), |pid| {
        // found alive, but before it can be asked it leaves, and another comes
        table.release(elder, pid);
        assert_eq!(table.claim(Pid(12), seat(1, 1), |_| true), Some(elder));
        true
    });
    assert_eq!(asked, Some((elder, Pid(10))));
    assert!(!table.is_wanted(elder, Pid(12)));
    assert_eq!(table.workers().map(|w| w.pid).collect::<Vec<_>>(), [Pid(12)]);
}
