//! The balancer: `cc_balancer` and its kin in upstream{}, and what happens to a request there.
//! `settings` has the directives, `choice` what a request chose, `candidates` the peers of a hash,
//! `api` what Lua calls, `report` what a status tells.

pub mod api;
pub mod candidates;
pub mod choice;
pub mod report;
pub mod settings;

use std::rc::Rc;

use ngx::ffi::{ngx_command_t, ngx_module_t};

use self::candidates::Candidates;
use self::choice::Choice;
use self::settings::{Conf, Source};
use crate::modules::http::{Context, Http, Server};
use crate::modules::listen;
use crate::modules::metrics::{self, Counted};
use crate::modules::say;
use crate::ngx::conf::{self, ConfError, ConfResult, shown};
use crate::ngx::delegate::{self, Before};
use crate::ngx::http::context;
use crate::ngx::log::Level;
use crate::ngx::request::Request;
use crate::ngx::upstream::{self, Balancer, Begin, Hooks, Slot, Target, Timeouts};
use crate::ngx::variable::Variable;
use crate::proto::upstream::rendezvous;
use crate::proto::upstream::tries::{State, Try, Wish, last_failure};

/// The conf of http{}.
#[derive(Default)]
pub struct Main {
    /// Where locations keep the confs of the modules that proxy.
    pub proxies: Vec<usize>,
}

impl Balancer for Http {
    fn hooks(conf: &Server) -> &Hooks {
        &conf.upstream.hooks
    }

    fn slot(context: &Context) -> &Slot<Http> {
        &context.upstream.slot
    }

    fn begin(request: &Request<'_>, conf: &Server, context: &Context) -> Option<Begin> {
        let (conf, kept) = (&conf.upstream, &context.upstream);
        let asked = kept.asked.borrow();
        let asked = asked.as_deref();
        let chosen = match asked.and_then(|asked| asked.peers.as_ref()) {
            Some(peers) => Choice::list(peers.clone()),
            None => choose(request, conf)?,
        };
        let begin = Begin {
            chosen: chosen.peers(),
            wish: Wish { total: conf.tries, more: asked.and_then(|asked| asked.more) },
            timeouts: match (asked, conf.sets_timeouts()) {
                (None, false) => None,
                (asked, _) => timeouts(request, conf, asked.map(|asked| asked.timeouts))?,
            },
        };
        kept.current.replace(chosen);
        Some(begin)
    }

    fn pick(conf: &Server, context: &Context) -> Option<Rc<Target>> {
        let mut current = context.upstream.current.try_borrow_mut().ok()?;
        current.next(&conf.upstream)
    }

    fn ended(request: &Request<'_>, conf: &Server, context: &Context, failed: bool) {
        let Ok(current) = context.upstream.current.try_borrow() else { return };
        if let Some(peer) = current.ended(&conf.upstream, failed) {
            let news = format_args!("cc: upstream peer {peer} temporarily disabled");
            request.log(Level::Warn, news);
        }
    }

    fn unset(request: &Request<'_>, name: &str) {
        let why = format!("no peer set for upstream \"{name}\", which has no servers");
        say::say_at_of(request, Level::Err, "balancer", name, format_args!("{why}"));
    }

    fn tried(state: State) {
        metrics::count(Counted::Try(state));
    }
}

/// Lua's timeouts, then the directive's; where neither has any, none. None once it was logged that a
/// value is no timeout.
fn timeouts(
    request: &Request<'_>,
    conf: &Conf,
    asked: Option<Timeouts>,
) -> Option<Option<Timeouts>> {
    let mut timeouts = asked.unwrap_or_default();
    if timeouts.contains(&None) {
        let configured = conf.timeouts_of(request)?;
        for (timeout, configured) in timeouts.iter_mut().zip(configured) {
            *timeout = timeout.or(configured);
        }
    }
    Some((timeouts != Timeouts::default()).then_some(timeouts))
}

