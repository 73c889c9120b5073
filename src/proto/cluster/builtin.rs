//! The actions that every channel has: their names, which of them change the cluster and so need
//! proof of who asks, and what their arguments must be.

use std::net::{IpAddr, SocketAddr};

use super::allow::{self, AddressError};
use super::query;
use crate::proto::ipc::Pid;

/// A built-in action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// What there is of workers and nodes.
    GetServiceStat,
    /// Another super for this node.
    TransferServer,
    /// A message of the membership, or the proof that this node is where it says.
    Heartbeat,
    /// A node tells its super where its hub is.
    ReportHubPort,
    /// A node tells of a client of its own.
    ReportClient,
    /// A worker tells the router of itself.
    RegisterWorker,
    /// Somebody could not reach a worker.
    InvalidWorker,
    /// Somebody could not reach a client.
    InvalidClient,
}

use BuiltIn::*;

/// All of them.
pub const ALL: [BuiltIn; 8] = [
    GetServiceStat,
    TransferServer,
    Heartbeat,
    ReportHubPort,
    ReportClient,
    RegisterWorker,
    InvalidWorker,
    InvalidClient,
];

impl BuiltIn {
    /// As a query has it.
    pub fn name(self) -> &'static str {
        match self {
            GetServiceStat => "getServiceStat",
            TransferServer => "transferServer",
            Heartbeat => "heartbeat",
            ReportHubPort => "reportHubPort",
            ReportClient => "reportClient",
            RegisterWorker => "registerWorker",
            InvalidWorker => "invalidWorker",
            InvalidClient => "invalidClient",
        }
    }

    /// The one of that name.
    pub fn named(name: &[u8]) -> Option<BuiltIn> {
        ALL.into_iter().find(|action| action.name().as_bytes() == name)
    }

    /// Whether it changes the cluster: such a call must be proven, and runs in the router.
    pub fn changes_state(self) -> bool {
        self != GetServiceStat
    }

    /// Whether it can be sent to several at once. The others are between two nodes.
    pub fn may_be_cast(self) -> bool {
        matches!(self, GetServiceStat | TransferServer)
    }
}

/// A built-in with its arguments, checked. Whether an address may be used, `allow` decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// With the clients' state, or of this node alone.
    Stat {
        /// `selfOnly`.
        self_only: bool,
    },
    /// To this super.
    Transfer(SocketAddr),
    /// The argument is the nonce of a dial-back, or empty: then the body is the message.
    Heartbeat(Vec<u8>),
    /// A node's hub, at the address that the call came from.
    HubAt(SocketAddr),
    /// A client's port, at the address that the call came from.
    ClientAt(SocketAddr),
    /// A worker's port and process.
    Worker(u16, Pid),
    /// A worker's port.
    BadWorker(u16),
    /// A client's hub.
    BadClient(SocketAddr),
    /// The original took an empty port for nothing to do, and so it is.
    Nothing,
}

