//! The tree of nodes: runs `proto::cluster::membership` for each channel in the router, makes its
//! calls, keeps its timer, mirrors it into the zone (`shm::nodes`), from where the next router goes
//! on. Every worker looks now and then whether it is the router.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method, header};

use super::call::Draft;
use super::location::Timeouts;
use super::remote::{self, Held, now};
use super::{lua, node, settings, tell, workers};
use crate::modules::core::Core;
use crate::modules::ipc::worker;
use crate::ngx::cycle;
use crate::ngx::module::core_conf;
use crate::ngx::timer::Timer;
use crate::proto::cluster::allow;
use crate::proto::cluster::membership::message::{Answer, Request};
use crate::proto::cluster::membership::output::{CallId, Output, Report, Token};
use crate::proto::cluster::membership::{Config, Membership, Times};
use crate::shm::nodes::{ChannelId, Nodes, WriteError};

/// Between two looks who is the router, in ms.
const LOOK: usize = 500;
/// Between two heartbeats, where nothing is set, in ms.
const HEARTBEAT: usize = 2000;

/// A channel, as its router runs it.
struct Node {
    id: ChannelId,
    membership: Membership,
    last: u64,
    answers: BTreeMap<Token, Box<dyn FnOnce(Answer)>>,
    reports: BTreeMap<Token, Box<dyn FnOnce(Report)>>,
    calls: BTreeMap<CallId, Held>,
}

#[derive(Default)]
struct Driver {
    /// By name; empty in who is not the router.
    nodes: BTreeMap<String, Node>,
    wake: Option<Timer>,
    look: Option<Timer>,
}

thread_local! {
    static DRIVER: RefCell<Driver> = RefCell::default();
}

/// A node in a channel.
pub type Member = Membership;

/// Why a message or a command is not for this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotHere {
    /// Another one is the router.
    #[error("this worker is not the router")]
    NotRouter,
    /// The node table has no room for the channel, or is not there.
    #[error("the channel has no place in the node table")]
    NoPlace,
}

/// The node table, as this worker sees it.
pub fn table() -> Option<Nodes<'static>> {
    core_conf::<Core>(cycle::current()?)?.ipc.nodes()
}

/// The event loop can be used, or Lua has made a channel: from now on this worker looks who is the
/// router.
pub fn start() {
    let some = settings().is_some_and(|settings| !settings.channels().is_empty()) || lua::any();
    // not in the master, where init_by_lua runs: there is no event loop yet
    if some && worker::entered() {
        DRIVER.with_borrow_mut(|driver| {
            if driver.look.is_none() {
                driver.look = Some(Timer::after(1, look));
            }
        });
    }
}

/// The worker leaves.
pub fn stop() {
    let old = DRIVER.take();
    drop(old);
}

fn look() {
    workers::refresh();
    if workers::am_router() && !cycle::exiting() {
        take_over();
    } else {
        let old = DRIVER
            .with_borrow_mut(|driver| (std::mem::take(&mut driver.nodes), driver.wake.take()));
        drop(old);
    }
    let again = Timer::after(LOOK, look);
    let old = DRIVER.with_borrow_mut(|driver| driver.look.replace(again));
    drop(old);
}

/// Every channel that has a name has a node.
fn take_over() {
    let Some(settings) = settings() else { return };
    let mut names: Vec<String> = settings.channels().iter().map(|c| c.name.clone()).collect();
    names.extend(lua::names());
    for name in names {
        let new = !DRIVER.with_borrow(|driver| driver.nodes.contains_key(&name));
        if new && open(&name).is_some() {
            pump(&name);
        }
    }
}

