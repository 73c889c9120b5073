//! Several processes, a full table, and a process killed before each of its stores.

use super::lock::fuse;
use super::*;
use std::collections::BTreeSet;
use std::sync::Mutex;

type Everybody = fn(Pid) -> bool;

const DEAD: u32 = 7;

struct Zone(Vec<AtomicU64>);

impl Zone {
    fn new(peers: usize) -> Zone {
        let words = room(peers) / 8;
        let zone = Zone((0..words).map(|_| AtomicU64::new(0)).collect());
        assert!(Peers::<Everybody>::attach(&zone.0, Pid(1), |_| true).is_none());
        assert!(Peers::<Everybody>::init(&zone.0, 42, [3; 32]));
        zone
    }

    fn seen_by(&self, pid: u32) -> Peers<'_, Everybody> {
        Peers::attach(&self.0, Pid(pid), (|pid| pid != Pid(DEAD)) as Everybody).unwrap()
    }
}

fn stamp(counter: u64, nonce: Option<u8>) -> Stamp {
    Stamp { epoch: 9, counter, nonce: nonce.map(|nonce| [nonce; 16]) }
}

/// Opens the epoch of a peer with counter 1 and 2.
fn open(peers: &Peers<'_, Everybody>, id: &[u8], now: u64) {
    let first = peers.admit(id, stamp(1, None), now, [5; 16]);
    assert_eq!(first, Ok(Verdict::Challenged([5; 16])));
    assert_eq!(peers.admit(id, stamp(2, Some(5)), now, [6; 16]), Ok(Verdict::Admitted));
}

#[test]
fn a_row_holds_all_that_is_known() {
    let zone = Zone::new(1);
    let row = zone.seen_by(1).at(0).unwrap();
    let mut bits = [0; WORDS];
    bits.iter_mut().zip(10..).for_each(|(word, value)| *word = value);
    let known = Known {
        epoch: 1,
        floor: 2,
        opened_by: [3; 16],
        pending: [4; 16],
        since: 5,
        window: Window { highest: 6, bits },
    };
    row.set_known(&known);
    assert_eq!(row.known(), known);
    assert_eq!(zone.0.len(), HEAD + 1 + ROW);
    const { assert!(SIZE < 320 * PEERS, "a third of a megabyte") };
}

#[test]
fn all_processes_share_counters_and_windows() {
    let zone = Zone::new(8);
    let (a, b) = (zone.seen_by(1), zone.seen_by(2));
    assert_eq!((a.epoch(), b.key()), (42, [3; 32]));
    let counters = [&a, &b, &a].map(|peers| peers.next(b"x:1", None, 0).unwrap().counter);
    assert_eq!(counters, [1, 2, 3]);
    assert_eq!(
        b.next(b"y:1", Some([1; 16]), 0),
        Ok(Stamp { epoch: 42, counter: 1, nonce: Some([1; 16]) })
    );
    open(&a, b"x:1", 0);
    assert_eq!(b.admit(b"x:1", stamp(2, Some(5)), 0, [7; 16]), Ok(Verdict::Replayed));
    assert_eq!(b.admit(b"x:1", stamp(3, None), 0, [7; 16]), Ok(Verdict::Admitted));
    assert_eq!(a.admit(b"x:1", stamp(3, None), 0, [7; 16]), Ok(Verdict::Replayed));
    assert_eq!(a.admit(b"y:1", stamp(3, None), 0, [7; 16]), Ok(Verdict::Challenged([7; 16])));
    assert_eq!(a.len(), 2);
}

#[test]
fn names_have_a_length() {
    let zone = Zone::new(8);
    let peers = zone.seen_by(1);
    assert_eq!(peers.next(b"", None, 0), Err(PeersError::Name));
    assert_eq!(peers.next(&[b'a'; 65], None, 0), Err(PeersError::Name));
    assert_eq!(peers.admit(&[b'a'; 65], stamp(1, None), 0, [1; 16]), Err(PeersError::Name));
    for name in [&[b'a'; 64][..], &[b'a'; 63], b"a", b"a\0"] {
        assert_eq!(peers.next(name, None, 0).unwrap().counter, 1);
        assert_eq!(peers.next(name, None, 0).unwrap().counter, 2);
    }
}

#[test]
fn a_full_table_forgets_the_one_silent_longest() {
    let zone = Zone::new(4);
    let peers = zone.seen_by(1);
    for (now, id) in (0..).zip([b"a", b"b", b"c", b"d"]) {
        open(&peers, id, now);
    }
    for now in 4..7 {
        peers.next(b"b", None, now).unwrap();
    }
    let goes_on = |id, counter, now| peers.admit(id, stamp(counter, None), now, [7; 16]);
    assert_eq!(goes_on(b"a", 3, 8), Ok(Verdict::Admitted));
    open(&peers, b"e", 9); // in the place of c
    assert_eq!(goes_on(b"a", 4, 10), Ok(Verdict::Admitted));
    assert_eq!(goes_on(b"d", 3, 11), Ok(Verdict::Admitted));
    open(&peers, b"f", 12); // of b
    assert_eq!(peers.len(), 4);
    for (now, id) in (13..).zip([b"a", b"d", b"e", b"f"]) {
        assert_eq!(goes_on(id, 5, now), Ok(Verdict::Admitted));
    }
    // who was forgotten gets no counter a second time, and what it sent does not run a second time
    assert!(peers.next(b"b", None, 20).unwrap().counter > 3);
    let replay = peers.admit(b"c", stamp(2, Some(5)), 21, [8; 16]);
    assert_eq!(replay, Ok(Verdict::Challenged([8; 16])));
}

