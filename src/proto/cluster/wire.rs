//! HTTP/1.1 as a client speaks it: a call's head as bytes, and an answer from the bytes that come, in
//! whatever pieces. What can be read in two ways is refused, and an answer is never held beyond its
//! bounds. The heads are httparse's; the caller (`ngx/client`) reads and writes.

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use httparse::{Header, ParserConfig, Response, Status};

/// Longest head of an answer.
pub const HEAD_MAX: usize = 64 * 1024;
/// Most headers in it.
pub const HEADERS_MAX: usize = 100;
/// Most interim answers (1xx) before the answer.
const INTERIM_MAX: usize = 16;
/// Longest line of a chunk's size, and longest trailers.
const LINE_MAX: usize = 4096;

/// Headers that belong to a connection, or that frame a message.
const OURS: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why a call cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwritable {
    /// CONNECT makes a tunnel.
    #[error("CONNECT is not a call")]
    Connect,
    /// Not a path with a query, or not encoded.
    #[error("no request target")]
    Target,
    /// Not a host.
    #[error("no host")]
    Host,
}

/// Why an answer cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The body is longer than allowed.
    #[error("the answer's body is too large")]
    TooLarge,
    /// The bytes end before the answer does.
    #[error("the answer is not complete")]
    Cut,
    /// No HTTP/1, or what can be read in two ways.
    #[error("{0}")]
    Malformed(&'static str),
}

use Unreadable::{Cut, Malformed, TooLarge};

/// Writes the head of a call to `out`; the body of that length follows it.
pub fn write_head(
    method: &Method,
    target: &str,
    host: &str,
    headers: &HeaderMap,
    body: usize,
    out: &mut Vec<u8>,
) -> Result<(), Unwritable> {
    if *method == Method::CONNECT {
        return Err(Unwritable::Connect);
    }
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !target.starts_with('/') || !visible(target) || target.contains('#') {
        return Err(Unwritable::Target);
    }
    if !visible(host) {
        return Err(Unwritable::Host);
    }
    let mut put = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    put(&[method.as_str().as_bytes(), b" ", target.as_bytes(), b" HTTP/1.1\r\nHost: "]);
    put(&[host.as_bytes(), b"\r\n"]);
    for (name, value) in headers {
        if !OURS.contains(name) {
            put(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
        }
    }
    if body > 0 || matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        put(&[b"Content-Length: ", body.to_string().as_bytes(), b"\r\n"]);
    }
    put(&[b"\r\n"]);
    Ok(())
}

/// How an answer's headers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Not at all.
    Nothing,
    /// To be looked up.
    Map,
    /// To be handed on: `name: value` lines in their order, names in lower case.
    Lines,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// The final status.
    pub status: StatusCode,
    /// As they came, where a map is wanted.
    pub headers: HeaderMap,
    /// The same, where lines are.
    pub lines: Vec<u8>,
    /// With the coding taken off.
    pub body: Bytes,
    /// Whether the connection can carry another call.
    pub keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Head,
    /// So many bytes of body.
    Length(usize),
    /// A body until the connection ends.
    End,
    /// A chunk's size, so far; digits seen.
    Size(usize, bool),
    /// What follows the size on its line.
    Extension(usize),
    /// So many bytes of a chunk.
    Data(usize),
    /// The line end after a chunk.
    DataEnd,
    /// A line of trailers; whether it is empty so far.
    Trailer(bool),
    Complete,
}

/// Reads one answer.
#[derive(Debug)]
pub struct Reader {
    bodyless: bool,
    max_body: usize,
    place: Place,
    interim: usize,
    /// Bytes of the size's line or the trailers.
    line: usize,
    /// A head that came in pieces.
    held: BytesMut,
    head: Option<(StatusCode, HeaderMap, Vec<u8>)>,
    wanted: Wanted,
    body: BytesMut,
    keep: bool,
}

impl Reader {
    /// For the answer to a call with `method`.
    pub fn new(method: &Method, max_body: usize) -> Reader {
        Reader {
            bodyless: *method == Method::HEAD,
            max_body,
            place: Place::Head,
            interim: 0,
            line: 0,
            held: BytesMut::new(),
            head: None,
            wanted: Wanted::Map,
            body: BytesMut::new(),
            keep: true,
        }
    }

