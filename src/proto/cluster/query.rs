//! The arguments of a query: taken apart in their order, put together again, merged. As ngx_lua
//! does it: `+` is a space, a wrong `%` stands for itself, a name without `=` is true.

use std::borrow::Cow;

/// Most arguments that are looked at; ngx_lua's limit.
pub const ARGS_MAX: usize = 100;

/// What an argument has behind its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// No `=`.
    True,
    /// Leaves the argument out, and keeps a default away.
    False,
    /// What follows the `=`, decoded.
    Text(Cow<'a, [u8]>),
}

impl Value<'_> {
    /// The text; "" where there is none.
    pub fn text(&self) -> &[u8] {
        match self {
            Value::Text(text) => text,
            Value::True | Value::False => b"",
        }
    }

    fn into_owned(self) -> Value<'static> {
        match self {
            Value::Text(text) => Value::Text(Cow::Owned(text.into_owned())),
            Value::True => Value::True,
            Value::False => Value::False,
        }
    }
}

/// One argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arg<'a> {
    /// Decoded; never empty.
    pub name: Cow<'a, [u8]>,
    /// See there.
    pub value: Value<'a>,
}

/// Arguments in the order in which they are sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Args(Vec<Arg<'static>>);

/// Whether a query is one argument without a value, and nothing in it needs decoding.
pub fn is_bare(query: &[u8]) -> bool {
    !query.is_empty() && !query.iter().any(|byte| matches!(byte, b'&' | b'=' | b'%' | b'+'))
}

/// The arguments of a query without its `?`, at most [`ARGS_MAX`]. Those without a name are no
/// arguments.
pub fn parse(query: &[u8]) -> impl Iterator<Item = Arg<'_>> {
    let args = query.split(|byte| *byte == b'&').map(|text| {
        let mut parts = text.splitn(2, |byte| *byte == b'=');
        let name = decode(parts.next().unwrap_or_default());
        let value = parts.next().map_or(Value::True, |value| Value::Text(decode(value)));
        Arg { name, value }
    });
    args.filter(|arg| !arg.name.is_empty()).take(ARGS_MAX)
}

/// The first argument of that name.
pub fn find<'a>(query: &'a [u8], name: &[u8]) -> Option<Arg<'a>> {
    parse(query).find(|arg| *arg.name == *name)
}

impl Args {
    /// See [`parse`].
    pub fn of(query: &[u8]) -> Args {
        let owned = |arg: Arg<'_>| Arg {
            name: Cow::Owned(arg.name.into_owned()),
            value: arg.value.into_owned(),
        };
        Args(parse(query).map(owned).collect())
    }

    /// Adds one behind the others.
    pub fn push(&mut self, name: &[u8], value: Value<'_>) {
        self.0.push(Arg { name: Cow::Owned(name.to_vec()), value: value.into_owned() });
    }

    /// In their order.
    pub fn iter(&self) -> impl Iterator<Item = &Arg<'static>> {
        self.0.iter()
    }

    /// Adds those of `defaults` whose names are not here; [`Value::False`] keeps one away, too.
    pub fn merge(&mut self, defaults: &Args) {
        let own = self.0.len();
        for arg in &defaults.0 {
            let known = self.0.iter().take(own).any(|mine| mine.name == arg.name);
            if !known {
                self.0.push(arg.clone());
            }
        }
    }

    /// As a query, without `?`.
    pub fn build(&self) -> Vec<u8> {
        let mut query = Vec::new();
        for Arg { name, value } in &self.0 {
            if *value == Value::False || name.is_empty() {
                continue;
            }
            if !query.is_empty() {
                query.push(b'&');
            }
            encode(name, &mut query);
            if let Value::Text(text) = value {
                query.push(b'=');
                encode(text, &mut query);
            }
        }
        query
    }

    /// The target with these behind the query that it has.
    pub fn behind(&self, target: &[u8]) -> Vec<u8> {
        let (mut target, query) = (target.to_vec(), self.build());
        if !query.is_empty() {
            let joint = match target.iter().position(|byte| *byte == b'?') {
                None => Some(b'?'),
                Some(at) if at + 1 == target.len() => None,
                Some(_) => Some(b'&'),
            };
            target.extend(joint);
            target.extend(query);
        }
        target
    }
}