/// What the request goes to by the directive. None once the reason was logged.
fn choose(request: &Request<'_>, conf: &Conf) -> Option<Choice> {
    match &conf.source {
        None => Some(Choice::Method),
        Some(Source::Fixed(peers)) => Some(Choice::list(peers.clone())),
        Some(Source::Listed(value, text, last)) => {
            let list = value.of_request(request)?;
            match last.peers(list) {
                Ok(peers) if peers.is_empty() => Some(Choice::Method),
                Ok(peers) => Some(Choice::list(peers)),
                Err((word, error)) => {
                    let error = error.to_string();
                    let what = format!("{error} in peer \"{}\" of", few(word));
                    refuse(request, &error, &what, text, list);
                    None
                }
            }
        }
        Some(Source::Workers { key }) => {
            let key = key
                .as_ref()
                .map(|key| key.of_request(request))
                .map_or(Some(None), |k| k.map(Some))?;
            Some(hashed(conf, key, candidates::workers()))
        }
        Some(Source::Clients { channel, key }) => {
            let key = key
                .as_ref()
                .map(|key| key.of_request(request))
                .map_or(Some(None), |k| k.map(Some))?;
            let channel = channel.of_request(request)?;
            Some(hashed(conf, key, candidates::clients(&shown(channel))))
        }
    }
}

/// Where nobody is there, the upstream's own servers, if it has any.
fn hashed(conf: &Conf, key: Option<&[u8]>, peers: Rc<Candidates>) -> Choice {
    if peers.count() == 0 && conf.hooks.has_servers() {
        return Choice::Method;
    }
    Choice::hashed(key, peers)
}

/// Characters of a value that the log is shown.
const VALUE_MAX: usize = 200;

/// Says why the request is answered 500: which words of the directive had which value. `what` begins
/// with the error.
fn refuse(request: &Request<'_>, error: &str, what: &str, text: &str, value: &[u8]) {
    let value = few(value);
    let text = format_args!("{what} \"{text}\", which is \"{value}\"");
    say::say_at_of(request, Level::Err, "balancer", error, text);
}

/// What a client may have made up: not all of it.
fn few(value: &[u8]) -> String {
    shown(value).chars().take(VALUE_MAX).collect()
}

/// After http{} was read: what can be said only then.
pub fn postconfiguration(cf: &conf::Conf<'_>, main: &mut Main) -> ConfResult {
    main.proxies = upstream::proxies(cf.cycle());
    let per_worker = listen::address_of(cf.cycle(), 0).is_some();
    upstream::finish::<Http>(cf, |name, conf| {
        let conf = &conf.upstream;
        conf.number.set(rendezvous::number(name));
        // the line is not that where http{} ends
        let refused = |why: &str| {
            cf.cycle().log(Level::Emerg, format_args!("{why} in {}", conf.line));
            Err(ConfError::Logged)
        };
        if matches!(conf.source, Some(Source::Workers { .. })) && !per_worker {
            let why = "\"cc_balancer workers\" without a \"listen ... per_worker\" in http{}";
            return refused(why);
        }
        if conf.hooks.is_replaced() {
            let why = "load balancing method must stand before \"cc_balancer\"";
            return refused(why);
        }
        Ok(())
    })
}

/// The request's tries in balanced upstreams.
pub fn tries(request: &Request<'_>) -> Vec<Try> {
    let kept = context::<Http>(request).map(|context| &context.upstream);
    kept.map_or_else(Vec::new, |kept| kept.slot.tries(request))
}

/// `$cc_balancer_tries`: all tries, from the first.
pub struct Tries;

impl Variable for Tries {
    const NAME: &'static str = "cc_balancer_tries";
    const CHANGES: bool = true;

    fn get(request: &Request<'_>) -> Option<String> {
        let tries: Vec<String> = tries(request).iter().map(Try::to_string).collect();
        (!tries.is_empty()).then(|| tries.join(", "))
    }
}

/// `$cc_balancer_last_failure`: state and status of the last try that did not go well.
pub struct LastFailure;

impl Variable for LastFailure {
    const NAME: &'static str = "cc_balancer_last_failure";
    const CHANGES: bool = true;

    fn get(request: &Request<'_>) -> Option<String> {
        let tries = tries(request);
        last_failure(&tries).map(|one| format!("{} {}", one.state.name(), one.status))
    }
}

/// Stands before nginx's own `keepalive`: where that comes before `cc_balancer` in an upstream{}, it
/// would leave no place below it.
struct Keepalive;

impl Before for Keepalive {
    const NAME: &'static str = "keepalive\0";
    const CONTEXT: u32 = conf::NGX_HTTP_UPS_CONF;

    fn set(cf: &mut conf::Conf<'_>) -> ConfResult {
        if cf.in_http() { upstream::below_keepalive::<Http>(cf) } else { cf.delegate() }
    }
}

static mut COMMANDS: [ngx_command_t; 2] = delegate::commands::<Keepalive>();

/// The exported table.
#[allow(non_upper_case_globals)]
pub static mut ngx_cc_upstream_module: ngx_module_t =
    delegate::table(&raw mut COMMANDS as *mut ngx_command_t);
