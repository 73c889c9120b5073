//! Which headers go on with a call to a worker or a node, which come back with its answer, and what
//! may stand in a call at all. What is about one connection only, and our own, never goes on.

use std::borrow::Cow;

use super::query::escape;

/// Longest method, in bytes.
const METHOD_MAX: usize = 32;

/// A header: name and value.
pub type Header<'a> = (&'a [u8], &'a [u8]);

/// Where a request's headers go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Road {
    /// To one worker of this node, whose answer goes back as it is: all that can go on.
    Hub,
    /// To workers of this node, whose bodies are gathered: not what asks for another form of the
    /// body, or for a part of it.
    Workers,
    /// To other nodes: moreover no credentials of the client.
    Nodes,
    /// Only what describes the body.
    Bare,
}

/// What must not be in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsendable {
    /// Not a token, or too long.
    #[error("invalid method")]
    Method,
    /// Not an absolute path, or with spaces, control characters or a fragment.
    #[error("invalid characters in the path or query")]
    Target,
    /// Not a token.
    #[error("invalid header name")]
    Name,
    /// CR, LF, NUL or another control character.
    #[error("invalid characters in a header")]
    Value,
}

/// About one connection (RFC 9110, 7.6.1, and what older ones say), or made anew for the next one.
const HOP: [&[u8]; 14] = [
    b"connection",
    b"content-length",
    b"expect",
    b"host",
    b"http2-settings",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authentication-info",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// Would make the gathered bodies something else than the action's words.
const FORM: [&[u8]; 8] = [
    b"accept-encoding",
    b"if-match",
    b"if-modified-since",
    b"if-none-match",
    b"if-range",
    b"if-unmodified-since",
    b"max-forwards",
    b"range",
];

/// The client's own secrets.
const CREDENTIALS: [&[u8]; 3] = [b"authorization", b"cookie", b"cookie2"];

/// What describes a body.
const BODY: [&[u8]; 3] = [b"content-encoding", b"content-language", b"content-type"];

/// nginx writes its own.
const SERVER: [&[u8]; 2] = [b"date", b"server"];

/// The headers of a request that go on with it; an error where one cannot be sent.
pub fn request<'a>(
    headers: impl Iterator<Item = Header<'a>> + Clone,
    road: Road,
) -> Result<Vec<Header<'a>>, Unsendable> {
    let stays = |name: &[u8]| match road {
        Road::Hub => false,
        Road::Workers => is_in(&FORM, name),
        Road::Nodes => is_in(&FORM, name) || is_in(&CREDENTIALS, name),
        Road::Bare => !is_in(&BODY, name),
    };
    forwarded(headers, stays)
}

/// The headers of an answer that come back with it.
pub fn answer<'a>(
    headers: impl Iterator<Item = Header<'a>> + Clone,
) -> Result<Vec<Header<'a>>, Unsendable> {
    forwarded(headers, |name| is_in(&SERVER, name))
}

fn forwarded<'a>(
    headers: impl Iterator<Item = Header<'a>> + Clone,
    stays: impl Fn(&[u8]) -> bool,
) -> Result<Vec<Header<'a>>, Unsendable> {
    let named = connection_names(headers.clone());
    let goes =
        |name: &[u8]| !is_own(name) && !is_in(&HOP, name) && !is_in(&named, name) && !stays(name);
    headers.filter(|(name, _)| goes(name)).map(|header| check(header).map(|()| header)).collect()
}

/// What `Connection:` names is about the connection, too.
fn connection_names<'a>(headers: impl Iterator<Item = Header<'a>>) -> Vec<&'a [u8]> {
    headers
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"connection"))
        .flat_map(|(_, value)| value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|name| !name.is_empty())
        .collect()
}

fn is_in(names: &[&[u8]], name: &[u8]) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// Whether the header is ours: `CC-...`, also with `_`, which stands for `-` in variables.
pub fn is_own(name: &[u8]) -> bool {
    matches!(name, [b'c' | b'C', b'c' | b'C', b'-' | b'_', ..])
}

/// Whether a header can be sent.
pub fn check((name, value): Header<'_>) -> Result<(), Unsendable> {
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(Unsendable::Name);
    }
    let bad = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
    if value.iter().any(bad) { Err(Unsendable::Value) } else { Ok(()) }
}

/// Whether a method can be sent.
pub fn check_method(method: &[u8]) -> Result<(), Unsendable> {
    let fits = !method.is_empty() && method.len() <= METHOD_MAX;
    if fits && method.iter().copied().all(is_token) { Ok(()) } else { Err(Unsendable::Method) }
}

