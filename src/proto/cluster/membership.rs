//! The tree of nodes in one channel, as one node of it sees it: who its super is, who its clients
//! are, and what has to be said to whom. Sans-io: time comes in as monotonic milliseconds, messages
//! come in and go out as data, randomness is a seed. `modules::cluster` runs one for each channel in
//! the router, makes its calls, and mirrors it into `shm::nodes`.
//!
//! # How to drive it
//!
//! In: [`request`](Membership::request) for each message that came, [`answered`](Membership::answered)
//! or [`failed`](Membership::failed) once for each call that was made, [`wake`](Membership::wake) when
//! the time of [`next_wake`](Membership::next_wake) has come, and commands. Messages must have been
//! proven (signed, or loopback where there is no secret) before they come in. After each of these,
//! take out all that [`output`](Membership::output) has, and set the timer anew:
//!
//! ```
//! use ngx_http_cc_module::proto::cluster::membership::{message::*, output::*, *};
//!
//! let config = Config::new("10.0.0.2:80", 1_700_000_000_000, vec!["10.0.0.1:80".into()]);
//! let allow: Allow = Box::new(|address| address.starts_with("10.0.0."));
//! let mut node = Membership::new(config, 4711, 0, allow);
//! while let Some(output) = node.output() {
//!     match output {
//!         // POST http://{to}/CHANNEL/hub?heartbeat with message.to_json(); when it has ended,
//!         // answered(now, id, Answer::parse(body)?) or, whatever went wrong, failed(now, id)
//!         Output::Call { id, to, message, timeout } => drop((id, to, message, timeout)),
//!         // the body of the request that came in with that token
//!         Output::Answer { token, answer } => drop((token, answer.to_json())),
//!         // into the zone: set_standing, set_client, remove_client
//!         Output::Standing(standing) => drop(standing),
//!         Output::Client(client) => drop(client),
//!         Output::ClientGone { address, why } => drop((address, why)),
//!         // the answer of the request that gave the command with that token
//!         Output::Done { token, report } => drop((token, report)),
//!         // a line in the log
//!         Output::Note(note) => drop(note),
//!     }
//! }
//! let timer = node.next_wake(); // and then node.wake(now)
//! # assert!(timer.is_some());
//! ```
//!
//! A new router takes over with [`restore`](Membership::restore) and what `Nodes::snapshot` has; calls
//! and commands of the one before it are lost, all else goes on. `reportHubPort=PORT` is `report` with
//! the peer's address and that port, `transferServer=ADDRESS` is `transfer`, `ngx_cc.transfer` is
//! `transfer_clients`, `invalidClient=ADDRESS` is `invalid_client`,
//! `reportClient=PORT` is `report_worker`. Casts go to `clients`, and deeper
//! where the channel's path is; during a transfer a node is for a moment the client of two supers, so
//! casts need their ids.

mod bond;
mod calls;
mod clients;
pub mod message;
pub mod moving;
pub mod output;
mod random;
mod reported;
mod search;
#[cfg(test)]
mod sim;
pub mod standing;
#[cfg(test)]
mod tests;
mod validity;

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use bond::Bond;
use calls::Pending;
use clients::Kid;
use message::{Answer, PATH_MAX, Reason, Request};
use moving::Moving;
use output::{CallId, Note, Output, Token};
use random::Random;
use reported::Reported;
use search::Attempt;
use standing::{Client, Place, Snapshot, Standing, Super};

/// Whether a learned address may be used.
pub type Allow = Box<dyn Fn(&str) -> bool + Send>;

/// What a heartbeat may be, whoever asks for it, in milliseconds.
pub const HEARTBEAT_RANGE: RangeInclusive<u64> = 50..=60_000;

