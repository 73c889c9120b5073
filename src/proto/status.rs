//! The node as `cc_status` shows it: plain data, gathered by `modules::status` from the shared zone.
//! Its fields are the JSON, under the names that the README documents; `prometheus` writes the same
//! as metrics, `format` decides which of them a request gets.

pub mod format;
pub mod prometheus;

use std::rc::Rc;

use serde::{Serialize, Serializer};

/// The node.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Status {
    /// The address of its hub.
    pub node: String,
    /// This module's.
    pub version: &'static str,
    /// nginx's.
    pub nginx: String,
    /// When this was gathered, in ms since 1970.
    pub time: u64,
    /// The worker that gathered it.
    pub worker: u16,
    /// The one in force.
    pub generation: u32,
    /// The router's worker id.
    pub router: Option<u16>,
    /// The leader's worker id.
    pub leader: Option<u16>,
    /// Whether every worker of the generation in force is ready.
    pub ready: bool,
    /// The first reason why not.
    pub reason: Option<String>,
    /// See there.
    pub workers: Vec<Worker>,
    /// Messages between workers.
    pub ipc: Ipc,
    /// Retained values.
    pub retained: Retained,
    /// The nodes around this one.
    pub nodes: Nodes,
    /// See there.
    pub channels: Vec<Channel>,
    /// See there.
    pub lifecycle: Lifecycle,
    /// See there.
    pub balancer: Balancer,
    /// Requests and calls that were refused, by what they were for.
    #[serde(serialize_with = "as_map")]
    pub refused: Vec<(&'static str, u64)>,
    /// The shared zone.
    pub zone: Zone,
}

/// A worker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Worker {
    /// Its number.
    pub id: u16,
    /// Its process.
    pub pid: u32,
    /// Its generation.
    pub generation: u32,
    /// `starting`, `live`, `retiring`, `dead`, `given up`.
    pub state: &'static str,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// Why not, as it says.
    pub reason: Option<String>,
    /// Its first per_worker port.
    pub port: Option<u16>,
    /// When it started, in ms since 1970.
    pub started: Option<u64>,
    /// Why it started.
    pub why: Option<&'static str>,
    /// Crashes in its seat since anybody in it was ready.
    pub crashes: u64,
    /// How the one before it in its seat ended, or this one where it is dead.
    pub ended: Option<String>,
    /// Messages that it holds for receivers that do not keep up.
    pub queued: u64,
    /// Bytes in the rings to it that it has not taken.
    pub inbox: Option<u64>,
    /// What this process has counted.
    #[serde(flatten)]
    pub counters: Counters,
    /// The last sequence number that it has seen of each retained name it listens to.
    #[serde(serialize_with = "as_map")]
    pub seen: Vec<(Rc<str>, u64)>,
}

/// Messages, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Accepted, once for each receiver.
    pub sent: u64,
    /// Handed to handlers.
    pub received: u64,
    /// Refused, since a queue was full.
    pub full: u64,
    /// Nobody handles that name.
    pub unhandled: u64,
    /// The handler failed.
    pub failed: u64,
    /// For a process that was gone.
    pub stranger: u64,
    /// Lost with a worker.
    pub lost: u64,
    /// Replies that came too late.
    pub late: u64,
}

/// Messages between workers: the counters of all, past ones included, since the zone began.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Ipc {
    /// `ring` or `socket`.
    pub transport: &'static str,
    /// Of all.
    #[serde(flatten)]
    pub total: Counters,
    /// Messages on their way or held: sent, and not yet received, dropped or lost.
    pub waiting: u64,
    /// Of those, held by their senders.
    pub queued: u64,
    /// Most bytes that may wait for one receiver at one sender.
    pub queue: u64,
    /// Longest message, bytes.
    pub max_message: u64,
    /// Bytes of one ring; 0 with the socket transport.
    pub ring: u64,
    /// Bytes of all rings of the generation.
    pub memory: u64,
    /// Messages refused to their senders, but for those of `full`, by why.
    #[serde(serialize_with = "as_map")]
    pub refused: Vec<(&'static str, u64)>,
    /// How long messages took, of those that are timed.
    pub delivery: Histogram,
}