/// A path with its query as it can be sent: what HTTP's grammar does not have is percent-encoded.
pub fn target(target: &[u8]) -> Result<Cow<'_, [u8]>, Unsendable> {
    let bad = |byte: &u8| byte.is_ascii_control() || matches!(byte, b' ' | b'#');
    if !target.starts_with(b"/") || target.iter().any(bad) {
        return Err(Unsendable::Target);
    }
    if target.iter().copied().all(is_target) {
        return Ok(Cow::Borrowed(target));
    }
    let mut encoded = Vec::with_capacity(target.len() + 16);
    for byte in target {
        if is_target(*byte) {
            encoded.push(*byte);
        } else {
            escape(*byte, &mut encoded);
        }
    }
    Ok(Cow::Owned(encoded))
}

fn is_target(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?@!$&'()*+,;=%[]".contains(&byte)
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CALL: [(&str, &str); 16] = [
        ("Host", "a"),
        ("Content-Type", "text/plain"),
        ("X-Own", "1"),
        ("Accept-Encoding", "gzip"),
        ("Cookie", "c"),
        ("Authorization", "Basic x"),
        ("connection", "close, X-Hop , ,te"),
        ("x-hop", "1"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "3"),
        ("CC-Auth", "v1"),
        ("cc_cast", "tree"),
        ("Cc-Anything", ""),
        ("Upgrade", "h2c"),
        ("Proxy-Authorization", "x"),
        ("Expect", "100-continue"),
    ];

    fn names(road: Road) -> Vec<&'static str> {
        let headers = CALL.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let sent = request(headers, road).unwrap();
        sent.iter().map(|(name, _)| std::str::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn each_road_takes_its_headers() {
        assert_eq!(
            names(Road::Hub),
            ["Content-Type", "X-Own", "Accept-Encoding", "Cookie", "Authorization"]
        );
        assert_eq!(names(Road::Workers), ["Content-Type", "X-Own", "Cookie", "Authorization"]);
        assert_eq!(names(Road::Nodes), ["Content-Type", "X-Own"]);
        assert_eq!(names(Road::Bare), ["Content-Type"]);
    }

    #[test]
    fn answers_come_back_without_what_nginx_writes_itself() {
        let headers: [Header<'_>; 7] = [
            (b"Server", b"nginx"),
            (b"Date", b"today"),
            (b"Content-Type", b"text/html"),
            (b"Set-Cookie", b"a"),
            (b"Set-Cookie", b"b"),
            (b"CC-Auth", b"v1"),
            (b"Content-Length", b"0"),
        ];
        let back: [Header<'_>; 3] =
            [(b"Content-Type", b"text/html"), (b"Set-Cookie", b"a"), (b"Set-Cookie", b"b")];
        assert_eq!(answer(headers.into_iter()).unwrap(), back);
    }

    #[test]
    fn what_could_split_a_request_is_refused() {
        for value in [&b"a\r\nX: y"[..], b"a\nb", b"a\0b", b"\x01", b"\x7f"] {
            let headers = [(&b"X-Own"[..], value)].into_iter();
            assert_eq!(request(headers.clone(), Road::Hub), Err(Unsendable::Value));
            assert_eq!(answer(headers), Err(Unsendable::Value));
        }
        for name in [&b""[..], b"a b", b"a:", b"a\r\n", b"\xff"] {
            assert_eq!(check((name, b"x")), Err(Unsendable::Name));
        }
        assert_eq!(check((b"X", b"tab\t and \xff are legal")), Ok(()));
        for method in [&b""[..], b"GET ", b"GET\r\n", &[b'A'; 33]] {
            assert_eq!(check_method(method), Err(Unsendable::Method));
        }
        assert_eq!(check_method(b"M-SEARCH"), Ok(()));
        for bad in [&b""[..], b"x", b"http://a/", b"/a b", b"/a\r\nX:", b"/a\0", b"/a#b", b"*"] {
            assert_eq!(target(bad), Err(Unsendable::Target));
        }
        assert_eq!(target(b"/a?b=%20[1]").unwrap(), &b"/a?b=%20[1]"[..]);
        assert_eq!(target(b"/\xc3\xa4\"{").unwrap(), &b"/%C3%A4%22%7B"[..]);
    }

    proptest! {
        #[test]
        fn nothing_sent_can_split_a_request(
            headers in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..9), prop::collection::vec(any::<u8>(), 0..9)), 0..9),
            path in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let all = headers.iter().map(|(name, value)| (&name[..], &value[..]));
            for road in [Road::Hub, Road::Workers, Road::Nodes, Road::Bare] {
                for (name, value) in request(all.clone(), road).unwrap_or_default() {
                    prop_assert!(!name.iter().chain(value).any(|byte| b"\r\n\0".contains(byte)));
                }
            }
            if let Ok(sent) = target(&[b"/", &path[..]].concat()) {
                prop_assert!(sent.iter().all(|byte| (b'!'..=b'~').contains(byte)));
            }
        }
    }
}
