//! How many tries a request has, and what is told of each.

use std::fmt;

/// The most tries of a request where nginx sets no limit (`proxy_next_upstream_tries 0`).
pub const TRIES_MAX: usize = 100;

/// How many tries were asked for; nothing where nobody asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// In all, `cc_balancer_tries`.
    pub total: Option<u16>,
    /// Besides those, `set_more_tries`.
    pub more: Option<u16>,
}

impl Wish {
    /// Whether somebody asked.
    pub fn any(self) -> bool {
        self.total.is_some() || self.more.is_some()
    }

    /// The tries of a request that has so many by itself.
    pub fn tries(self, own: usize) -> usize {
        self.asked(own).min(TRIES_MAX)
    }

    /// Whether `limit` (0 is none) or the ceiling cuts off some of them.
    pub fn is_cut(self, own: usize, limit: usize) -> bool {
        let limit = if limit == 0 { TRIES_MAX } else { limit.min(TRIES_MAX) };
        self.asked(own) > limit
    }

    fn asked(self, own: usize) -> usize {
        self.total.map_or(own.max(1), usize::from).saturating_add(self.more.unwrap_or(0).into())
    }
}

/// How nginx left a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer did its work, or nobody waited for it any more.
    Left,
    /// NGX_PEER_NEXT.
    Next,
    /// NGX_PEER_FAILED, or the response broke off.
    Failed,
}

/// How a try went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Answered, with whatever status is no failure by `proxy_next_upstream`.
    Ok,
    /// Answered 403 or 404 where these go on to the next peer.
    Next,
    /// Not reached, no answer, or one that is a failure by `proxy_next_upstream`.
    Failed,
    /// Not over, or given up by the client.
    Open,
}

impl State {
    /// As Lua and the variables tell it.
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Next => "next",
            State::Failed => "failed",
            State::Open => "-",
        }
    }
}

/// A try as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Of the peer; the upstream's name where no peer was live.
    pub address: String,
    /// How it went.
    pub state: State,
    /// The peer's answer, or what nginx made of its failure; 0 is none.
    pub status: u16,
    /// Milliseconds until the connection stood.
    pub connect: Option<u64>,
    /// Milliseconds until the header of the response was there.
    pub header: Option<u64>,
}

impl Try {
    /// What became of a peer that nginx left so; `listed` are the failures of `proxy_next_upstream`.
    pub fn state(end: Option<End>, status: u16, listed: bool) -> State {
        match (end, status) {
            (Some(End::Failed), _) => State::Failed,
            (Some(End::Next), _) => State::Next,
            (_, 0) => State::Open,
            // the last try's answer is passed on, whatever it is
            (_, 403 | 404) if listed => State::Next,
            _ if listed => State::Failed,
            _ => State::Ok,
        }
    }
}

impl fmt::Display for Try {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ", self.address, self.state.name())?;
        match self.status {
            0 => write!(f, "-")?,
            status => write!(f, "{status}")?,
        }
        for time in [self.connect, self.header] {
            match time {
                Some(ms) => write!(f, " {}.{:03}", ms / 1000, ms % 1000)?,
                None => write!(f, " -")?,
            }
        }
        Ok(())
    }
}

/// The last try that did not go well.
pub fn last_failure(tries: &[Try]) -> Option<&Try> {
    tries.iter().rev().find(|one| matches!(one.state, State::Next | State::Failed))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Wish = Wish { total: None, more: None };

    #[test]
    fn tries_are_those_asked_for() {
        assert_eq!(NONE.tries(1), 1); // B12
        assert_eq!(NONE.tries(3), 3);
        assert_eq!(NONE.tries(0), 1);
        assert_eq!(Wish { more: Some(2), ..NONE }.tries(1), 3); // B13
        assert_eq!(Wish { more: Some(0), ..NONE }.tries(3), 3); // B15
        assert_eq!(Wish { total: Some(2), more: None }.tries(5), 2);
        assert_eq!(Wish { total: Some(2), more: Some(1) }.tries(5), 3);
    }

    #[test]
    fn nobody_tries_for_ever() {
        assert_eq!(Wish { total: Some(u16::MAX), more: Some(u16::MAX) }.tries(1), TRIES_MAX);
        assert_eq!(NONE.tries(5000), TRIES_MAX);
        assert_eq!(Wish { more: Some(1), ..NONE }.tries(usize::MAX), TRIES_MAX);
    }

    #[test]
    fn a_limit_cuts() {
        let two_more = Wish { more: Some(2), ..NONE };
        assert!(two_more.is_cut(1, 2)); // B14
        assert!(!two_more.is_cut(1, 3) && !two_more.is_cut(1, 0));
        assert!(Wish { more: Some(100), ..NONE }.is_cut(1, 0));
    }

    #[test]
    fn states() {
        assert_eq!(Try::state(Some(End::Failed), 502, false), State::Failed);
        assert_eq!(Try::state(Some(End::Next), 404, true), State::Next);
        assert_eq!(Try::state(Some(End::Left), 200, false), State::Ok);
        assert_eq!(Try::state(Some(End::Left), 500, true), State::Failed);
        assert_eq!(Try::state(Some(End::Left), 404, true), State::Next);
        assert_eq!(Try::state(Some(End::Left), 500, false), State::Ok);
        assert_eq!(Try::state(None, 0, false), State::Open);
    }

    #[test]
    fn a_try_in_a_line() {
        let mut one = Try {
            address: "127.0.0.1:80".into(),
            state: State::Failed,
            status: 504,
            connect: Some(0),
            header: None,
        };
        assert_eq!(one.to_string(), "127.0.0.1:80 failed 504 0.000 -");
        one.header = Some(1234);
        assert_eq!(one.to_string(), "127.0.0.1:80 failed 504 0.000 1.234");
        let ok = Try { state: State::Ok, ..one.clone() };
        assert_eq!(last_failure(&[one.clone(), ok.clone()]), Some(&one));
        assert_eq!(last_failure(&[ok]), None);
    }
}
