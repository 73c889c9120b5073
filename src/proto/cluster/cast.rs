//! A cast: one call to several. Who is asked, and how a cast that goes down the tree is kept from
//! coming back, going too deep or taking too long. What is answered, `gather` puts together.

use std::fmt::Write as _;
use std::rc::Rc;
use std::str;

use super::action;
use crate::proto::ipc::WorkerId;

/// Most steps that a cast goes down the tree.
pub const HOPS_MAX: u8 = 16;
/// Casts that a worker waits for at the same time.
pub const CASTS_MAX: usize = 1024;
/// Longest time that a cast may take, milliseconds.
const TIME_MAX: u32 = 3_600_000;
/// What a node keeps of the time that is left, so that its answer is there before its super gives
/// up: a tenth, and so many milliseconds.
const MARGIN: u32 = 20;

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// All workers of this node.
    Workers,
    /// The nodes whose super this one is.
    Clients,
    /// This node's super.
    Super,
    /// This node's router.
    Master,
    /// All workers of this node and of every node below.
    Tree,
}

/// The word is no direction.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown direction \"{0}\": it is \"workers\", \"clients\", \"super\", \"master\" or \"tree\""
)]
pub struct UnknownDirection(String);

impl Direction {
    /// Reads a direction.
    pub fn parse(word: &[u8]) -> Result<Direction, UnknownDirection> {
        Ok(match word {
            b"workers" => Direction::Workers,
            b"clients" => Direction::Clients,
            b"super" => Direction::Super,
            b"master" => Direction::Master,
            b"tree" => Direction::Tree,
            _ => return Err(UnknownDirection(action::shown(word))),
        })
    }

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Workers => "workers",
            Direction::Clients => "clients",
            Direction::Super => "super",
            Direction::Master => "master",
            Direction::Tree => "tree",
        }
    }
}

/// This node, as a cast sees it.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its own address.
    pub node: &'a str,
    /// The workers that are to be asked, each with its per_worker port.
    pub workers: &'a [(WorkerId, Option<u16>)],
    /// The router.
    pub router: Option<WorkerId>,
    /// The super's address; none at a root.
    pub superior: Option<&'a str>,
    /// The clients' addresses.
    pub clients: &'a [&'a str],
}

/// How a target is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// This node's worker, by its listener or over the rings.
    Worker(WorkerId),
    /// A node, by its hub's address: one of its workers answers for itself.
    Node,
    /// A node that casts on and answers for all below it.
    Tree,
}

/// One who is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The node's address.
    pub node: Rc<str>,
    /// Its worker's per_worker port, or the node's own.
    pub port: Option<u16>,
    /// See there.
    pub via: Via,
}

/// There is nobody who is the router at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no router yet")]
pub struct NoRouter;

/// Who is asked in a direction, in their order. Nobody where there are no clients, or no super.
pub fn targets(direction: Direction, here: Here<'_>) -> Result<Vec<Target>, NoRouter> {
    let own: Rc<str> = here.node.into();
    let worker = |(id, port): &(WorkerId, Option<u16>)| Target {
        node: Rc::clone(&own),
        port: *port,
        via: Via::Worker(*id),
    };
    let node = |address: &str, via| Target { node: address.into(), port: port_of(address), via };
    let clients = |via| here.clients.iter().map(move |address| node(address, via));
    Ok(match direction {
        Direction::Workers => here.workers.iter().map(worker).collect(),
        Direction::Clients => clients(Via::Node).collect(),
        Direction::Super => here.superior.iter().map(|address| node(address, Via::Node)).collect(),
        Direction::Tree => here.workers.iter().map(worker).chain(clients(Via::Tree)).collect(),
        Direction::Master => {
            let router = here.router.ok_or(NoRouter)?;
            here.workers.iter().filter(|(id, _)| *id == router).map(worker).collect()
        }
    })
}

/// The port of `HOST:PORT`.
fn port_of(address: &str) -> Option<u16> {
    address.rsplit_once(':').and_then(|(_, port)| port.parse().ok())
}

/// Which cast; random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CastId(pub [u8; 16]);

/// What a call says of the tree cast that it belongs to: the header `CC-Cast`. Counts only when the
/// call is proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passage {
    /// Which cast.
    pub id: CastId,
    /// Steps from its origin; 1 at the origin's clients.
    pub hops: u8,
    /// Time that is left, milliseconds.
    pub deadline: u32,
}

/// Why a cast does not go on to the clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// [`HOPS_MAX`].
    #[error("too many hops")]
    Hops,
    /// Nothing would come back in time.
    #[error("no time left")]
    Time,
}

impl Stop {
    /// The status for it.
    pub fn status(self) -> u16 {
        match self {
            Stop::Hops => 508,
            Stop::Time => 504,
        }
    }
}

/// The header is not what this code writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CC-Cast header")]
pub struct PassageError;

impl Passage {
    /// For the clients of the node where a cast begins that may take so many milliseconds.
    pub fn first(id: CastId, time: u32) -> Result<Passage, Stop> {
        Passage { id, hops: 0, deadline: time }.next(time)
    }

    /// For the clients of a node that got this one and has so many milliseconds left.
    pub fn next(self, left: u32) -> Result<Passage, Stop> {
        let hops = self.hops.saturating_add(1);
        if hops > HOPS_MAX {
            return Err(Stop::Hops);
        }
        let deadline = share(left.min(TIME_MAX)).ok_or(Stop::Time)?;
        Ok(Passage { hops, deadline, ..self })
    }

    /// The header's value.
    pub fn header(&self) -> String {
        let mut header = String::from("tree; id=");
        for byte in self.id.0 {
            let _ = write!(header, "{byte:02x}"); // a String takes everything
        }
        let _ = write!(header, "; hops={}; deadline={}", self.hops, self.deadline);
        header
    }

