//! The status as metrics, in Prometheus' text format 0.0.4. Names begin with `nginx_`, units are base
//! units, counters end in `_total`; a label is only what is bounded by the configuration, so neither
//! process ids nor generations are among them: what is said of a worker is said of the one of the
//! generation in force that has its number.

use std::fmt::{Display, Write};

use super::{Counters, Histogram, Status, Worker};

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";
const HISTOGRAM: &str = "histogram";

/// A text that grows by families.
#[derive(Default)]
struct Text(String);

impl Text {
    /// A metric's head; its samples must follow.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        // writing to a String does not fail
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { text: &mut self.0, name }
    }

    fn one(&mut self, name: &'static str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// Counts by one label.
    fn by(&mut self, name: &'static str, help: &str, label: &str, counts: &[(&'static str, u64)]) {
        let mut family = self.family(name, COUNTER, help);
        counts.iter().for_each(|(value, count)| family.sample(&[(label, value)], count));
    }

    fn histogram(&mut self, name: &'static str, help: &str, of: &Histogram) {
        let mut family = self.family(name, HISTOGRAM, help);
        for bucket in &of.buckets {
            let le = bucket.le.map_or_else(|| "+Inf".to_string(), |le| le.to_string());
            family.part("_bucket", &[("le", &le)], bucket.count);
        }
        family.part("_sum", &[], of.sum);
        family.part("_count", &[], of.count);
    }
}

struct Family<'t> {
    text: &'t mut String,
    name: &'static str,
}

impl Family<'_> {
    fn sample(&mut self, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.part("", labels, value);
    }

    /// A sample whose name goes on.
    fn part(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: impl Display) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        for (at, (name, value)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{name}=\"", if at == 0 { '{' } else { ',' });
            let _ = write!(Escaped(self.text), "{value}");
            self.text.push('"');
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    /// One for each worker.
    fn each<V: Display>(&mut self, workers: &[&Worker], value: impl Fn(&Worker) -> Option<V>) {
        for worker in workers {
            if let Some(value) = value(worker) {
                self.sample(&[("worker", &worker.id)], value);
            }
        }
    }
}

/// What is written to it becomes a label's value.
struct Escaped<'t>(&'t mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, value: &str) -> std::fmt::Result {
        const SPECIAL: [char; 3] = ['\\', '"', '\n'];
        for part in value.split_inclusive(SPECIAL) {
            let plain = part.strip_suffix(SPECIAL).unwrap_or(part);
            self.0.push_str(plain);
            match part.as_bytes().get(plain.len()) {
                Some(b'\n') => self.0.push_str("\\n"),
                Some(b'"') => self.0.push_str("\\\""),
                Some(_) => self.0.push_str("\\\\"),
                None => {}
            }
        }
        Ok(())
    }
}

/// Milliseconds as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

/// All of it.
pub fn text(status: &Status) -> Vec<u8> {
    let mut text = Text::default();
    workers(&mut text, status);
    messages(&mut text, status);
    lives(&mut text, status);
    tree(&mut text, status);
    balancer(&mut text, status);
    let zone = [("size", status.zone.size), ("used", status.zone.used)];
    let mut family = text.family("nginx_cc_zone_bytes", GAUGE, "The shared zone.");
    zone.iter().for_each(|(state, bytes)| family.sample(&[("state", state)], bytes));
    let labels: [(&str, &dyn Display); 3] =
        [("version", &status.version), ("nginx", &status.nginx), ("node", &status.node)];
    text.family("nginx_cc_info", GAUGE, "Versions, and the node's address.").sample(&labels, 1);
    text.0.into_bytes()
}

fn workers(text: &mut Text, status: &Status) {
    let now: Vec<&Worker> =
        status.workers.iter().filter(|worker| worker.generation == status.generation).collect();
    let up = |worker: &Worker| matches!(worker.state, "starting" | "live" | "retiring");
    let help = "Whether the worker of the generation in force runs.";
    text.family("nginx_worker_up", GAUGE, help).each(&now, |w| Some(u8::from(up(w))));
    text.family("nginx_worker_ready", GAUGE, "Whether it says that it is ready.")
        .each(&now, |w| Some(u8::from(w.ready)));
    text.family("nginx_worker_start_time_seconds", GAUGE, "When it started, since 1970.")
        .each(&now, |w| w.started.map(Seconds));
    let older = status.workers.len() - now.len();
    let help = "Workers of older generations that still run.";
    text.one("nginx_workers_retiring", GAUGE, help, older);
    let help = "Whether every worker of the generation in force is ready.";
    text.one("nginx_ready", GAUGE, help, u8::from(status.ready));
    let help = "How many times this master has loaded its configuration.";
    text.one("nginx_generation", GAUGE, help, status.generation);
    let help = "Whether the worker is the router.";
    let router = |w: &Worker| Some(u8::from(status.router == Some(w.id)));
    text.family("nginx_worker_router", GAUGE, help).each(&now, router);
    let help = "Messages that the worker holds for receivers that do not keep up.";
    text.family("nginx_ipc_queue_length", GAUGE, help).each(&now, |w| Some(w.queued));
    let help = "Bytes in the rings to the worker that it has not taken.";
    text.family("nginx_ipc_inbox_bytes", GAUGE, help).each(&now, |w| w.inbox);
    let help = "Messages that the worker has sent since it started, once for each receiver.";
    text.family("nginx_worker_messages_sent_total", COUNTER, help)
        .each(&now, |w| Some(w.counters.sent));
    let help = "Messages handed to the worker's handlers since it started.";
    text.family("nginx_worker_messages_received_total", COUNTER, help)
        .each(&now, |w| Some(w.counters.received));
}

