//! Collects the status. Everything comes from the shared zone and the configuration, so it is the
//! same from any worker, and nobody is asked or waited for.

use std::time::{SystemTime, UNIX_EPOCH};

use super::lives::{self, Lives};
use crate::modules::cluster::{self, driver, nodes, workers};
use crate::modules::core::Core;
use crate::modules::ipc::report::{self, Report};
use crate::modules::ipc::settings::{FIXED, Transport};
use crate::modules::ipc::{self, worker};
use crate::modules::lifecycle::view;
use crate::modules::metrics;
use crate::modules::upstream;
use crate::ngx::cycle;
use crate::ngx::module::{core_conf, nginx_version};
use crate::proto::cluster::membership::standing::{self, Health, Place};
use crate::proto::ipc::WorkerId;
use crate::proto::status::{
    Balancer, Channel, Client, Counters, Ipc, Nodes, Retained, Status, Super, Zone,
};
use crate::shm::slots::{COUNTERS, Counter};

/// Names of retained values that are listed.
const NAMES: usize = 64;

/// The status; None in a process that is no worker.
pub fn status() -> Option<Status> {
    let conf = &core_conf::<Core>(cycle::current()?)?.ipc;
    let living = view::living()?;
    let mut report = worker::with(|worker| worker.report(|pid| living.has(pid)))?;
    let more = report.retained.names.len().saturating_sub(NAMES) as u64;
    report.retained.names.truncate(NAMES);
    let Lives { mut workers, ready, leader, names, lifecycle } =
        lives::look(&report.retained.names, &living)?;
    for worker in &mut workers {
        let row = report.workers.iter().find(|row| {
            row.entry.pid.0 == worker.pid && row.entry.seat.generation.0 == worker.generation
        });
        if let Some(row) = row {
            worker.queued = row.held;
            worker.inbox = row.inbox;
            worker.counters = counters(&row.counters);
            let listener = workers::listener(WorkerId(worker.id));
            worker.port = listener.and_then(|listener| listener.port());
        }
    }
    let (mut nodes, channels) = tree();
    let counts = metrics::counts();
    (nodes.calls, nodes.failed) = (counts.rpc, counts.calls_failed);
    Some(Status {
        node: cluster::node(),
        version: env!("CARGO_PKG_VERSION"),
        nginx: nginx_version(),
        time: milliseconds(),
        worker: report.me.seat.worker.0,
        generation: report.current.0,
        router: workers::router().map(|router| router.seat.worker.0),
        leader,
        ready: ready.is_ok(),
        reason: ready.err(),
        workers,
        ipc: Ipc { delivery: counts.delivery, refused: counts.unsent, ..bus(&report, conf) },
        retained: Retained {
            sequence: report.retained.sequence,
            values: report.retained.values as u64,
            used: report.retained.used as u64,
            size: report.retained.size as u64,
            names,
            more,
        },
        nodes,
        channels,
        lifecycle,
        balancer: Balancer { upstreams: upstream::report::upstreams(), tries: counts.tries },
        refused: counts.refused,
        zone: Zone {
            size: conf.settings.zone() as u64,
            used: (FIXED + conf.settings.nodes() + report.retained.used) as u64,
            tables: (FIXED + conf.settings.nodes()) as u64,
        },
    })
}

fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis() as u64
}

fn counters(all: &[u64; COUNTERS]) -> Counters {
    let of = |counter| report::of(all, counter);
    Counters {
        sent: of(Counter::Sent),
        received: of(Counter::Received),
        full: of(Counter::Full),
        unhandled: of(Counter::Unhandled),
        failed: of(Counter::Failed),
        stranger: of(Counter::Stranger),
        lost: of(Counter::Lost),
        late: of(Counter::Late),
    }
}

fn bus(report: &Report, conf: &ipc::Conf) -> Ipc {
    let total = counters(&report.total);
    let over = total.received.wrapping_add(total.stranger).wrapping_add(total.lost);
    let rings =
        report.rings.or((conf.settings.transport() == Transport::Ring && report.current.1 == 1)
            .then_some((0, 0)));
    Ipc {
        transport: if rings.is_some() { "ring" } else { "socket" },
        total,
        // what one worker has counted and the other one not yet
        waiting: total.sent.saturating_sub(over),
        queued: report.held,
        queue: report.limits.0 as u64,
        max_message: report.limits.1 as u64,
        ring: rings.map_or(0, |(one, _)| one as u64),
        memory: rings.map_or(0, |(_, all)| all as u64),
        ..Ipc::default()
    }
}

fn place(place: Place) -> &'static str {
    match place {
        Place::Root => "root",
        Place::Detached => "detached",
        Place::Joining => "joining",
        Place::Joined => "joined",
        Place::Left => "left",
    }
}

fn state(client: &standing::Client) -> &'static str {
    match client.health {
        Health::Suspect => "suspect",
        Health::Alive if client.moving => "moving",
        Health::Alive if client.reported => "reported",
        Health::Alive => "alive",
    }
}

/// The channels, and who is around in them.
fn tree() -> (Nodes, Vec<Channel>) {
    let now = cycle::nanoseconds() / 1_000_000;
    let mut tree = Nodes::default();
    let mut channels = Vec::new();
    let settings = cluster::settings();
    let declared = |name: &str| settings.is_some_and(|s| s.channel(name.as_bytes()).is_some());
    let mut ids = Vec::new();
    if let Some(table) = driver::table() {
        (tree.epoch, tree.room) = (table.epoch(), table.capacity() as u64);
        for (id, name, standing) in table.channels() {
            let superior = nodes::superior_in(&name, &standing).map(|address| address.to_string());
            if let Some(address) = &superior {
                tree.supers.push(Super {
                    channel: name.clone(),
                    address: address.clone(),
                    state: place(standing.place),
                    epoch: standing.above.as_ref().map(|above| above.epoch),
                });
            }
            ids.push(id);
            channels.push(Channel {
                declared: declared(&name),
                state: Some(place(standing.place)),
                superior,
                name,
                ..Channel::default()
            });
        }
        table.all_clients(|id, client| {
            let at = ids.iter().position(|known| *known == id);
            let Some(channel) = at.and_then(|at| channels.get_mut(at)) else { return };
            channel.clients += 1;
            channel.below += u64::from(client.subtree.max(1));
            tree.clients.push(Client {
                channel: channel.name.clone(),
                state: state(&client),
                heard: (client.heard > 0).then(|| now.saturating_sub(client.heard)),
                nodes: client.subtree.max(1),
                epoch: client.epoch,
                address: client.address,
            });
        });
    }
    // those that the router has not taken up yet, or has no room for
    for channel in settings.map_or(&[][..], |settings| settings.channels()) {
        if !channels.iter().any(|known| known.name == channel.name) {
            let name = channel.name.clone();
            channels.push(Channel { name, declared: true, ..Channel::default() });
        }
    }
    channels.sort_by(|a, b| a.name.cmp(&b.name));
    let key = |client: &Client| (client.channel.clone(), client.address.clone());
    tree.clients.sort_by_cached_key(key);
    (tree, channels)
}
