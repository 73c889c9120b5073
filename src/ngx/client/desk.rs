//! The process's connections and calls. Everything that others might call back from - `done`, the
//! dropping of what it captured, nginx while it makes room for a connection - happens while nothing
//! here is borrowed.

use std::cell::RefCell;
use std::collections::BTreeMap;

use ngx::ffi;

use super::link::{Link, NoLink, Wiring};
use super::peer::{Job, Outcome, Peer};
use super::{Answer, Call, CallError, Done};
use crate::ngx::cycle;
use crate::ngx::event::Deferred;
use crate::ngx::guard::guard;
use crate::proto::cluster::pool::{Pool, PoolLimits, Taken};

/// The most that is read at once.
const ROOM: usize = 64 * 1024;

/// Where a call is.
enum Place {
    /// Between connections, or its failure waits to be told.
    Between,
    /// On the connection of that number.
    On(usize),
}

struct Desk {
    pool: Pool<super::Endpoint>,
    /// Connections by number; the handlers find the number at `connection->data`.
    peers: Vec<Option<Box<Peer>>>,
    free: Vec<usize>,
    calls: BTreeMap<u64, Place>,
    serial: u64,
    /// Calls that failed within send().
    failed: Vec<(Box<Job>, CallError)>,
    telling: Option<Deferred>,
    /// What has come is read into it; a call that waits for more keeps what it needs.
    room: Vec<u8>,
}

thread_local! {
    // never dropped: at exit nginx has already taken its connections down
    static DESK: &'static RefCell<Desk> = Box::leak(Box::new(RefCell::new(Desk {
        pool: Pool::new(PoolLimits::default()),
        peers: Vec::new(),
        free: Vec::new(),
        calls: BTreeMap::new(),
        serial: 0,
        failed: Vec::new(),
        telling: None,
        room: vec![0; ROOM],
    })));
}

static TELL: fn() = tell;
static WIRING: Wiring = Wiring { on_read, on_write };

/// Borrows the desk for `work`, which calls nobody else.
fn with<R>(work: impl FnOnce(&mut Desk) -> R) -> R {
    DESK.with(|desk| work(&mut desk.borrow_mut()))
}

pub(super) fn send(call: Call, done: Done) -> u64 {
    let serial = with(|desk| {
        desk.serial += 1;
        desk.calls.insert(desk.serial, Place::Between);
        desk.serial
    });
    if let Err((job, error)) = place(Box::new(Job { serial, call, done }), false) {
        with(|desk| {
            desk.failed.push((job, error));
            // a timer, for it holds a worker that is about to leave
            desk.telling.get_or_insert_with(|| Deferred::new(&TELL)).after(0, true);
        });
    }
    serial
}

pub(super) fn cancel(serial: u64) {
    // what is taken out is dropped when nothing is borrowed any more
    let _dropped = with(|desk| match desk.calls.remove(&serial) {
        Some(Place::On(number)) => desk.remove(number),
        Some(Place::Between) | None => None,
    });
}

/// Puts a call on a connection, a `fresh` one if so wished.
fn place(job: Box<Job>, fresh: bool) -> Result<(), (Box<Job>, CallError)> {
    let taken = with(|desk| desk.pool.take(&job.call.endpoint, fresh));
    let number = match taken {
        Taken::Idle(number) => number,
        Taken::Open(evicted) => {
            if let Some(evicted) = evicted {
                drop(with(|desk| desk.vacate(evicted)));
            }
            match open(&job) {
                Ok(number) => number,
                Err(error) => {
                    with(|desk| desk.pool.closed());
                    return Err((job, error));
                }
            }
        }
        Taken::Busy => return Err((job, CallError::Busy)),
    };
    start(job, number)
}

fn open(job: &Job) -> Result<usize, CallError> {
    let endpoint = &job.call.endpoint;
    let link = Link::connect(endpoint, job.call.own, &WIRING).map_err(|no| match no {
        NoLink::Full => CallError::Busy,
        NoLink::Refused(error) => CallError::Refused(error),
    })?;
    with(|desk| {
        let number = desk.free.pop().unwrap_or(desk.peers.len());
        let peer = Peer::new(endpoint.clone(), link, number);
        match desk.peers.get_mut(number) {
            Some(seat) => *seat = Some(Box::new(peer)),
            None => desk.peers.push(Some(Box::new(peer))),
        }
        Ok(number)
    })
}