#[test]
fn every_peer_of_many_is_found() {
    let zone = Zone::new(PEERS);
    let peers = zone.seen_by(1);
    let ids: Vec<String> = (0..PEERS).map(|n| format!("10.0.{}.{}:80", n / 256, n % 256)).collect();
    for round in 1..=3 {
        for id in &ids {
            assert_eq!(peers.next(id.as_bytes(), None, round).unwrap().counter, round);
        }
    }
    assert_eq!(peers.len(), PEERS);
    peers.next(b"one more", None, 4).unwrap();
    assert_eq!(peers.len(), PEERS);
}

#[test]
fn a_process_killed_at_any_store_stops_nobody() {
    let acts: [fn(&Peers<'_, Everybody>); 4] = [
        |peers| _ = peers.next(b"a", None, 10),
        |peers| _ = peers.next(b"new", None, 10),
        |peers| _ = peers.admit(b"a", stamp(3, None), 10, [7; 16]),
        |peers| _ = peers.admit(b"new", stamp(3, None), 10, [7; 16]),
    ];
    for act in acts {
        for n in 0.. {
            let zone = Zone::new(2);
            let peers = zone.seen_by(1);
            open(&peers, b"a", 0);
            open(&peers, b"b", 1);
            let mine = peers.next(b"a", None, 2).unwrap().counter;
            let done = fuse::until(n, || act(&zone.seen_by(DEAD))).is_some();
            // none runs again, whatever was forgotten
            let again = peers.admit(b"a", stamp(2, Some(5)), 11, [8; 16]).unwrap();
            assert_ne!(again, Verdict::Admitted, "store {n}");
            let replay = peers.admit(b"b", stamp(2, Some(5)), 11, [8; 16]).unwrap();
            assert_ne!(replay, Verdict::Admitted, "store {n}");
            // and everybody can go on
            assert!(peers.next(b"a", None, 11).unwrap().counter > mine, "store {n}");
            for id in [&b"a"[..], b"new", b"b"] {
                let mut nonce = None;
                let tries = (0..2).map(|try_| {
                    let stamp = Stamp { epoch: 77, counter: try_ + 1, nonce };
                    let verdict = peers.admit(id, stamp, 20_000, [9; 16]).unwrap();
                    if let Verdict::Challenged(given) = verdict {
                        nonce = Some(given);
                    }
                    verdict
                });
                assert_eq!(tries.last(), Some(Verdict::Admitted), "store {n}");
            }
            if done {
                assert!(n > 2, "nothing was killed");
                break;
            }
        }
    }
}

#[test]
fn many_at_once_get_different_counters_and_admit_each_call_once() {
    let zone = Zone::new(3);
    let (given, admitted) = (Mutex::new(BTreeSet::new()), Mutex::new(BTreeSet::new()));
    open(&zone.seen_by(1), b"x", 0);
    std::thread::scope(|scope| {
        for pid in 11..15 {
            let (zone, given, admitted) = (&zone, &given, &admitted);
            scope.spawn(move || {
                let peers = zone.seen_by(pid);
                for n in 0..if cfg!(miri) { 10 } else { 400 } {
                    // four peers in three rows: they push each other out
                    for id in [&b"a"[..], b"b", b"c"] {
                        let stamp = peers.next(id, None, n).unwrap();
                        assert!(given.lock().unwrap().insert((id, stamp.counter)));
                    }
                    let call = stamp(3 + n, None);
                    if peers.admit(b"x", call, n, [1; 16]) == Ok(Verdict::Admitted) {
                        assert!(admitted.lock().unwrap().insert(call.counter));
                    }
                }
            });
        }
    });
}

#[test]
fn a_living_owner_is_waited_for_but_not_for_ever() {
    let zone = Zone::new(2);
    let held = zone.seen_by(1);
    let seized = lock::seize(held.lock, held.me, held.alive).unwrap();
    assert_eq!(zone.seen_by(2).next(b"a", None, 0), Err(PeersError::Busy));
    seized.release();
    assert!(zone.seen_by(2).next(b"a", None, 0).is_ok());
}

#[test]
fn garbage_is_bounded() {
    let zone = Zone::new(3);
    for seed in 0..if cfg!(miri) { 4 } else { 200u64 } {
        for (n, word) in zone.0.iter().enumerate().skip(3) {
            let noise = (seed * 977 + n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word.store(noise >> (seed % 60), Relaxed);
        }
        zone.0[2].store(u64::from(DEAD), Relaxed); // a dead owner: repair looks at `editing`
        let peers = zone.seen_by(1);
        let _ = (peers.next(b"a", None, seed), peers.admit(b"b", stamp(3, None), 3, [1; 16]));
    }
}