fn open(name: &str) -> Option<()> {
    let (settings, table) = (settings()?, table()?);
    let mut opened = table.open(name);
    if opened == Err(WriteError::Full) {
        forget_unknown(&table);
        opened = table.open(name);
    }
    let id = match opened {
        Ok(id) => id,
        Err(why) => {
            tell::unwritten(name, why);
            return None;
        }
    };
    let heartbeat = settings.channel(name.as_bytes()).and_then(|channel| channel.heartbeat);
    let mut config = Config::new(&node(), table.epoch(), supers(name));
    config.times = Times::of(heartbeat.unwrap_or(HEARTBEAT) as u64);
    let allowed = settings.allowed();
    let allow = move |address: &str| {
        allow::learned(address.as_bytes()).is_ok_and(|address| allowed.check(&address).is_ok())
    };
    let mut seed = [0; 8];
    let _ = getrandom::fill(&mut seed); // else all nodes wait equally long, no more
    let snapshot = table.snapshot(id).unwrap_or_default();
    let membership =
        Membership::restore(config, u64::from_ne_bytes(seed), now(), Box::new(allow), snapshot);
    let node = Node {
        id,
        membership,
        last: 0,
        answers: BTreeMap::new(),
        reports: BTreeMap::new(),
        calls: BTreeMap::new(),
    };
    DRIVER.with_borrow_mut(|driver| driver.nodes.insert(name.into(), node));
    Some(())
}

/// Makes room: channels of configurations that are past.
fn forget_unknown(table: &Nodes<'_>) {
    for (id, name, _) in table.channels() {
        if super::channel::Channel::named(name.as_bytes()).is_none() {
            let _ = table.close(id); // what stays takes room, no more
        }
    }
}

/// The supers of a channel: what Lua has set, or the configuration.
fn supers(name: &str) -> Vec<String> {
    lua::supers(name).unwrap_or_else(|| {
        let configured = settings().map_or(&[][..], |settings| settings.supers(name.as_bytes()));
        configured.iter().map(ToString::to_string).collect()
    })
}

/// Lua has set other supers.
pub fn set_supers(name: &str) {
    // who does not run the channel, or not yet, has nothing to change
    let runs = DRIVER.with_borrow(|driver| driver.nodes.contains_key(name));
    if runs {
        let supers = supers(name);
        let _ = with(name, |node| node.membership.set_supers(now(), supers));
    }
}

/// Runs `change` on the node of that channel, and does what comes of it.
fn with(name: &str, change: impl FnOnce(&mut Node)) -> Result<(), NotHere> {
    if !workers::am_router() {
        return Err(NotHere::NotRouter);
    }
    if !DRIVER.with_borrow(|driver| driver.nodes.contains_key(name)) {
        open(name).ok_or(NotHere::NoPlace)?;
    }
    DRIVER.with_borrow_mut(|driver| driver.nodes.get_mut(name).map(change));
    pump(name);
    Ok(())
}

impl Node {
    fn token(&mut self) -> Token {
        self.last += 1;
        Token(self.last)
    }
}

/// A message of another node; `done` gets the answer, at once or later.
pub fn message(
    name: &str,
    request: Request,
    done: impl FnOnce(Answer) + 'static,
) -> Result<(), NotHere> {
    with(name, |node| {
        let token = node.token();
        node.answers.insert(token, Box::new(done));
        node.membership.request(now(), token, request);
    })
}

/// A command; `done` gets its report.
pub fn command(
    name: &str,
    give: impl FnOnce(&mut Membership, u64, Token),
    done: impl FnOnce(Report) + 'static,
) -> Result<(), NotHere> {
    with(name, |node| {
        let token = node.token();
        node.reports.insert(token, Box::new(done));
        give(&mut node.membership, now(), token);
    })
}

/// A call to a client has failed.
pub fn invalid_client(name: &str, address: &str) -> Result<(), NotHere> {
    with(name, |node| node.membership.invalid_client(now(), address))
}

/// Does what the node of a channel wants, until it wants nothing.
fn pump(name: &str) {
    while let Some(output) = DRIVER.with_borrow_mut(|driver| {
        driver.nodes.get_mut(name).and_then(|node| node.membership.output())
    }) {
        perform(name, output);
    }
    arm();
}

