//! A process is killed before each of its stores in turn; the others go on, see old or new, and get
//! all the room back.

use super::*;

const DEAD: u32 = 7;

/// A zone with something of everything, and nearly no room.
fn busy_zone() -> Zone {
    let zone = Zone::new(SIZE_MIN);
    let a = zone.seen_by(1);
    for i in 0..12u8 {
        a.set(b"name", &[i], &[i; 40]).unwrap();
        a.set(b"second", &[i], &[i; 20]).unwrap();
    }
    a.set(b"third", b"only", b"one").unwrap();
    zone
}

/// Kills `act` before its n-th store for every n, and hands the zone to `check`, which hears
/// whether the act came to its end.
fn at_each_store(act: impl Fn(&Zone), check: impl Fn(&Zone, bool)) {
    let mut n = 0;
    loop {
        let zone = busy_zone();
        let done = fuse::until(n, || act(&zone)).is_some();
        check(&zone, done);
        if done {
            break;
        }
        n += 1;
    }
    assert!(n > 5, "nothing was killed");
}

/// A process to which the dead one is dead.
fn survivor(zone: &Zone) -> Retained<'_, impl Fn(Pid) -> bool> {
    zone.seen_by_with(2, |pid| pid != Pid(DEAD))
}

/// Only the key may differ from the untouched zone, and only by being one of these.
fn check_values<A: Fn(Pid) -> bool>(
    a: &Retained<'_, A>,
    (name, key): (&[u8], &[u8]),
    either: &[Option<&[u8]>],
) {
    let strip = |all: HashMap<_, (Vec<u8>, u64)>| {
        all.into_iter().map(|(k, (v, _))| (k, v)).collect::<HashMap<_, _>>()
    };
    let mut expected = strip(busy_zone().seen_by(1).audit());
    expected.remove(&(name.to_vec(), key.to_vec()));
    let mut value = vec![];
    let found = a.get(name, key, &mut value).unwrap().map(|_| &value[..]);
    assert!(either.contains(&found), "{found:?}");
    for ((name, key), kept) in &expected {
        let mut value = vec![];
        assert!(a.get(name, key, &mut value).unwrap().is_some());
        assert_eq!(&value, kept);
    }
}

/// After one more turn of the lock, and one collection, everything is as if nobody had died.
fn check_recovers(zone: &Zone, (name, key): (&[u8], &[u8])) {
    let b = survivor(zone);
    b.set(b"second", &[0], b"again").unwrap();
    b.delete(name, key).unwrap();
    // asks for what is not there, so that the dead one's holds are looked through
    let _ = b.set(b"second", &[0], &vec![0; b.capacity() - 256]);
    let all = b.audit();
    assert!(b.region.holds.iter().step_by(2).all(|who| who.load(Ordering::Relaxed) == 0));
    for (name, key) in all.keys() {
        b.delete(name, key).unwrap();
    }
    assert_eq!((b.bytes_used(), b.len()), (0, 0));
    assert!(b.set(b"n", b"k", &vec![1; b.capacity() - 192]).is_ok(), "room was lost");
    b.audit();
}

fn killed_setter(name: &[u8], key: &[u8], old: Option<&[u8]>, new: &[u8]) {
    at_each_store(
        |zone| assert!(zone.seen_by(DEAD).set(name, key, new).is_ok()),
        |zone, done| {
            let either = if done { vec![Some(new)] } else { vec![old, Some(new)] };
            check_values(&zone.seen_by(3), (name, key), &either); // before any repair
            check_recovers(zone, (name, key));
        },
    );
}

#[test]
fn of_a_set_that_replaces() {
    killed_setter(b"name", &[3], Some(&[3; 40]), &[9; 100]);
}

#[test]
fn of_a_set_of_a_new_key() {
    killed_setter(b"name", b"new", None, &[9; 10]);
}

#[test]
fn of_a_set_of_a_new_name() {
    killed_setter(b"a new name", b"new", None, &[9; 70]);
}

#[test]
fn of_a_delete() {
    at_each_store(
        |zone| assert!(zone.seen_by(DEAD).delete(b"name", &[3]).is_ok()),
        |zone, done| {
            let either: &[Option<&[u8]>] = if done { &[None] } else { &[None, Some(&[3; 40])] };
            check_values(&zone.seen_by(3), (b"name", &[3]), either);
            check_recovers(zone, (b"name", &[3]));
        },
    );
}

#[test]
fn of_a_delete_that_ends_a_name() {
    at_each_store(
        |zone| assert!(zone.seen_by(DEAD).delete(b"third", b"only").is_ok()),
        |zone, _| check_recovers(zone, (b"third", b"only")),
    );
}