    /// How the answer's headers are wanted; a map where nobody says.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
    }

    /// Takes what has come. The answer, once it is whole.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Option<Whole>, Unreadable> {
        let mut rest = bytes;
        while self.place == Place::Head {
            let used = if self.held.is_empty() {
                self.head(rest)?
            } else {
                let before = self.held.len();
                self.held.extend_from_slice(rest);
                let held = std::mem::take(&mut self.held);
                match self.head(&held)? {
                    None => {
                        self.held = held;
                        return Ok(None);
                    }
                    used => used.map(|used| used.saturating_sub(before)),
                }
            };
            let Some(used) = used else {
                self.held.extend_from_slice(rest);
                return Ok(None);
            };
            rest = rest.get(used..).unwrap_or_default();
        }
        let rest = self.body(rest)?;
        if self.place != Place::Complete {
            return Ok(None);
        }
        // nobody has asked for more
        self.keep &= rest.is_empty();
        self.whole().map(Some)
    }

    /// The connection has ended.
    pub fn end(&mut self) -> Result<Whole, Unreadable> {
        if self.place == Place::End { self.whole() } else { Err(Cut) }
    }

    fn whole(&mut self) -> Result<Whole, Unreadable> {
        let (status, headers, lines) = self.head.take().ok_or(Cut)?;
        let body = std::mem::take(&mut self.body).freeze();
        Ok(Whole { status, headers, lines, body, keep: self.keep })
    }

    /// Reads one head at the start of `bytes`; its length, if it is complete.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Unreadable> {
        let mut fields = [const { std::mem::MaybeUninit::<Header<'_>>::uninit() }; HEADERS_MAX];
        let mut response = Response::new(&mut []);
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut fields,
        );
        let length = match parsed {
            Ok(Status::Complete(length)) if length <= HEAD_MAX => length,
            Ok(Status::Partial) if bytes.len() <= HEAD_MAX => return Ok(None),
            Ok(_) => return Err(Malformed("the head is too long")),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed("too many headers")),
            Err(_) => return Err(Malformed("no HTTP/1 head")),
        };
        let code = response.code.unwrap_or_default();
        let status = StatusCode::from_u16(code).map_err(|_| Malformed("no status"))?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Malformed("the answer switches protocols unasked"));
        }
        if status.is_informational() {
            self.interim += 1;
            return if self.interim > INTERIM_MAX {
                Err(Malformed("too many interim answers"))
            } else {
                Ok(Some(length))
            };
        }
        let fields = &*response.headers;
        let (headers, lines) = match self.wanted {
            Wanted::Nothing => Default::default(),
            Wanted::Map => (kept(bytes.get(..length).unwrap_or_default(), fields)?, Vec::new()),
            Wanted::Lines => (HeaderMap::new(), lines(length, fields)),
        };
        let told = Told::of(fields);
        let http11 = response.version == Some(1);
        self.keep = http11 && !told.close;
        let empty = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.place =
            if self.bodyless || empty { Place::Complete } else { self.framing(&told, http11)? };
        self.head = Some((status, headers, lines));
        Ok(Some(length))
    }

    /// Where the body ends.
    fn framing(&mut self, told: &Told<'_>, http11: bool) -> Result<Place, Unreadable> {
        if let Some(coding) = told.coding {
            let chunked = coding.eq_ignore_ascii_case(b"chunked");
            return match () {
                () if told.length.is_some() => {
                    Err(Malformed("both a length and a transfer coding"))
                }
                () if !chunked || !http11 || told.codings > 1 => {
                    Err(Malformed("an unknown transfer coding"))
                }
                () => Ok(Place::Size(0, false)),
            };
        }
        let Some(length) = told.length else {
            self.keep = false;
            return Ok(Place::End);
        };
        if told.two_lengths {
            return Err(Malformed("two lengths"));
        }
        let digits = Some(length).filter(|length| length.iter().all(u8::is_ascii_digit));
        let digits = digits.filter(|digits| !digits.is_empty()).ok_or(Malformed("no length"))?;
        let length = digits.iter().try_fold(0usize, |sum, digit| {
            sum.checked_mul(10)?.checked_add(usize::from(digit - b'0'))
        });
        match length {
            Some(0) => Ok(Place::Complete),
            Some(length) if length <= self.max_body => {
                self.body.reserve(length);
                Ok(Place::Length(length))
            }
            _ => Err(TooLarge),
        }
    }

    /// Reads on in the body; what is left of `rest` once it is complete.
    fn body<'b>(&mut self, mut rest: &'b [u8]) -> Result<&'b [u8], Unreadable> {
        while self.place != Place::Complete {
            let Some(&first) = rest.first() else { break };
            let bulk = match self.place {
                Place::Length(left) | Place::Data(left) => left.min(rest.len()),
                Place::End => rest.len(),
                _ => 0,
            };
            if bulk > 0 {
                let (data, after) = rest.split_at_checked(bulk).ok_or(Cut)?;
                if self.body.len() + data.len() > self.max_body {
                    return Err(TooLarge);
                }
                self.body.extend_from_slice(data);
                rest = after;
                self.place = match self.place {
                    Place::Length(left) if left == bulk => Place::Complete,
                    Place::Length(left) => Place::Length(left - bulk),
                    Place::Data(left) if left == bulk => Place::DataEnd,
                    Place::Data(left) => Place::Data(left - bulk),
                    place => place,
                };
            } else {
                self.place = self.chunk(first)?;
                rest = rest.get(1..).unwrap_or_default();
            }
        }
        Ok(rest)
    }

    /// One byte between the data of chunks.
    fn chunk(&mut self, byte: u8) -> Result<Place, Unreadable> {
        self.line += 1;
        if self.line > LINE_MAX {
            return Err(Malformed("a chunk's line or the trailers are too long"));
        }
        Ok(match (self.place, byte) {
            (Place::Size(size, _), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let digit = char::from(byte).to_digit(16).unwrap_or_default() as usize;
                let size = size.checked_mul(16).and_then(|size| size.checked_add(digit));
                Place::Size(size.ok_or(TooLarge)?, true)
            }
            (Place::Size(size, true), b';' | b' ' | b'\t' | b'\r') => Place::Extension(size),
            (Place::Size(size, true) | Place::Extension(size), b'\n') => {
                self.line = 0;
                if size == 0 { Place::Trailer(true) } else { Place::Data(size) }
            }
            (Place::Extension(size), _) => Place::Extension(size),
            (Place::DataEnd, b'\r') => Place::DataEnd,
            (Place::DataEnd, b'\n') => {
                self.line = 0;
                Place::Size(0, false)
            }
            (Place::Trailer(true), b'\n') => Place::Complete,
            (Place::Trailer(_), b'\n') => Place::Trailer(true),
            (Place::Trailer(empty), b'\r') => Place::Trailer(empty),
            (Place::Trailer(_), _) => Place::Trailer(false),
            _ => return Err(Malformed("a broken chunk")),
        })
    }
}

