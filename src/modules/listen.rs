//! `ngx_cc_listen_module`: the word `per_worker` in `listen`, for every kind of server{}.
//!
//! The directive notes each address and leaves the rest to nginx's own `listen`; init_conf turns
//! each per_worker socket into one per worker; each worker then keeps to its own.

use std::sync::atomic::{AtomicU16, Ordering};

use ngx::ffi::{ngx_command_t, ngx_module_t};

use crate::modules::core::Core;
use crate::ngx::conf::{self, ConfError, ConfResult, shown};
use crate::ngx::cycle::{self, Cycle, Process};
use crate::ngx::delegate::{self, Before};
use crate::ngx::listening::{self, Owned};
use crate::ngx::module::core_conf;
use crate::ngx::request::Request;
use crate::ngx::variable::Variable;
use crate::proto::listen::{Address, Listen, Listens, Named, Transport};

const PER_WORKER: &[u8] = b"per_worker";
/// Without it nginx may serve an address by the wildcard socket of its port.
const OWN_SOCKET: &std::ffi::CStr = c"bind";

/// What the directives noted, and the sockets made of it.
#[derive(Default)]
pub struct Conf {
    listens: Listens,
    owned: Option<Owned>,
    first_port: Option<u16>,
    /// Servers of http{} by [`conf::Conf::server_key`], with ports that all workers share.
    plain: Vec<(usize, u16)>,
}

impl Conf {
    /// The first port of that server{} of http{} that all workers share; nginx's default where it
    /// has no `listen`.
    pub fn plain_port(&self, server: usize) -> Option<u16> {
        self.plain.iter().find(|(key, _)| *key == server).map(|(_, port)| *port)
    }

    /// The first such port of http{}.
    pub fn first_plain_port(&self) -> Option<u16> {
        self.plain.first().map(|(_, port)| *port)
    }
}

/// Whether something in http{} is per_worker, in a cycle that is being configured.
pub fn any_http_per_worker(cycle: Cycle<'_>) -> bool {
    let conf = core_conf::<Core>(cycle);
    let first =
        conf.and_then(|conf| conf.listen.listens.of_worker(delegate::HTTP, Transport::Stream, 0));
    first.is_some()
}

struct ListenDirective;

impl Before for ListenDirective {
    const NAME: &'static str = "listen\0";

    fn set(cf: &mut conf::Conf<'_>) -> ConfResult {
        let Some(text) = cf.arg(1).map(<[u8]>::to_vec) else { return cf.delegate() };
        let default_port = if cf.in_http() { 80 } else { 0 };
        // what nginx cannot read, it shall say itself
        let Some((addresses, range)) = listening::parse(cf, &text, default_port) else {
            return cf.delegate();
        };
        match word_per_worker(cf)? {
            Some(index) => per_worker(cf, index, &text, addresses, range),
            None => {
                for address in addresses {
                    note(cf, &text, address, false)?;
                }
                cf.delegate()
            }
        }
    }
}

/// Where the word stands among the parameters.
fn word_per_worker(cf: &conf::Conf<'_>) -> Result<Option<usize>, ConfError> {
    let mut found = cf.args().enumerate().skip(2).filter(|(_, word)| *word == PER_WORKER);
    let Some((index, _)) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(ConfError::Directive(c"has duplicate \"per_worker\" parameter"));
    }
    if cf.args().skip(2).any(|word| word == b"reuseport") {
        return Err(ConfError::Directive(
            c"\"reuseport\" parameter is incompatible with \"per_worker\"",
        ));
    }
    Ok(Some(index))
}

fn per_worker(
    cf: &mut conf::Conf<'_>,
    index: usize,
    text: &[u8],
    addresses: Vec<Address>,
    range: bool,
) -> ConfResult {
    let refused = |reason: &str| {
        let text = shown(text);
        Err(ConfError::Message(format!("{reason} in \"{text}\" of the \"listen\" directive")))
    };
    if range {
        return refused("port range is incompatible with \"per_worker\"");
    }
    if addresses.iter().any(|address| address.port() == Some(0)) {
        return refused("no port");
    }
    cf.remove_arg(index);
    for address in addresses {
        // a second look-up of a name may find other addresses
        if let Address::Inet(address) = &address {
            cf.replace_arg(1, &address.to_string())?;
        }
        // as a second option of the address it would be "duplicate listen options"
        let first = note(cf, text, address, true)?;
        if first {
            cf.push_arg(OWN_SOCKET)?;
        }
        cf.delegate()?;
        if first {
            cf.pop_arg();
        }
    }
    Ok(())
}

