//! Who gets which kept-alive connection: the account of one process's connections, idle and in use,
//! per endpoint and in all. The connections themselves are `ngx/client`'s; here they are numbers.

use std::hash::Hash;

use foldhash::HashMap;

/// How many connections there may be, and how long an unused one is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLimits {
    /// Idle ones to one endpoint.
    pub idle_per_endpoint: usize,
    /// Idle ones in all.
    pub idle: usize,
    /// Open ones in all, idle or in use.
    pub open: usize,
    /// How long one stays idle, in milliseconds.
    pub idle_timeout: u64,
}

impl Default for PoolLimits {
    fn default() -> Self {
        PoolLimits { idle_per_endpoint: 64, idle: 256, open: 1024, idle_timeout: 60_000 }
    }
}

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// This idle connection, which is in use from now on.
    Idle(usize),
    /// Leave to open one, which counts from now on; to make room, the idle connection that is named
    /// has left the account and is to be closed.
    Open(Option<usize>),
    /// Nothing: all are in use.
    Busy,
}

#[derive(Clone, Copy)]
struct Idle {
    connection: usize,
    since: u64,
}

/// The account.
pub struct Pool<K> {
    limits: PoolLimits,
    /// Idle ones by endpoint; the one used last stands last.
    idle: HashMap<K, Vec<Idle>>,
    /// How many stand in `idle`.
    resting: usize,
    open: usize,
    /// Counts what comes to rest, so that the oldest is known.
    clock: u64,
}

impl<K: Clone + Eq + Hash> Pool<K> {
    /// An empty one.
    pub fn new(limits: PoolLimits) -> Self {
        Pool { limits, idle: HashMap::default(), resting: 0, open: 0, clock: 0 }
    }

    /// The limits in force.
    pub fn limits(&self) -> PoolLimits {
        self.limits
    }

    /// Open connections, idle or in use.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Idle connections.
    pub fn idle(&self) -> usize {
        self.resting
    }

    /// A connection for a call: the idle one that was used last, for it is the least likely to be
    /// closed meanwhile, or leave to open one. `fresh` asks for the latter.
    pub fn take(&mut self, endpoint: &K, fresh: bool) -> Taken {
        if !fresh {
            if let Some(idle) = self.idle.get_mut(endpoint).and_then(Vec::pop) {
                self.resting -= 1;
                return Taken::Idle(idle.connection);
            }
        }
        let evicted = if self.open < self.limits.open {
            None
        } else {
            match self.evict() {
                Some(oldest) => Some(oldest),
                None => return Taken::Busy,
            }
        };
        self.open += 1;
        Taken::Open(evicted)
    }

    /// A connection in use becomes idle. The one that is given back has left the account and is to
    /// be closed: this one or, where the limits are reached, an older one.
    pub fn rest(&mut self, endpoint: &K, connection: usize) -> Option<usize> {
        if self.limits.idle_per_endpoint == 0 || self.limits.idle == 0 {
            self.closed();
            return Some(connection);
        }
        self.clock += 1;
        let idle = Idle { connection, since: self.clock };
        // an endpoint is cloned once, when it is first met
        match self.idle.get_mut(endpoint) {
            Some(list) => list.push(idle),
            None => {
                self.forget_unused();
                self.idle.insert(endpoint.clone(), vec![idle]);
            }
        }
        self.resting += 1;
        let list = self.idle.get_mut(endpoint)?;
        if list.len() > self.limits.idle_per_endpoint {
            let oldest = list.remove(0);
            self.resting -= 1;
            self.closed();
            return Some(oldest.connection);
        }
        (self.resting > self.limits.idle).then(|| self.evict()).flatten()
    }

    /// A connection in use was closed.
    pub fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// An idle connection was closed. False when it was not idle.
    pub fn gone(&mut self, endpoint: &K, connection: usize) -> bool {
        let Some(list) = self.idle.get_mut(endpoint) else { return false };
        let Some(at) = list.iter().position(|idle| idle.connection == connection) else {
            return false;
        };
        list.remove(at);
        if list.is_empty() {
            self.idle.remove(endpoint);
        }
        self.resting -= 1;
        self.closed();
        true
    }

    /// Takes the connection that has been idle longest out of the account.
    fn evict(&mut self) -> Option<usize> {
        let lists = self.idle.values_mut().filter(|list| !list.is_empty());
        let list = lists.min_by_key(|list| list.first().map(|idle| idle.since))?;
        let oldest = list.remove(0);
        self.resting -= 1;
        self.closed();
        Some(oldest.connection)
    }