#[test]
fn of_a_reader_that_holds() {
    let read = |zone: &Zone| {
        let mut value = vec![];
        let sought = Sought::value(b"name", &[3]);
        let found = zone.seen_by(DEAD).get_held(&sought, &mut value);
        assert_eq!((found.unwrap().is_some(), value), (true, vec![3; 40]));
    };
    at_each_store(read, |zone, _| {
        check_values(&zone.seen_by(3), (b"name", &[3]), &[Some(&[3; 40])]);
        check_recovers(zone, (b"name", &[3]));
    });
}

/// The one who repairs is killed in it, before each store, after each store of the first.
#[test]
fn of_a_repair() {
    let mut n = 0;
    loop {
        let mut m = 0;
        let killed = loop {
            let zone = busy_zone();
            let first = fuse::until(n, || zone.seen_by(8).set(b"fresh", &[3], &[9; 100]));
            let second = zone.seen_by_with(DEAD, |pid| pid != Pid(8));
            let done = fuse::until(m, || second.set(b"name", &[4], b"new").unwrap()).is_some();
            let b = zone.seen_by_with(2, |pid| pid != Pid(8) && pid != Pid(DEAD));
            b.set(b"second", &[0], b"again").unwrap();
            let _ = b.set(b"second", &[0], &vec![0; b.capacity() - 256]);
            let all = b.audit();
            assert!(all.len() == 25 || all.len() == 26);
            if done {
                break first.is_none();
            }
            m += 1;
        };
        if !killed {
            break;
        }
        n += 1;
    }
    assert!(n > 30);
}

/// Whoever only asks for news does not keep a value whose delete was cut short.
#[test]
fn a_visitor_hears_of_a_delete_that_was_cut_short() {
    let (before, last) = {
        let zone = busy_zone();
        let seen = zone.seen_by(1).visit(b"name", 0, |_| {}).unwrap();
        (seen.sequence, zone.seen_by(1).sequence())
    };
    at_each_store(
        |zone| assert!(zone.seen_by(DEAD).delete(b"name", &[3]).is_ok()),
        |zone, _| {
            let b = survivor(zone);
            b.set(b"second", &[0], b"again").unwrap();
            let gone = b.get(b"name", &[3], &mut vec![]).unwrap().is_none();
            let seen = b.visit(b"name", before, |_| {}).unwrap();
            assert!(!gone || seen.afresh);
            assert!(b.sequence() > last);
        },
    );
}

/// What a living process reserved is not taken from it, whoever repairs.
#[test]
fn a_repair_spares_what_the_living_hold() {
    let zone = busy_zone();
    let slow = zone.seen_by(5);
    let extent = slow.locked(|| {
        let extent = slow.take(3).unwrap();
        assert!(slow.hold(extent));
        extent
    });
    let extent = extent.unwrap();
    fuse::until(9, || zone.seen_by(DEAD).set(b"name", &[3], b"cut short"));
    zone.seen_by(DEAD).region.lock.store(u64::from(DEAD), Ordering::Relaxed);
    let b = survivor(&zone);
    b.set(b"name", &[3], b"whole").unwrap();
    b.audit();
    slow.locked(|| assert!(slow.let_go(extent))).unwrap();
    slow.locked(|| slow.free(extent)).unwrap();
    b.audit();
}

/// A reader that copies a block, not the first of its chain, while its writer is killed: once the
/// block is out of the chain, the reader does not believe what it copied.
#[test]
fn a_reader_hears_of_a_replacement_that_was_cut_short() {
    let mut replaced = 0;
    for n in 0..100 {
        let zone = Zone::new(SIZE_MIN);
        let a = zone.seen_by(1);
        let bucket = |key: u8| a.region.bucket(Sought::value(b"n", &[key]).hash).unwrap();
        let second = (1..).find(|key| std::ptr::eq(bucket(*key), bucket(0))).unwrap();
        a.set(b"n", &[0], b"behind").unwrap();
        a.set(b"n", &[second], b"in front").unwrap();
        let place = || a.find(&Sought::value(b"n", &[0])).map(|block| block.at);
        let (before, mut looks) = (place(), 0);
        a.region.still(bucket(0), |_| {
            looks += 1;
            if looks == 1 {
                fuse::until(n, || zone.seen_by(DEAD).set(b"n", &[0], b"new").is_ok());
                survivor(&zone).delete(b"none", b"").unwrap();
            }
        });
        replaced += usize::from(place() != before);
        assert!(looks > 1 || place() == before, "killed before store {n}");
    }
    assert!(replaced > 50);
}