fn perform(name: &str, output: Output) {
    match output {
        Output::Call { id, to, message, timeout } => call(name, id, &to, &message, timeout),
        Output::Answer { token, answer } => {
            if let Some(done) = take(name, |node| node.answers.remove(&token)) {
                done(answer);
            }
        }
        Output::Done { token, report } => {
            if let Some(done) = take(name, |node| node.reports.remove(&token)) {
                done(report);
            }
        }
        Output::Standing(standing) => mirror(name, |nodes, id| nodes.set_standing(id, &standing)),
        Output::Client(client) => mirror(name, |nodes, id| nodes.set_client(id, &client)),
        Output::ClientGone { address, why } => {
            mirror(name, |nodes, id| nodes.remove_client(id, &address));
            tell::gone(name, &address, why);
        }
        Output::Note(note) => tell::note(name, &note),
    }
}

fn take<T>(name: &str, f: impl FnOnce(&mut Node) -> Option<T>) -> Option<T> {
    DRIVER.with_borrow_mut(|driver| driver.nodes.get_mut(name).and_then(f))
}

fn mirror(name: &str, write: impl FnOnce(&Nodes<'_>, ChannelId) -> Result<(), WriteError>) {
    let id = DRIVER.with_borrow(|driver| driver.nodes.get(name).map(|node| node.id));
    if let Some(Err(why)) = table().zip(id).map(|(table, id)| write(&table, id)) {
        tell::unwritten(name, why);
    }
}

fn call(name: &str, id: CallId, to: &str, message: &Request, timeout: u64) {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let step = timeout as usize;
    let draft = Draft {
        method: Method::POST,
        headers: Rc::new(headers),
        body: message.to_json().into(),
        timeouts: Timeouts { connect: step, send: step, read: step },
    };
    let channel = name.to_string();
    // who was learned has numbers, and so has the configuration
    let Ok(address) = to.parse() else { return ended(name, id, None) };
    let ask = remote::Ask {
        channel: channel.clone(),
        to: address,
        draft,
        target: format!("/{name}/hub?heartbeat").into_bytes(),
        time: step,
    };
    let held = remote::call(ask, move |result| {
        let answer = match result {
            Ok(answer) if answer.status == 200 => Answer::parse(&answer.body).ok(),
            Ok(answer) => {
                let status = answer.status.as_u16();
                tell::unanswered(&channel, &format!("{address} answers {status}"));
                None
            }
            Err(why @ (remote::Unanswered::Untrusted | remote::Unanswered::Unsigned(_))) => {
                tell::unanswered(&channel, &format!("{address}: {why}"));
                None
            }
            Err(_) => None,
        };
        drop(take(&channel, |node| node.calls.remove(&id)));
        ended(&channel, id, answer);
    });
    take(name, |node| node.calls.insert(id, held));
}

fn ended(name: &str, id: CallId, answer: Option<Answer>) {
    DRIVER.with_borrow_mut(|driver| {
        let Some(node) = driver.nodes.get_mut(name) else { return };
        match answer {
            Some(answer) => node.membership.answered(now(), id, answer),
            None => node.membership.failed(now(), id),
        }
    });
    pump(name);
}

/// One timer for all channels.
fn arm() {
    let next = DRIVER.with_borrow(|driver| {
        driver.nodes.values().filter_map(|node| node.membership.next_wake()).min()
    });
    let timer = next.map(|next| Timer::after(next.saturating_sub(now()) as usize + 1, wake));
    let old = DRIVER.with_borrow_mut(|driver| std::mem::replace(&mut driver.wake, timer));
    drop(old);
}

fn wake() {
    let time = now();
    let due = DRIVER.with_borrow_mut(|driver| {
        let due = |(_, node): &(&String, &mut Node)| {
            node.membership.next_wake().is_some_and(|next| next <= time)
        };
        let due = driver.nodes.iter_mut().filter(due);
        due.map(|(name, node)| {
            node.membership.wake(time);
            name.clone()
        })
        .collect::<Vec<_>>()
    });
    for name in due {
        pump(&name);
    }
    arm();
}