/// Splits a target into its path and its query, without the `?`.
pub fn split(target: &[u8]) -> (&[u8], &[u8]) {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Undoes percent-encoding; `+` becomes a space.
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let pair = match (first, tail) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)),
            _ => None,
        };
        match (first, pair) {
            (_, Some((high, low))) => decoded.push(high << 4 | low),
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(*byte),
        }
        rest = if pair.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|digit| digit as u8)
}

/// Percent-encodes everything but letters, digits and `-._~`.
pub fn encode(text: &[u8], to: &mut Vec<u8>) {
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
            to.push(*byte);
        } else {
            escape(*byte, to);
        }
    }
}

/// Writes a byte as `%XX`.
pub fn escape(byte: u8, to: &mut Vec<u8>) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble & 15)).copied().unwrap_or(b'0');
    to.extend([b'%', digit(byte >> 4), digit(byte)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(value: &str) -> Value<'_> {
        Value::Text(Cow::Borrowed(value.as_bytes()))
    }

    fn shown(query: &str) -> Vec<(String, Value<'_>)> {
        parse(query.as_bytes())
            .map(|arg| (String::from_utf8(arg.name.into_owned()).unwrap(), arg.value))
            .collect()
    }

    proptest! {
        #[test]
        fn a_bare_query_is_its_only_argument(query in "[ab&=%+2;.]{0,5}") {
            let alone = Arg { name: Cow::Borrowed(query.as_bytes()), value: Value::True };
            if is_bare(query.as_bytes()) {
                prop_assert_eq!(parse(query.as_bytes()).collect::<Vec<_>>(), [alone]);
            } else {
                prop_assert!(query.is_empty() || query.contains(['&', '=', '%', '+']));
            }
        }
    }

    #[test]
    fn arguments_keep_their_order() {
        assert_eq!(
            shown("who&k=v&empty=&=none&&x=1=2&sp+a%20ce=%41%zz%4"),
            [
                ("who".into(), Value::True),
                ("k".into(), text("v")),
                ("empty".into(), text("")),
                ("x".into(), text("1=2")),
                ("sp a ce".into(), text("A%zz%4")),
            ]
        );
        assert_eq!(shown(&"a&".repeat(300)).len(), ARGS_MAX);
        assert_eq!(find(b"a=1&b=2&b=3", b"b").unwrap().value, text("2"));
    }

    #[test]
    fn own_arguments_win_over_defaults() {
        let current = Args::of(b"u=1&who=9");
        let merged = |own: &Args| {
            let mut args = own.clone();
            args.merge(&current);
            String::from_utf8(args.build()).unwrap()
        };
        assert_eq!(merged(&Args::of(b"u=mine&z=1")), "u=mine&z=1&who=9");
        assert_eq!(merged(&Args::default()), "u=1&who=9");
        let mut own = Args::default();
        own.push(b"u", Value::False);
        own.push(b"b", Value::True);
        assert_eq!(merged(&own), "b&who=9");
        let mut twice = Args::default();
        twice.merge(&Args::of(b"a=1&a=2"));
        assert_eq!(twice.build(), b"a=1&a=2");
    }

    #[test]
    fn arguments_go_behind_a_query() {
        let args = Args::of(b"a=1 2&b");
        for (target, expected) in
            [("/x", "/x?a=1%202&b"), ("/x?", "/x?a=1%202&b"), ("/x?y", "/x?y&a=1%202&b")]
        {
            assert_eq!(args.behind(target.as_bytes()), expected.as_bytes());
        }
        assert_eq!(Args::default().behind(b"/x"), b"/x");
        assert_eq!(split(b"/x?y?z"), (&b"/x"[..], &b"y?z"[..]));
        assert_eq!(split(b"/x"), (&b"/x"[..], &b""[..]));
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed(pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 1..9), prop::option::of(prop::collection::vec(any::<u8>(), 0..9))), 0..9)) {
            let mut args = Args::default();
            for (name, value) in &pairs {
                args.push(name, value.as_ref().map_or(Value::True, |value| Value::Text(Cow::Borrowed(value))));
            }
            prop_assert_eq!(Args::of(&args.build()), args);
        }

        #[test]
        fn any_bytes_are_a_query(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let args = Args::of(&bytes);
            prop_assert_eq!(Args::of(&args.build()), args);
        }
    }
}