fn start(job: Box<Job>, number: usize) -> Result<(), (Box<Job>, CallError)> {
    let mut unwanted = None;
    let outcome = with(|desk| {
        let Some(Some(peer)) = desk.peers.get_mut(number) else {
            return Some(Outcome::Over(job, Err(CallError::Closed)));
        };
        // while a connection was made, nginx may have ended the request that wanted it
        let Some(place) = desk.calls.get_mut(&job.serial) else {
            unwanted = Some((desk.remove(number), job));
            return None;
        };
        *place = Place::On(number);
        match peer.begin(job) {
            Ok(()) => desk.advance(number),
            Err((job, error)) => Some(Outcome::Over(job, Err(error))),
        }
    });
    drop(unwanted);
    match outcome {
        None => Ok(()),
        Some(Outcome::Again(job)) => {
            settle(number, &job);
            place(job, true)
        }
        Some(Outcome::Over(job, result)) => {
            settle(number, &job);
            match result {
                Err(error) => Err((job, error)),
                // nothing can answer before it was asked
                Ok(_) => {
                    Err((job, CallError::Malformed(String::from("an answer before the call"))))
                }
            }
        }
    }
}

/// A call has left its connection, which is kept if it can serve again.
fn settle(number: usize, job: &Job) {
    let _closed = with(|desk| {
        if let Some(place) = desk.calls.get_mut(&job.serial) {
            *place = Place::Between;
        }
        let Some(Some(peer)) = desk.peers.get_mut(number) else { return (None, None) };
        if peer.can_serve() && !cycle::exiting() {
            peer.rest(cycle::milliseconds(), desk.pool.limits().idle_timeout);
            let surplus = desk.pool.rest(&peer.endpoint, number);
            (None, surplus.and_then(|surplus| desk.vacate(surplus)))
        } else {
            (desk.remove(number), None)
        }
    });
}

/// Tells the caller, if it still wants to know.
fn finish(job: Job, result: Result<Answer, CallError>) {
    let wanted = with(|desk| desk.calls.remove(&job.serial)).is_some();
    let Job { call, done, .. } = job;
    drop(call);
    if wanted {
        guard("call", (), || done(result));
    }
}

fn tell() {
    for (job, error) in with(|desk| std::mem::take(&mut desk.failed)) {
        finish(*job, Err(error));
    }
}

impl Desk {
    fn advance(&mut self, number: usize) -> Option<Outcome> {
        let peer = self.peers.get_mut(number)?.as_mut()?;
        peer.advance(cycle::milliseconds(), &mut self.room)
    }

    /// Takes a connection in use off the account.
    fn remove(&mut self, number: usize) -> Option<Box<Peer>> {
        self.pool.closed();
        self.vacate(number)
    }

    /// Gives the number of a connection away that is no longer on the account.
    fn vacate(&mut self, number: usize) -> Option<Box<Peer>> {
        let peer = self.peers.get_mut(number)?.take();
        if peer.is_some() {
            self.free.push(number);
        }
        peer
    }
}

/// What nginx reports of a connection.
#[derive(Clone, Copy)]
enum Report {
    Ready,
    Timer,
    /// The worker leaves, or nginx needs the connection.
    Close,
}

fn report(number: usize, report: Report) {
    let mut closed = None;
    let outcome = with(|desk| {
        let peer = desk.peers.get_mut(number)?.as_mut()?;
        if !peer.is_running() {
            let keep = match report {
                Report::Ready => peer.is_quiet(),
                Report::Timer => peer.expired(cycle::milliseconds()).is_none(),
                Report::Close => false,
            };
            if !keep {
                desk.pool.gone(&peer.endpoint, number);
                closed = desk.vacate(number);
            }
            return None;
        }
        let error = match report {
            Report::Ready => return desk.advance(number),
            Report::Timer => CallError::TimedOut(peer.expired(cycle::milliseconds())?),
            Report::Close => CallError::Cancelled,
        };
        peer.abandon().map(|job| Outcome::Over(job, Err(error)))
    });
    drop(closed);
    match outcome {
        None => {}
        Some(Outcome::Over(job, result)) => {
            settle(number, &job);
            finish(*job, result);
        }
        Some(Outcome::Again(job)) => {
            settle(number, &job);
            if let Err((job, error)) = place(job, true) {
                finish(*job, Err(error));
            }
        }
    }
}

unsafe extern "C" fn on_read(event: *mut ffi::ngx_event_t) {
    guard("call", (), || {
        // SAFETY: nginx calls the handler with the event it belongs to, whose data is the
        // connection; Link::set_number set that one's data.
        let (number, what) = unsafe {
            let connection = &mut *(*event).data.cast::<ffi::ngx_connection_t>();
            let event = &mut *event;
            let what = if connection.close() != 0 {
                Report::Close
            } else if event.timedout() != 0 {
                event.set_timedout(0);
                Report::Timer
            } else {
                Report::Ready
            };
            (connection.data.addr(), what)
        };
        report(number, what);
    });
}

unsafe extern "C" fn on_write(event: *mut ffi::ngx_event_t) {
    guard("call", (), || {
        // SAFETY: as in on_read.
        let number = unsafe { (*(*event).data.cast::<ffi::ngx_connection_t>()).data.addr() };
        if with(|desk| desk.peers.get(number)?.as_ref().map(|peer| peer.is_running())) == Some(true)
        {
            report(number, Report::Ready);
        }
    });
}
