//! Messages between workers: the shared zone, what the master makes for each generation, and the
//! hooks that give a worker its part in it (`worker`). `settings` has the directives, `api` is what
//! Lua calls. `native` calls actions in other workers without Lua, `actions` answers them, where an
//! action is a Lua function with the light threads of `functions`.

pub mod actions;
pub mod api;
pub mod estate;
pub mod functions;
pub mod inquiry;
pub mod leaving;
pub mod losses;
pub mod mailbox;
pub mod native;
pub mod peer;
pub mod receiving;
pub mod report;
pub mod retaining;
pub mod rings;
pub mod sending;
pub mod settings;
pub mod worker;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use self::estate::Estate;
use self::settings::{CASTS, FIXED, METRICS, PEERS, Settings, Transport};
use crate::modules::core::{Core, ngx_cc_module};
use crate::modules::say;
use crate::ngx::conf::ConfResult;
use crate::ngx::cycle::{self, Cycle, Process};
use crate::ngx::log::{self, Level};
use crate::ngx::memory::Mapping;
use crate::ngx::module::core_conf;
use crate::ngx::socket::{self, Line};
use crate::ngx::zone::{self, Zone};
use crate::proto::ipc::{Generation, Pid, Seat, WorkerId};
use crate::shm;
use crate::shm::casts::Casts;
use crate::shm::failures::Failures;
use crate::shm::lifecycle::Life;
use crate::shm::mesh::Mesh;
use crate::shm::metrics::Metrics;
use crate::shm::nodes::Nodes;
use crate::shm::retained::Retained;
use crate::shm::slots::Table;
use crate::shm::tally::Tallies;

/// The peers of this node.
pub type Peers = shm::peers::Peers<'static, fn(Pid) -> bool>;

/// The settings of one cycle, and what the master made for its workers.
#[derive(Default)]
pub struct Conf {
    /// Of the worker that leaves; dropped before what it uses.
    departure: Option<Departure>,
    /// The directives.
    pub settings: Settings,
    zone: Zone,
    generation: Option<Generation>,
    /// One line per worker of this cycle, by worker id.
    lines: Vec<Line>,
    /// One bell per worker, and the memory of their rings; none with the socket transport.
    bells: Vec<OwnedFd>,
    rings: Option<Arc<Mapping>>,
    tallies: Option<Mapping>,
    /// The send ends of older generations' workers that were alive when this cycle was loaded.
    elders: Vec<(Seat, OwnedFd)>,
    /// What those would leave behind, and what the dead have left.
    estates: Vec<Estate>,
}

impl Conf {
    /// The worker table.
    pub fn table(&self) -> Option<&'static Table> {
        self.zone.memory().and_then(shm::at)
    }

    /// This configuration's, once it is in force.
    pub fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Behind the table.
    pub fn life(&self) -> Option<&'static Life> {
        shm::at(self.zone.memory()?.get(Table::SIZE / 8..)?)
    }

    /// Behind that.
    pub fn failures(&self) -> Option<&'static Failures> {
        shm::at(self.zone.memory()?.get((Table::SIZE + Life::SIZE) / 8..)?)
    }

    /// Behind that.
    pub fn metrics(&self) -> Option<&'static Metrics> {
        shm::at(self.zone.memory()?.get(METRICS / 8..)?)
    }

    /// Behind that.
    pub fn casts(&self) -> Option<&'static Casts> {
        shm::at(self.zone.memory()?.get(CASTS / 8..)?)
    }

    fn peers_memory(&self) -> Option<&'static [AtomicU64]> {
        self.zone.memory()?.get(PEERS / 8..FIXED / 8)
    }

    /// The peers of this node, behind that, as this process sees them.
    pub fn peers(&self) -> Option<Peers> {
        let pid = Pid(u32::try_from(cycle::pid()).ok()?);
        Peers::attach(self.peers_memory()?, pid, alive as fn(Pid) -> bool)
    }

    /// The memory of the node table, behind those.
    fn nodes_memory(&self) -> Option<&'static [AtomicU64]> {
        self.zone.memory()?.get(FIXED / 8..)?.get(..self.settings.nodes() / 8)
    }

    /// The node table, as this process sees it.
    pub fn nodes(&self) -> Option<Nodes<'static>> {
        Nodes::attach(self.nodes_memory()?, Pid(u32::try_from(cycle::pid()).ok()?))
    }

    /// The memory behind the tables.
    fn retained(&self) -> Option<&'static [AtomicU64]> {
        self.zone.memory()?.get((FIXED + self.settings.nodes()) / 8..)
    }
}

