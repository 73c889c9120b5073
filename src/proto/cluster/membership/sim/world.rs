//! The nodes, their routers and zones, and what is on its way between them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::super::message::{Answer, Request};
use super::super::output::{CallId, Gone, Output, Report, Token};
use super::super::random::Random;
use super::super::standing::{Client, Snapshot, Standing};
use super::super::{Config, Membership};
use super::network::{Fate, Network};

/// How a node that does not run looks from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Down {
    /// Its host refuses connections.
    Refuses,
    /// Its host is gone, too.
    Silent,
}

/// One nginx instance.
pub struct Node {
    pub config: Config,
    /// Its router's membership, while it runs.
    pub member: Option<Membership>,
    pub down: Down,
    /// Counts routers: what was meant for an earlier one does not reach the next.
    router: u64,
    standing: Standing,
    clients: BTreeMap<String, Client>,
    wakes: Option<u64>,
    /// Calls that it made.
    pub calls: u64,
    pub gone: Vec<(u64, String, Gone)>,
    pub reports: Vec<(u64, Token, Report)>,
}

impl Node {
    /// What stands in its zone.
    pub fn zone(&self) -> Snapshot {
        Snapshot {
            standing: self.standing.clone(),
            clients: self.clients.values().cloned().collect(),
        }
    }
}

struct Rpc {
    from: usize,
    router: u64,
    call: CallId,
    to: usize,
}

enum Event {
    Wake(usize, u64),
    Request(u64, usize, Request),
    Answer(u64, Answer),
    Refused(u64),
    Timeout(u64),
}

pub struct World {
    pub now: u64,
    pub random: Random,
    pub network: Network,
    pub nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    rpcs: BTreeMap<u64, Rpc>,
    count: u64,
}

/// The name of a node.
pub fn name(node: usize) -> String {
    format!("10.0.{}.{}:80", node / 250, node % 250)
}

/// The node of a name.
pub fn number(name: &str) -> usize {
    let parts: Vec<usize> = name
        .trim_start_matches("10.0.")
        .trim_end_matches(":80")
        .split('.')
        .map(|part| part.parse().unwrap())
        .collect();
    parts[0] * 250 + parts[1]
}

