//! `cc_status`: the directive and its handler. `gather` collects, from the shared zone, what
//! `proto::status` writes as JSON or metrics; the page asks for the JSON by itself.

mod gather;
mod lives;
mod page;

use bytes::Bytes;

use crate::modules::http::Http;
use crate::modules::say;
use crate::ngx::conf::{Conf, ConfError, ConfResult, Line, shown};
use crate::ngx::content::{ContentHandler, Handler, Outcome};
use crate::ngx::http::Inherit;
use crate::ngx::log::Level;
use crate::ngx::request::Request;
use crate::ngx::respond::Response;
use crate::proto::status::format::Format;
use crate::proto::status::{json, prometheus, readiness};

/// The conf of a location{}.
#[derive(Default)]
pub struct Location {
    serves: Option<Serves>,
}

struct Serves {
    format: Option<Format>,
    own: Handler,
    line: Line,
}

impl Inherit for Location {
    fn inherit(&mut self, cf: &mut Conf<'_>, _: &Self) -> ConfResult {
        match &self.serves {
            Some(serves) if !cf.is_served(Some(serves.own)) => {
                let why = "\"cc_status\" and another content handler in the same location";
                Err(cf.wrong(&serves.line, why))
            }
            _ => Ok(()),
        }
    }
}

/// `cc_status`.
pub fn cc_status(cf: &mut Conf<'_>, conf: &mut Location) -> ConfResult {
    if conf.serves.is_some() {
        return Err(ConfError::Directive(c"is duplicate"));
    }
    let format = cf
        .arg(1)
        .map(|word| Format::named(word).map_err(|_| format!("invalid value \"{}\"", shown(word))));
    let format = format.transpose()?;
    if cf.is_served(None) {
        return Err("\"cc_status\" in a location that has a content handler".to_string().into());
    }
    let own = cf.serve::<Status>()?;
    conf.serves = Some(Serves { format, own, line: cf.line() });
    Ok(())
}

struct Status;

impl ContentHandler for Status {
    fn handle(request: &Request<'_>) -> Outcome {
        if !matches!(request.method(), b"GET" | b"HEAD") {
            say::say_at(request, Level::Info, "status", "405, not GET or HEAD");
            return request.refuse(405);
        }
        let location = request.location::<Http>().and_then(|conf| conf.status.serves.as_ref());
        let configured = location.and_then(|serves| serves.format);
        request.respond(answer(request, configured))
    }
}

fn answer(request: &Request<'_>, configured: Option<Format>) -> Response {
    let format = match Format::of(configured, request.query(), request.header("Accept")) {
        Ok(format) => format,
        Err(why) => {
            say::say_at(request, Level::Info, "status", "400, no such format");
            return Response::text(400, &why.to_string());
        }
    };
    let all = |write: fn(&crate::proto::status::Status) -> Vec<u8>| {
        gather::status().map(|status| (200, Bytes::from(write(&status))))
    };
    let answer = match format {
        Format::Json => all(json),
        Format::Prometheus => all(prometheus::text),
        Format::Html => Some((200, Bytes::from_static(page::TEXT.as_bytes()))),
        Format::Ready => lives::ready().map(|ready| {
            let (status, body) = readiness(&ready);
            (status, body.into())
        }),
    };
    // of a process that has no seat among the workers
    if answer.is_none() {
        say::say_at(request, Level::Warn, "status", "503, this process is no worker");
    }
    let (status, body) =
        answer.unwrap_or((503, Bytes::from_static(b"this process is no worker\n")));
    let mut response = Response::of(status, format.content_type(), body);
    let mut add = |name: &str, value: &str| {
        response.headers.push((name.as_bytes().to_vec(), value.as_bytes().to_vec()));
    };
    add("Cache-Control", "no-store");
    add("Vary", "Accept");
    add("X-Content-Type-Options", "nosniff");
    if format == Format::Html {
        add("Content-Security-Policy", page::policy());
    }
    if request.method() == b"HEAD" {
        let length = response.body.len().to_string();
        response.headers.push((b"Content-Length".to_vec(), length.into_bytes()));
        response.body = Bytes::new();
    }
    response
}