fn messages(text: &mut Text, status: &Status) {
    let Counters { sent, received, full, unhandled, failed, stranger, lost, late } =
        status.ipc.total;
    let help = "Messages accepted, once for each receiver, of all workers there ever were.";
    text.one("nginx_ipc_messages_sent_total", COUNTER, help, sent);
    let help = "Messages handed to handlers.";
    text.one("nginx_ipc_messages_received_total", COUNTER, help, received);
    let help = "Messages refused to their senders (full), not handled (unhandled, failed, late), \
        or gone with a worker (stranger, lost).";
    let mut family = text.family("nginx_ipc_messages_dropped_total", COUNTER, help);
    let reasons = [
        ("full", full),
        ("unhandled", unhandled),
        ("failed", failed),
        ("stranger", stranger),
        ("lost", lost),
        ("late", late),
    ];
    reasons.iter().for_each(|(reason, count)| family.sample(&[("reason", reason)], count));
    let help = "Messages refused to their senders, but for those of full queues.";
    text.by("nginx_ipc_messages_refused_total", help, "reason", &status.ipc.refused);
    let help = "Messages sent, and not yet received, dropped or lost.";
    text.one("nginx_ipc_messages_waiting", GAUGE, help, status.ipc.waiting);
    let help =
        "How long messages took from their senders to their receivers, of those that are timed.";
    text.histogram("nginx_ipc_delivery_seconds", help, &status.ipc.delivery);
    let help = "Memory of the rings.";
    text.one("nginx_ipc_rings_bytes", GAUGE, help, status.ipc.memory);
    let help = "Retained values.";
    text.one("nginx_ipc_retained_values", GAUGE, help, status.retained.values);
    let bytes = [("size", status.retained.size), ("used", status.retained.used)];
    let mut family = text.family("nginx_ipc_retained_bytes", GAUGE, "Room of retained values.");
    bytes.iter().for_each(|(state, bytes)| family.sample(&[("state", state)], bytes));
    let help = "Changes of retained values.";
    text.one("nginx_ipc_retained_changes_total", COUNTER, help, status.retained.sequence);
}

fn lives(text: &mut Text, status: &Status) {
    let of = |name: &str| {
        let counts = &status.lifecycle.counts;
        counts.iter().find(|(known, _)| *known == name).map(|(_, count)| count.count)
    };
    let plain = [
        ("nginx_starts_total", "starts", "Starts of this nginx."),
        ("nginx_upgrades_total", "upgrades", "Starts as a new binary that took over."),
        ("nginx_reloads_total", "reloads", "Configurations loaded later."),
        ("nginx_worker_starts_total", "worker_starts", "Workers that started."),
        ("nginx_worker_exits_total", "worker_exits", "Workers that left in good order."),
        ("nginx_worker_given_up_total", "given_up", "Workers that nginx does not start again."),
    ];
    for (name, field, help) in plain {
        if let Some(count) = of(field) {
            text.one(name, COUNTER, help, count);
        }
    }
    let reasons = ["signal", "code", "unknown"];
    let two = [
        ("nginx_worker_crashes_total", "crashes", "Workers that ended in no good order."),
        ("nginx_worker_respawns_total", "respawns", "Workers started after a crash."),
    ];
    for (name, field, help) in two {
        let counts = reasons.map(|reason| (reason, of(&format!("{field}_{reason}"))));
        if counts.iter().any(|(_, count)| count.is_some()) {
            let mut family = text.family(name, COUNTER, help);
            for (reason, count) in counts {
                family.sample(&[("reason", &reason)], count.unwrap_or_default());
            }
        }
    }
}

fn tree(text: &mut Text, status: &Status) {
    let help = "Whether a node is heard: the super of this one, or a client.";
    let mut family = text.family("nginx_cluster_node_up", GAUGE, help);
    for node in &status.nodes.supers {
        let labels: [(&str, &dyn Display); 3] =
            [("channel", &node.channel), ("node", &node.address), ("role", &"super")];
        family.sample(&labels, u8::from(node.state == "joined"));
    }
    for node in &status.nodes.clients {
        let labels: [(&str, &dyn Display); 3] =
            [("channel", &node.channel), ("node", &node.address), ("role", &"client")];
        family.sample(&labels, u8::from(node.state != "suspect"));
    }
    let help = "Nodes below this one.";
    let mut family = text.family("nginx_cluster_nodes_below", GAUGE, help);
    for channel in &status.channels {
        family.sample(&[("channel", &channel.name)], channel.below);
    }
    let help = "How long calls to other nodes took that were answered.";
    text.histogram("nginx_cluster_rpc_seconds", help, &status.nodes.calls);
    let help = "Calls to other nodes that were not answered, by why.";
    text.by("nginx_cluster_rpc_failed_total", help, "reason", &status.nodes.failed);
    let help = "Requests and calls that were refused, by what they were for.";
    text.by("nginx_cc_refused_total", help, "what", &status.refused);
}