impl World {
    /// Nodes with these supers, none of them started.
    pub fn new(seed: u64, supers: &[Vec<usize>]) -> World {
        let node = |(number, supers): (usize, &Vec<usize>)| Node {
            config: Config::new(&name(number), 0, supers.iter().map(|n| name(*n)).collect()),
            member: None,
            down: Down::Refuses,
            router: 0,
            standing: Standing::default(),
            clients: BTreeMap::new(),
            wakes: None,
            calls: 0,
            gone: Vec::new(),
            reports: Vec::new(),
        };
        World {
            now: 1_000_000,
            random: Random::new(seed),
            network: Network::default(),
            nodes: supers.iter().enumerate().map(node).collect(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            rpcs: BTreeMap::new(),
            count: 0,
        }
    }

    pub fn start_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.start(node));
    }

    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].member.is_some()
    }

    /// Starts a master: an empty zone, a new epoch.
    pub fn start(&mut self, node: usize) {
        self.nodes[node].config.epoch = 1_700_000_000_000 + self.now;
        self.nodes[node].standing = Standing::default();
        self.nodes[node].clients.clear();
        self.move_router(node);
    }

    /// Another worker becomes the router, with nothing but what is in the zone.
    pub fn move_router(&mut self, node: usize) {
        let (seed, now) = (self.random.next(), self.now);
        let state = &mut self.nodes[node];
        state.router += 1;
        state.wakes = None;
        let allow = Box::new(|address: &str| address.starts_with("10.0."));
        let config = state.config.clone();
        state.member = Some(Membership::restore(config, seed, now, allow, state.zone()));
        self.drain(node);
    }

    /// The router's process has ended; the zone stays.
    pub fn stop_router(&mut self, node: usize) {
        self.nodes[node].member = None;
        self.nodes[node].router += 1;
    }

    pub fn crash(&mut self, node: usize, down: Down) {
        self.stop_router(node);
        self.nodes[node].down = down;
    }

    /// Gives a command to a node's membership.
    pub fn command(&mut self, node: usize, command: impl FnOnce(&mut Membership, u64)) {
        let now = self.now;
        if let Some(member) = &mut self.nodes[node].member {
            command(member, now);
            self.drain(node);
        }
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((at, self.count)));
        self.events.insert(self.count, event);
    }

    /// Does what a driver does.
    fn drain(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].member.as_mut().and_then(Membership::output) {
            match output {
                Output::Call { id, to, message, timeout } => {
                    self.nodes[node].calls += 1;
                    self.call(node, id, &to, message, timeout);
                }
                Output::Answer { token, answer } => self.answer(token.0, answer),
                Output::Standing(standing) => self.nodes[node].standing = standing,
                Output::Client(client) => {
                    self.nodes[node].clients.insert(client.address.clone(), client);
                }
                Output::ClientGone { address, why } => {
                    assert!(self.nodes[node].clients.remove(&address).is_some());
                    self.nodes[node].gone.push((self.now, address, why));
                }
                Output::Done { token, report } => {
                    self.nodes[node].reports.push((self.now, token, report));
                }
                Output::Note(_) => {}
            }
        }
        let state = &mut self.nodes[node];
        let next = state.member.as_ref().and_then(Membership::next_wake);
        // a timer is moved only to an earlier time; one that comes too early is harmless
        if let Some(at) = next.filter(|at| state.wakes.is_none_or(|wakes| *at < wakes)) {
            state.wakes = Some(at);
            let router = state.router;
            self.schedule(at.max(self.now), Event::Wake(node, router));
        }
    }

    fn call(&mut self, from: usize, call: CallId, to: &str, message: Request, timeout: u64) {
        self.count += 1;
        let (rpc, to) = (self.count, number(to));
        self.rpcs.insert(rpc, Rpc { from, router: self.nodes[from].router, call, to });
        self.schedule(self.now + timeout, Event::Timeout(rpc));
        if self.random.below(16) == 0 {
            assert_eq!(Request::parse(message.to_json().as_bytes()).as_ref(), Ok(&message));
        }
        if let Fate::Arrives(after) = self.network.send(&mut self.random, from, to) {
            self.schedule(self.now + after, Event::Request(rpc, to, message));
        }
    }

    fn answer(&mut self, rpc: u64, answer: Answer) {
        let Some((from, to)) = self.rpcs.get(&rpc).map(|rpc| (rpc.from, rpc.to)) else { return };
        if self.random.below(16) == 0 {
            assert_eq!(Answer::parse(answer.to_json().as_bytes()).as_ref(), Ok(&answer));
        }
        if let Fate::Arrives(after) = self.network.send(&mut self.random, to, from) {
            self.schedule(self.now + after, Event::Answer(rpc, answer));
        }
    }

    /// Ends a call, if its caller still waits.
    fn end(&mut self, rpc: u64, answer: Option<Answer>) {
        let Some(Rpc { from, router, call, .. }) = self.rpcs.remove(&rpc) else { return };
        if self.nodes[from].router == router {
            self.command(from, |member, now| match answer {
                Some(answer) => member.answered(now, call, answer),
                None => member.failed(now, call),
            });
        }
    }

    /// Plays what happens until then.
    pub fn run(&mut self, until: u64) {
        while let Some(Reverse((at, id))) = self.queue.peek().copied() {
            if at > until {
                break;
            }
            self.queue.pop();
            self.now = at;
            match self.events.remove(&id) {
                Some(Event::Wake(node, router)) if self.nodes[node].router == router => {
                    self.nodes[node].wakes = None;
                    self.command(node, |member, now| member.wake(now));
                }
                Some(Event::Request(rpc, to, request)) => self.arrive(rpc, to, request),
                Some(Event::Answer(rpc, answer)) => self.end(rpc, Some(answer)),
                Some(Event::Refused(rpc) | Event::Timeout(rpc)) => self.end(rpc, None),
                _ => {}
            }
        }
        self.now = until;
    }

    /// Also when its caller has given up.
    fn arrive(&mut self, rpc: u64, to: usize, request: Request) {
        let state = &self.nodes[to];
        if state.member.is_some() {
            self.command(to, |member, now| member.request(now, Token(rpc), request));
        } else if state.down == Down::Refuses {
            self.schedule(self.now + 1, Event::Refused(rpc));
        }
    }
}
