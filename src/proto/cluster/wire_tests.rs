use proptest::prelude::*;

use super::*;

/// The same, but for the headers, where nobody wants them, or as lines.
fn read(method: &Method, max: usize, pieces: &[&[u8]]) -> Result<Option<Whole>, Unreadable> {
    let with = |mut reader: Reader| {
        for piece in pieces {
            if let Some(whole) = reader.feed(piece)? {
                return Ok(Some(whole));
            }
        }
        Ok(None)
    };
    let full = with(Reader::new(method, max));
    for wanted in [Wanted::Nothing, Wanted::Lines] {
        let mut reader = Reader::new(method, max);
        reader.want(wanted);
        let other = with(reader);
        let (Ok(Some(a)), Ok(Some(b))) = (&full, &other) else {
            assert_eq!(full, other);
            continue;
        };
        assert_eq!((a.status, &a.body, a.keep), (b.status, &b.body, b.keep));
        assert!(b.headers.is_empty() && a.lines.is_empty());
        let line = |(name, value): (&HeaderName, &HeaderValue)| {
            [name.as_str().as_bytes(), b": ", value.as_bytes()].concat()
        };
        let mut lines: Vec<&[u8]> = b.lines.split(|byte| *byte == b'\n').collect();
        assert_eq!(lines.pop(), Some(&b""[..]));
        let mut known: Vec<Vec<u8>> = a.headers.iter().map(line).collect();
        lines.sort_unstable();
        known.sort_unstable();
        assert!(wanted == Wanted::Nothing && lines.is_empty() || lines == known);
    }
    full
}

/// In one piece, and byte by byte: the same.
fn answer(text: &str) -> Result<Option<Whole>, Unreadable> {
    let once = read(&Method::GET, 1000, &[text.as_bytes()]);
    let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
    let slowly = read(&Method::GET, 1000, &bytes);
    match (&once, &slowly) {
        // what follows is not read byte by byte
        (Ok(Some(a)), Ok(Some(b))) => {
            assert_eq!((a.status, &a.headers, &a.body), (b.status, &b.headers, &b.body));
        }
        _ => assert_eq!(once, slowly),
    }
    once
}

fn body(text: &str) -> (u16, String, bool) {
    let whole = answer(text).unwrap().unwrap();
    let body = String::from_utf8(whole.body.to_vec()).unwrap();
    (whole.status.as_u16(), body, whole.keep)
}

