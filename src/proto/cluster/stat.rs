//! What `getServiceStat` tells of a node and of all below it, in the original's JSON: `clients`,
//! `ports`, `routePort`, `service`, and `super` unless the node is a root. An empty table is a list
//! there, as the original writes it.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Longest text that is taken from a client's answer, in bytes.
const TEXT_MAX: usize = 16 << 10;
/// In the place of what a client did not say.
const UNKNOWN: &str = "-";

/// A node's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Its address.
    pub service: String,
    /// Its workers' ports, with commas between.
    pub ports: String,
    /// Its router's.
    pub route_port: String,
    /// Its super's address; none at a root.
    pub superior: Option<String>,
    /// By address; none where the node was asked for itself alone.
    pub clients: Option<BTreeMap<String, Stat>>,
}

impl Stat {
    /// A node's own state, with room for its clients' unless `self_only`.
    pub fn of(
        service: String,
        ports: &[u16],
        router: Option<u16>,
        superior: Option<String>,
        self_only: bool,
    ) -> Stat {
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        Stat {
            service,
            ports: ports.join(","),
            route_port: router.map(|port| port.to_string()).unwrap_or_default(),
            superior,
            clients: (!self_only).then(BTreeMap::new),
        }
    }

    /// Takes in what the client of that address answered: nothing where it is no 200, and hyphens
    /// where it cannot be read.
    pub fn add(&mut self, address: &str, status: u16, body: &[u8]) {
        if let Some(clients) = self.clients.as_mut().filter(|_| status == 200) {
            let stat = serde_json::from_slice(body).ok().and_then(|answer| read(&answer));
            let stat = stat.unwrap_or_else(|| Stat {
                service: String::new(),
                ports: UNKNOWN.into(),
                route_port: UNKNOWN.into(),
                superior: Some(UNKNOWN.into()),
                clients: Some(BTreeMap::new()),
            });
            clients.insert(address.into(), Stat { service: address.into(), ..stat });
        }
    }

    /// The answer.
    pub fn json(&self) -> Vec<u8> {
        self.value().to_string().into_bytes()
    }

    fn value(&self) -> Value {
        let mut fields = Map::new();
        let mut put = |name: &str, value: Value| drop(fields.insert(name.into(), value));
        match &self.clients {
            None => {}
            Some(clients) if clients.is_empty() => put("clients", Value::Array(Vec::new())),
            Some(clients) => {
                let each = clients.iter().map(|(address, stat)| (address.clone(), stat.value()));
                put("clients", Value::Object(each.collect()));
            }
        }
        put("ports", self.ports.clone().into());
        put("routePort", self.route_port.clone().into());
        put("service", self.service.clone().into());
        if let Some(superior) = &self.superior {
            put("super", superior.clone().into());
        }
        Value::Object(fields)
    }
}

/// None where it is no object. serde_json bounds how deep it goes.
fn read(answer: &Value) -> Option<Stat> {
    let fields = answer.as_object()?;
    let text = |name: &str| match fields.get(name)? {
        Value::String(text) if text.len() <= TEXT_MAX => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let clients = match fields.get("clients") {
        None => None,
        Some(Value::Object(clients)) => {
            let each = |(address, stat): (&String, &Value)| Some((address.clone(), read(stat)?));
            Some(clients.iter().filter_map(each).collect())
        }
        Some(_) => Some(BTreeMap::new()),
    };
    Some(Stat {
        service: text("service").unwrap_or_else(|| UNKNOWN.into()),
        ports: text("ports").unwrap_or_else(|| UNKNOWN.into()),
        route_port: text("routePort").unwrap_or_else(|| UNKNOWN.into()),
        superior: text("super"),
        clients,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(name: &str, superior: Option<&str>) -> Stat {
        let superior = superior.map(str::to_string);
        Stat::of(name.into(), &[8010, 8011], Some(8011), superior, false)
    }

    fn shown(stat: &Stat) -> String {
        String::from_utf8(stat.json()).unwrap()
    }

    #[test]
    fn a_root_without_clients_is_as_the_original_shows_it() {
        assert_eq!(
            shown(&node("127.0.0.1:80", None)),
            r#"{"clients":[],"ports":"8010,8011","routePort":"8011","service":"127.0.0.1:80"}"#
        );
        let alone = Stat::of("a:80".into(), &[], None, Some("b:80".into()), true);
        assert_eq!(shown(&alone), r#"{"ports":"","routePort":"","service":"a:80","super":"b:80"}"#);
    }

    #[test]
    fn a_tree_is_told_from_below() {
        let (mut root, mut middle) = (node("a:80", None), node("b:80", Some("a:80")));
        middle.add("c:80", 200, &node("c:80", Some("b:80")).json());
        middle.add("down:80", 502, b"");
        root.add("b:90", 200, &middle.json());
        root.add("x:80", 200, b"<html>");
        root.add("y:80", 200, br#"{"ports":7,"clients":"none"}"#);
        assert_eq!(
            shown(&root),
            concat!(
                r#"{"clients":{"b:90":{"clients":{"c:80":{"clients":[],"ports":"8010,8011","routePort":"8011","service":"c:80","super":"b:80"}},"#,
                r#""ports":"8010,8011","routePort":"8011","service":"b:90","super":"a:80"},"#,
                r#""x:80":{"clients":[],"ports":"-","routePort":"-","service":"x:80","super":"-"},"#,
                r#""y:80":{"clients":[],"ports":"7","routePort":"-","service":"y:80"}},"#,
                r#""ports":"8010,8011","routePort":"8011","service":"a:80"}"#
            )
        );
        let mut alone = Stat::of("a:80".into(), &[], None, None, true);
        alone.add("b:80", 200, b"{}");
        assert_eq!(alone.clients, None);
    }

    proptest! {
        #[test]
        fn any_answer_is_taken_in(status in prop_oneof![Just(200u16), any::<u16>()], body in prop::collection::vec(any::<u8>(), 0..100), depth in 0usize..300) {
            let mut root = node("a:80", None);
            root.add("b:80", status, &body);
            root.add("c:80", 200, r#"{"clients":{"x":"#.repeat(depth).as_bytes());
            let deep = [r#"{"clients":{"x":"#.repeat(depth), "{}".into(), "}}".repeat(depth)].concat();
            root.add("d:80", 200, deep.as_bytes());
            prop_assert!(serde_json::from_slice::<Value>(&root.json()).is_ok() || depth > 50);
        }
    }
}
