//! Case by case.

use super::*;

#[test]
fn a_reader_that_is_overtaken_is_told_how_far() {
    let memory = Memory::new();
    let life = memory.life();
    LIVING.with_borrow_mut(|living| living.insert(7));
    let handle = life.attach(Pid(7), lives as fn(Pid) -> bool);
    for generation in 1..=3000 {
        handle.loaded(Why::Reload, Generation(generation), 1).unwrap();
    }
    let (mut at, mut missed, mut events) = (0, 0, 0);
    loop {
        match life.read(at) {
            Read::Nothing => break,
            Read::Event(number, event) => {
                assert_eq!(u64::from(event.seat.generation.0), number);
                (at, events) = (number, events + 1);
            }
            Read::Missed(count, next) => (at, missed) = (next, missed + count),
        }
    }
    assert_eq!((at, missed + events), (3000, 3000));
    assert!(events >= JOURNAL as u64 / 2);
    assert_eq!(life.before(What::Reload, Generation(2900)), 2899);
    assert_eq!(life.before(What::Reload, Generation(1)), 3000);
}

#[test]
fn a_crash_that_the_successor_comes_upon_has_the_masters_word_for_it() {
    let memory = Memory::new();
    let life = memory.life();
    LIVING.with_borrow_mut(|living| living.extend([7, 8]));
    let see = |pid| life.attach(Pid(pid), lives as fn(Pid) -> bool);
    see(6).loaded(Why::Start, Generation(1), 1).unwrap();
    let first = see(7).enter(0, seat(1, 0), |_| None, 1).unwrap().unwrap();
    assert_eq!(first, Entry { why: Why::Start, predecessor: None, status: None });
    LIVING.with_borrow_mut(|living| living.remove(&7));
    let status = |pid| (pid == Pid(7)).then_some(Status(11));
    let second = see(8).enter(0, seat(1, 0), status, 2).unwrap().unwrap();
    assert_eq!(
        second,
        Entry { why: Why::Respawn, predecessor: Some(Pid(7)), status: Some(Status(11)) }
    );
    assert_eq!(life.tally(Tally::RespawnsBySignal), (1, 2));
    assert_eq!(see(9).died(0, Pid(7), seat(1, 0), None, 3), Ok(false));
    assert_eq!(life.tally(Tally::Crashes).0, 1);
    // it leaves; who comes back to the seat, in whatever slot, returns
    see(8).leave(0, Why::Stop, 4).unwrap();
    LIVING.with_borrow_mut(|living| living.extend([9]));
    let third = see(9).enter(5, seat(1, 0), status, 5).unwrap().unwrap();
    assert_eq!((third.why, third.predecessor), (Why::Return, Some(Pid(8))));
}

#[test]
fn who_gives_way_to_another_is_no_crash_and_leaves_by_itself() {
    let memory = Memory::new();
    let life = memory.life();
    LIVING.with_borrow_mut(|living| living.extend([7, 8, 9, 10]));
    let see = |pid| life.attach(Pid(pid), lives as fn(Pid) -> bool);
    see(6).loaded(Why::Start, Generation(1), 2).unwrap();
    see(7).enter(0, seat(1, 0), |_| None, 1).unwrap();
    see(8).enter(1, seat(1, 1), |_| None, 2).unwrap();
    see(8).leave(1, Why::Upgrade, 3).unwrap();
    // 7 keeps its slot while it leaves; who follows it gets the one that 8 had
    let heir = see(9).enter(1, seat(1, 0), |_| None, 4).unwrap().unwrap();
    assert_eq!((heir.why, heir.predecessor), (Why::Return, Some(Pid(7))));
    let other = see(10).enter(2, seat(1, 1), |_| None, 5).unwrap().unwrap();
    assert_eq!((other.why, other.predecessor), (Why::Return, Some(Pid(8))));
    see(7).leave(0, Why::Upgrade, 6).unwrap();
    assert_eq!(life.member(1).map(|m| (m.pid, m.phase)), Some((Pid(9), Phase::Starting)));
    assert_eq!((life.tally(Tally::Crashes).0, life.tally(Tally::WorkerExits).0), (0, 2));
}

#[test]
fn who_left_is_remembered_whatever_slot_the_next_one_gets() {
    let memory = Memory::new();
    let life = memory.life();
    LIVING.with_borrow_mut(|living| living.extend([7, 8, 17, 18]));
    let see = |pid| life.attach(Pid(pid), lives as fn(Pid) -> bool);
    see(7).enter(0, seat(1, 0), |_| None, 1).unwrap();
    see(8).enter(1, seat(1, 1), |_| None, 1).unwrap();
    see(7).leave(0, Why::Upgrade, 2).unwrap();
    see(8).leave(1, Why::Upgrade, 2).unwrap();
    // the slots are given out crosswise
    let first = see(18).enter(0, seat(1, 1), |_| None, 3).unwrap().unwrap();
    assert_eq!((first.why, first.predecessor), (Why::Return, Some(Pid(8))));
    let second = see(17).enter(1, seat(1, 0), |_| None, 3).unwrap().unwrap();
    assert_eq!((second.why, second.predecessor), (Why::Return, Some(Pid(7))));
    assert_eq!(life.members().count(), 2);
}

