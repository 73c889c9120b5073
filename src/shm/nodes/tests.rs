use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering as StdOrdering};

use proptest::prelude::*;

use super::*;
use crate::proto::cluster::membership::standing::{
    ADDRESS_MAX, CLIENT_ADDRESS_MAX, Health, Place, Super,
};
use crate::shm::atomic::watch;

const ME: Pid = Pid(7);

fn zeroed(clients: usize) -> Vec<Word> {
    (0..Nodes::room(clients) / 8).map(|_| Word::new(0)).collect()
}

fn client(number: u32) -> Client {
    Client {
        address: format!("10.0.0.{number}:80{number}"),
        epoch: 1_700_000_000_000 + u64::from(number),
        sequence: 7,
        heard: 99,
        health: Health::Suspect,
        subtree: number,
        reported: number % 2 == 0,
        moving: number % 3 == 0,
    }
}

fn standing() -> Standing {
    Standing {
        place: Place::Joined,
        above: Some(Super { address: "10.0.0.1:8800".into(), epoch: 5, index: Some(2) }),
        moved: Some("10.0.0.1:8800".into()),
        listed: 77,
        pending: Some("10.0.0.2:8800".into()),
        moving: Some(("10.0.0.3:8800".into(), 12)),
    }
}

fn clients(nodes: &Nodes<'_>, id: ChannelId) -> Vec<Client> {
    let mut all = Vec::new();
    nodes.clients(id, |client| all.push(client));
    all
}

#[test]
fn what_was_written_is_read() {
    let memory = zeroed(8);
    assert!(Nodes::attach(&memory, ME).is_none());
    assert_eq!(Nodes::init(&memory, ME, 1000).unwrap().epoch(), 1000);
    let nodes = Nodes::attach(&memory, ME).unwrap();
    assert_eq!(nodes.capacity(), 8);
    let (test, kada) = (nodes.open("test").unwrap(), nodes.open("kada").unwrap());
    assert_eq!((nodes.open("test"), nodes.channel("kada")), (Ok(test), Some(kada)));
    nodes.set_standing(test, &standing()).unwrap();
    (1..=4).for_each(|n| nodes.set_client(test, &client(n)).unwrap());
    nodes.set_client(kada, &client(1)).unwrap();
    let beaten = Client { heard: 120, health: Health::Alive, ..client(2) };
    nodes.set_client(test, &beaten).unwrap();
    nodes.remove_client(test, &client(3).address).unwrap();
    let there = vec![client(1), beaten, client(4)];
    assert_eq!(
        nodes.snapshot(test),
        Some(Snapshot { standing: standing(), clients: there.clone() })
    );
    assert_eq!(nodes.standing(kada), Some(Standing::default()));
    nodes.close(test).unwrap();
    assert_eq!((nodes.channel("test"), nodes.standing(test)), (None, None));
    assert_eq!(nodes.channels().len(), 1);
    assert_eq!(clients(&nodes, kada), [client(1)]);
    assert_eq!(nodes.set_standing(test, &standing()), Err(WriteError::NoChannel));
}

#[test]
fn what_does_not_fit_is_refused() {
    let memory = zeroed(2);
    let nodes = Nodes::init(&memory, ME, 1).unwrap();
    let id = nodes.open("test").unwrap();
    nodes.set_client(id, &client(1)).unwrap();
    nodes.set_client(id, &client(2)).unwrap();
    assert_eq!(nodes.set_client(id, &client(3)), Err(WriteError::Full));
    nodes.set_client(id, &client(2)).unwrap();
    let long = Client { address: "1".repeat(CLIENT_ADDRESS_MAX + 1), ..client(1) };
    assert_eq!(nodes.set_client(id, &long), Err(WriteError::TooLong));
    let far = Standing { pending: Some("1".repeat(ADDRESS_MAX + 1)), ..standing() };
    assert_eq!(nodes.set_standing(id, &far), Err(WriteError::TooLong));
    assert_eq!(nodes.open(&"x".repeat(CHANNEL_NAME_MAX + 1)), Err(WriteError::TooLong));
    for n in 1..CHANNELS {
        nodes.open(&format!("{n}")).unwrap();
    }
    assert_eq!(nodes.open("more"), Err(WriteError::Full));
    assert!(Nodes::init(&memory[..HEAD], ME, 1).is_none());
    assert!(Nodes::attach(&memory[..memory.len() - 1], ME).is_none());
}

