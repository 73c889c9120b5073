//! Whatever another process scribbled: no panic, no endless loop, and nothing read beyond the memory
//! (which safe code cannot do).

use super::*;

/// Everything that can be asked, of memory as it is.
fn use_it<A: Fn(Pid) -> bool>(a: &Retained<'_, A>) {
    let mut value = vec![];
    for i in 0..8u8 {
        let _ = a.get(b"name", &[i], &mut value);
        let _ = a.set(b"name", &[i], &[i; 300]);
        let _ = a.get_held(&Sought::value(b"name", &[i]), &mut value);
        let _ = a.set(&[i], b"key", &[i; 30]);
        let _ = a.delete(b"name", &[i / 2]);
    }
    let _ = a.visit(b"name", 3, |_| {});
    let _ = a.names();
    let _ = (a.len(), a.bytes_used(), a.capacity(), a.sequence(), a.last(b"name"));
    assert!(value.len() <= a.capacity());
}

/// The words behind magic and size.
fn words() -> impl Strategy<Value = Vec<(usize, u64)>> {
    let small =
        prop_oneof![any::<u64>(), 0u64..200, (0u64..100, 0u64..100).prop_map(|(a, b)| a << 32 | b)];
    prop::collection::vec((2usize..SMALL / 8, small), 0..4000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 2 } else { 80 }))]

    #[test]
    fn any_memory_is_used_without_harm(words in words(), fill in prop_oneof![Just(0), any::<u64>()]) {
        let zone = Zone::new(SMALL);
        zone.0[2..].iter().for_each(|word| word.store(fill, Ordering::Relaxed));
        for (at, word) in words {
            zone.0[at].store(word, Ordering::Relaxed);
        }
        use_it(&zone.seen_by_with(1, |_| false));
        zone.0[2].store(0, Ordering::Relaxed); // the lock is free
        use_it(&zone.seen_by(1));
    }

    /// A scribble in a zone in use; the next repair leaves something sound.
    #[test]
    fn a_repair_makes_sense_of_it(words in words()) {
        let zone = Zone::new(SMALL);
        let a = zone.seen_by_with(1, |_| false);
        for i in 0..50u8 {
            a.set(&[i % 3], &[i], &[i; 60]).unwrap();
        }
        for (at, word) in words.into_iter().step_by(20) {
            zone.0[at].store(word, Ordering::Relaxed);
        }
        use_it(&a);
        zone.0[2].store(99, Ordering::Relaxed); // a dead owner
        a.delete(b"none", b"").unwrap();
        a.audit();
    }
}
