//! What a location says of the cluster: what it serves, its own actions, how long calls may take.

use super::settings::{Settings, once};
use super::{cast, hub, invoke};
use crate::modules::http::Http;
use crate::ngx::conf::{Conf, ConfError, ConfResult, Line, shown};
use crate::ngx::content::{ContentHandler, Handler};
use crate::ngx::http::{Inherit, main_conf};
use crate::ngx::peer;
use crate::ngx::value::Value;
use crate::proto::cluster::action::{check_action, check_channel};
use crate::proto::cluster::builtin::BuiltIn;
use crate::proto::cluster::cast::Direction;

/// Milliseconds of each step of a call, where nothing is set.
const TIMEOUT: usize = 2000;
/// Most actions of a location.
const ACTIONS_MAX: usize = 1024;

/// The conf of a location{}.
#[derive(Default)]
pub struct Location {
    /// What it serves.
    pub serves: Option<Serves>,
    actions: Vec<Action>,
    connect: Option<usize>,
    send: Option<usize>,
    read: Option<usize>,
    /// User ids.
    orders: Option<Vec<u32>>,
}

/// What a location serves.
pub struct Serves {
    directive: &'static str,
    /// The channel, where it is not the first segment of the path.
    pub channel: Option<Value>,
    /// Of a cast.
    pub direction: Option<Value>,
    /// What serves channels that Lua made.
    pub lua: Option<Handler>,
    own: Handler,
    line: Line,
}

struct Action {
    name: Vec<u8>,
    uri: Value,
    line: Line,
}

/// Milliseconds of the steps of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect.
    pub connect: usize,
    /// Between two writes.
    pub send: usize,
    /// Between two reads.
    pub read: usize,
}

impl Location {
    /// The URI of an action of this location.
    pub fn action(&self, name: &[u8]) -> Option<&Value> {
        self.actions.iter().find(|action| action.name == name).map(|action| &action.uri)
    }

    /// The users of this machine who may give orders.
    pub fn orders(&self) -> &[u32] {
        self.orders.as_deref().unwrap_or_default()
    }

    /// How long calls may take.
    pub fn timeouts(&self) -> Timeouts {
        let of = |set: Option<usize>| set.unwrap_or(TIMEOUT);
        Timeouts { connect: of(self.connect), send: of(self.send), read: of(self.read) }
    }
}

impl Timeouts {
    /// Milliseconds of all steps.
    pub fn whole(self) -> usize {
        self.connect.saturating_add(self.send).saturating_add(self.read)
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { connect: TIMEOUT, send: TIMEOUT, read: TIMEOUT }
    }
}

impl Inherit for Location {
    fn inherit(&mut self, cf: &mut Conf<'_>, outer: &Self) -> ConfResult {
        self.connect = self.connect.or(outer.connect);
        self.send = self.send.or(outer.send);
        self.read = self.read.or(outer.read);
        self.orders = self.orders.take().or_else(|| outer.orders.clone());
        if let Some(serves) = self.serves.as_ref().filter(|serves| !cf.is_served(Some(serves.own)))
        {
            let directive = serves.directive;
            let why = format!("\"{directive}\" and another content handler in the same location");
            return Err(cf.wrong(&serves.line, &why));
        }
        let served = matches!(&self.serves, Some(serves) if serves.directive != "cc_cast");
        match self.actions.first().filter(|_| !served) {
            Some(action) => Err(cf.wrong(
                &action.line,
                "\"cc_action\" without \"cc_invoke\" or \"cc_hub\" in its location",
            )),
            None => Ok(()),
        }
    }
}

/// `cc_invoke`.
pub fn cc_invoke(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    serve::<invoke::Invoke>(cf, conf, "cc_invoke", 1)
}

/// `cc_hub`.
pub fn cc_hub(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    serve::<hub::Hub>(cf, conf, "cc_hub", 1)?;
    let place = (cf.server_key(), cf.line());
    settings(cf)?.seen.hubs.push(place);
    Ok(())
}

