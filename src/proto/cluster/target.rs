//! A request's path and query as they can be sent on: what no URI may hold is percent-encoded, the
//! rest stays as it came. Whoever signs a call signs this form.

use std::fmt::Write;

/// `path_and_query` without what a request line must not or a URI cannot hold: controls, blanks,
/// bytes beyond ASCII, and `"`, `#`, `<`, `>`, `` ` ``, `{`, `}`. Escapes stay what they are.
pub fn sendable(path_and_query: &[u8]) -> String {
    let mut out = String::with_capacity(path_and_query.len() + 16);
    if path_and_query.first() != Some(&b'/') {
        out.push('/');
    }
    for byte in path_and_query {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'`' | b'{' | b'}' => escape(&mut out, *byte),
            0x21..=0x7e => out.push(char::from(*byte)),
            _ => escape(&mut out, *byte),
        }
    }
    out
}

fn escape(out: &mut String, byte: u8) {
    // writing to a String cannot fail
    let _ = write!(out, "%{byte:02X}");
}

#[cfg(test)]
mod tests {
    use super::sendable;

    #[test]
    fn what_is_legal_stays() {
        let legal = "/a/b%20c;d=e,f/~g!$&'()*+?x=1&y=/?:@[]\\^|&%zz";
        assert_eq!(sendable(legal.as_bytes()), legal);
    }

    #[test]
    fn the_rest_is_escaped() {
        assert_eq!(
            sendable(b"/a b\r\n?{\"k\":\xc3\xa9}<>`#x\0\x7f"),
            "/a%20b%0D%0A?%7B%22k%22:%C3%A9%7D%3C%3E%60%23x%00%7F"
        );
        assert_eq!(sendable(b""), "/");
        assert_eq!(sendable(b"?a"), "/?a");
    }
}
