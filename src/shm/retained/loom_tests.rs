//! Every order (up to a number of preemptions) in which a few sets and gets can meet.
//! `RUSTFLAGS="--cfg loom" cargo test --release --no-default-features --lib loom`, with a target
//! folder of its own.

use super::*;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

type Memory = Arc<Vec<AtomicU64>>;

/// Runs the threads together, on a zone of the least size in which `n`, `k` has a value.
fn model(preemptions: usize, threads: &'static [fn(&Retained<'_, fn(Pid) -> bool>)]) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 100_000;
    builder.check(move || {
        let memory: Memory = Arc::new((0..WORDS_MIN).map(|_| AtomicU64::new(0)).collect());
        assert!(Retained::<fn(Pid) -> bool>::init(&memory));
        attach(&memory, 1).set(b"n", b"k", &whole(1)).unwrap();
        let mut others = vec![];
        for (thread, pid) in threads.iter().skip(1).zip(2..) {
            let memory = memory.clone();
            others.push(thread::spawn(move || thread(&attach(&memory, pid))));
        }
        threads[0](&attach(&memory, 1));
        others.into_iter().for_each(|other| other.join().unwrap());
        let me = attach(&memory, 1);
        get(&me);
        assert_eq!(me.delete(b"n", b"k").map(|found| found.is_some()), Ok(true));
        let _ = me.locked(|| me.collect()); // what a busy one abandoned
        assert_eq!((me.len(), me.bytes_used()), (0, 0));
    });
}

fn attach(memory: &[AtomicU64], pid: u32) -> Retained<'_, fn(Pid) -> bool> {
    Retained::attach(memory, Pid(pid), (|_| true) as fn(Pid) -> bool).unwrap()
}

fn whole(byte: u8) -> [u8; 16] {
    [byte; 16]
}

fn set(me: &Retained<'_, fn(Pid) -> bool>) {
    let done = me.set(b"n", b"k", &whole(2));
    assert!(matches!(done, Ok(_) | Err(SetError::Busy)));
}

/// The second set writes where the first value was.
fn set_twice(me: &Retained<'_, fn(Pid) -> bool>) {
    set(me);
    let done = me.set(b"n", b"k", &whole(3));
    assert!(matches!(done, Ok(_) | Err(SetError::Busy)));
}

fn get(me: &Retained<'_, fn(Pid) -> bool>) {
    let mut value = vec![];
    if let Ok(found) = me.get(b"n", b"k", &mut value) {
        assert!(found.is_some());
        assert!(value.len() == 16 && value.iter().all(|byte| *byte == value[0]), "{value:?}");
    }
}

fn get_held(me: &Retained<'_, fn(Pid) -> bool>) {
    let mut value = vec![];
    if let Ok(found) = me.get_held(&block::Sought::value(b"n", b"k"), &mut value) {
        assert!(found.is_some());
        assert!(value.len() == 16 && value.iter().all(|byte| *byte == value[0]), "{value:?}");
    }
}

fn ask(me: &Retained<'_, fn(Pid) -> bool>) {
    let mut newest = 0;
    if let Ok(last) = me.last(b"n") {
        let seen = me.visit(b"n", 0, |value| newest = value.sequence);
        assert!(seen.is_err() || newest >= last, "a number without what it counts");
    }
}

#[test]
fn loom_a_reader_of_a_block_that_is_used_again() {
    model(2, &[set_twice, get]);
}

#[test]
fn loom_what_a_reader_holds_is_not_used_again() {
    model(2, &[get_held, set_twice]);
}

#[test]
fn loom_two_writers() {
    model(2, &[set, set]);
}

#[test]
fn loom_a_number_comes_with_what_it_counts() {
    model(2, &[set, ask]);
}