    /// Endpoints come and go; those without an idle connection are forgotten now and then.
    fn forget_unused(&mut self) {
        if self.idle.len() > 64 && self.idle.len() > 2 * self.resting {
            self.idle.retain(|_, list| !list.is_empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use proptest::prelude::*;

    use super::{Pool, PoolLimits, Taken};

    fn limits(idle_per_endpoint: usize, idle: usize, open: usize) -> PoolLimits {
        PoolLimits { idle_per_endpoint, idle, open, idle_timeout: 1000 }
    }

    #[test]
    fn the_one_used_last_is_used_next() {
        let mut pool = Pool::new(limits(4, 4, 4));
        for _ in 0..3 {
            assert_eq!(pool.take(&'a', false), Taken::Open(None));
        }
        for connection in [7, 8, 9] {
            assert_eq!(pool.rest(&'a', connection), None);
        }
        assert_eq!(pool.take(&'b', false), Taken::Open(None));
        assert_eq!(pool.take(&'a', false), Taken::Idle(9));
        assert!(pool.gone(&'a', 8));
        assert!(!pool.gone(&'a', 8));
        assert_eq!(pool.take(&'a', false), Taken::Idle(7));
        assert_eq!((pool.open(), pool.idle()), (3, 0));
    }

    #[test]
    fn a_fresh_one_is_opened_though_others_are_idle() {
        let mut pool = Pool::new(limits(4, 4, 2));
        assert_eq!(pool.take(&'a', false), Taken::Open(None));
        pool.rest(&'a', 1);
        assert_eq!(pool.take(&'a', true), Taken::Open(None));
        pool.closed();
        assert_eq!((pool.open(), pool.idle()), (1, 1));
    }

    #[test]
    fn the_oldest_idle_one_makes_room() {
        let mut pool = Pool::new(limits(2, 3, 4));
        for endpoint in ['a', 'a', 'a', 'b'] {
            pool.take(&endpoint, false);
        }
        assert_eq!(pool.take(&'c', false), Taken::Busy);
        assert_eq!(pool.rest(&'a', 1), None);
        assert_eq!(pool.take(&'c', false), Taken::Open(Some(1)));
        assert_eq!(pool.rest(&'a', 2), None);
        assert_eq!(pool.rest(&'a', 3), None);
        assert_eq!(pool.rest(&'b', 4), None);
        assert_eq!(pool.rest(&'c', 5), Some(2), "more than idle in all");
        assert_eq!((pool.open(), pool.idle()), (3, 3));
        pool.take(&'c', true);
        assert_eq!(pool.rest(&'a', 6), Some(3), "more than idle in all, again the oldest");
    }

    #[test]
    fn without_room_for_idle_ones_each_is_closed() {
        for none in [limits(0, 4, 4), limits(4, 0, 4)] {
            let mut pool = Pool::new(none);
            pool.take(&'a', false);
            assert_eq!(pool.rest(&'a', 1), Some(1));
            assert_eq!((pool.open(), pool.idle()), (0, 0));
        }
    }

    proptest! {
        /// Against a list of who is where: nothing is lost, doubled or beyond its limit.
        #[test]
        fn the_account_is_right(
            per in 0usize..4, all in 0usize..6, open in 1usize..8,
            steps in proptest::collection::vec((0u8..4, 0u8..5, any::<bool>(), any::<u8>()), 0..200),
        ) {
            let mut pool = Pool::new(limits(per, all, open));
            let (mut used, mut idle) = (Vec::<(u8, usize)>::new(), HashMap::<usize, u8>::new());
            let mut next = 0;
            for (what, endpoint, fresh, pick) in steps {
                match what {
                    0 | 1 => match pool.take(&endpoint, fresh) {
                        Taken::Idle(connection) => {
                            prop_assert!(!fresh);
                            prop_assert_eq!(idle.remove(&connection), Some(endpoint));
                            used.push((endpoint, connection));
                        }
                        Taken::Open(evicted) => {
                            if let Some(evicted) = evicted {
                                prop_assert!(idle.remove(&evicted).is_some());
                            }
                            used.push((endpoint, next));
                            next += 1;
                        }
                        Taken::Busy => prop_assert_eq!((used.len(), idle.len()), (open, 0)),
                    },
                    2 if !used.is_empty() => {
                        let (endpoint, connection) = used.remove(pick as usize % used.len());
                        idle.insert(connection, endpoint);
                        if let Some(out) = pool.rest(&endpoint, connection) {
                            prop_assert!(idle.remove(&out).is_some());
                        }
                    }
                    2 => {}
                    _ if pick & 1 == 0 && !used.is_empty() => {
                        used.remove(pick as usize % used.len());
                        pool.closed();
                    }
                    _ => {
                        if let Some((connection, endpoint)) =
                            idle.iter().next().map(|(c, e)| (*c, *e))
                        {
                            prop_assert!(pool.gone(&endpoint, connection));
                            idle.remove(&connection);
                        }
                    }
                }
                prop_assert_eq!((pool.open(), pool.idle()), (used.len() + idle.len(), idle.len()));
                prop_assert!(idle.len() <= all && pool.open() <= open);
                for e in 0..5 {
                    prop_assert!(idle.values().filter(|of| **of == e).count() <= per);
                }
                let distinct: HashSet<usize> =
                    used.iter().map(|(_, c)| *c).chain(idle.keys().copied()).collect();
                prop_assert_eq!(distinct.len(), pool.open());
            }
        }
    }
}
