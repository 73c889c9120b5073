//! The directives of the bus: `cc_zone`, `cc_ipc_*`; their defaults and bounds.

use crate::ngx::conf::{self, ConfError, ConfResult, Line, shown};
use crate::proto::ipc::spin;
use crate::proto::zone;
use crate::shm::casts::Casts;
use crate::shm::failures::Failures;
use crate::shm::lifecycle::Life;
use crate::shm::metrics::Metrics;
use crate::shm::nodes::{self, Nodes};
use crate::shm::peers;
use crate::shm::retained;
use crate::shm::slots::Table;

/// `cc_ipc_queue` where it is not set, bytes.
const QUEUE: usize = 32 << 20;
/// `cc_ipc_max_message` where it is not set, bytes.
const MAX_MESSAGE: usize = 16 << 20;
/// The largest that may be set: lengths on the wire are 32 bits wide.
const MESSAGE_CEILING: usize = 1 << 30;
/// `cc_ipc_spin` where it is not set, and the most that may be set, microseconds.
const SPIN: usize = 20;
const SPIN_CEILING: usize = 1000;
/// `cc_zone` where it is not set, bytes. Does not depend on `worker_processes`, so that the zone
/// survives a reload that changes them.
const ZONE: usize = 1 << 20;
/// `cc_ipc_retain` where it is not set, bytes.
const RETAIN: usize = 1 << 20;
/// What the zone begins with, whatever is set: the worker table, then the lives of the workers, then
/// the failures of the balancer's peers, then what is counted beside messages, then the casts that ran
/// here, then the peers of the node.
pub const FIXED: usize = PEERS + peers::SIZE;
/// Where the peers of the node begin.
pub const PEERS: usize = CASTS + Casts::SIZE;
/// Where the casts that ran here begin.
pub const CASTS: usize = METRICS + Metrics::SIZE;
/// Where what is counted beside messages begins: two cache lines' worth, like all before it.
pub const METRICS: usize = (Table::SIZE + Life::SIZE + Failures::SIZE).next_multiple_of(128);

/// How messages travel inside a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Through rings in shared memory.
    Ring,
    /// Through the workers' Unix sockets.
    Socket,
}

/// What the configuration sets.
#[derive(Default)]
pub struct Settings {
    zone: Option<Set<usize>>,
    retain: Option<Set<usize>>,
    queue: Option<Set<usize>>,
    max_message: Option<Set<usize>>,
    spin: Option<Set<usize>>,
    transport: Option<Set<Transport>>,
}

/// A value, and where it was set.
struct Set<T> {
    value: T,
    line: Line,
}

fn value<T: Copy>(set: &Option<Set<T>>) -> Option<T> {
    set.as_ref().map(|set| set.value)
}

/// For the end of a sentence, as nginx ends those of a directive.
fn place<T>(set: &Option<Set<T>>) -> String {
    set.as_ref().map_or_else(String::new, |set| format!(" in {}", set.line))
}

impl Settings {
    /// `cc_zone`, bytes.
    pub fn zone(&self) -> usize {
        value(&self.zone).unwrap_or(ZONE.max(self.least_zone()))
    }

    /// Bytes of the zone that are used: those of [`FIXED`], the node table, the retained values.
    pub fn shared(&self) -> usize {
        FIXED + self.nodes() + self.retain()
    }

    /// Bytes of the node table.
    pub fn nodes(&self) -> usize {
        Nodes::room(nodes::CLIENTS)
    }

    fn least_zone(&self) -> usize {
        zone::smallest(self.shared())
    }

    /// Where only the zone is set, what it leaves.
    fn retain(&self) -> usize {
        let tables = FIXED + self.nodes();
        let left = |zone| zone::largest(zone).saturating_sub(tables).max(retained::SIZE_MIN);
        value(&self.retain).unwrap_or_else(|| value(&self.zone).map_or(RETAIN, left))
    }

    /// `cc_ipc_queue`, bytes.
    pub fn queue(&self) -> usize {
        value(&self.queue).unwrap_or(QUEUE.max(2 * self.max_message()))
    }

    /// `cc_ipc_max_message`, bytes.
    pub fn max_message(&self) -> usize {
        value(&self.max_message).unwrap_or(MAX_MESSAGE)
    }

    /// `cc_ipc_spin`, nanoseconds.
    pub fn spin(&self) -> u64 {
        value(&self.spin).unwrap_or(SPIN) as u64 * 1000
    }

    /// `cc_ipc_transport`.
    pub fn transport(&self) -> Transport {
        value(&self.transport).unwrap_or(Transport::Ring)
    }

    /// Whether the values fit together, once all are read.
    pub fn check(&self) -> ConfResult {
        let wrong = if self.max_message() > MESSAGE_CEILING {
            let place = place(&self.max_message);
            format!("\"cc_ipc_max_message\" must not exceed {}m{place}", MESSAGE_CEILING >> 20)
        } else if self.queue() < self.max_message() {
            let place =
                if self.queue.is_some() { place(&self.queue) } else { place(&self.max_message) };
            format!("\"cc_ipc_queue\" must not be less than \"cc_ipc_max_message\"{place}")
        } else if self.retain() < retained::SIZE_MIN {
            let (least, place) = (retained::SIZE_MIN.div_ceil(1024), place(&self.retain));
            format!("\"cc_ipc_retain\" is too small: at least {least}k are needed{place}")
        } else if self.zone() < self.least_zone() {
            let (least, place) = (self.least_zone() >> 10, place(&self.zone));
            format!("\"cc_zone\" is too small: at least {least}k are needed{place}")
        } else {
            return Ok(());
        };
        Err(wrong.into())
    }
}

/// `cc_zone`.
pub fn cc_zone(cf: &mut conf::Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(cf, &mut settings.zone, size)
}

/// `cc_ipc_retain`.
pub fn cc_ipc_retain(cf: &mut conf::Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(cf, &mut settings.retain, size)
}

/// `cc_ipc_queue`.
pub fn cc_ipc_queue(cf: &mut conf::Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(cf, &mut settings.queue, size)
}

/// `cc_ipc_max_message`.
pub fn cc_ipc_max_message(cf: &mut conf::Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(cf, &mut settings.max_message, size)
}

/// `cc_ipc_transport`.
pub fn cc_ipc_transport(cf: &mut conf::Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(cf, &mut settings.transport, |word| match word {
        b"ring" => Some(Transport::Ring),
        b"socket" => Some(Transport::Socket),
        _ => None,
    })
}

/// `cc_ipc_spin`.
pub fn cc_ipc_spin(cf: &mut conf::Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(cf, &mut settings.spin, |word| {
        spin::parse(&shown(word)).filter(|micros| *micros <= SPIN_CEILING)
    })
}

fn once<T>(
    cf: &conf::Conf<'_>,
    set: &mut Option<Set<T>>,
    parse: impl FnOnce(&[u8]) -> Option<T>,
) -> ConfResult {
    if set.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    let word = cf.arg(1).unwrap_or_default();
    let value = parse(word).ok_or_else(|| format!("invalid value \"{}\"", shown(word)))?;
    *set = Some(Set { value, line: cf.line() });
    Ok(())
}

fn size(word: &[u8]) -> Option<usize> {
    conf::Conf::size(word).filter(|size| *size > 0)
}