#[test]
fn deaths_in_a_row_are_counted_until_somebody_is_ready() {
    let memory = Memory::new();
    let life = memory.life();
    let see = |pid| life.attach(Pid(pid), lives as fn(Pid) -> bool);
    for pid in 10..15 {
        LIVING.with_borrow_mut(|living| living.insert(pid));
        see(pid).enter(2, seat(1, 1), |_| Some(Status(0x200)), 1).unwrap();
        assert_eq!(life.view(2).unwrap().deaths, u64::from(pid - 10));
        LIVING.with_borrow_mut(|living| living.remove(&pid));
    }
    assert_eq!(see(20).died(2, Pid(14), seat(1, 1), Some(Status(0x200)), 2), Ok(true));
    assert_eq!(life.view(2).unwrap().deaths, 5);
    assert_eq!(life.tally(Tally::GivenUp).0, 5);
    LIVING.with_borrow_mut(|living| living.insert(30));
    see(30).enter(2, seat(1, 1), |_| None, 3).unwrap();
    life.set_ready(2, true, b"");
    assert_eq!(life.view(2).unwrap().deaths, 0);
}

#[test]
fn the_lock_for_callbacks_passes_over_the_dead() {
    let memory = Memory::new();
    LIVING.with_borrow_mut(|living| living.extend([7, 8]));
    let see = |pid| memory.life().attach(Pid(pid), lives as fn(Pid) -> bool);
    assert_eq!(see(7).hold(), Ok(()));
    assert_eq!(see(8).hold(), Err(Pid(7)));
    assert!(!see(8).let_go());
    LIVING.with_borrow_mut(|living| living.remove(&7));
    assert_eq!(see(8).hold(), Ok(()));
    assert!(see(8).let_go());
    assert_eq!(memory.life().holder(), None);
}

#[test]
fn keys_are_bounded_and_come_free() {
    let memory = Memory::new();
    LIVING.with_borrow_mut(|living| living.extend([7, 8]));
    let see = |pid| memory.life().attach(Pid(pid), lives as fn(Pid) -> bool);
    for n in 0..LEASES {
        assert_eq!(see(7).claim(format!("key {n}").as_bytes()), Ok(()));
        assert_eq!(see(7).claim(format!("key {n}").as_bytes()), Ok(()));
    }
    assert_eq!(see(8).claim(b"one more"), Err(LeaseRefused::NoRoom));
    assert_eq!(see(8).claim(b"key 3"), Err(LeaseRefused::Held(Pid(7))));
    assert_eq!(see(8).claim(b""), Err(LeaseRefused::Key));
    assert_eq!(see(8).claim(&[b'x'; KEY_MAX + 1]), Err(LeaseRefused::Key));
    assert_eq!(see(7).release(b"key 3"), Ok(true));
    assert_eq!(see(7).release(b"key 3"), Ok(false));
    assert_eq!(see(8).claim(&[b'x'; KEY_MAX]), Ok(()));
    LIVING.with_borrow_mut(|living| living.remove(&7));
    assert_eq!(see(8).claim(b"key 4"), Ok(()));
    assert_eq!(see(8).release_all(), Ok(2));
}

#[test]
fn what_each_has_seen() {
    let memory = Memory::new();
    let life = memory.life();
    assert_eq!(life.last_seen(1, b"conf"), None);
    for slot in 0..64 {
        for name in 0..16 {
            assert!(life.saw(slot, format!("name {name}").as_bytes(), slot as u64 + name));
        }
    }
    assert!(life.saw(3, b"name 1", 2));
    assert_eq!(life.last_seen(3, b"name 1"), Some(4), "never back");
    assert_eq!(life.last_seen(63, b"name 15"), Some(78));
    life.forget(3);
    assert_eq!(life.last_seen(3, b"name 1"), None);
    assert_eq!(life.last_seen(4, b"name 1"), Some(5));
    // full: it says so, and harms nobody
    let refused =
        (0..SLOTS * 8).filter(|n| !life.saw(n % SLOTS, format!("many {n}").as_bytes(), 1));
    assert!(refused.count() > 0);
    assert_eq!(life.last_seen(63, b"name 15"), Some(78));
}