/// Checks the settings, asks for the zone and makes lines and rings; all of it is dropped again
/// when the configuration fails later.
pub fn init_conf(cycle: Cycle<'_>, conf: &mut Conf) -> ConfResult {
    conf.settings.check()?;
    let (tag, size) = (&raw mut ngx_cc_module, conf.settings.zone());
    zone::add(cycle, "ngx_cc", tag, size, conf.settings.shared(), &mut conf.zone)?;
    if cycle::testing() || cycle::process() == Process::Other {
        return Ok(());
    }
    let workers = cycle.workers();
    for id in 0..workers {
        let line = socket::line();
        let failed = |errno| format!("socketpair() for worker {id} failed: {errno}");
        conf.lines.push(line.map_err(failed)?);
    }
    if conf.settings.transport() == Transport::Ring && workers > 1 {
        make_rings(conf, workers)?;
    }
    conf.elders = elders(cycle);
    conf.estates = estates(cycle);
    Ok(())
}

fn make_rings(conf: &mut Conf, workers: usize) -> ConfResult {
    let Some(bytes) = Mesh::size(workers) else { return Ok(()) };
    let failed = |errno| format!("mmap({bytes}) for the rings failed: {errno}");
    conf.rings = Some(Arc::new(Mapping::new(bytes).map_err(failed)?));
    conf.tallies = Some(Mapping::new(Tallies::size(workers)).map_err(failed)?);
    for id in 0..workers {
        let failed = |errno| format!("eventfd() for worker {id} failed: {errno}");
        conf.bells.push(socket::bell().map_err(failed)?);
    }
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
    let living: Vec<Seat> = table.everyone().filter(|w| alive(w.pid)).map(|w| w.seat).collect();
    own.chain(elder)
        .filter(|(seat, _)| living.contains(seat))
        // a worker that cannot be reached for want of a descriptor is no reason to fail a reload
        .filter_map(|(seat, send)| socket::duplicate(send).ok().map(|fd| (seat, fd)))
        .collect()
}

/// What the previous configurations would leave behind.
fn estates(cycle: Cycle<'_>) -> Vec<Estate> {
    let Some((old, table)) = old(cycle).and_then(|old| Some((old, old.table()?))) else {
        return Vec::new();
    };
    let own = old.generation.map(|own| Estate::of(own, &old.lines, old.rings.as_ref(), table));
    let elder = old.estates.iter().map(|estate| estate.handed_on(table));
    own.into_iter().chain(elder).flatten().collect()
}

/// Whether a process is a worker that lives.
pub type Living = Box<dyn Fn(Pid) -> bool + Send>;

fn alive(pid: Pid) -> bool {
    socket::alive(pid.0)
}

/// The new configuration is in force: counts the generation.
pub fn init_module(cycle: Cycle<'_>, conf: &mut Conf) {
    let Some(table) = conf.table() else { return };
    if !conf.zone.reused() {
        table.init();
        conf.life().map(Life::init);
        conf.retained().map(Retained::<Living>::init);
        init_nodes(cycle, conf);
        init_peers(cycle, conf);
        conf.estates.clear();
        if !conf.elders.is_empty() {
            let news = "shared zone is new: old workers and new ones do not see each other";
            cycle.log(Level::Notice, format_args!("cc: {news}"));
            conf.elders.clear();
        }
    }
    conf.generation = Some(table.next_generation(cycle.workers()));
    if cycle::process() == Process::Single && worker::entered() {
        // nginx does not run init_process again when a single process reloads
        worker::leave();
        if let Err(reason) = init_process(cycle, conf).and_then(|()| start()) {
            cycle.log(Level::Alert, format_args!("cc: the reloaded process has no seat: {reason}"));
        }
    }
}