    /// Reads the header's value: exactly what [`Passage::header`] writes.
    pub fn parse(header: &[u8]) -> Result<Passage, PassageError> {
        Passage::read(header).ok_or(PassageError)
    }

    fn read(header: &[u8]) -> Option<Passage> {
        let text = str::from_utf8(header).ok()?.strip_prefix("tree; id=")?;
        let (id, text) = text.split_once("; hops=")?;
        let (hops, deadline) = text.split_once("; deadline=")?;
        let passage = Passage {
            id: CastId(hex(id)?),
            hops: number(hops, u32::from(HOPS_MAX))? as u8,
            deadline: number(deadline, TIME_MAX)?,
        };
        (passage.header().as_bytes() == header).then_some(passage)
    }
}

/// What the next node down gets of the time that is left; None where it is too little.
pub fn share(left: u32) -> Option<u32> {
    left.checked_sub(left / 10 + MARGIN).filter(|share| *share > 0)
}

fn hex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

fn number(text: &str, most: u32) -> Option<u32> {
    text.parse().ok().filter(|number| (1..=most).contains(number))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Here<'_> = Here {
        node: "10.0.0.1:80",
        workers: &[(WorkerId(0), Some(8010)), (WorkerId(1), None)],
        router: Some(WorkerId(1)),
        superior: Some("10.0.0.9:80"),
        clients: &["10.0.0.2:80", "[::1]:90"],
    };

    fn shown(direction: Direction, here: Here<'_>) -> Vec<(String, Option<u16>, Via)> {
        let targets = targets(direction, here).unwrap();
        targets
            .into_iter()
            .map(|target| (target.node.to_string(), target.port, target.via))
            .collect()
    }

    #[test]
    fn each_direction_has_its_targets() {
        let worker = |id, port| ("10.0.0.1:80".to_string(), port, Via::Worker(WorkerId(id)));
        let node = |name: &str, port, via| (name.to_string(), Some(port), via);
        assert_eq!(shown(Direction::Workers, HERE), [worker(0, Some(8010)), worker(1, None)]);
        assert_eq!(shown(Direction::Master, HERE), [worker(1, None)]);
        assert_eq!(shown(Direction::Super, HERE), [node("10.0.0.9:80", 80, Via::Node)]);
        assert_eq!(
            shown(Direction::Clients, HERE),
            [node("10.0.0.2:80", 80, Via::Node), node("[::1]:90", 90, Via::Node)]
        );
        assert_eq!(
            shown(Direction::Tree, HERE),
            [
                worker(0, Some(8010)),
                worker(1, None),
                node("10.0.0.2:80", 80, Via::Tree),
                node("[::1]:90", 90, Via::Tree)
            ]
        );
        let alone = Here { router: None, superior: None, clients: &[], ..HERE };
        assert_eq!(shown(Direction::Super, alone), []);
        assert_eq!(shown(Direction::Clients, alone), []);
        assert_eq!(targets(Direction::Master, alone), Err(NoRouter));
    }

    #[test]
    fn directions_are_read() {
        use Direction::*;
        for direction in [Workers, Clients, Super, Master, Tree] {
            assert_eq!(Direction::parse(direction.name().as_bytes()), Ok(direction));
        }
        let error = Direction::parse(b"all\n").unwrap_err().to_string();
        assert!(error.starts_with("unknown direction \"all?\": it is \"workers\""), "{error}");
    }

    #[test]
    fn a_cast_goes_down_sixteen_steps_and_each_has_less_time() {
        let mut passage = Passage::first(CastId([7; 16]), 1_000_000).unwrap();
        let mut hops = 1;
        assert_eq!((passage.hops, passage.deadline), (1, 899_980));
        loop {
            match passage.next(passage.deadline) {
                Ok(next) => {
                    assert!(next.deadline < passage.deadline);
                    (passage, hops) = (next, hops + 1);
                }
                Err(stop) => break assert_eq!(stop, Stop::Hops),
            }
        }
        assert_eq!(hops, HOPS_MAX);
        assert_eq!(Passage::first(CastId([7; 16]), 22), Err(Stop::Time));
        assert_eq!(share(23), Some(1));
        assert_eq!(share(0), None);
    }

    #[test]
    fn the_header_is_read_strictly() {
        let passage = Passage { id: CastId([0xab; 16]), hops: 3, deadline: 1800 };
        let header = "tree; id=abababababababababababababababab; hops=3; deadline=1800";
        assert_eq!(passage.header(), header);
        assert_eq!(Passage::parse(header.as_bytes()), Ok(passage));
        for (from, to) in [
            ("tree", "workers"),
            ("hops=3", "hops=03"),
            ("hops=3", "hops=17"),
            ("hops=3", "hops=0"),
            ("hops=3", "hops=+3"),
            ("1800", "1800 "),
            ("1800", "3600001"),
            ("1800", ""),
            ("=ab", "=AB"),
            ("=ab", "=zz"),
            ("=ab", "="),
            ("; hops", ";hops"),
        ] {
            assert!(
                Passage::parse(header.replacen(from, to, 1).as_bytes()).is_err(),
                "{from} {to}"
            );
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id in any::<[u8; 16]>(), hops in 1..=HOPS_MAX, deadline in 1..=TIME_MAX) {
            let passage = Passage { id: CastId(id), hops, deadline };
            prop_assert_eq!(Passage::parse(passage.header().as_bytes()), Ok(passage));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..100), text in "tree; id=[0-9a-f]{30,34}; hops=[0-9]{0,12}; deadline=[0-9]{0,12}") {
            let _ = (Passage::parse(&bytes), Passage::parse(text.as_bytes()), Direction::parse(&bytes));
        }
    }
}
