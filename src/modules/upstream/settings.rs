//! The balancer's directives in upstream{}: `cc_balancer`, `cc_balancer_tries`,
//! `cc_balancer_timeouts`.

use std::cell::Cell;

use super::candidates::Last;
use super::refuse;
use crate::modules::http::Http;
use crate::ngx::conf::{self, ConfError, ConfResult, Line, shown};
use crate::ngx::request::Request;
use crate::ngx::upstream::{self, Hooks, Target, Targets, Timeouts};
use crate::ngx::value::Value;
use crate::proto::upstream::address;
use crate::proto::upstream::failures::{FAIL_TIMEOUT_MAX, Policy};
use crate::proto::upstream::tries::TRIES_MAX;

/// The longest timeout, milliseconds: nginx's own ceiling for times.
const TIMEOUT_MAX: usize = i32::MAX as usize;

/// Where the addresses come from when Lua says nothing.
pub enum Source {
    /// Of each request, with the directive's word, and what the last request had.
    Listed(Value, String, Last),
    /// The same for all.
    Fixed(Targets),
    /// This node's workers.
    Workers {
        /// None: by turns.
        key: Option<Value>,
    },
    /// The live nodes below this one.
    Clients {
        /// The channel's name.
        channel: Value,
        /// None: by turns.
        key: Option<Value>,
    },
}

/// The conf of an upstream{}.
#[derive(Default)]
pub struct Conf {
    /// See there.
    pub hooks: Hooks,
    /// Of the first directive of ours.
    pub line: Line,
    balancer: bool,
    /// None leaves it to Lua.
    pub source: Option<Source>,
    /// The upstream's name as a number: its peers' failures are its own.
    pub number: Cell<u64>,
    /// `cc_balancer_tries`.
    pub tries: Option<u16>,
    /// `cc_balancer_timeouts`, with the directive's words.
    timeouts: Option<[(Value, String); 3]>,
    /// When a peer of a hash counts as failed.
    pub policy: Policy,
}

impl Conf {
    fn ask(&mut self, cf: &conf::Conf<'_>) -> ConfResult {
        if self.line == Line::default() {
            self.line = cf.line();
        }
        upstream::ask::<Http>(cf, &self.hooks)
    }

    /// Whether there is anything for `timeouts_of`.
    pub fn sets_timeouts(&self) -> bool {
        self.timeouts.is_some()
    }

    /// Milliseconds for this request; None once it was logged that a value is none.
    pub fn timeouts_of(&self, request: &Request<'_>) -> Option<Timeouts> {
        let mut timeouts = Timeouts::default();
        let values = self.timeouts.iter().flatten();
        for (timeout, (value, text)) in timeouts.iter_mut().zip(values) {
            let word = value.of_request(request)?;
            // a variable without a value leaves it to the location
            if !word.is_empty() {
                *timeout = time(word);
                if timeout.is_none() {
                    refuse(request, "invalid timeout", "invalid timeout in", text, word);
                    return None;
                }
            }
        }
        Some(timeouts)
    }
}

fn time(word: &[u8]) -> Option<usize> {
    conf::Conf::milliseconds(word).filter(|time| (1..=TIMEOUT_MAX).contains(time))
}

