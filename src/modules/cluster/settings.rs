//! What http{} says of the cluster: channels, this node's address, its supers, whom it believes.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::ngx::conf::{Conf, ConfError, ConfResult, Line, shown};
use crate::ngx::log::Level;
use crate::proto::cluster::action::check_channel;
use crate::proto::cluster::allow::{self, Address, AllowList};
use crate::proto::cluster::membership::HEARTBEAT_RANGE;
use crate::proto::cluster::secret::{SecretError, Secrets};
use crate::shm::nodes::CHANNELS;

/// Most supers of a node or a channel.
const SUPERS_MAX: usize = 16;
/// Name of a cluster that has none.
const CLUSTER: &str = "cc";
/// Longest name of a cluster, in bytes.
const CLUSTER_MAX: usize = 64;

/// The conf of http{}.
#[derive(Default)]
pub struct Settings {
    channels: Vec<Channel>,
    node: Option<SocketAddr>,
    supers: Vec<SocketAddr>,
    allow: Option<AllowList>,
    secrets: Option<Secrets>,
    cluster: Option<String>,
    /// What locations serve, to be looked at when all is read.
    pub(super) seen: Seen,
    /// This node's name among nodes, once all is read.
    name: String,
}

/// What the locations have that only the whole configuration can judge.
#[derive(Default)]
pub(super) struct Seen {
    /// Servers with a hub, and where the first one stands.
    pub hubs: Vec<(usize, Line)>,
    /// Channels that locations name.
    pub channels: Vec<(String, &'static str, Line)>,
}

/// A channel that the configuration declares.
pub struct Channel {
    /// See there.
    pub name: String,
    /// Its own super, instead of the node's.
    pub superior: Option<SocketAddr>,
    /// Milliseconds of each step of a call, instead of the location's.
    pub timeout: Option<usize>,
    /// Milliseconds between two heartbeats.
    pub heartbeat: Option<usize>,
}

impl Settings {
    /// The channel of that name.
    pub fn channel(&self, name: &[u8]) -> Option<&Channel> {
        self.channels.iter().find(|channel| channel.name.as_bytes() == name)
    }

    /// All that are declared.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The address under which other nodes reach this one's hub.
    pub fn node(&self) -> &str {
        &self.name
    }

    /// Whether `cc_node` says it.
    pub fn is_named(&self) -> bool {
        self.node.is_some()
    }

    /// The supers of that channel, in their order; none at a root.
    pub fn supers(&self, channel: &[u8]) -> &[SocketAddr] {
        match self.channel(channel) {
            Some(Channel { superior: Some(one), .. }) => std::slice::from_ref(one),
            _ => &self.supers,
        }
    }

    /// Where addresses that others give may point.
    pub fn allowed(&self) -> AllowList {
        let own = self.channels.iter().filter_map(|channel| channel.superior.as_ref());
        let usual = || AllowList::usual(self.supers.iter().chain(own).map(SocketAddr::ip));
        self.allow.clone().unwrap_or_else(usual)
    }

    /// What nodes sign with.
    pub fn secrets(&self) -> Option<&Secrets> {
        self.secrets.as_ref()
    }

    /// Which cluster this node is part of.
    pub fn cluster(&self) -> &str {
        self.cluster.as_deref().unwrap_or(CLUSTER)
    }