fn balancer(text: &mut Text, status: &Status) {
    let each = |family: &mut Family<'_>, value: &dyn Fn(&super::Peer) -> Option<u64>| {
        for upstream in &status.balancer.upstreams {
            for peer in &upstream.peers {
                if let Some(value) = value(peer) {
                    let labels: [(&str, &dyn Display); 2] =
                        [("upstream", &upstream.name), ("peer", &peer.address)];
                    family.sample(&labels, value);
                }
            }
        }
    };
    let help = "Whether a peer of a hash is not passed over.";
    let up = |peer: &super::Peer| peer.fails.map(|_| u64::from(!peer.failed));
    each(&mut text.family("nginx_upstream_peer_up", GAUGE, help), &up);
    let help = "Failures of a peer of a hash that count now.";
    each(&mut text.family("nginx_upstream_peer_fails", GAUGE, help), &|peer| peer.fails);
    let help = "Tries of requests in upstreams with cc_balancer, by how they ended.";
    text.by("nginx_upstream_tries_total", help, "state", &status.balancer.tries);
}

#[cfg(test)]
mod tests {
    use super::super::{Client, Count, Ipc, Lifecycle, Nodes};
    use super::*;
    use std::collections::HashSet;

    /// What the format allows: each family once, its head before its samples, no sample twice.
    fn check(text: &str) {
        let (mut families, mut samples, mut family) = (HashSet::new(), HashSet::new(), "");
        let (mut helped, mut histogram) = ("", false);
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                (helped, _) = rest.split_once(' ').unwrap();
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(families.insert(name), "{name} twice");
                assert!(name == helped && [COUNTER, GAUGE, HISTOGRAM].contains(&kind), "{line}");
                assert_eq!(kind == COUNTER, name.ends_with("_total"), "{name}");
                (family, histogram) = (name, kind == HISTOGRAM);
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                let parts = ["_bucket", "_sum", "_count"];
                let plain = parts.iter().find_map(|part| name.strip_suffix(part));
                assert_eq!(plain.filter(|_| histogram).unwrap_or(name), family);
                assert_eq!(histogram, name != family, "{line}");
                assert!(samples.insert(sample), "{sample} twice");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn the_text_is_in_the_format() {
        let worker = |id, generation| Worker {
            id,
            generation,
            state: "live",
            started: Some(1_500),
            inbox: Some(3),
            ..Worker::default()
        };
        let client =
            Client { channel: "a\"\\\nb".into(), address: "h:1".into(), ..Client::default() };
        let status = Status {
            generation: 2,
            router: Some(1),
            workers: vec![worker(0, 2), worker(1, 2), worker(0, 1)],
            nodes: Nodes {
                clients: vec![client],
                failed: vec![("timeout", 2)],
                ..Nodes::default()
            },
            ipc: Ipc {
                delivery: Histogram::of(&[10, 1_000_000], &[1, 0, 2], 7_000_010),
                ..Ipc::default()
            },
            refused: vec![("signed call", 3)],
            lifecycle: Lifecycle {
                load: None,
                counts: vec![
                    ("crashes_signal", Count { count: 4, last: None }),
                    ("reloads", Count { count: 1, last: None }),
                ],
            },
            ..Status::default()
        };
        let text = String::from_utf8(text(&status)).unwrap();
        check(&text);
        for line in [
            "nginx_worker_router{worker=\"1\"} 1",
            "nginx_worker_start_time_seconds{worker=\"0\"} 1.500",
            "nginx_workers_retiring 1",
            "nginx_worker_crashes_total{reason=\"signal\"} 4",
            "nginx_worker_crashes_total{reason=\"code\"} 0",
            "nginx_reloads_total 1",
            "nginx_ipc_delivery_seconds_bucket{le=\"0.00001\"} 1",
            "nginx_ipc_delivery_seconds_bucket{le=\"+Inf\"} 3",
            "nginx_ipc_delivery_seconds_sum 7.00001",
            "nginx_ipc_delivery_seconds_count 3",
            "nginx_cluster_rpc_failed_total{reason=\"timeout\"} 2",
            "nginx_cc_refused_total{what=\"signed call\"} 3",
            "nginx_cluster_node_up{channel=\"a\\\"\\\\\\nb\",node=\"h:1\",role=\"client\"} 1",
        ] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
        check(&String::from_utf8(super::text(&Status::default())).unwrap());
    }
}