fn malformed(text: &str) -> &'static str {
    match answer(text) {
        Err(Malformed(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_length() {
    assert_eq!(body("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), (200, "ok".into(), true));
    assert_eq!(body("HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n"), (404, "".into(), true));
    assert_eq!(body("HTTP/1.1 200\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok").1, "ok");
    let closing = "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(body(closing), (200, "ok".into(), false));
    assert!(!body("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok").2, "HTTP/1.0 closes");
    let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n";
    assert_eq!(body(surplus), (200, "ok".into(), false));
}

#[test]
fn lengths_that_are_none() {
    for length in ["-1", "", "2, 2", "0x2", "+2", "2 2"] {
        malformed(&format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nokokok"));
    }
    malformed("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokok");
    for length in ["1001", "18446744073709551616", "99999999999999999999999999"] {
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(answer(&text), Err(TooLarge));
    }
}

#[test]
fn chunks() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let text =
        format!("{head}5\r\nhello\r\n00A;ext=\"1\"\r\n0123456789\r\n0\r\nTr: x\r\nB:\r\n\r\n");
    assert_eq!(body(&text), (200, "hello0123456789".into(), true));
    assert_eq!(body(&format!("{head}0\r\n\r\n")), (200, "".into(), true));
    assert!(!body(&format!("{head}0\r\n\r\nmore")).2);
    for broken in ["zz\r\n", "\r\n", ";a\r\n", "2\r\nabc\r\n", "-1\r\n", "2\r\nabx"] {
        assert_eq!(malformed(&format!("{head}{broken}")), "a broken chunk", "{broken:?}");
    }
    malformed(&format!("{head}1;{}\r\n", "e".repeat(LINE_MAX)));
    malformed(&format!("{head}0\r\n{}\r\n", "Tr: x\r\n".repeat(LINE_MAX / 7 + 1)));
    assert_eq!(answer(&format!("{head}{}\r\n", "f".repeat(17))), Err(TooLarge));
    let much = format!("{head}{}", "64\r\n".to_owned() + &"x".repeat(100) + "\r\n").repeat(1);
    assert_eq!(answer(&much), Ok(None), "not complete");
    let chunk = "64\r\n".to_owned() + &"x".repeat(100) + "\r\n";
    assert_eq!(answer(&format!("{head}{}", chunk.repeat(11))), Err(TooLarge));
}

#[test]
fn what_can_be_read_in_two_ways() {
    for headers in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    ] {
        malformed(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n0\r\n\r\n"));
    }
    malformed("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    malformed("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n");
    malformed("HTTP/1.1 200 OK\r\nX : a\r\n\r\n");
    malformed("HTTP/1.1 200 OK\r\nX: a\0b\r\n\r\n");
    malformed("hello\nworld\n");
    malformed("HTTP/2.0 200 OK\r\n\r\n");
}

#[test]
fn without_a_body() {
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    let whole = read(&Method::HEAD, 1, &[head]).unwrap().unwrap();
    assert_eq!((whole.body.len(), whole.keep), (0, true));
    assert_eq!(whole.headers["content-length"], "5");
    assert_eq!(
        body("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
        (304, "".into(), true)
    );
    assert_eq!(body("HTTP/1.1 204 None\r\n\r\n"), (204, "".into(), true));
}

#[test]
fn until_the_end() {
    let mut reader = Reader::new(&Method::GET, 10);
    assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nuntil"), Ok(None));
    assert_eq!(reader.feed(b" end"), Ok(None));
    let whole = reader.end().unwrap();
    assert_eq!((&whole.body[..], whole.keep), (&b"until end"[..], false));
    let mut reader = Reader::new(&Method::GET, 10);
    assert_eq!(reader.feed(b"HTTP/1.1 200 OK\r\n\r\n12345678901"), Err(TooLarge));
    for cut in ["", "HTTP/1.1 200", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"] {
        let mut reader = Reader::new(&Method::GET, 10);
        assert_eq!(reader.feed(cut.as_bytes()), Ok(None));
        assert_eq!(reader.end(), Err(Cut));
    }
}

#[test]
fn interim_answers() {
    let early = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n";
    let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    assert_eq!(body(&format!("{early}{last}")), (200, "ok".into(), true));
    malformed("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n");
    malformed(&"HTTP/1.1 100 Continue\r\n\r\n".repeat(INTERIM_MAX + 1));
}

#[test]
fn heads_have_bounds() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(HEAD_MAX));
    assert_eq!(read(&Method::GET, 1, &[long.as_bytes()]), Err(Malformed("the head is too long")));
    let pieces: Vec<&[u8]> = long.as_bytes().chunks(1000).collect();
    assert_eq!(read(&Method::GET, 1, &pieces), Err(Malformed("the head is too long")));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: a\r\n".repeat(HEADERS_MAX + 1));
    assert_eq!(read(&Method::GET, 1, &[many.as_bytes()]), Err(Malformed("too many headers")));
}

fn written(method: Method, target: &str, headers: &[(&str, &str)], body: usize) -> String {
    let map = headers.iter().map(|(name, value)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    });
    let mut out = Vec::new();
    write_head(&method, target, "h:1", &map.collect(), body, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn a_call_is_written() {
    assert_eq!(written(Method::GET, "/a?b", &[], 0), "GET /a?b HTTP/1.1\r\nHost: h:1\r\n\r\n");
    assert_eq!(
        written(
            Method::POST,
            "/",
            &[
                ("x-a", "1"),
                ("host", "evil"),
                ("connection", "close"),
                ("content-length", "9"),
                ("transfer-encoding", "chunked"),
                ("expect", "100-continue"),
                ("te", "trailers"),
                ("upgrade", "h2c"),
                ("trailer", "x"),
            ],
            0,
        ),
        "POST / HTTP/1.1\r\nHost: h:1\r\nx-a: 1\r\nContent-Length: 0\r\n\r\n"
    );
    assert!(written(Method::DELETE, "/", &[], 7).ends_with("Content-Length: 7\r\n\r\n"));
}

#[test]
fn what_cannot_be_written() {
    let none = HeaderMap::new();
    let write = |method, target, host| write_head(&method, target, host, &none, 0, &mut Vec::new());
    assert_eq!(write(Method::CONNECT, "/", "h"), Err(Unwritable::Connect));
    for target in ["", "a", "*", "/a b", "/a#b", "/\r\n", "/\u{e9}", "http://h/"] {
        assert_eq!(write(Method::GET, target, "h"), Err(Unwritable::Target), "{target:?}");
    }
    assert_eq!(write(Method::GET, "/", "h\r\nX: y"), Err(Unwritable::Host));
}

proptest! {
    /// However an answer is cut into pieces, it is the same answer.
    #[test]
    fn pieces_do_not_matter(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        sizes in proptest::collection::vec(1usize..40, 1..20),
        cuts in proptest::collection::vec(1usize..60, 1..30),
        chunked in any::<bool>(),
    ) {
        let mut text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX-A: b\r\n".to_vec();
        if chunked {
            text.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let (mut rest, mut size) = (&data[..], sizes.iter().cycle());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at((*size.next().unwrap()).min(rest.len()));
                text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                text.extend_from_slice(chunk);
                text.extend_from_slice(b"\r\n");
                rest = after;
            }
            text.extend_from_slice(b"0\r\n\r\n");
        } else {
            text.extend_from_slice(format!("Content-Length: {}\r\n\r\n", data.len()).as_bytes());
            text.extend_from_slice(&data);
        }
        let mut reader = Reader::new(&Method::GET, 300);
        let (mut rest, mut cut) = (&text[..], cuts.iter().cycle());
        let whole = loop {
            prop_assert!(!rest.is_empty(), "no answer");
            let (piece, after) = rest.split_at((*cut.next().unwrap()).min(rest.len()));
            rest = after;
            if let Some(whole) = reader.feed(piece).unwrap() {
                break whole;
            }
        };
        prop_assert!(rest.is_empty() && whole.keep);
        prop_assert_eq!(&whole.body[..], &data[..]);
    }

    /// No bytes make it panic, or hold more than it may.
    #[test]
    fn garbage_is_refused_or_waited_for(
        start in prop_oneof![
            Just(&b""[..]),
            Just(&b"HTTP/1.1 200 OK\r\n"[..]),
            Just(&b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"[..]),
        ],
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..50), 0..20),
    ) {
        let mut reader = Reader::new(&Method::GET, 100);
        let mut bytes = vec![start.to_vec()];
        bytes.extend(pieces);
        for piece in bytes {
            match reader.feed(&piece) {
                Ok(None) => prop_assert!(reader.body.len() <= 100),
                Ok(Some(whole)) => {
                    prop_assert!(whole.body.len() <= 100);
                    break;
                }
                Err(_) => break,
            }
        }
    }
}
