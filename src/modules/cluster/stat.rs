//! `getServiceStat`: this node and, asked one by one, all below it.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use http::Method;

use super::call::Draft;
use super::channel::Channel;
use super::location::Timeouts;
use super::remote::{self, Ask, Held, Unanswered};
use super::{node, nodes, workers};
use crate::ngx::client::Answer;
use crate::ngx::respond::Response;
use crate::proto::cluster::cast::share;
use crate::proto::cluster::query;
use crate::proto::cluster::stat::Stat;

/// How long the nodes below may take; a node tells its clients what is left.
const WITHIN: &[u8] = b"within";
const JSON: &str = "application/json";
/// What a client says that does not answer: shown with hyphens, as the original does.
const NOTHING: &[u8] = b"";
/// Most clients that are asked at a time.
const CLIENTS_MAX: usize = 1024;

/// Tells it to `done`.
pub fn tell(
    channel: &Channel,
    timeouts: Timeouts,
    self_only: bool,
    query: &[u8],
    done: impl FnOnce(Response) + 'static,
) {
    let within = query::find(query, WITHIN);
    let within = within.and_then(|arg| std::str::from_utf8(arg.value.text()).ok()?.parse().ok());
    // a worker that has sent the request on to this one waits as long as `read`
    let most = u32::try_from(timeouts.read).ok().and_then(share).map_or(0, |most| most as usize);
    let time = within.unwrap_or(most).min(most);
    let mut clients = if self_only { Vec::new() } else { nodes::clients(&channel.name) };
    clients.truncate(CLIENTS_MAX);
    let mut stat = own(&channel.name, self_only);
    let left = u32::try_from(time).ok().and_then(share);
    let Some(left) = left.filter(|_| !clients.is_empty()) else {
        // who has no time left tells of itself, and that there is more
        clients.iter().for_each(|client| stat.add(&client.to_string(), 200, NOTHING));
        return done(Response::of(200, JSON, stat.json()));
    };
    let gather = Rc::new(RefCell::new(Gather {
        waiting: clients.len(),
        stat,
        held: Vec::new(),
        done: Some(Box::new(done)),
    }));
    for client in clients {
        let ask = Ask {
            channel: channel.name.clone(),
            to: client,
            draft: Draft {
                method: Method::GET,
                headers: Rc::default(),
                body: bytes::Bytes::new(),
                timeouts,
            },
            target: format!("/{}/hub?getServiceStat&within={left}", channel.name).into_bytes(),
            time,
        };
        let place = Rc::clone(&gather);
        let held = remote::call(ask, move |result| took(&place, client, result));
        gather.borrow_mut().held.push(held);
    }
}

struct Gather {
    waiting: usize,
    stat: Stat,
    held: Vec<Held>,
    done: Option<Box<dyn FnOnce(Response)>>,
}

fn took(gather: &Rc<RefCell<Gather>>, client: SocketAddr, result: Result<Answer, Unanswered>) {
    let ended = {
        let mut gather = gather.borrow_mut();
        match result {
            Ok(answer) if answer.status == 200 => {
                gather.stat.add(&client.to_string(), 200, &answer.body);
            }
            _ => gather.stat.add(&client.to_string(), 200, NOTHING),
        }
        gather.waiting = gather.waiting.saturating_sub(1);
        let over = gather.waiting == 0;
        over.then(|| (gather.done.take(), gather.stat.json(), std::mem::take(&mut gather.held)))
    };
    if let Some((Some(done), json, held)) = ended {
        done(Response::of(200, JSON, json));
        drop(held);
    }
}

/// This node's own.
fn own(channel: &str, self_only: bool) -> Stat {
    let port = |id| workers::listener(id).and_then(|listener| listener.port());
    let living = workers::living();
    let ports: Vec<u16> = living.iter().filter_map(|entry| port(entry.seat.worker)).collect();
    let router = workers::router().and_then(|router| port(router.seat.worker));
    let superior = nodes::superior(channel).map(|address| address.to_string());
    Stat::of(node(), &ports, router, superior, self_only)
}