/// A new node table. Another zone of the same master is the same life of the node: it keeps its
/// epoch, which otherwise is the time of the start.
fn init_nodes(cycle: Cycle<'_>, conf: &Conf) {
    let epoch = old(cycle).and_then(Conf::nodes).map_or_else(now, |old| old.epoch());
    if let (Some(memory), Ok(pid)) = (conf.nodes_memory(), u32::try_from(cycle::pid())) {
        Nodes::init(memory, Pid(pid), epoch);
    }
}

/// A new table of peers. It counts the calls from 1 again, so their epoch must be a new one, too.
fn init_peers(cycle: Cycle<'_>, conf: &Conf) {
    let (mut key, next) =
        ([0; 32], old(cycle).and_then(Conf::peers).map(|old| old.epoch().saturating_add(1)));
    match getrandom::fill(&mut key) {
        Ok(()) => {
            let epoch = now().max(next.unwrap_or_default());
            conf.peers_memory().map(|memory| Peers::init(memory, epoch, key));
        }
        Err(error) => {
            let news = format_args!("cc: no random numbers, so no calls to other nodes: {error}");
            cycle.log(Level::Alert, news);
        }
    }
}

/// What the configuration before this one has.
fn old(cycle: Cycle<'_>) -> Option<&Conf> {
    cycle.old().and_then(core_conf::<Core>).map(|old| &old.ipc)
}

/// Milliseconds, by the wall's clock.
fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// Takes this worker's seat, so that everything that runs in init_worker can send.
pub fn init_process(cycle: Cycle<'_>, conf: &mut Conf) -> Result<(), String> {
    let table = conf.table().filter(|table| table.fits()).ok_or("the shared zone is damaged")?;
    let pid = Pid(u32::try_from(cycle::pid()).map_err(|_| "process id out of range")?);
    // who sets and reads retained values sits in the table: a stranger that has a dead worker's process
    // id by now holds nothing
    let living: Living = Box::new(move |pid| alive(pid) && table.find(pid).is_some());
    let retained = conf.retained().and_then(|memory| Retained::attach(memory, pid, living));
    let retained = retained.ok_or("the shared zone is damaged")?;
    let generation = conf.generation.ok_or("no generation was counted")?;
    let number = cycle::worker_number();
    let worker = u16::try_from(number).map_err(|_| "worker number out of range")?;
    let settings = &conf.settings;
    let limits = worker::Limits {
        queue: settings.queue(),
        message: settings.max_message(),
        spin: settings.spin(),
    };
    let mesh = conf.rings.as_ref().and_then(|rings| Mesh::new(rings.words(), conf.bells.len()));
    let tallies = conf.tallies.as_ref();
    let tallies = tallies.and_then(|words| Tallies::new(words.words(), conf.bells.len()));
    let bells = std::mem::take(&mut conf.bells);
    let legacy = worker::Legacy {
        lines: std::mem::take(&mut conf.lines),
        rings: mesh.map(|mesh| (mesh, bells)),
        tallies,
        elders: std::mem::take(&mut conf.elders),
        estates: std::mem::take(&mut conf.estates),
        retained,
        metrics: conf.metrics(),
    };
    let seat = Seat { generation, worker: WorkerId(worker) };
    worker::enter(table, pid, seat, limits, legacy)?;
    let news = format_args!("cc: worker {worker} of generation {} enters", generation.0);
    cycle.log(Level::Info, news);
    Ok(())
}

/// The event loop can be used: the worker listens.
pub fn start() -> Result<(), String> {
    say::start();
    worker::listen()
}

/// The worker leaves, once exit_worker_by_lua has had its say: that runs after this.
pub fn exit_process(_cycle: Cycle<'_>, conf: &mut Conf) {
    worker::close();
    conf.departure = Some(Departure);
}

/// Gives the seat back when the cycle's pool is destroyed.
struct Departure;

impl Drop for Departure {
    fn drop(&mut self) {
        let lost = worker::leave();
        if lost > 0 {
            let were = if lost == 1 { "message was" } else { "messages were" };
            let news = format_args!("cc: {lost} {were} lost with the leaving worker");
            log::cycle(Level::Notice, news);
        }
    }
}