/// All times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// Between two heartbeats; each is up to a tenth longer or shorter.
    pub heartbeat: u64,
    /// Silence after which a client is suspect.
    pub suspect: u64,
    /// Silence after which it is none any more.
    pub lease: u64,
    /// The same for a client that was only reported.
    pub reported: u64,
    /// For a call. A dial-back takes two thirds of it at most, for somebody waits for it.
    pub call: u64,
    /// From a failed heartbeat to the next try; three have failed before a super is lost,
    pub retry: u64,
    /// and they have failed for so long: time for another worker to become the router.
    pub patience: u64,
    /// The first wait of a node that no super takes; each is twice the one before.
    pub backoff: u64,
    /// The longest.
    pub backoff_max: u64,
    /// Between two tries to return to a preferred super; up to a quarter longer.
    pub failback: u64,
    /// How long a super that closed a loop is not asked again; up to half of it longer or shorter.
    pub avoid: u64,
    /// For the transfer of clients.
    pub transfer: u64,
}

impl Times {
    /// All of them, for a heartbeat.
    pub fn of(heartbeat: u64) -> Times {
        Times {
            heartbeat,
            suspect: heartbeat * 5 / 2,
            lease: heartbeat * 4,
            reported: 150_000,
            call: 1000,
            retry: 300,
            patience: 1500,
            backoff: 250,
            backoff_max: 8000,
            failback: (heartbeat * 30).min(60_000),
            avoid: (heartbeat * 5).max(5000),
            transfer: (heartbeat * 5).max(5000),
        }
    }
}

/// What bounds a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Clients in this channel.
    pub clients: usize,
    /// Dial-backs under way.
    pub dials: usize,
    /// Nodes from the root down to a client of this node.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { clients: 256, dials: 128, depth: 16 }
    }
}

/// How a node is in a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address of its hub, its name.
    pub me: String,
    /// Its epoch: `Nodes::epoch`.
    pub epoch: u64,
    /// Its supers, the preferred one first. Where this node is among them, those after it do not
    /// count: all nodes may have the same list.
    pub supers: Vec<String>,
    /// See [`Times`].
    pub times: Times,
    /// See [`Limits`].
    pub limits: Limits,
}

impl Config {
    /// With default times and limits.
    pub fn new(me: &str, epoch: u64, supers: Vec<String>) -> Config {
        let (times, limits) = (Times::of(2000), Limits::default());
        Config { me: me.into(), epoch, supers, times, limits }
    }
}

/// What a node is about its super.
enum State {
    /// It wants none.
    Root,
    /// It has none; when it tries again, and how often it has.
    Orphan { next: u64, round: u32 },
    /// It has one.
    Joined(Bond),
    /// It has left the channel.
    Left,
}

/// One node in one channel.
pub struct Membership {
    config: Config,
    allow: Allow,
    random: Random,
    /// The super of a transfer, before those of the configuration.
    moved: Option<String>,
    state: State,
    /// The super that is being asked, beside one that may still be there.
    attempt: Option<Attempt>,
    /// Supers that closed a loop, and until when they are not asked.
    avoided: Vec<(String, u64)>,
    /// The path that was known last, for those above a super that is lost.
    ancestors: Vec<String>,
    /// A transfer that could not be followed, for the next heartbeat.
    refused: Option<(u64, Reason)>,
    clients: BTreeMap<String, Kid>,
    reported: Reported,
    moving: Option<Moving>,
    calls: BTreeMap<CallId, Pending>,
    /// LEAVEs that have failed and are tried again.
    leaves: Vec<(u64, calls::Leave)>,
    last_call: u64,
    sequence: u64,
    told: Standing,
    outputs: VecDeque<Output>,
}

impl Membership {
    /// A node that begins.
    pub fn new(config: Config, seed: u64, now: u64, allow: Allow) -> Membership {
        Membership::restore(config, seed, now, allow, Snapshot::default())
    }

