//! Rings and bells of a few workers, alone and with threads.

use super::*;

/// Of a ring; where memory is made word by word, as little as there may be.
fn ring(workers: usize) -> usize {
    if cfg!(miri) { RING.0 } else { Mesh::ring_size(workers) }
}

struct Memory(Vec<Word>);

impl Memory {
    fn new(workers: usize) -> Memory {
        let words = Mesh::size_with(workers, ring(workers)) / 8 + 16;
        Memory((0..words).map(|_| Word::new(0)).collect())
    }

    fn mesh(&self, workers: usize) -> Mesh<'_> {
        let skip = self.0.as_ptr().cast::<u8>().align_offset(128) / 8;
        Mesh::with_rings(&self.0[skip..], workers, ring(workers)).unwrap()
    }
}

#[test]
fn memory_stays_in_bounds_for_any_number_of_workers() {
    for workers in 1..=MESH_MAX {
        let size = Mesh::size(workers).unwrap();
        assert!(size <= 2 * TOTAL + workers * workers * 512, "{workers}: {size}");
        assert!(Mesh::ring_size(workers).is_power_of_two());
    }
    assert_eq!(Mesh::size(MESH_MAX + 1), None);
}

#[test]
fn each_pair_has_a_ring_of_its_own() {
    let memory = Memory::new(3);
    let mesh = memory.mesh(3);
    for (from, to) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
        let text = [from as u8, to as u8];
        mesh.ring(from, to).unwrap().producer().put([&text, b"", b""]).unwrap();
    }
    for (from, to) in (0..3).flat_map(|a| (0..3).map(move |b| (a, b))) {
        let mut consumer = mesh.ring(from, to).unwrap().consumer();
        assert_eq!(consumer.take(), Some(&[from as u8, to as u8][..]));
        assert_eq!(consumer.take(), None);
    }
    assert!(mesh.ring(3, 0).is_none() && mesh.ring(0, 3).is_none());
    assert_eq!((mesh.unread(1), mesh.unread(3)), (0, 0));
    mesh.ring(0, 1).unwrap().producer().put([b"four", b"", b""]).unwrap();
    mesh.ring(2, 1).unwrap().producer().put([b"", b"", b""]).unwrap();
    assert_eq!((mesh.unread(0), mesh.unread(1)), (0, 16 + 8));
}

#[test]
fn a_bell_is_rung_once_for_a_sleeper_and_never_for_one_awake() {
    let memory = Memory::new(2);
    let mesh = memory.mesh(2);
    assert_eq!(mesh.enter(1), 0b11);
    assert!(!mesh.mail(0, 1));
    assert!(!mesh.sleep(1)); // mail has come
    assert_eq!(mesh.senders(1), 0b01);
    assert_eq!(mesh.senders(1), 0);
    assert!(mesh.sleep(1));
    assert!(mesh.mail(0, 1));
    assert!(!mesh.mail(0, 1));
    assert_eq!(mesh.senders(1), 0b01);
    assert!(mesh.sleep(1));
    assert!(mesh.room(1));
    assert!(mesh.has_room(1) && !mesh.has_room(1));
}

#[test]
fn who_leaves_is_seen_and_one_settles() {
    let memory = Memory::new(2);
    let mesh = memory.mesh(2);
    assert!(!mesh.has_left(1));
    mesh.leave(1);
    assert!(mesh.has_left(1) && !mesh.has_left(0));
    assert!(mesh.settle() && !mesh.settle());
    assert!(mesh.inherit() && !mesh.inherit() && !mesh.settle());
}

/// A sender that always rings a sleeper is never overheard, in any interleaving that two
/// threads produce.
#[test]
fn no_wake_up_is_lost() {
    let count = if cfg!(miri) { 200 } else { 20_000u32 };
    let memory = Memory::new(2);
    let mesh = memory.mesh(2);
    mesh.enter(1);
    let (bell, wait) = std::sync::mpsc::channel();
    let mut producer = mesh.ring(0, 1).unwrap().producer();
    let mut consumer = mesh.ring(0, 1).unwrap().consumer();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for i in 0..count {
                while producer.put([&i.to_ne_bytes(), b"", b""]).is_err() {
                    std::thread::yield_now();
                }
                if mesh.mail(0, 1) {
                    bell.send(()).unwrap();
                }
            }
        });
        let mut next = 0u32;
        while next < count {
            if mesh.senders(1) != 0 {
                while let Some(record) = consumer.take() {
                    assert_eq!(record, next.to_ne_bytes());
                    next += 1;
                }
            } else if mesh.sleep(1) {
                wait.recv_timeout(std::time::Duration::from_secs(20)).expect("overheard");
            }
        }
    });
}
