//! What a request asks for: a channel by its name, and an action of it by the first argument of the
//! query that names one. Who has which actions, the caller knows.

use super::query::{self, Arg};

/// Longest name of a channel, in bytes.
pub const CHANNEL_MAX: usize = 64;
/// Longest name of an action, in bytes; a message between workers carries it.
pub const ACTION_MAX: usize = 128;
/// The channel's answer to a name that it does not have, which users of the original know.
pub const UNKNOWN_CHANNEL: &str = "URL include unknow channel.";

/// Why a word is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Of no length.
    #[error("is empty")]
    Empty,
    /// Longer than [`CHANNEL_MAX`] or [`ACTION_MAX`].
    #[error("is longer than {0} bytes")]
    Long(usize),
    /// It would not stand in a path as it is.
    #[error("may only have letters, digits and \"-._~\"")]
    Letters,
    /// `_` stands for the own channel in a URL, `.` and `..` for folders.
    #[error("must not be \"_\", \".\" or \"..\"")]
    Reserved,
    /// It would not stand in a query, or not in a log line.
    #[error("must not have control characters")]
    Control,
}

/// Whether a channel can have that name: what stands in a path without being encoded.
pub fn check_channel(name: &[u8]) -> Result<(), NameError> {
    match name {
        b"" => Err(NameError::Empty),
        b"_" | b"." | b".." => Err(NameError::Reserved),
        _ if name.len() > CHANNEL_MAX => Err(NameError::Long(CHANNEL_MAX)),
        _ if !name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)) => {
            Err(NameError::Letters)
        }
        _ => Ok(()),
    }
}

/// Whether an action can have that name.
pub fn check_action(name: &[u8]) -> Result<(), NameError> {
    match name {
        b"" => Err(NameError::Empty),
        _ if name.len() > ACTION_MAX => Err(NameError::Long(ACTION_MAX)),
        _ if name.iter().any(u8::is_ascii_control) => Err(NameError::Control),
        _ => Ok(()),
    }
}

/// The channel that a path names by default: its first segment; None where it can be none.
pub fn channel_of(path: &[u8]) -> Option<&[u8]> {
    let name = path.strip_prefix(b"/")?.split(|byte| *byte == b'/').next()?;
    check_channel(name).is_ok().then_some(name)
}

/// The first argument that names an action.
pub fn first<'a>(query: &'a [u8], is_action: impl Fn(&[u8]) -> bool) -> Option<Arg<'a>> {
    query::parse(query).find(|arg| check_action(&arg.name).is_ok() && is_action(&arg.name))
}

/// The reason to give where [`first`] found none. Fit for an answer: the names in it are shortened
/// and have printable ASCII letters only.
pub fn unknown(query: &[u8]) -> String {
    match query::parse(query).next() {
        None => "no action in the query".into(),
        Some(arg) => format!("unknown action \"{}\"", shown(&arg.name)),
    }
}

/// Outside text for an answer or a log line: at most 64 bytes of it, all of them printable.
pub fn shown(text: &[u8]) -> String {
    const SHOWN: usize = 64;
    let mut shown: String = text.iter().take(SHOWN).copied().map(printable).collect();
    if text.len() > SHOWN {
        shown.push_str("...");
    }
    shown
}

fn printable(byte: u8) -> char {
    match byte {
        b'"' | b'\\' | b'<' | b'>' => '?',
        b' '..=b'~' => char::from(byte),
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_argument_that_names_an_action_wins() {
        let is_action = |name: &[u8]| [&b"who"[..], b"getServiceStat"].contains(&name);
        let first = |query: &'static str| {
            first(query.as_bytes(), is_action)
                .map(|arg| String::from_utf8_lossy(&arg.name).into_owned())
        };
        assert_eq!(first("who&getServiceStat").as_deref(), Some("who"));
        assert_eq!(first("x=1&getServiceStat=1&who").as_deref(), Some("getServiceStat"));
        assert_eq!(first("w%68o=2").as_deref(), Some("who"));
        assert_eq!(first("x=who"), None);
        assert_eq!(first(""), None);
    }

    #[test]
    fn channels_have_names_that_fit_a_path() {
        for good in ["test", "kada-2", "a.b", "..."] {
            assert_eq!(check_channel(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, error) in [
            ("", NameError::Empty),
            ("_", NameError::Reserved),
            ("..", NameError::Reserved),
            ("a b", NameError::Letters),
            ("a/b", NameError::Letters),
            ("a\nb", NameError::Letters),
            ("ä", NameError::Letters),
        ] {
            assert_eq!(check_channel(bad.as_bytes()), Err(error), "{bad}");
        }
        assert_eq!(check_channel(&[b'a'; 65]), Err(NameError::Long(64)));
        assert_eq!(check_action(b"a\r\n"), Err(NameError::Control));
        assert_eq!(check_action(b""), Err(NameError::Empty));
        assert_eq!(check_action(&[b'a'; 129]), Err(NameError::Long(128)));
    }

    #[test]
    fn the_first_segment_is_the_channel() {
        assert_eq!(channel_of(b"/test/invoke"), Some(&b"test"[..]));
        assert_eq!(channel_of(b"/test"), Some(&b"test"[..]));
        assert_eq!(channel_of(b"//x"), None);
        assert_eq!(channel_of(b"/_/x"), None);
        assert_eq!(channel_of(b"test"), None);
    }

    #[test]
    fn reasons_are_one_printable_line() {
        assert_eq!(unknown(b""), "no action in the query");
        assert_eq!(unknown(b"a%0d%0ab%22&c"), "unknown action \"a??b?\"");
        assert_eq!(shown(&[b'x'; 100]).len(), 67);
    }

    proptest! {
        #[test]
        fn any_query_gives_a_line(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(unknown(&bytes).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            let _ = first(&bytes, |_| true);
        }
    }
}