/// Why a built-in's arguments are refused, with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// See there.
    #[error("{0}: {1}")]
    Address(&'static str, AddressError),
    /// registerWorker.
    #[error("registerWorker: needs pid=N")]
    Pid,
    /// The caller is on a Unix socket.
    #[error("{0}: the caller has no IP address")]
    Caller(&'static str),
    /// heartbeat.
    #[error("heartbeat: invalid nonce")]
    Nonce,
}

/// Longest nonce of a dial-back, in bytes.
pub const NONCE_MAX: usize = 64;

/// Reads the arguments of `action`. `caller` is the address of the connection's other end, where it
/// has one.
pub fn command(
    action: BuiltIn,
    query: &[u8],
    caller: Option<IpAddr>,
) -> Result<Command, CommandError> {
    let name = action.name();
    let arg = query::find(query, name.as_bytes());
    let value = arg.as_ref().map(|arg| arg.value.text()).unwrap_or_default();
    let wrong = |error| CommandError::Address(name, error);
    let at = |port: u16| {
        let ip = caller.ok_or(CommandError::Caller(name))?;
        Ok(SocketAddr::new(ip.to_canonical(), port))
    };
    Ok(match action {
        GetServiceStat => Command::Stat { self_only: query::find(query, b"selfOnly").is_some() },
        TransferServer => Command::Transfer(allow::learned(value).map_err(wrong)?),
        Heartbeat => Command::Heartbeat(nonce(value)?),
        ReportHubPort if value.is_empty() => Command::HubAt(at(allow::PORT)?),
        ReportHubPort => Command::HubAt(at(allow::port(value).map_err(wrong)?)?),
        ReportClient if value.is_empty() => Command::Nothing,
        ReportClient => Command::ClientAt(at(allow::port(value).map_err(wrong)?)?),
        RegisterWorker => Command::Worker(allow::port(value).map_err(wrong)?, pid(query)?),
        InvalidWorker => Command::BadWorker(allow::port(value).map_err(wrong)?),
        InvalidClient => Command::BadClient(allow::learned(value).map_err(wrong)?),
    })
}

fn nonce(value: &[u8]) -> Result<Vec<u8>, CommandError> {
    let fits = value.len() <= NONCE_MAX && value.iter().all(u8::is_ascii_alphanumeric);
    fits.then(|| value.to_vec()).ok_or(CommandError::Nonce)
}

fn pid(query: &[u8]) -> Result<Pid, CommandError> {
    let arg = query::find(query, b"pid").ok_or(CommandError::Pid)?;
    let text = std::str::from_utf8(arg.value.text()).map_err(|_| CommandError::Pid)?;
    let number = text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    number.filter(|pid| (1..=i32::MAX as u32).contains(pid)).map(Pid).ok_or(CommandError::Pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(query: &str) -> Result<Command, CommandError> {
        let action =
            super::super::action::first(query.as_bytes(), |name| BuiltIn::named(name).is_some());
        let action = BuiltIn::named(&action.unwrap().name).unwrap();
        command(action, query.as_bytes(), Some("10.0.0.9".parse().unwrap()))
    }

    #[test]
    fn only_the_statistics_are_open() {
        let open: Vec<_> = ALL.into_iter().filter(|action| !action.changes_state()).collect();
        assert_eq!(open, [GetServiceStat]);
        for action in ALL {
            assert_eq!(BuiltIn::named(action.name().as_bytes()), Some(action));
        }
        for other in ["setWorker", "getservicestat", ""] {
            assert_eq!(BuiltIn::named(other.as_bytes()), None);
        }
    }

    #[test]
    fn arguments_are_read() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(of("getServiceStat"), Ok(Command::Stat { self_only: false }));
        assert_eq!(of("getServiceStat&selfOnly=1"), Ok(Command::Stat { self_only: true }));
        assert_eq!(of("transferServer=10.0.0.2:90"), Ok(Command::Transfer(at("10.0.0.2:90"))));
        assert_eq!(of("transferServer=10.0.0.2"), Ok(Command::Transfer(at("10.0.0.2:80"))));
        assert_eq!(of("transferServer=10.0.0.2%3A90"), Ok(Command::Transfer(at("10.0.0.2:90"))));
        assert_eq!(of("reportHubPort=90"), Ok(Command::HubAt(at("10.0.0.9:90"))));
        assert_eq!(of("reportHubPort="), Ok(Command::HubAt(at("10.0.0.9:80"))));
        assert_eq!(of("reportClient="), Ok(Command::Nothing));
        assert_eq!(of("reportClient=90"), Ok(Command::ClientAt(at("10.0.0.9:90"))));
        assert_eq!(of("registerWorker=8011&pid=77"), Ok(Command::Worker(8011, Pid(77))));
        assert_eq!(of("invalidWorker=8011"), Ok(Command::BadWorker(8011)));
        assert_eq!(of("invalidClient=10.0.0.3:90"), Ok(Command::BadClient(at("10.0.0.3:90"))));
        assert_eq!(of("heartbeat"), Ok(Command::Heartbeat(vec![])));
        assert_eq!(of("heartbeat=aF09"), Ok(Command::Heartbeat(b"aF09".to_vec())));
    }

    #[test]
    fn bad_values_are_refused_in_words() {
        for (query, reason) in [
            ("transferServer", "transferServer: not an address of the form HOST:PORT"),
            ("transferServer=", "transferServer: not an address of the form HOST:PORT"),
            ("transferServer=localhost:80", "transferServer: the host must be an IP address"),
            ("transferServer=10.0.0.2:", "transferServer: the port must be between 1 and 65535"),
            ("reportHubPort=abc,1.2.3.4:5", "reportHubPort: the port must be between 1 and 65535"),
            ("reportHubPort=0", "reportHubPort: the port must be between 1 and 65535"),
            ("registerWorker=80", "registerWorker: needs pid=N"),
            ("registerWorker=80&pid=-1", "registerWorker: needs pid=N"),
            ("registerWorker=80&pid=+1", "registerWorker: needs pid=N"),
            ("registerWorker=80&pid=0", "registerWorker: needs pid=N"),
            ("heartbeat=a-b", "heartbeat: invalid nonce"),
        ] {
            assert_eq!(of(query).unwrap_err().to_string(), reason, "{query}");
        }
        let unix = command(ReportHubPort, b"reportHubPort=90", None);
        assert_eq!(unix, Err(CommandError::Caller("reportHubPort")));
    }

    proptest! {
        #[test]
        fn any_query_is_a_command_or_an_error(query in prop::collection::vec(any::<u8>(), 0..100)) {
            for action in ALL {
                let full = [action.name().as_bytes(), b"=", &query].concat();
                let _ = command(action, &full, None);
                let _ = command(action, &query, Some("::1".parse().unwrap()));
            }
        }
    }
}
