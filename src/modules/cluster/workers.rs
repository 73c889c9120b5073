//! This node's workers as calls see them: who is there, who is the router, where each listens.

use std::cell::RefCell;
use std::net::SocketAddr;

use crate::modules::ipc::worker;
use crate::modules::listen;
use crate::ngx::{cycle, socket};
use crate::proto::ipc::{Pid, WorkerId};
use crate::proto::listen::Address;
use crate::shm::slots::Worker;

/// How long the workers are taken to be who they were, in ms: the table is large, and a call that
/// finds somebody gone looks again.
const FRESH: usize = 10;

/// The living workers of the newest generation.
struct Look {
    at: Option<usize>,
    strictly: bool,
    workers: Vec<Worker>,
}

thread_local! {
    static LAST: RefCell<Look> =
        const { RefCell::new(Look { at: None, strictly: false, workers: Vec::new() }) };
}

/// `strictly`: a process that the master has not yet buried is none.
fn look(strictly: bool) -> Vec<Worker> {
    let found = worker::with(|me| {
        let table = me.table();
        let alive = |entry: &Worker| {
            if strictly { socket::runs(entry.pid.0) } else { socket::alive(entry.pid.0) }
        };
        let mut workers: Vec<Worker> = table.workers().filter(alive).collect();
        // the very newest has nobody yet when its configuration has just been loaded
        let newest = workers.iter().map(|entry| entry.seat.generation.0).max();
        workers.retain(|entry| Some(entry.seat.generation.0) == newest);
        workers.sort_by_key(|entry| entry.seat.worker.0);
        workers
    });
    found.unwrap_or_default()
}

fn with<R>(f: impl FnOnce(&[Worker]) -> R) -> R {
    LAST.with_borrow_mut(|last| {
        let now = cycle::milliseconds();
        let fresh = last.at.is_some_and(|at| now.wrapping_sub(at) < FRESH);
        if !fresh || !is_full(&last.workers) {
            let workers = look(last.strictly);
            *last = Look { at: Some(now), strictly: false, workers };
        }
        f(&last.workers)
    })
}

/// Whether nobody is missing: then nobody will come.
fn is_full(workers: &[Worker]) -> bool {
    let newest = worker::with(|me| me.table().current());
    newest.is_some_and(|(generation, count)| {
        workers.len() == count && workers.iter().all(|entry| entry.seat.generation == generation)
    })
}

/// Looks anew, the next time that somebody asks.
pub fn refresh() {
    LAST.with_borrow_mut(|last| last.at = None);
}

/// Forgets who was there: somebody was found gone.
pub fn look_again() {
    LAST.with_borrow_mut(|last| (last.at, last.strictly) = (None, true));
}

/// The living workers of the newest generation, by their numbers.
pub fn living() -> Vec<Worker> {
    with(<[Worker]>::to_vec)
}

/// Whether one of them has that number.
pub fn lives(id: WorkerId) -> bool {
    with(|workers| workers.iter().any(|entry| entry.seat.worker == id))
}

/// Whether this process is the one of that number, and stays for now: while it leaves, its listener is
/// its successor's.
pub fn is_own(id: WorkerId) -> bool {
    let mine = |entry: &Worker| entry.seat.worker == id && is_me(entry.pid);
    !cycle::exiting() && with(|workers| workers.iter().any(mine))
}

/// The router: the one of them with the lowest number.
pub fn router() -> Option<Worker> {
    with(|workers| workers.first().copied())
}

/// This process.
pub fn me() -> Option<Worker> {
    worker::with(|worker| worker.me())
}

/// Whether this process is the router.
pub fn am_router() -> bool {
    router().is_some_and(|router| is_me(router.pid))
}

/// Whether that is this process.
pub fn is_me(pid: Pid) -> bool {
    u32::try_from(cycle::pid()) == Ok(pid.0)
}

/// Where a worker is called.
pub enum Listener {
    /// An address and a port.
    Inet(SocketAddr),
    /// A socket's path.
    Unix(Vec<u8>),
}

impl Listener {
    /// None on a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            Listener::Inet(address) => Some(address.port()),
            Listener::Unix(_) => None,
        }
    }
}

/// The first `listen ... per_worker` of http{}, worker `id`'s. None where there is none.
pub fn listener(id: WorkerId) -> Option<Listener> {
    Some(match listen::worker_address(usize::from(id.0))? {
        Address::Inet(address) => Listener::Inet(address),
        Address::Unix(path) => Listener::Unix(path),
    })
}
