//! What a node is in one channel, as plain data: what the router keeps in the zone (`shm::nodes`)
//! for the other workers to read, and for the next router to go on from.

/// Longest address of a super, in bytes: the user may write a name.
pub const ADDRESS_MAX: usize = 255;
/// Longest address of a client: such are learned, and an address with a port is shorter.
pub const CLIENT_ADDRESS_MAX: usize = 64;

/// What this node is doing about its super.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// It has none and wants none.
    #[default]
    Root,
    /// It found none that takes it and waits for the next try. Root of its own clients meanwhile.
    Detached,
    /// It is asking one. Root of its own clients meanwhile.
    Joining,
    /// It has one.
    Joined,
    /// It was told to leave the channel, and takes no clients.
    Left,
}

impl Place {
    /// Whether the node is the root of its clients for want of a super.
    pub fn is_orphan(self) -> bool {
        matches!(self, Place::Detached | Place::Joining)
    }
}

/// The super of a node that has joined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Super {
    /// Its address, as this node calls it.
    pub address: String,
    /// The epoch it answered with.
    pub epoch: u64,
    /// Its place in the list of preferred ones; None where it is a node that was only learned.
    pub index: Option<u16>,
}

/// A node in one channel, without its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// See [`Place`].
    pub place: Place,
    /// The super, where it has one.
    pub above: Option<Super>,
    /// The super that a transfer gave it, before all that are configured.
    pub moved: Option<String>,
    /// A fingerprint of the configured supers: a transfer holds until they change.
    pub listed: u64,
    /// Where this node is being transferred to.
    pub pending: Option<String>,
    /// Where clients are being transferred to ([`Client::moving`]), and the transfer's number.
    pub moving: Option<(String, u64)>,
}

/// Whether a client is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It was heard lately.
    #[default]
    Alive,
    /// It has been silent for longer than it may; casts still try it.
    Suspect,
}

/// A client of this node in one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Where its hub is reached; its name, too.
    pub address: String,
    /// Its epoch: another one is another life of the node.
    pub epoch: u64,
    /// The number of its last message.
    pub sequence: u64,
    /// When it was last heard, in monotonic milliseconds.
    pub heard: u64,
    /// See [`Health`].
    pub health: Health,
    /// Nodes of its subtree, itself included.
    pub subtree: u32,
    /// It was only reported (`reportHubPort`), and does not beat.
    pub reported: bool,
    /// It is being transferred.
    pub moving: bool,
}

/// All of a channel, for the router that goes on from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The node.
    pub standing: Standing,
    /// Its clients.
    pub clients: Vec<Client>,
}