    /// A node that goes on from what is known of it.
    pub fn restore(
        config: Config,
        seed: u64,
        now: u64,
        allow: Allow,
        snapshot: Snapshot,
    ) -> Membership {
        let Snapshot { standing, clients } = snapshot;
        let mut node = Membership {
            state: State::Root,
            random: Random::new(seed),
            moved: standing.moved.clone(),
            attempt: None,
            avoided: Vec::new(),
            ancestors: Vec::new(),
            refused: None,
            clients: BTreeMap::new(),
            reported: Reported::default(),
            moving: None,
            calls: BTreeMap::new(),
            leaves: Vec::new(),
            last_call: 0,
            sequence: 0,
            told: standing.clone(),
            outputs: VecDeque::new(),
            config,
            allow,
        };
        let changed = standing.listed != fingerprint(&node.config.supers);
        if changed {
            node.moved = None;
        }
        node.restore_clients(now, clients, standing.moving);
        match standing.above {
            Some(above) => node.restore_bond(now, above),
            None => node.seek(now),
        }
        if let Some(to) = standing.pending.filter(|_| !changed) {
            node.transfer_on(now, None, to);
        }
        node.tell();
        node
    }

    /// What the next router needs.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { standing: self.standing(), clients: self.clients().collect() }
    }

    /// What this node is.
    pub fn standing(&self) -> Standing {
        let above = match &self.state {
            State::Joined(bond) => Some(Super {
                address: bond.to.clone(),
                epoch: bond.epoch,
                index: self.index(&bond.to),
            }),
            _ => None,
        };
        let place = match self.state {
            State::Root => Place::Root,
            State::Orphan { .. } if self.attempt.is_some() => Place::Joining,
            State::Orphan { .. } => Place::Detached,
            State::Joined(_) => Place::Joined,
            State::Left => Place::Left,
        };
        Standing {
            place,
            above,
            moved: self.moved.clone(),
            listed: fingerprint(&self.config.supers),
            pending: self.attempt.as_ref().and_then(Attempt::transfer_to),
            moving: self.moving.as_ref().map(|moving| (moving.to.clone(), moving.number)),
        }
    }

    /// Its clients.
    pub fn clients(&self) -> impl Iterator<Item = Client> + '_ {
        self.clients.values().map(|kid| kid.client.clone())
    }

    /// From the root to this node, itself included, as far as is known.
    pub fn path(&self) -> Vec<String> {
        let above = match &self.state {
            State::Joined(bond) => bond.path.as_slice(),
            _ => &[],
        };
        // in a cycle, which will be cut: only once around
        let around = above.iter().position(|id| *id == self.config.me).map_or(0, |at| at + 1);
        let above = above.get(around..).unwrap_or_default().iter();
        above.cloned().chain([self.config.me.clone()]).collect()
    }

    /// Whether it has no super and wants none.
    pub fn is_root(&self) -> bool {
        matches!(self.state, State::Root)
    }

    /// What is to be done next; to be taken until there is none.
    pub fn output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When `wake` is to be called, if nothing comes before.
    pub fn next_wake(&self) -> Option<u64> {
        let attempt = self.attempt.as_ref().and_then(|attempt| attempt.retry);
        let state = match &self.state {
            State::Orphan { next, .. } if self.attempt.is_none() => Some(*next),
            State::Joined(bond) => bond.next(self.attempt.is_some()),
            _ => None,
        };
        let calls = self.calls.values().map(|pending| pending.overdue).min();
        let leaves = self.leaves.iter().map(|(at, _)| *at).min();
        let clients = self.next_silence();
        let moving = self.moving.as_ref().map(|moving| moving.deadline);
        [attempt, state, calls, leaves, clients, moving].into_iter().flatten().min()
    }

    /// The time has come for something.
    pub fn wake(&mut self, now: u64) {
        self.overdue_calls(now);
        self.silent_clients(now);
        self.late_movers(now);
        self.leave_again(now);
        self.avoided.retain(|(_, until)| *until > now);
        self.ask_again(now);
        match &self.state {
            State::Orphan { next, .. } if self.attempt.is_none() && *next <= now => {
                self.search(now, search::From::Start);
            }
            State::Joined(_) => self.beat(now),
            _ => {}
        }
        self.tell();
    }

    /// A message came; its answer comes out with the same token, now or later.
    pub fn request(&mut self, now: u64, token: Token, request: Request) {
        match request {
            Request::Join { id, epoch, seq, to, subtree } => {
                let join = clients::Join { id, epoch, sequence: seq, to, subtree };
                self.join(now, token, join);
            }
            Request::Beat { id, epoch, seq, subtree, path, refused } => {
                let beat = clients::Beat { epoch, sequence: seq, subtree, path, refused };
                let answer = self.hear(now, &id, beat);
                self.answer(token, answer);
            }
            Request::Leave { id, epoch, seq } => {
                self.left(now, &id, epoch, seq);
                self.answer(token, Answer::Ok);
            }
            Request::Move { id, to, transfer } => {
                let answer = self.told_to_move(now, Some(&id), to, transfer);
                self.answer(token, answer);
            }
            Request::Dial { to, nonce, .. } => {
                let answer = self.dialled(to.as_deref(), nonce);
                self.answer(token, answer);
            }
        }
        self.tell();
    }

    /// Other supers are configured.
    pub fn set_supers(&mut self, now: u64, supers: Vec<String>) {
        if supers != self.config.supers {
            self.config.supers = supers;
            self.moved = None;
            self.seek(now);
            self.tell();
        }
    }

    /// Leaves the channel: the super is told, and no client is taken any more.
    pub fn leave(&mut self, now: u64, token: Token) {
        self.give_up(Reason::Leaving);
        match std::mem::replace(&mut self.state, State::Left) {
            State::Joined(bond) => self.take_leave(now, bond.to, calls::Order::Leave(token)),
            _ => self.done(token, output::Report::Left),
        }
        self.tell();
    }

    /// The supers to ask, the preferred one first.
    fn preferred(&self) -> impl Iterator<Item = &String> {
        let configured = &self.config.supers;
        let again = |address: &&String| self.moved.as_ref() != Some(address);
        let all = self.moved.iter().chain(configured.iter().filter(again));
        all.take_while(|address| **address != self.config.me)
    }

    /// The place of a super among them.
    fn index(&self, address: &str) -> Option<u16> {
        let at = self.preferred().position(|known| known == address);
        at.and_then(|at| u16::try_from(at).ok())
    }

    /// A learned address may be used, or it is a configured one.
    fn allowed(&self, address: &str) -> bool {
        self.config.supers.iter().any(|known| known == address) || (self.allow)(address)
    }

    fn subtree(&self) -> u32 {
        self.clients.values().fold(1, |sum, kid| sum.saturating_add(kid.client.subtree))
    }

    /// Grows with each message, over all routers of a life, for they share the clock.
    fn sequence(&mut self, now: u64) -> u64 {
        self.sequence = now.max(self.sequence + 1);
        self.sequence
    }

    fn answer(&mut self, token: Token, answer: Answer) {
        self.outputs.push_back(Output::Answer { token, answer });
    }

    fn note(&mut self, note: Note) {
        self.outputs.push_back(Output::Note(note));
    }

    fn done(&mut self, token: Token, report: output::Report) {
        self.outputs.push_back(Output::Done { token, report });
    }

    /// Says what this node is where that has changed.
    fn tell(&mut self) {
        let standing = self.standing();
        if standing != self.told {
            self.told = standing.clone();
            self.outputs.push_back(Output::Standing(standing));
        }
    }

    /// Most nodes from the root to this one's clients.
    fn depth(&self) -> usize {
        self.config.limits.depth.min(PATH_MAX)
    }
}

/// Of a list of addresses, the same in each process (FNV-1a).
fn fingerprint(addresses: &[String]) -> u64 {
    let bytes = addresses.iter().flat_map(|address| address.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