/// `cc_cast`.
pub fn cc_cast(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    let direction = cf.arg(1).map(|_| Value::compile(cf, 1)).transpose()?;
    if let Some(word) = direction.as_ref().and_then(Value::constant) {
        Direction::parse(word).map_err(|why| why.to_string())?;
    }
    serve::<cast::Cast>(cf, conf, "cc_cast", 2)?;
    if let Some(serves) = &mut conf.serves {
        serves.direction = direction;
    }
    Ok(())
}

/// `word` is where the channel stands.
fn serve<H: ContentHandler>(
    cf: &mut Conf<'_>,
    conf: &mut Location,
    directive: &'static str,
    word: usize,
) -> ConfResult {
    match &conf.serves {
        Some(other) if other.directive == directive => once(true)?,
        Some(other) => {
            let other = other.directive;
            return Err(format!("\"{directive}\" and \"{other}\" in the same location").into());
        }
        None => {}
    }
    let channel = cf.arg(word).map(|_| Value::compile(cf, word)).transpose()?;
    if let Some(name) = channel.as_ref().and_then(Value::constant) {
        check_channel(name).map_err(|why| format!("channel name \"{}\" {why}", shown(name)))?;
        let seen = (shown(name).into_owned(), directive, cf.line());
        settings(cf)?.seen.channels.push(seen);
    }
    if cf.is_served(None) {
        return Err(format!("\"{directive}\" in a location that has a content handler").into());
    }
    let lua = match directive {
        "cc_cast" => None,
        _ => super::lua::handler(cf)?,
    };
    let own = cf.serve::<H>()?;
    let line = cf.line();
    conf.serves = Some(Serves { directive, channel, direction: None, lua, own, line });
    Ok(())
}

/// The conf of http{} while it is read.
fn settings<'a>(cf: &Conf<'a>) -> Result<&'a mut Settings, ConfError> {
    main_conf::<Http>(cf.cycle()).map(|main| &mut main.cluster).ok_or(ConfError::Logged)
}

/// `cc_action`.
pub fn cc_action(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    let name = cf.arg(1).unwrap_or_default();
    let text = shown(name).into_owned();
    check_action(name).map_err(|why| format!("action name \"{text}\" {why}"))?;
    if BuiltIn::named(name).is_some() {
        return Err(format!("action \"{text}\" is built in").into());
    }
    if conf.action(name).is_some() {
        return Err(format!("duplicate action \"{text}\"").into());
    }
    if conf.actions.len() >= ACTIONS_MAX {
        return Err(format!("more than {ACTIONS_MAX} actions").into());
    }
    let (name, line) = (name.to_vec(), cf.line());
    let uri = Value::compile(cf, 2)?;
    if let Some(text) = uri.constant().filter(|text| !matches!(text, [b'/' | b'@', ..])) {
        return Err(format!("invalid URI \"{}\"", shown(text)).into());
    }
    conf.actions.push(Action { name, uri, line });
    Ok(())
}

/// `cc_orders`.
pub fn cc_orders(cf: &Conf<'_>, conf: &mut Location) -> ConfResult {
    once(conf.orders.is_some())?;
    let words: Vec<&[u8]> = cf.args().skip(1).collect();
    let none = words == [&b"off"[..]];
    let users = words.into_iter().filter(|_| !none).map(|name| {
        peer::user_named(name).ok_or_else(|| format!("getpwnam(\"{}\") failed", shown(name)))
    });
    conf.orders = Some(users.collect::<Result<_, _>>()?);
    Ok(())
}

/// `cc_connect_timeout`.
pub fn cc_connect_timeout(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    timeout(cf, &mut conf.connect)
}

/// `cc_send_timeout`.
pub fn cc_send_timeout(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    timeout(cf, &mut conf.send)
}

/// `cc_read_timeout`.
pub fn cc_read_timeout(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    timeout(cf, &mut conf.read)
}

fn timeout(cf: &Conf<'_>, set: &mut Option<usize>) -> ConfResult {
    once(set.is_some())?;
    let word = cf.arg(1).unwrap_or_default();
    let time = Conf::milliseconds(word).filter(|time| *time > 0);
    *set = Some(time.ok_or_else(|| format!("invalid value \"{}\"", shown(word)))?);
    Ok(())
}
