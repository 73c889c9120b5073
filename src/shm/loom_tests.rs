//! Every order, up to a number of preemptions, in which two or three processes can meet at a ring,
//! at a bell, at a slot; and every value that a weakly ordered machine may show them.
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --lib loom`, with a target
//! folder of its own.

use std::sync::atomic::{AtomicBool as Flag, Ordering};

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, fence};
use loom::thread;

use super::casts::Casts;
use super::mesh::model::Memory;
use super::slots::{Counter, SlotId, State, Table, Worker};
use super::tally::Tallies;
use crate::proto::cluster::cast::CastId;
use crate::proto::ipc::{Generation, Pid, Seat, WorkerId};

/// Bytes of a ring: records of up to 24 bytes, two of them at a time.
const RING: usize = 64;

fn model(preemptions: usize, run: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(run);
}

/// Two processes over the memory that `setup` has prepared, then `judge`. Once with the one as the
/// first to run, once with the other: loom remembers only the last to have read a word, and finds
/// the other orders from those that it has seen.
fn two<A: Send + 'static, B: Send + 'static>(
    preemptions: usize,
    setup: fn() -> Memory,
    one: fn(&Memory) -> A,
    other: fn(&Memory) -> B,
    judge: fn(&Memory, A, B),
) {
    model(preemptions, move || {
        let memory = Arc::new(setup());
        let shared = memory.clone();
        let thread = thread::spawn(move || other(&shared));
        let a = one(&memory);
        judge(&memory, a, thread.join().unwrap());
    });
    model(preemptions, move || {
        let memory = Arc::new(setup());
        let shared = memory.clone();
        let thread = thread::spawn(move || one(&shared));
        let b = other(&memory);
        judge(&memory, thread.join().unwrap(), b);
    });
}

fn record(number: u8) -> [u8; 16] {
    [number; 16]
}

/// Puts records from number `from` on until there is no room, four at most; how many.
fn put(memory: &Memory, from: u8) -> u8 {
    let mut producer = memory.mesh().ring(0, 1).unwrap().producer();
    (from..from + 4).take_while(|n| producer.put([&record(*n), b"", b""]).is_ok()).count() as u8
}

/// Takes what is there in so many looks, which must be numbered from `from` on; how many.
fn take(memory: &Memory, from: u8, looks: usize) -> u8 {
    let mut consumer = memory.mesh().ring(0, 1).unwrap().consumer();
    let mut taken = 0;
    for _ in 0..looks {
        if let Some(bytes) = consumer.take() {
            assert_eq!(bytes, record(from + taken));
            taken += 1;
        }
    }
    taken
}

/// What is taken is what was put, in order; nobody writes where somebody reads.
#[test]
fn loom_ring_keeps_records_whole() {
    let judge = |memory: &Memory, put, taken| assert_eq!(put, taken + take(memory, taken, 9));
    two(3, || Memory::new(2, RING), |memory| put(memory, 0), |memory| take(memory, 0, 3), judge);
    // full at first, so that laps are reused
    let full = || {
        let memory = Memory::new(2, RING);
        assert_eq!(put(&memory, 0), 2);
        memory
    };
    let judge = |memory: &Memory, put, taken| assert_eq!(2 + put, taken + take(memory, taken, 9));
    two(3, full, |memory| put(memory, 2), |memory| take(memory, 0, 4), judge);
}

/// A producer that waits for room is told of it, or has seen it.
#[test]
fn loom_ring_room_is_told() {
    let full = || {
        let memory = Memory::new(2, RING);
        assert_eq!(put(&memory, 0), 2);
        memory
    };
    let produce = |memory: &Memory| {
        let mut producer = memory.mesh().ring(0, 1).unwrap().producer();
        let parts: [&[u8]; 3] = [&record(2), b"", b""];
        producer.put(parts).is_ok() || (producer.want_room() && producer.put(parts).is_ok())
    };
    let consume = |memory: &Memory| {
        let mut consumer = memory.mesh().ring(0, 1).unwrap().consumer();
        while consumer.take().is_some() {}
        consumer.wanted()
    };
    two(3, full, produce, consume, |_, put, told| {
        assert!(put || told, "the producer waits, and nobody tells it");
    });
}

/// A sender puts so many records for worker `me`; whether it has rung.
fn send(memory: &Memory, from: usize, me: usize, records: usize) -> bool {
    let mesh = memory.mesh();
    let mut producer = mesh.ring(from, me).unwrap().producer();
    let mut rung = false;
    for _ in 0..records {
        producer.put([b"", b"", b""]).unwrap();
        rung |= mesh.mail(from, me);
    }
    rung
}

/// Takes what worker `me` was told of; how many records.
fn drain(memory: &Memory, me: usize) -> usize {
    let mesh = memory.mesh();
    let (bits, mut taken) = (mesh.senders(me), 0);
    for from in (0..me).filter(|from| bits & 1 << from != 0) {
        let mut consumer = mesh.ring(from, me).unwrap().consumer();
        while consumer.take().is_some() {
            taken += 1;
        }
    }
    taken
}

/// Two workers; number 1 is up.
fn awake() -> Memory {
    let memory = Memory::new(2, RING);
    memory.mesh().enter(1);
    memory
}

/// Both records reach worker 1: it has `taken` them, or is up, or was `rung` for.
fn does_not_sleep_over_mail(memory: &Memory, rung: bool, (taken, asleep): (usize, bool)) {
    assert!(rung || !asleep || taken == 2, "it sleeps over mail");
    assert_eq!(taken + drain(memory, 1), 2, "a record is there, and nobody says so");
}

/// The receiver never sleeps over mail, nor does the bit that tells of it get lost.
#[test]
fn loom_mesh_no_wake_up_is_lost() {
    let receive = |memory: &Memory| (drain(memory, 1), memory.mesh().sleep(1));
    two(4, awake, |memory| send(memory, 0, 1, 2), receive, does_not_sleep_over_mail);
}

/// Nor does one who looked by itself until now.
#[test]
fn loom_mesh_who_stops_polling_sleeps_over_nothing() {
    let polling = || {
        let memory = awake();
        memory.mesh().poll(1, 0);
        memory
    };
    let send = |memory: &Memory| {
        let mesh = memory.mesh();
        let mut producer = mesh.ring(0, 1).unwrap().producer();
        let mut rung = false;
        for _ in 0..2 {
            producer.write([b"", b"", b""]).unwrap();
            rung |= !mesh.publish(&mut producer, 0, 1, true) && mesh.mail(0, 1);
        }
        rung
    };
    let receive = |memory: &Memory| {
        let taken = drain(memory, 1);
        memory.mesh().stop_polling(1, || fence(Ordering::SeqCst));
        (taken, memory.mesh().sleep(1))
    };
    two(3, polling, send, receive, does_not_sleep_over_mail);
}

/// Nor over what was noted quietly, by one who rouses it later.
#[test]
fn loom_mesh_who_is_roused_later_sleeps_over_nothing() {
    let send = |memory: &Memory| {
        let mesh = memory.mesh();
        let mut producer = mesh.ring(0, 1).unwrap().producer();
        for _ in 0..2 {
            producer.put([b"", b"", b""]).unwrap();
            mesh.note(0, 1);
        }
        mesh.rouse(1)
    };
    // it may go to sleep between the two, and be up again for the first
    let receive = |memory: &Memory| {
        let mut taken = drain(memory, 1);
        let asleep = memory.mesh().sleep(1) || {
            taken += drain(memory, 1);
            memory.mesh().sleep(1)
        };
        (taken, asleep)
    };
    two(4, awake, send, receive, does_not_sleep_over_mail);
}

#[test]
fn loom_mesh_two_senders_do_not_rely_on_each_other() {
    for first in [true, false] {
        model(2, move || {
            let memory = Arc::new(Memory::new(3, RING));
            memory.mesh().enter(2);
            let rung = std::sync::Arc::new(Flag::new(false));
            let sender = |from: usize| {
                let (memory, rung) = (memory.clone(), rung.clone());
                move || {
                    let rang = send(&memory, from, 2, 1);
                    rung.fetch_or(rang, Ordering::Relaxed);
                }
            };
            let receive = |memory: &Memory| (drain(memory, 2), memory.mesh().sleep(2));
            let a = thread::spawn(sender(0));
            let (taken, asleep) = if first {
                let b = thread::spawn(sender(1));
                let result = receive(&memory);
                b.join().unwrap();
                result
            } else {
                let shared = memory.clone();
                let b = thread::spawn(move || receive(&shared));
                sender(1)();
                b.join().unwrap()
            };
            a.join().unwrap();
            assert!(rung.load(Ordering::Relaxed) || !asleep || taken == 2, "it sleeps over mail");
            assert_eq!(taken + drain(&memory, 2), 2, "a record is there, and nobody says so");
        });
    }
}

/// A worker that is told of room does not sleep over it.
#[test]
fn loom_mesh_room_wakes() {
    let awake = || {
        let memory = Memory::new(2, RING);
        memory.mesh().enter(0);
        memory
    };
    let look = |memory: &Memory| (memory.mesh().has_room(0), memory.mesh().sleep(0));
    two(
        4,
        awake,
        |memory| memory.mesh().room(0),
        look,
        |_, rung, (seen, asleep)| {
            assert!(rung || seen || !asleep, "it sleeps, and nobody wakes it");
        },
    );
}

/// The tallies of two workers, and the rings by which the second is answered.
struct Asked {
    memory: Memory,
    words: Vec<AtomicU64>,
}

const CALL: u32 = 7;

impl Asked {
    /// Worker `me` has asked the others.
    fn new(me: usize) -> Arc<Asked> {
        let words = (0..(me + 1) * Tallies::CALLS as usize).map(|_| AtomicU64::new(0)).collect();
        let asked = Asked { memory: Memory::new(me + 1, RING), words };
        asked.memory.mesh().enter(me);
        asked.tallies().begin(me, CALL, me as u32);
        Arc::new(asked)
    }

    fn tallies(&self) -> Tallies<'_> {
        Tallies::over(&self.words)
    }

    /// Worker `from` answers `call` of `me`; whether it has been the last, and has rung for that.
    fn answer(&self, from: usize, me: usize, call: u32) -> (bool, bool) {
        let mesh = self.memory.mesh();
        mesh.ring(from, me).unwrap().producer().put([b"", b"", b""]).unwrap();
        mesh.note(from, me);
        let is_last = self.tallies().answered(me, call);
        (is_last, is_last && mesh.rouse(me))
    }
}

/// Of those who answer a call one is the last, and wakes the caller over the answers of all.
#[test]
fn loom_tally_the_last_answer_wakes() {
    for first in [0, 1] {
        model(2, move || {
            let asked = Asked::new(2);
            let answer = |from: usize| {
                let asked = asked.clone();
                thread::spawn(move || asked.answer(from, 2, CALL))
            };
            let others = [answer(first), answer(1 - first)];
            let asleep = asked.memory.mesh().sleep(2);
            let [a, b] = others.map(|thread| thread.join().unwrap());
            assert!(a.0 != b.0, "one of two is the last");
            assert!(!asleep || a.1 || b.1, "it sleeps over its answers");
        });
    }
}

/// Who is told to wake sees what the others have put in before, in whose stead it wakes. Without the
/// rings, whose fences for loom would do for that.
#[test]
fn loom_tally_the_last_answers_for_all() {
    model(3, || {
        let asked = Asked::new(2);
        let records = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let answer = |from: usize| {
            let (asked, records) = (asked.clone(), records.clone());
            move || {
                records[from].store(1, Ordering::Relaxed);
                let is_last = asked.tallies().answered(2, CALL);
                let other = records[1 - from].load(Ordering::Relaxed);
                assert!(!is_last || other == 1, "it wakes before an answer is there");
            }
        };
        let other = thread::spawn(answer(0));
        answer(1)();
        other.join().unwrap();
    });
}

/// What comes late for a call that was given up, whose word another call has by now, ticks nothing
/// off that one; and nobody keeps silent for it.
#[test]
fn loom_tally_a_late_answer_counts_for_no_other_call() {
    model(3, || {
        let asked = Asked::new(2);
        let newer = CALL + Tallies::CALLS;
        let late = {
            let asked = asked.clone();
            thread::spawn(move || asked.answer(0, 2, CALL).0)
        };
        asked.tallies().begin(2, newer, 2);
        let answers = {
            let asked = asked.clone();
            thread::spawn(move || asked.answer(1, 2, newer).0)
        };
        // the other one of the older call is late, too, and that one is not known any more
        assert!(asked.tallies().answered(2, CALL), "nobody wakes for an answer");
        let is_last = answers.join().unwrap();
        assert!(!is_last, "the answer to another call counts");
        late.join().unwrap();
        assert!(asked.tallies().answered(2, newer), "the last one wakes");
    });
}

fn entry(pid: u32) -> Worker {
    let seat = Seat { generation: Generation(1), worker: WorkerId(pid as u16) };
    Worker { pid: Pid(pid), seat, state: State::Starting }
}

fn claim(table: &Table, pid: u32) -> SlotId {
    let me = entry(pid);
    table.claim(me.pid, me.seat, |pid| pid != Pid(1)).unwrap()
}

/// Two processes that want the slot of a dead one: one gets it, the other one another, what the
/// dead one held is counted once, and who looks on sees whole workers.
#[test]
fn loom_slots_are_claimed_once() {
    model(3, || {
        let table = Arc::new(Table::new());
        let slot = claim(&table, 1);
        table.count(slot, Counter::Sent, 5);
        table.hold(slot, 2);
        let shared = table.clone();
        let other = thread::spawn(move || {
            shared.workers().for_each(|worker| assert_eq!(worker, entry(worker.pid.0)));
            claim(&shared, 2)
        });
        let slots = [other, {
            let shared = table.clone();
            thread::spawn(move || claim(&shared, 3))
        }];
        let slots = slots.map(|thread| thread.join().unwrap());
        assert_ne!(slots[0], slots[1]);
        assert_eq!(table.worker(slots[0]), Some(entry(2)));
        assert_eq!(table.worker(slots[1]), Some(entry(3)));
        assert_eq!((table.total(Counter::Lost), table.total(Counter::Sent)), (2, 5));
    });
}

#[test]
fn loom_casts_of_two_routers_that_note_one_cast_one_may_run_it() {
    // behind one that either has filled a cell, and before one that takes the next
    let id = |n: u8| CastId([n; 16]);
    model(3, move || {
        let casts = Arc::new(Casts::new());
        let shared = casts.clone();
        let other = thread::spawn(move || (shared.note(id(1)), shared.note(id(2))));
        let mine = (casts.note(id(3)), casts.note(id(2)));
        let theirs = other.join().unwrap();
        assert!(mine.0 && theirs.0);
        assert!(mine.1 != theirs.1);
    });
}
