//! The peers there are: of a list, or of a hash: this node's workers, or the nodes below it. These
//! are looked up in shared memory at most every few milliseconds, and only while requests ask; their
//! failures are there, too.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use super::settings::Conf;
use crate::modules::core::Core;
use crate::modules::listen;
use crate::ngx::module::core_conf;
use crate::ngx::upstream::{Target, Targets};
use crate::ngx::{cycle, socket};
use crate::proto::cluster::membership::standing::Health;
use crate::proto::ipc::WorkerId;
use crate::proto::listen::Address;
use crate::proto::upstream::address::{self, AddressError, Beside};
use crate::proto::upstream::failures::Policy;
use crate::proto::upstream::rendezvous::{lighter, number, pair};
use crate::shm::failures::Failures;
use crate::shm::slots::State;

/// How old a list may be, milliseconds.
const FRESH: usize = 20;
/// Lists from variables that are kept, and the longest of them, bytes.
const LISTS_MAX: usize = 256;
const LIST_MAX: usize = 1024;
/// Channels whose lists are kept.
const CHANNELS_MAX: usize = 64;

/// Targets, each with its number in the hash.
#[derive(Default)]
pub struct Candidates {
    peers: Vec<Rc<Target>>,
    numbers: Vec<u64>,
}

impl Candidates {
    fn push(&mut self, name: &[u8], address: &Address) {
        let Some(target) = Target::new(address) else { return };
        self.numbers.push(number(name));
        self.peers.push(target);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.peers.len()
    }

    /// The peer at a place.
    pub fn get(&self, place: usize) -> Option<&Target> {
        self.peers.get(place).map(Rc::as_ref)
    }

    /// The same, to be kept.
    pub fn peer(&self, place: usize) -> Option<Rc<Target>> {
        self.peers.get(place).cloned()
    }

    /// The place of the next for `key` after the one at `last`, by weight, of those that may be
    /// taken; the heaviest without it.
    pub fn after(
        &self,
        key: u64,
        last: Option<u32>,
        may: impl FnMut(usize) -> bool,
    ) -> Option<usize> {
        lighter(key, &self.numbers, last.map(|place| place as usize), may)
    }

    /// Where an upstream's failures of the peer at a place are counted.
    fn failure_key(&self, upstream: u64, place: usize) -> u64 {
        pair(upstream, self.numbers.get(place).copied().unwrap_or_default())
    }
}

/// What the zone knows of the failures of an upstream's peers.
pub struct Failing<'a> {
    table: Option<&'static Failures>,
    upstream: u64,
    policy: Policy,
    peers: &'a Candidates,
}

impl<'a> Failing<'a> {
    /// Of these peers in the upstream of `conf`.
    pub fn of(conf: &Conf, peers: &'a Candidates) -> Failing<'a> {
        Failing { table: failures(), upstream: conf.number.get(), policy: conf.policy, peers }
    }

    fn key(&self, place: usize) -> u64 {
        self.peers.failure_key(self.upstream, place)
    }

    /// Whether that peer is passed over; nginx, too, does not do that to the only one.
    pub fn passes_over(&self, place: usize) -> bool {
        let several = self.peers.count() > 1;
        let failed = |table: &Failures| table.is_failed(self.key(place), self.policy, seconds());
        several && self.table.is_some_and(failed)
    }

    /// How often it has failed lately.
    pub fn count(&self, place: usize) -> u16 {
        self.table.map_or(0, |table| table.fails(self.key(place)))
    }

    /// That peer is tried.
    pub fn taken(&self, place: usize) {
        if let Some(table) = self.table {
            table.taken(self.key(place), self.policy, seconds());
        }
    }

    /// That peer failed or did well; true when it counts as failed from now on.
    pub fn ended(&self, place: usize, failed: bool) -> bool {
        let Some(table) = self.table else { return false };
        if failed {
            return table.failed(self.key(place), self.policy, seconds());
        }
        table.succeeded(self.key(place));
        false
    }
}

/// Where `max_fails` is counted.
fn failures() -> Option<&'static Failures> {
    core_conf::<Core>(cycle::current()?)?.ipc.failures()
}

fn seconds() -> u64 {
    cycle::milliseconds() as u64 / 1000
}

/// A key for a request that has none: each time another.
pub fn turn() -> u64 {
    thread_local! {
        static TURN: Cell<u64> = const { Cell::new(0) };
    }
    let turn = TURN.get().wrapping_add(1);
    TURN.set(turn);
    number(&turn.to_le_bytes())
}

/// A list and when it was made.
type Kept = (usize, Rc<Candidates>);

fn fresh(kept: Option<&Kept>) -> Option<Rc<Candidates>> {
    let (made, candidates) = kept?;
    (cycle::milliseconds().wrapping_sub(*made) < FRESH).then(|| candidates.clone())
}