/// The headers, which share one copy of the head.
fn kept(head: &[u8], fields: &[Header<'_>]) -> Result<HeaderMap, Unreadable> {
    let shared = Bytes::copy_from_slice(head);
    let mut headers = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes());
        // the offset in `head`, which the parser borrowed from
        let at = (field.value.as_ptr() as usize).wrapping_sub(head.as_ptr() as usize);
        let value = match shared.get(at..at.saturating_add(field.value.len())) {
            Some(value) if !value.is_empty() => {
                HeaderValue::from_maybe_shared(shared.slice_ref(value))
            }
            _ => HeaderValue::from_maybe_shared(Bytes::new()),
        };
        let (Ok(name), Ok(value)) = (name, value) else { return Err(Malformed("a broken header")) };
        headers.append(name, value);
    }
    Ok(headers)
}

/// The headers as lines; they are no longer than the head of `length` bytes that they came in.
fn lines(length: usize, fields: &[Header<'_>]) -> Vec<u8> {
    let mut lines = Vec::with_capacity(length);
    for field in fields {
        let name = lines.len();
        lines.extend_from_slice(field.name.as_bytes());
        lines.get_mut(name..).unwrap_or_default().make_ascii_lowercase();
        for part in [b": ", field.value, b"\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines
}

/// What the headers tell of the message and the connection.
#[derive(Default)]
struct Told<'f> {
    length: Option<&'f [u8]>,
    two_lengths: bool,
    coding: Option<&'f [u8]>,
    codings: usize,
    close: bool,
}

impl<'f> Told<'f> {
    /// In one pass: most headers are known by their length to tell nothing.
    fn of(fields: &[Header<'f>]) -> Told<'f> {
        let mut told = Told::default();
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            if is("content-length") {
                told.two_lengths |= told.length.is_some_and(|length| length != field.value);
                told.length = told.length.or(Some(field.value));
            } else if is("transfer-encoding") {
                told.coding = told.coding.or(Some(field.value));
                told.codings += 1;
            } else if is("connection") {
                let mut tokens = field.value.split(|byte| *byte == b',');
                told.close |= tokens.any(|token| token.trim_ascii().eq_ignore_ascii_case(b"close"));
            }
        }
        told
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
