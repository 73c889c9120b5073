//! Consistent hashing by rendezvous (highest random weight): each peer has a weight for each key,
//! computed from both alone, and a key belongs to its heaviest peer. A peer that goes leaves the
//! weights of the others as they were, so that only its own keys move, each to its second; one that
//! comes takes over just the keys it is the heaviest for. There is no ring to build or to share.

use twox_hash::XxHash3_64;

/// A key or a peer as a number. The same text has the same number on every machine.
pub fn number(text: &[u8]) -> u64 {
    XxHash3_64::oneshot(text)
}

/// Two numbers as one: how heavy a peer is for a key, or a peer in an upstream.
pub fn pair(one: u64, other: u64) -> u64 {
    let mut text = [0; 16];
    text[..8].copy_from_slice(&one.to_le_bytes());
    text[8..].copy_from_slice(&other.to_le_bytes());
    XxHash3_64::oneshot(&text)
}

/// The place of the heaviest among `peers` for `key` that may be taken. Asks only about those that
/// are heavier than all before.
pub fn heaviest(key: u64, peers: &[u64], may: impl FnMut(usize) -> bool) -> Option<usize> {
    lighter(key, peers, None, may)
}

/// The same, of those that are lighter than the one at the place `than`.
pub fn lighter(
    key: u64,
    peers: &[u64],
    than: Option<usize>,
    mut may: impl FnMut(usize) -> bool,
) -> Option<usize> {
    let weight = |peer: &u64| (pair(key, *peer), *peer);
    let limit = than.and_then(|place| peers.get(place)).map(weight);
    let mut best = None;
    for (place, peer) in peers.iter().enumerate() {
        let weight = weight(peer);
        let below = limit.is_none_or(|limit| weight < limit);
        if below && best.is_none_or(|(heaviest, _)| weight > heaviest) && may(place) {
            best = Some((weight, place));
        }
    }
    best.map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    const KEYS: u64 = 300;

    fn pick(key: u64, peers: &[u64]) -> Option<u64> {
        heaviest(number(&key.to_le_bytes()), peers, |_| true).map(|place| peers[place])
    }

    /// All peers, from the heaviest down.
    fn order(key: u64, peers: &[u64]) -> Vec<u64> {
        let mut last = None;
        std::iter::from_fn(|| {
            last = Some(lighter(number(&key.to_le_bytes()), peers, last, |_| true)?);
            last.map(|place| peers[place])
        })
        .collect()
    }

    fn peers() -> impl Strategy<Value = Vec<u64>> {
        proptest::collection::hash_set(0u32..100_000, 2..40).prop_map(|ports| {
            ports.iter().map(|p| number(format!("10.0.0.1:{p}").as_bytes())).collect()
        })
    }

    proptest! {
        #[test]
        fn only_the_keys_of_the_peer_that_went_move(peers in peers(), gone in any::<prop::sample::Index>()) {
            let gone = *gone.get(&peers);
            let left: Vec<u64> = peers.iter().copied().filter(|peer| *peer != gone).collect();
            for key in 0..KEYS {
                let before = order(key, &peers);
                let after = order(key, &left);
                // the others keep their order, so a key of the one that went goes to its second
                prop_assert_eq!(before.into_iter().filter(|peer| *peer != gone).collect::<Vec<_>>(), after);
            }
        }

        #[test]
        fn only_keys_of_the_peer_that_came_move(peers in peers(), new in 100_000u32..) {
            let new = number(format!("10.0.0.1:{new}").as_bytes());
            let mut more = peers.clone();
            more.insert(more.len() / 2, new);
            for key in 0..KEYS {
                let (before, after) = (pick(key, &peers), pick(key, &more));
                prop_assert!(before == after || after == Some(new));
            }
        }

        #[test]
        fn the_order_in_which_peers_are_listed_does_not_matter(peers in peers(), key in any::<u64>()) {
            let mut other = peers.clone();
            other.reverse();
            prop_assert_eq!(order(key, &peers), order(key, &other));
        }

        #[test]
        fn all_have_their_turn_the_heaviest_first(peers in peers(), key in any::<u64>(), down in any::<prop::sample::Index>()) {
            let order = order(key, &peers);
            let weight = |peer: &u64| pair(number(&key.to_le_bytes()), *peer);
            prop_assert!(order.windows(2).all(|two| weight(&two[0]) > weight(&two[1])));
            prop_assert_eq!(order.iter().collect::<HashSet<_>>(), peers.iter().collect::<HashSet<_>>());
            // one that may not be taken is left out of it, whichever it is
            let (key, down) = (number(&key.to_le_bytes()), down.index(peers.len()));
            let mut last = None;
            let mut left = Vec::new();
            while let Some(place) = lighter(key, &peers, last, |place| place != down) {
                left.push(peers[place]);
                last = Some(place);
            }
            let others: Vec<u64> = order.into_iter().filter(|peer| *peer != peers[down]).collect();
            prop_assert_eq!(left, others);
        }

        #[test]
        fn a_peer_that_is_passed_over_moves_its_own_keys_only(peers in peers(), down in any::<prop::sample::Index>()) {
            let down = down.index(peers.len());
            for key in 0..KEYS {
                let hash = number(&key.to_le_bytes());
                let usual = heaviest(hash, &peers, |_| true);
                let now = heaviest(hash, &peers, |place| place != down);
                prop_assert!(usual == now || usual == Some(down));
            }
        }
    }

    #[test]
    fn every_peer_has_its_share() {
        let peers: Vec<u64> = (0..10).map(|w| number(format!("worker {w}").as_bytes())).collect();
        let mut shares = [0; 10];
        for key in 0..100_000 {
            let place = heaviest(number(&u64::to_le_bytes(key)), &peers, |_| true).unwrap();
            shares[place] += 1;
        }
        // six standard deviations
        assert!(shares.iter().all(|share: &i32| (share - 10_000).abs() < 570), "{shares:?}");
    }

    #[test]
    fn numbers_are_the_same_everywhere() {
        // from the reference implementation of XXH3
        assert_eq!(number(b""), 0x2d06_8005_38d3_94c2);
        assert_eq!(heaviest(1, &[], |_| true), None);
        assert_eq!(heaviest(1, &[5], |_| false), None);
    }
}
