//! What nodes say to each other about their membership, as JSON. Unknown fields are ignored, so that
//! nodes of different versions understand each other; every length is bounded.

use serde::{Deserialize, Serialize};

use super::standing::ADDRESS_MAX;

/// Longest message, in bytes.
pub const MESSAGE_MAX: usize = 16 << 10;
/// Most nodes in a path, or in a list of other supers.
pub const PATH_MAX: usize = 48;

/// What a node asks another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Request {
    /// Take me as your client.
    #[serde(rename = "JOIN")]
    Join {
        /// Who asks: the address of its hub.
        id: String,
        /// Which of its lives.
        epoch: u64,
        /// Grows with each message of that life.
        seq: u64,
        /// The address that it called.
        to: String,
        /// Nodes of its subtree, itself included.
        #[serde(default = "one")]
        subtree: u32,
    },
    /// I am here.
    #[serde(rename = "HB")]
    Beat {
        /// As in a JOIN.
        id: String,
        /// As in a JOIN.
        epoch: u64,
        /// As in a JOIN.
        seq: u64,
        /// As in a JOIN.
        #[serde(default = "one")]
        subtree: u32,
        /// A fingerprint of the path that it knows.
        #[serde(default)]
        path: u64,
        /// The transfer that it could not follow, and why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        refused: Option<(u64, Reason)>,
    },
    /// I am no longer your client.
    #[serde(rename = "LEAVE")]
    Leave {
        /// As in a JOIN.
        id: String,
        /// As in a JOIN.
        epoch: u64,
        /// As in a JOIN.
        seq: u64,
    },
    /// Go to another super: sent to a client.
    #[serde(rename = "MOVE")]
    Move {
        /// Who says so.
        id: String,
        /// Where to.
        to: String,
        /// The transfer's number.
        transfer: u64,
    },
    /// Are you who somebody says to be? Sent to a learned address before it is believed.
    #[serde(rename = "DIAL")]
    Dial {
        /// Who asks.
        id: String,
        /// The address by which this node was asked to take the other; none where it was not asked.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Must come back.
        nonce: u64,
    },
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub enum Answer {
    /// You are my client.
    #[serde(rename = "JOIN_OK")]
    Joined {
        /// The super.
        id: String,
        /// Which of its lives.
        epoch: u64,
        /// From the root to the super.
        path: Vec<String>,
        /// How often it wants to hear its client, in milliseconds.
        heartbeat: u64,
    },
    /// No.
    #[serde(rename = "DENY")]
    Deny {
        /// Why.
        reason: Reason,
        /// Who may say yes.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        redirect: Vec<String>,
    },
    /// I have heard you.
    #[serde(rename = "HB_OK")]
    Heard {
        /// The super.
        id: String,
        /// Which of its lives.
        epoch: u64,
        /// From the root to the super, where it is not the one that the client knows.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<Vec<String>>,
    },
    /// I have heard you; go to another super.
    #[serde(rename = "MOVE")]
    Move {
        /// Where to.
        to: String,
        /// The transfer's number.
        transfer: u64,
    },
    /// You are not my client: JOIN.
    #[serde(rename = "UNKNOWN")]
    Unknown,
    /// Done, or being done.
    #[serde(rename = "OK")]
    Ok,
    /// I am.
    #[serde(rename = "DIAL_OK")]
    Dialled {
        /// Who it is.
        id: String,
        /// Which of its lives.
        epoch: u64,
        /// As it was asked.
        nonce: u64,
    },
}

/// Why a node says no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The asking node is above the asked one, or the same.
    #[error("it would close a loop")]
    Loop,
    /// No more clients.
    #[error("it has as many clients as it may have")]
    Full,
    /// The tree would become too deep.
    #[error("the tree would be too deep")]
    Depth,
    /// A later life of the asking node is known.
    #[error("a later life of the node is known")]
    StaleEpoch,
    /// The address is not one that may be used.
    #[error("the address is not allowed")]
    NotAllowed,
    /// The address did not answer, or another node did.
    #[error("the dial-back failed")]
    DialBack,
    /// Too much at once; later perhaps.
    #[error("busy")]
    Busy,
    /// The asked node leaves the channel.
    #[error("it leaves the channel")]
    Leaving,
    /// The asked node did not ask for that.
    #[error("it has not asked for that")]
    NotAsked,
    /// The other did not answer.
    #[error("no answer")]
    NoAnswer,
    /// The super does not know this node, any more.
    #[error("it has forgotten this node")]
    Forgotten,
    /// One that this version does not know.
    #[error("for a reason that this version does not know")]
    #[serde(other)]
    Other,
}

/// Not a message, or longer than one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a membership message")]
pub struct Malformed;

fn one() -> u32 {
    1
}

fn short(address: &str) -> bool {
    !address.is_empty()
        && address.len() <= ADDRESS_MAX
        && address.bytes().all(|byte| byte.is_ascii_graphic())
}

fn few(addresses: &[String]) -> bool {
    addresses.len() <= PATH_MAX && addresses.iter().all(|address| short(address))
}

impl Request {
    /// Reads a request; nothing in it is longer than it may be.
    pub fn parse(body: &[u8]) -> Result<Request, Malformed> {
        if body.len() > MESSAGE_MAX {
            return Err(Malformed);
        }
        let request: Request = serde_json::from_slice(body).map_err(|_| Malformed)?;
        let bounded = match &request {
            Request::Join { id, to, .. } | Request::Move { id, to, .. } => short(id) && short(to),
            Request::Beat { id, .. } | Request::Leave { id, .. } => short(id),
            Request::Dial { id, to, .. } => short(id) && to.as_deref().is_none_or(short),
        };
        bounded.then_some(request).ok_or(Malformed)
    }

    /// The node that says to have sent it.
    pub fn sender(&self) -> &str {
        match self {
            Request::Join { id, .. }
            | Request::Beat { id, .. }
            | Request::Leave { id, .. }
            | Request::Move { id, .. }
            | Request::Dial { id, .. } => id,
        }
    }

    /// As a body.
    pub fn to_json(&self) -> String {
        // of strings and numbers only, which always can be written
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl Answer {
    /// Reads an answer; nothing in it is longer than it may be.
    pub fn parse(body: &[u8]) -> Result<Answer, Malformed> {
        if body.len() > MESSAGE_MAX {
            return Err(Malformed);
        }
        let answer: Answer = serde_json::from_slice(body).map_err(|_| Malformed)?;
        let bounded = match &answer {
            Answer::Joined { id, path, .. } => short(id) && few(path),
            Answer::Heard { id, path, .. } => short(id) && path.as_deref().is_none_or(few),
            Answer::Deny { redirect, .. } => few(redirect),
            Answer::Move { to: address, .. } | Answer::Dialled { id: address, .. } => {
                short(address)
            }
            Answer::Unknown | Answer::Ok => true,
        };
        bounded.then_some(answer).ok_or(Malformed)
    }

    /// As a body.
    pub fn to_json(&self) -> String {
        // of strings and numbers only, which always can be written
        serde_json::to_string(self).unwrap_or_default()
    }

    /// A refusal without redirects.
    pub(super) fn deny(reason: Reason) -> Answer {
        Answer::Deny { reason, redirect: Vec::new() }
    }
}