fn note(
    cf: &conf::Conf<'_>,
    text: &[u8],
    address: Address,
    per_worker: bool,
) -> Result<bool, ConfError> {
    let datagram = cf.args().skip(2).any(|word| word == b"udp" || word == b"quic");
    let listen = Listen {
        block: cf.block(),
        transport: if datagram { Transport::Datagram } else { Transport::Stream },
        address,
        ipv6only: !cf.args().skip(2).any(|word| word == b"ipv6only=off"),
        per_worker,
        named: Some(Named { text: shown(text).into_owned(), place: cf.line().to_string() }),
    };
    let conf = core_conf::<Core>(cf.cycle()).ok_or(ConfError::Logged)?;
    if let Some(port) = listen.address.port().filter(|_| cf.in_http() && !per_worker && !datagram) {
        conf.listen.plain.push((cf.server_key(), port));
    }
    Ok(conf.listen.listens.note(listen))
}

/// One address per worker for each noted `listen`.
pub fn init_conf(cycle: Cycle<'_>, conf: &mut Conf) -> ConfResult {
    let Conf { listens, owned, first_port, .. } = conf;
    if !listens.any_per_worker() {
        return Ok(());
    }
    let owned = owned.insert(Owned::new(cycle));
    let entries = listening::entries(cycle);
    for entry in &entries {
        listens.found(entry.transport, entry.address.clone(), entry.ipv6only);
    }
    for plan in listens.plan(cycle.workers()).map_err(|error| error.to_string())? {
        let wanted = plan.listen;
        let mut same = entries
            .iter()
            .filter(|entry| entry.transport == wanted.transport && entry.address == wanted.address);
        let Some(entry) = same.nth(plan.nth) else {
            return Err(format!("no socket is made for {}", wanted.shown()).into());
        };
        owned.spread(entry, &plan.addresses).ok_or(ConfError::Logged)?;
    }
    *first_port = listens.base_ports().next();
    Ok(())
}

/// In the master, or the single process, whose reload starts no process anew.
pub fn init_module(conf: &mut Conf) {
    if let Some(owned) = &mut conf.owned {
        owned.in_force();
    }
    set_worker_port(conf, 0);
}

/// Leaves this worker its own sockets only.
pub fn init_process(conf: &Conf) {
    set_worker_port(conf, cycle::worker_number());
    if let (Process::Worker, Some(owned)) = (cycle::process(), &conf.owned) {
        owned.keep_own();
    }
}

/// 0 is none.
static PORT: AtomicU16 = AtomicU16::new(0);

fn set_worker_port(conf: &Conf, worker: usize) {
    let offset = u16::try_from(worker).ok();
    let port = conf.first_port.and_then(|port| port.checked_add(offset?));
    PORT.store(port.unwrap_or(0), Ordering::Relaxed);
}

/// This worker's first per_worker port; none in processes that serve no requests.
pub fn worker_port() -> Option<u16> {
    match (cycle::process(), PORT.load(Ordering::Relaxed)) {
        (Process::Worker | Process::Single, port @ 1..) => Some(port),
        _ => None,
    }
}

/// Where this configuration's `worker` takes requests over http, its first per_worker address; a
/// wildcard is told as loopback. None where nothing in http{} is per_worker.
pub fn worker_address(worker: usize) -> Option<Address> {
    address_of(cycle::current()?, worker)
}

/// The same in the configuration of `cycle`.
pub fn address_of(cycle: Cycle<'_>, worker: usize) -> Option<Address> {
    let conf = core_conf::<Core>(cycle)?;
    conf.listen.listens.of_worker(delegate::HTTP, Transport::Stream, worker)
}

/// `$cc_worker_port`: see [`worker_port`].
pub struct WorkerPort;

impl Variable for WorkerPort {
    const NAME: &'static str = "cc_worker_port";

    fn get(_: &Request<'_>) -> Option<String> {
        worker_port().map(|port| port.to_string())
    }
}

static mut COMMANDS: [ngx_command_t; 2] = delegate::commands::<ListenDirective>();

/// The exported table.
#[allow(non_upper_case_globals)]
pub static mut ngx_cc_listen_module: ngx_module_t =
    delegate::table(&raw mut COMMANDS as *mut ngx_command_t);