/// How many values were how large.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Histogram {
    /// All of them.
    pub count: u64,
    /// Together, in seconds.
    pub sum: f64,
    /// Those up to a bound, by rising bounds; the last has none.
    pub buckets: Vec<Bucket>,
}

/// Of a histogram.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Bucket {
    /// In seconds; none is without a bound.
    pub le: Option<f64>,
    /// Values up to there.
    pub count: u64,
}

impl Histogram {
    /// Of values counted one by one between these bounds and above, all in microseconds.
    pub fn of(bounds: &[u64], counts: &[u64], sum: u64) -> Histogram {
        let seconds = |micros: u64| micros as f64 / 1e6;
        let mut count = 0u64;
        let bounds = bounds.iter().map(|bound| Some(seconds(*bound))).chain([None]);
        let buckets = bounds.zip(counts).map(|(le, values)| {
            count = count.wrapping_add(*values);
            Bucket { le, count }
        });
        let buckets = buckets.collect();
        Histogram { count, sum: seconds(sum), buckets }
    }
}

/// Retained values.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Retained {
    /// The last sequence number given out.
    pub sequence: u64,
    /// How many values there are.
    pub values: u64,
    /// Bytes in use.
    pub used: u64,
    /// Bytes that can be.
    pub size: u64,
    /// Names, each with the sequence number of its last change.
    pub names: Vec<Name>,
    /// Names that are not listed.
    pub more: u64,
}

/// A name of retained values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Name {
    /// It.
    pub name: String,
    /// Of its last change.
    pub sequence: u64,
}

/// The nodes around this one, in all channels.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Nodes {
    /// This node's life: grows with each start of its master.
    pub epoch: u64,
    /// How many clients there is room for.
    pub room: u64,
    /// The supers, one for each channel that has or wants one.
    #[serde(rename = "super")]
    pub supers: Vec<Super>,
    /// The clients, for each channel.
    pub clients: Vec<Client>,
    /// How long calls to other nodes took that were answered.
    pub calls: Histogram,
    /// Calls that came to nothing, by why.
    #[serde(serialize_with = "as_map")]
    pub failed: Vec<(&'static str, u64)>,
}

/// This node's super in a channel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Super {
    /// The channel.
    pub channel: String,
    /// Its address.
    pub address: String,
    /// `joined`, `joining`, `detached`.
    pub state: &'static str,
    /// Its life.
    pub epoch: Option<u64>,
}

/// A client of this node in a channel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Client {
    /// The channel.
    pub channel: String,
    /// Its address.
    pub address: String,
    /// `alive`, `suspect`, `moving`, `reported`.
    pub state: &'static str,
    /// How long ago it was heard last, in ms.
    pub heard: Option<u64>,
    /// Nodes of its subtree, itself included.
    pub nodes: u32,
    /// Its life.
    pub epoch: u64,
}

/// A channel.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Channel {
    /// Its name.
    pub name: String,
    /// Whether the configuration declares it.
    pub declared: bool,
    /// `root`, `detached`, `joining`, `joined`, `left`; none before the router has taken it up.
    pub state: Option<&'static str>,
    /// The super's address, where there is one.
    #[serde(rename = "super")]
    pub superior: Option<String>,
    /// How many clients.
    pub clients: u64,
    /// Nodes below this one.
    pub below: u64,
}

/// What happened to this node and its workers since the zone began.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Lifecycle {
    /// Why the configuration in force was loaded.
    pub load: Option<&'static str>,
    /// How often what happened, and when last.
    #[serde(flatten, serialize_with = "as_map")]
    pub counts: Vec<(&'static str, Count)>,
}

