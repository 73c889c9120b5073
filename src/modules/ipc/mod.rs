//! Messages between workers: the settings, the shared zone, the lines that the master makes for
//! each generation, and the hooks that give a worker its part in it (`worker`). `api` is what Lua
//! calls.

pub mod api;
pub mod mailbox;
pub mod peer;
pub mod worker;

use std::os::fd::OwnedFd;

use crate::modules::core::{Core, ngx_cc_module};
use crate::ngx::conf::{self, ConfError, ConfResult};
use crate::ngx::cycle::{self, Cycle, Process};
use crate::ngx::log::Level;
use crate::ngx::module::core_conf;
use crate::ngx::socket::{self, Line};
use crate::ngx::zone::{self, Zone};
use crate::proto::ipc::{Generation, Pid, Seat, WorkerId};
use crate::shm;
use crate::shm::slots::Table;

/// `cc_ipc_queue` where it is not set, bytes.
const QUEUE: usize = 32 << 20;
/// `cc_ipc_max_message` where it is not set, bytes.
const MAX_MESSAGE: usize = 16 << 20;
/// The largest that may be set: lengths on the wire are 32 bits wide.
const MESSAGE_CEILING: usize = 1 << 30;
/// `cc_zone` where it is not set, bytes. Does not depend on `worker_processes`, so that the zone
/// survives a reload that changes them.
const ZONE: usize = 1 << 20;

/// The settings of one cycle, and what the master made for its workers.
#[derive(Default)]
pub struct Conf {
    zone_size: Option<usize>,
    queue: Option<usize>,
    max_message: Option<usize>,
    zone: Zone,
    generation: Option<Generation>,
    /// One line per worker of this cycle, by worker id.
    lines: Vec<Line>,
    /// The send ends of older generations' workers that were alive when this cycle was loaded.
    elders: Vec<(Seat, OwnedFd)>,
}

impl Conf {
    fn table(&self) -> Option<&'static Table> {
        self.zone.memory().and_then(shm::at)
    }
}

/// `cc_zone`.
pub fn cc_zone(cf: &mut conf::Conf<'_>, conf: &mut Conf) -> ConfResult {
    size(cf, &mut conf.zone_size)
}

/// `cc_ipc_queue`.
pub fn cc_ipc_queue(cf: &mut conf::Conf<'_>, conf: &mut Conf) -> ConfResult {
    size(cf, &mut conf.queue)
}

/// `cc_ipc_max_message`.
pub fn cc_ipc_max_message(cf: &mut conf::Conf<'_>, conf: &mut Conf) -> ConfResult {
    size(cf, &mut conf.max_message)
}

fn size(cf: &mut conf::Conf<'_>, value: &mut Option<usize>) -> ConfResult {
    if value.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    *value = cf.arg(1).and_then(conf::Conf::size).filter(|size| *size > 0);
    value.map(|_| ()).ok_or(ConfError::Directive(c"has an invalid value"))
}

/// Checks the settings, asks for the zone and makes the lines; all of it is dropped again when the
/// configuration fails later.
pub fn init_conf(cycle: Cycle<'_>, conf: &mut Conf) -> ConfResult {
    let max_message = *conf.max_message.get_or_insert(MAX_MESSAGE);
    if max_message > MESSAGE_CEILING {
        return Err(
            format!("\"cc_ipc_max_message\" must not exceed {MESSAGE_CEILING} bytes").into()
        );
    }
    let queue = *conf.queue.get_or_insert(QUEUE.max(2 * max_message));
    if queue < max_message {
        return Err(
            String::from("\"cc_ipc_queue\" must not be less than \"cc_ipc_max_message\"").into()
        );
    }
    let least = zone::smallest(Table::SIZE);
    let zone_size = *conf.zone_size.get_or_insert(ZONE.max(least));
    if zone_size < least {
        return Err(
            format!("\"cc_zone\" is too small: at least {}k are needed", least >> 10).into()
        );
    }
    let tag = &raw mut ngx_cc_module;
    zone::add(cycle, "ngx_cc", tag, zone_size, Table::SIZE, &mut conf.zone)?;
    if cycle::testing() || cycle::process() == Process::Other {
        return Ok(());
    }
    for id in 0..cycle.workers() {
        let line = socket::line()
            .map_err(|errno| format!("socketpair() for worker {id} failed: {errno}"))?;
        conf.lines.push(line);
    }
    conf.elders = elders(cycle);
    Ok(())
}

/// Descriptors of the workers that the previous configurations left running.
fn elders(cycle: Cycle<'_>) -> Vec<(Seat, OwnedFd)> {
    let Some(old) = cycle.old().and_then(core_conf::<Core>).map(|conf| &conf.ipc) else {
        return Vec::new();
    };
    let (Some(table), Some(generation)) = (old.table(), old.generation) else { return Vec::new() };
    let seat = |worker: u16| Seat { generation, worker: WorkerId(worker) };
    let own = (0..).zip(&old.lines).map(|(id, line)| (seat(id), &line.send));
    let elder = old.elders.iter().map(|(seat, send)| (*seat, send));
    let living: Vec<Seat> = table.workers().filter(|w| alive(w.pid)).map(|w| w.seat).collect();
    own.chain(elder)
        .filter(|(seat, _)| living.contains(seat))
        // a worker that cannot be reached for want of a descriptor is no reason to fail a reload
        .filter_map(|(seat, send)| socket::duplicate(send).ok().map(|fd| (seat, fd)))
        .collect()
}

fn alive(pid: Pid) -> bool {
    socket::alive(pid.0)
}

/// The new configuration is in force: counts the generation.
pub fn init_module(cycle: Cycle<'_>, conf: &mut Conf) {
    let Some(table) = conf.table() else { return };
    if !conf.zone.reused() {
        table.init();
        if !conf.elders.is_empty() {
            cycle.log(
                Level::Notice,
                format_args!(
                    "cc: shared zone is new: old workers and new ones do not see each other"
                ),
            );
            conf.elders.clear();
        }
    }
    conf.generation = Some(table.next_generation(cycle.workers()));
}

/// Takes this worker's seat, so that everything that runs in init_worker can send.
pub fn init_process(cycle: Cycle<'_>, conf: &mut Conf) -> Result<(), String> {
    let table = conf.table().filter(|table| table.fits()).ok_or("the shared zone is damaged")?;
    let generation = conf.generation.ok_or("no generation was counted")?;
    let number = cycle::worker_number();
    let worker = u16::try_from(number).map_err(|_| "worker number out of range")?;
    let lines = std::mem::take(&mut conf.lines);
    let limits = worker::Limits {
        queue: conf.queue.unwrap_or(QUEUE),
        message: conf.max_message.unwrap_or(MAX_MESSAGE),
    };
    let pid = Pid(u32::try_from(cycle::pid()).map_err(|_| "process id out of range")?);
    let seat = Seat { generation, worker: WorkerId(worker) };
    let elders = std::mem::take(&mut conf.elders);
    worker::enter(table, pid, seat, limits, lines, elders)?;
    cycle.log(
        Level::Info,
        format_args!("cc: worker {worker} of generation {} enters", generation.0),
    );
    Ok(())
}

/// The event loop can be used: the worker listens.
pub fn start() -> Result<(), String> {
    worker::listen()
}

/// The worker leaves.
pub fn exit_process(cycle: Cycle<'_>, _conf: &mut Conf) {
    let lost = worker::leave();
    if lost > 0 {
        cycle.log(
            Level::Warn,
            format_args!("cc: {lost} messages were lost with the leaving worker"),
        );
    }
}