    /// All of http{} is read: `hub` is the first plain port of the first server with a hub.
    pub fn finish(&mut self, cf: &Conf<'_>, hub: Option<u16>, lua: bool) -> ConfResult {
        let unknown = |(name, ..): &&(String, &str, Line)| self.channel(name.as_bytes()).is_none();
        if let Some((name, directive, line)) = self.seen.channels.iter().find(unknown)
            && !lua
        {
            return Err(cf.wrong(line, &format!("unknown channel \"{name}\" in \"{directive}\"")));
        }
        self.name = match self.node {
            Some(node) => node.to_string(),
            None => format!("127.0.0.1:{}", hub.unwrap_or(allow::PORT)),
        };
        Ok(())
    }
}

/// `cc_channel`.
pub fn cc_channel(cf: &mut Conf<'_>, settings: &mut Settings) -> ConfResult {
    let name = cf.arg(1).unwrap_or_default();
    check_channel(name).map_err(|why| format!("channel name \"{}\" {why}", shown(name)))?;
    if settings.channel(name).is_some() {
        return Err(format!("duplicate channel \"{}\"", shown(name)).into());
    }
    if settings.channels.len() >= CHANNELS {
        return Err(format!("more than {CHANNELS} channels").into());
    }
    let name = shown(name).into_owned();
    let mut channel = Channel { name, superior: None, timeout: None, heartbeat: None };
    for word in cf.args().skip(2) {
        let invalid = || ConfError::Message(format!("invalid parameter \"{}\"", shown(word)));
        let mut parts = word.splitn(2, |byte| *byte == b'=');
        let (option, value) = (parts.next().unwrap_or_default(), parts.next().ok_or_else(invalid)?);
        let time = || Conf::milliseconds(value).filter(|time| *time > 0).ok_or_else(invalid);
        let again = match option {
            b"super" => channel.superior.replace(resolved(value, "cc_channel")?).is_some(),
            b"timeout" => channel.timeout.replace(time()?).is_some(),
            b"heartbeat" => {
                let heartbeat = time()?;
                let (least, most) = HEARTBEAT_RANGE.into_inner();
                if !HEARTBEAT_RANGE.contains(&(heartbeat as u64)) {
                    let why = format!("\"{}\" is not from {least}ms to {most}ms", shown(word));
                    return Err(why.into());
                }
                channel.heartbeat.replace(heartbeat).is_some()
            }
            _ => return Err(invalid()),
        };
        if again {
            return Err(format!("duplicate parameter \"{}\"", shown(word)).into());
        }
    }
    settings.channels.push(channel);
    Ok(())
}

/// `cc_node`.
pub fn cc_node(cf: &mut Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(settings.node.is_some())?;
    settings.node = Some(resolved(cf.arg(1).unwrap_or_default(), "cc_node")?);
    Ok(())
}

/// `cc_super`.
pub fn cc_super(cf: &mut Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(!settings.supers.is_empty())?;
    for word in cf.args().skip(1) {
        let address = resolved(word, "cc_super")?;
        if settings.supers.contains(&address) {
            return Err(format!("duplicate super \"{}\"", shown(word)).into());
        }
        if settings.supers.len() >= SUPERS_MAX {
            return Err(format!("more than {SUPERS_MAX} supers").into());
        }
        settings.supers.push(address);
    }
    Ok(())
}

/// `cc_allow_node`.
pub fn cc_allow_node(cf: &mut Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(settings.allow.is_some())?;
    let mut list = AllowList::default();
    for word in cf.args().skip(1) {
        if !list.add(word) {
            return Err(format!("invalid network \"{}\"", shown(word)).into());
        }
    }
    settings.allow = Some(list);
    Ok(())
}

/// Of a file's mode.
const OTHERS_READ: u32 = 0o004;

/// `cc_secret_file`.
pub fn cc_secret_file(cf: &mut Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(settings.secrets.is_some())?;
    let name = cf.arg(1).unwrap_or_default();
    let (text, mode) = cf.file(name)?;
    let secrets = Secrets::parse(&text);
    let wrong = |why: SecretError| format!("secret file \"{}\" {why}", shown(name));
    settings.secrets = Some(secrets.map_err(wrong)?);
    if mode & OTHERS_READ != 0 {
        let file = shown(name);
        let why = "all users of this machine can read it";
        cf.log(Level::Warn, format_args!("secret file \"{file}\" has mode {mode:04o}: {why}"));
    }
    Ok(())
}

/// `cc_cluster`.
pub fn cc_cluster(cf: &mut Conf<'_>, settings: &mut Settings) -> ConfResult {
    once(settings.cluster.is_some())?;
    let word = cf.arg(1).unwrap_or_default();
    let fits = (1..=CLUSTER_MAX).contains(&word.len()) && word.iter().all(u8::is_ascii_graphic);
    if !fits {
        return Err(format!("invalid value \"{}\"", shown(word)).into());
    }
    settings.cluster = Some(shown(word).into_owned());
    Ok(())
}

pub(super) fn once(set: bool) -> ConfResult {
    if set { Err(ConfError::Directive(c"is duplicate")) } else { Ok(()) }
}

/// A node's address; names are looked up now, as nginx does it.
fn resolved(text: &[u8], directive: &str) -> Result<SocketAddr, ConfError> {
    let refused = |why: &str| {
        ConfError::Message(format!("{why} in \"{}\" of the \"{directive}\" directive", shown(text)))
    };
    match allow::configured(text) {
        Ok(Address::Inet(address)) => Ok(address),
        Ok(Address::Name(name, port)) => {
            let found: Vec<_> =
                (name, port).to_socket_addrs().map(Iterator::collect).unwrap_or_default();
            let v4 = found.iter().find(|address| address.is_ipv4());
            v4.or(found.first()).copied().ok_or_else(|| refused("host not found"))
        }
        Ok(Address::Unix(_)) => Err(refused("not an address of the form HOST:PORT")),
        Err(why) => Err(refused(&why.to_string())),
    }
}