/// How often, and when last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How often.
    pub count: u64,
    /// In ms since 1970; none where it never happened.
    pub last: Option<u64>,
}

/// The balancer.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Balancer {
    /// Upstreams with `cc_balancer`.
    pub upstreams: Vec<Upstream>,
    /// Tries in them, by how they ended.
    #[serde(serialize_with = "as_map")]
    pub tries: Vec<(&'static str, u64)>,
}

/// An upstream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Upstream {
    /// Its name.
    pub name: String,
    /// Where its peers come from: `workers`, `clients`, `list`, `variable`, `method`.
    pub source: &'static str,
    /// Those whose failures are counted, and those of a fixed list.
    pub peers: Vec<Peer>,
}

/// A peer of an upstream.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Peer {
    /// Its address.
    pub address: String,
    /// Failures that count now; none where they are not counted.
    pub fails: Option<u64>,
    /// Whether it is passed over.
    pub failed: bool,
}

/// The shared zone, in bytes.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Zone {
    /// `cc_zone`.
    pub size: u64,
    /// Tables and retained values.
    pub used: u64,
    /// Tables, of a fixed size.
    pub tables: u64,
}

fn as_map<N: AsRef<str>, V: Serialize, S: Serializer>(
    pairs: &[(N, V)],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_map(pairs.iter().map(|(name, value)| (name.as_ref(), value)))
}

/// As JSON.
pub fn json(status: &Status) -> Vec<u8> {
    let mut text = serde_json::to_vec(status).unwrap_or_default(); // its maps have texts for keys
    text.push(b'\n');
    text
}

/// The answer to whether all are ready: its status and body.
pub fn readiness(ready: &Result<(), String>) -> (u16, Vec<u8>) {
    #[derive(Serialize)]
    struct Ready<'a> {
        ready: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
    }
    let reason = ready.as_ref().err().map(String::as_str);
    let mut text =
        serde_json::to_vec(&Ready { ready: reason.is_none(), reason }).unwrap_or_default();
    text.push(b'\n');
    (if reason.is_none() { 200 } else { 503 }, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn names_in_the_json_are_those_that_are_documented() {
        let status = Status {
            node: "a\"b:80".into(),
            workers: vec![Worker { seen: vec![("x".into(), 7)], ..Worker::default() }],
            lifecycle: Lifecycle {
                load: Some("start"),
                counts: vec![("starts", Count { count: 1, last: Some(5) })],
            },
            ..Status::default()
        };
        let value: Value = serde_json::from_slice(&json(&status)).unwrap();
        assert_eq!(value["node"], "a\"b:80");
        assert_eq!(value["router"], Value::Null);
        assert_eq!(value["workers"][0]["sent"], 0);
        assert_eq!(value["workers"][0]["seen"]["x"], 7);
        assert_eq!(value["ipc"]["received"], 0);
        assert_eq!(value["lifecycle"]["starts"]["last"], 5);
        assert_eq!(value["nodes"]["super"], Value::Array(Vec::new()));
        assert_eq!(value["ipc"]["delivery"]["count"], 0);
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let of = Histogram::of(&[10, 1_000_000], &[1, 0, 2], 7_000_010);
        let bucket = |le, count| Bucket { le, count };
        let buckets = vec![bucket(Some(0.00001), 1), bucket(Some(1.0), 1), bucket(None, 3)];
        assert_eq!(of, Histogram { count: 3, sum: 7.00001, buckets });
    }

    #[test]
    fn readiness_says_why_not() {
        assert_eq!(readiness(&Ok(())), (200, b"{\"ready\":true}\n".to_vec()));
        let (status, body) = readiness(&Err("worker 1 has \"left\"".into()));
        assert_eq!(status, 503);
        assert_eq!(body, b"{\"ready\":false,\"reason\":\"worker 1 has \\\"left\\\"\"}\n");
    }
}