/// `cc_balancer`.
pub fn cc_balancer(cf: &mut conf::Conf<'_>, conf: &mut Conf) -> ConfResult {
    if conf.balancer {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    conf.balancer = true;
    conf.ask(cf)?;
    let words: Vec<Vec<u8>> = cf.args().skip(1).map(<[u8]>::to_vec).collect();
    let Some((first, rest)) = words.split_first() else { return Ok(()) };
    conf.source = Some(match first.as_slice() {
        b"workers" => {
            let options = Options::read(cf, rest, &mut conf.policy)?;
            if options.channel.is_some() {
                return Err(ConfError::Directive(c"takes \"channel\" for \"clients\" only"));
            }
            Source::Workers { key: options.key }
        }
        b"clients" => {
            let Options { channel, key } = Options::read(cf, rest, &mut conf.policy)?;
            let channel =
                channel.ok_or(ConfError::Directive(c"needs \"channel=\" for \"clients\""))?;
            Source::Clients { channel, key }
        }
        _ => listed(cf, &words)?,
    });
    Ok(())
}

/// A list in one word or in several.
fn listed(cf: &conf::Conf<'_>, words: &[Vec<u8>]) -> Result<Source, ConfError> {
    let text = words.join(&b' ');
    let value = Value::of(cf, &text)?;
    let Some(list) = value.constant() else {
        return Ok(Source::Listed(value, shown(&text).into_owned(), Last::default()));
    };
    match address::list(list) {
        Ok(peers) if peers.is_empty() => {
            Err(ConfError::Message(format!("no peer in \"cc_balancer\" \"{}\"", shown(&text))))
        }
        Ok(peers) => Ok(Source::Fixed(Target::all(&peers))),
        Err((word, error)) => {
            let word = shown(word);
            Err(ConfError::Message(format!("{error} in peer \"{word}\" of \"cc_balancer\"")))
        }
    }
}

#[derive(Default)]
struct Options {
    channel: Option<Value>,
    key: Option<Value>,
}

impl Options {
    fn read(
        cf: &conf::Conf<'_>,
        words: &[Vec<u8>],
        policy: &mut Policy,
    ) -> Result<Options, ConfError> {
        let mut options = Options::default();
        for word in words {
            let invalid = || ConfError::Message(format!("invalid parameter \"{}\"", shown(word)));
            let at = word.iter().position(|byte| *byte == b'=').ok_or_else(invalid)?;
            let (name, value) = word.split_at_checked(at).ok_or_else(invalid)?;
            let value = value.get(1..).filter(|value| !value.is_empty()).ok_or_else(invalid)?;
            match name {
                b"key" if options.key.is_none() => options.key = Some(Value::of(cf, value)?),
                b"channel" if options.channel.is_none() => {
                    options.channel = Some(Value::of(cf, value)?);
                }
                b"max_fails" => policy.max_fails = number(value).ok_or_else(invalid)?,
                b"fail_timeout" => {
                    let ms = conf::Conf::milliseconds(value).ok_or_else(invalid)?;
                    let seconds = u32::try_from(ms.div_ceil(1000)).ok();
                    let seconds = seconds.filter(|seconds| *seconds <= FAIL_TIMEOUT_MAX);
                    policy.fail_timeout = seconds.ok_or_else(invalid)?;
                }
                _ => return Err(invalid()),
            }
        }
        Ok(options)
    }
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Option<T> {
    let digits = word.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(word).ok().filter(|_| digits)?.parse().ok()
}

/// `cc_balancer_tries`.
pub fn cc_balancer_tries(cf: &mut conf::Conf<'_>, conf: &mut Conf) -> ConfResult {
    if conf.tries.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    let word = cf.arg(1).unwrap_or_default();
    let tries = number(word).filter(|tries| (1..=TRIES_MAX).contains(&usize::from(*tries)));
    let invalid = || format!("invalid value \"{}\": 1 to {TRIES_MAX} tries", shown(word));
    conf.tries = Some(tries.ok_or_else(invalid)?);
    conf.ask(cf)
}

/// `cc_balancer_timeouts`.
pub fn cc_balancer_timeouts(cf: &mut conf::Conf<'_>, conf: &mut Conf) -> ConfResult {
    if conf.timeouts.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    let value = |index: usize| -> Result<(Value, String), ConfError> {
        let value = Value::compile(cf, index)?;
        let text = shown(cf.arg(index).unwrap_or_default()).into_owned();
        match value.constant() {
            Some(word) if time(word).is_none() => {
                Err(ConfError::Message(format!("invalid value \"{text}\"")))
            }
            _ => Ok((value, text)),
        }
    };
    conf.timeouts = Some([value(1)?, value(2)?, value(3)?]);
    conf.ask(cf)
}