/// A list's text and its peers.
struct Listed {
    text: Box<[u8]>,
    targets: Targets,
}

/// The list of the last request of an upstream, which is often that of the next.
#[derive(Default)]
pub struct Last(RefCell<Option<Rc<Listed>>>);

impl Last {
    /// The peers of `list`.
    pub fn peers<'l>(&self, list: &'l [u8]) -> Result<Targets, (&'l [u8], AddressError)> {
        if let Some(last) = &*self.0.borrow() {
            if *last.text == *list {
                return Ok(last.targets.clone());
            }
        }
        if list.len() > LIST_MAX {
            return Ok(Target::all(&address::list(list)?));
        }
        let listed = listed(list)?;
        let targets = listed.targets.clone();
        self.0.replace(Some(listed));
        Ok(targets)
    }
}

/// The peers of a list. Requests of one worker that have the same list share them.
fn listed(list: &[u8]) -> Result<Rc<Listed>, (&[u8], AddressError)> {
    thread_local! {
        // each list has one place, which it may have to leave to another
        static LISTS: RefCell<Vec<Option<Rc<Listed>>>> = const { RefCell::new(Vec::new()) };
    }
    LISTS.with_borrow_mut(|lists| {
        if lists.is_empty() {
            lists.resize(LISTS_MAX, None);
        }
        let place = lists.get_mut(number(list) as usize % LISTS_MAX);
        if let Some(Some(kept)) = place.as_deref() {
            if *kept.text == *list {
                return Ok(kept.clone());
            }
        }
        let targets = Target::all(&address::list(list)?);
        let listed = Rc::new(Listed { text: list.into(), targets });
        if let Some(place) = place {
            *place = Some(listed.clone());
        }
        Ok(listed)
    })
}

/// The workers of the newest generation that are alive and ready, and have an address of their own.
pub fn workers() -> Rc<Candidates> {
    thread_local! {
        static WORKERS: RefCell<Option<Kept>> = const { RefCell::new(None) };
    }
    WORKERS.with_borrow_mut(|kept| {
        fresh(kept.as_ref()).unwrap_or_else(|| {
            let candidates = Rc::new(look_up_workers().unwrap_or_default());
            *kept = Some((cycle::milliseconds(), candidates.clone()));
            candidates
        })
    })
}

fn look_up_workers() -> Option<Candidates> {
    let ipc = &core_conf::<Core>(cycle::current()?)?.ipc;
    let table = ipc.table()?;
    let (newest, _) = table.current();
    let views = ipc.life().into_iter().flat_map(|life| life.views());
    let unready: Vec<_> = views
        .filter(|view| view.ready == Some(false))
        .map(|view| (view.member.pid, view.member.seat))
        .collect();
    let mut workers: Vec<WorkerId> = table
        .workers()
        .filter(|worker| worker.seat.generation == newest && worker.state == State::Live)
        .filter(|worker| !unready.contains(&(worker.pid, worker.seat)))
        .filter(|worker| socket::alive(worker.pid.0))
        .map(|worker| worker.seat.worker)
        .collect();
    workers.sort_unstable_by_key(|worker| worker.0);
    let mut candidates = Candidates::default();
    for WorkerId(id) in workers {
        if let Some(address) = listen::worker_address(usize::from(id)) {
            candidates.push(format!("worker {id}").as_bytes(), &address);
        }
    }
    Some(candidates)
}

/// The live nodes below this one in a channel.
pub fn clients(channel: &str) -> Rc<Candidates> {
    thread_local! {
        static CLIENTS: RefCell<HashMap<String, Kept>> = RefCell::default();
    }
    CLIENTS.with_borrow_mut(|kept| {
        fresh(kept.get(channel)).unwrap_or_else(|| {
            let mut candidates = Candidates::default();
            for client in live_clients(channel) {
                candidates.push(client.to_string().as_bytes(), &client);
            }
            let candidates = Rc::new(candidates);
            // the name may come with a request
            if kept.len() >= CHANNELS_MAX {
                kept.clear();
            }
            kept.insert(channel.to_owned(), (cycle::milliseconds(), candidates.clone()));
            candidates
        })
    })
}

/// Where the hubs of the live nodes below this one are reached, in a channel.
pub fn live_clients(channel: &str) -> Vec<Address> {
    let conf = cycle::current().and_then(core_conf::<Core>);
    let Some(nodes) = conf.and_then(|conf| conf.ipc.nodes()) else { return Vec::new() };
    let Some(id) = nodes.channel(channel) else { return Vec::new() };
    let mut addresses = Vec::new();
    nodes.clients(id, |client| {
        if client.health == Health::Alive {
            // a name cannot be taken here: nothing is resolved
            addresses.extend(address::peer(client.address.as_bytes(), Beside::Nothing));
        }
    });
    addresses
}