thread_local! {
    static LEFT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Runs `work` up to its n-th access to shared memory; whether it came to its end.
fn killed_at(access: usize, work: impl FnOnce()) -> bool {
    LEFT.set(access);
    watch(Some(|| {
        LEFT.set(LEFT.get() - 1);
        if LEFT.get() == 0 {
            watch(None);
            std::panic::resume_unwind(Box::new("killed"));
        }
    }));
    let ended = catch_unwind(AssertUnwindSafe(work)).is_ok();
    watch(None);
    ended
}

#[test]
fn a_writer_that_is_killed_anywhere_has_written_all_or_nothing() {
    type Change = fn(&Nodes<'_>, ChannelId) -> Result<(), WriteError>;
    let changes: [Change; 4] = [
        |nodes, id| nodes.set_standing(id, &standing()),
        |nodes, id| nodes.set_client(id, &Client { heard: 1234, ..client(1) }),
        |nodes, id| nodes.set_client(id, &client(3)),
        |nodes, id| nodes.remove_client(id, &client(2).address),
    ];
    for change in changes {
        for access in 1.. {
            let memory = zeroed(3);
            let nodes = Nodes::init(&memory, ME, 1).unwrap();
            let id = nodes.open("test").unwrap();
            nodes.set_client(id, &client(1)).unwrap();
            nodes.set_client(id, &client(2)).unwrap();
            let before = nodes.snapshot(id);
            let ended = killed_at(access, || change(&nodes, id).unwrap());
            let seen = nodes.snapshot(id);
            // the successor does the same again, and all of it is there
            change(&nodes, id).unwrap();
            let after = nodes.snapshot(id);
            assert!(before != after && (seen == before || seen == after), "access {access}");
            if ended {
                assert_eq!(seen, after);
                break;
            }
        }
    }
}

#[test]
fn a_channel_that_was_closed_half_leaves_nothing_to_its_successor() {
    for access in 1.. {
        let memory = zeroed(3);
        let nodes = Nodes::init(&memory, ME, 1).unwrap();
        let id = nodes.open("test").unwrap();
        (1..=3).for_each(|n| nodes.set_client(id, &client(n)).unwrap());
        let ended = killed_at(access, || nodes.close(id).unwrap());
        let again = nodes.channel("test").is_some();
        let id = nodes.open("other").unwrap();
        if !again {
            assert_eq!(clients(&nodes, id), [], "access {access}");
        }
        if ended {
            break;
        }
    }
}

/// The first router is stopped at any access of its write, a second one writes, the first goes on.
#[test]
fn a_router_that_wakes_up_too_late_shows_readers_nothing_of_its_own() {
    thread_local! {
        static OTHER: std::cell::RefCell<Option<Box<dyn FnOnce()>>> = const { std::cell::RefCell::new(None) };
    }
    let record_words = record::words(CLIENT_BODY);
    for writes in 1..5 {
        for access in 1..2 * record_words + 20 {
            let memory: &'static [Word] =
                Box::leak((0..record_words).map(|_| Word::new(0)).collect());
            let record: Record<'_, CLIENT_BODY> =
                Record::over(crate::shm::several(memory, record_words).unwrap()).unwrap();
            let body = |value: u64| [value; CLIENT_BODY];
            record.write(ME, &body(1)).unwrap();
            record.write(ME, &body(2)).unwrap();
            OTHER.set(Some(Box::new(move || {
                (0..writes).for_each(|n| record.write(Pid(8), &body(10 + n)).unwrap());
            })));
            LEFT.set(access);
            watch(Some(|| {
                LEFT.set(LEFT.get().wrapping_sub(1));
                if LEFT.get() == 0 {
                    watch(None);
                    OTHER.take().into_iter().for_each(|other| other());
                }
            }));
            let done = record.write(ME, &body(99));
            watch(None);
            let seen = record.read();
            match done {
                // it had ended, or not begun, when the other wrote
                Ok(()) => assert!(seen == Some(body(99)) || seen == Some(body(9 + writes))),
                Err(_) => {
                    let newest = [body(9 + writes), body(8 + writes), body(2)];
                    assert!(seen.is_none_or(|seen| newest.contains(&seen)), "{writes} {access}");
                }
            }
            record.write(ME, &body(50)).unwrap();
            assert_eq!(record.read(), Some(body(50)));
        }
    }
}

#[test]
fn a_reader_beside_a_busy_writer_sees_whole_records() {
    let memory = zeroed(4);
    let nodes = Nodes::init(&memory, ME, 1).unwrap();
    let id = nodes.open("test").unwrap();
    let whole = |n: u64| Client { epoch: n, sequence: n, heard: n, ..client(1) };
    nodes.set_client(id, &whole(1)).unwrap();
    let (started, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..if cfg!(miri) { 50 } else { 20_000 } {
                nodes.set_client(id, &whole(n)).unwrap();
                if n == 10 {
                    started.store(true, StdOrdering::Release);
                }
            }
            over.store(true, StdOrdering::Release);
        });
        while !started.load(StdOrdering::Acquire) {
            std::thread::yield_now();
        }
        while !over.load(StdOrdering::Acquire) {
            nodes.clients(id, |client| assert_eq!(client, whole(client.epoch)));
        }
    });
}

proptest! {
    #[test]
    fn any_memory_is_read_without_harm(words in prop::collection::vec(any::<u64>(), 64), seed in any::<u64>()) {
        let mut memory = zeroed(2);
        Nodes::init(&memory, ME, 1).unwrap();
        for (n, word) in memory.iter_mut().enumerate().skip(HEAD) {
            *word = Word::new(words[n % 64].wrapping_mul(seed | 1));
        }
        let nodes = Nodes::attach(&memory, ME).unwrap();
        prop_assert!(nodes.channels().len() <= CHANNELS);
        nodes.clients(ChannelId(0), |_| ());
        let id = nodes.open("test").unwrap();
        nodes.set_client(id, &client(1)).unwrap();
        prop_assert_eq!(clients(&nodes, id), vec![client(1)]);
    }

    #[test]
    fn any_body_is_unpacked_without_harm(words in prop::collection::vec(any::<u64>(), CHANNEL_BODY), place in 0u64..6) {
        let mut body = [0; CHANNEL_BODY];
        body.copy_from_slice(&words);
        body[0] = 1 | place << 8;
        if let Some((name, standing)) = packed::channel(&body) {
            prop_assert!(packed::pack_channel(&name, &standing).is_some());
        }
        let mut body = [0; CLIENT_BODY];
        body.copy_from_slice(&words[..CLIENT_BODY]);
        body[0] |= 1;
        if let Some(client) = packed::client(&body) {
            prop_assert!(packed::pack_client(0, &client).is_some());
        }
    }
}
