//! What a cast comes to: replies, failures and silence of those who were asked, put together to one
//! JSON and one status. A child's answer to a tree cast is taken apart, so that all replies of the
//! tree stand side by side. Who is asked, `cast` says; when it is too late, the caller.

use std::borrow::Cow;
use std::mem;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};

use super::action;
use super::cast::{Direction, Target, Via};

/// Most workers that one child may answer for: all of the largest tree.
const REPLIES_MAX: usize = 1 << 16;
/// A node's answer to a tree cast that ran there already.
pub const ALREADY: u16 = 208;

/// Why somebody who was asked has not replied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No connection, or it broke, or no room in a queue.
    #[error("{0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// Something came that is no reply.
    #[error("{0}")]
    Wrong(String),
}

impl Failure {
    /// The status that stands for it.
    pub fn status(&self) -> u16 {
        match self {
            Failure::TimedOut => 504,
            Failure::Unreachable(_) | Failure::Wrong(_) => 502,
        }
    }
}

/// What is known of a target.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Nothing yet.
    Waiting,
    /// It replied.
    Replied {
        /// With this status.
        status: u16,
        /// And this body.
        body: Vec<u8>,
    },
    /// It answered for all below it.
    Below(Below),
    /// It did not.
    Failed(Failure),
}

/// What a child node gathered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Below {
    replies: Vec<Reply<'static>>,
    missing: Vec<Missing<'static>>,
}

/// The JSON of a cast.
#[derive(Debug, Deserialize)]
struct Answer<'a> {
    channel: Cow<'a, str>,
    direction: Cow<'a, str>,
    asked: usize,
    answered: usize,
    replies: Vec<Reply<'a>>,
    missing: Vec<Missing<'a>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Reply<'a> {
    node: Cow<'a, str>,
    worker: Option<u16>,
    port: Option<u16>,
    status: u16,
    #[serde(default)]
    body: Option<Cow<'a, str>>,
    /// Instead of `body` where that is not UTF-8.
    #[serde(default)]
    body_base64: Option<Cow<'a, str>>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Missing<'a> {
    node: Cow<'a, str>,
    worker: Option<u16>,
    error: Cow<'a, str>,
}

/// A cast that is under way.
#[derive(Debug)]
pub struct Gather {
    channel: String,
    direction: Direction,
    asked: Vec<(Target, Outcome)>,
    waiting: usize,
}

impl Gather {
    /// All of them are to be asked.
    pub fn new(channel: &str, direction: Direction, targets: Vec<Target>) -> Gather {
        let waiting = targets.len();
        let asked = targets.into_iter().map(|target| (target, Outcome::Waiting)).collect();
        Gather { channel: channel.into(), direction, asked, waiting }
    }

    /// Those who are asked, and what came of it, in their order.
    pub fn asked(&self) -> &[(Target, Outcome)] {
        &self.asked
    }

    /// Whether nobody is waited for any more.
    pub fn is_done(&self) -> bool {
        self.waiting == 0
    }

    /// The target of that number answered. What comes for one that is not waited for is dropped.
    pub fn reply(&mut self, number: usize, status: u16, body: Vec<u8>) {
        let below = self.asked.get(number).is_some_and(|(target, _)| target.via == Via::Tree);
        let outcome = if below { unfold(status, &body) } else { Outcome::Replied { status, body } };
        self.settle(number, outcome);
    }

    /// The target of that number does not answer.
    pub fn fail(&mut self, number: usize, failure: Failure) {
        self.settle(number, Outcome::Failed(failure));
    }

    /// The time is over: whoever is waited for has timed out.
    pub fn expire(&mut self) {
        for number in 0..self.asked.len() {
            self.settle(number, Outcome::Failed(Failure::TimedOut));
        }
    }

    fn settle(&mut self, number: usize, outcome: Outcome) {
        if let Some((_, waiting @ Outcome::Waiting)) = self.asked.get_mut(number) {
            *waiting = outcome;
            self.waiting = self.waiting.saturating_sub(1);
        }
    }

    /// The status and the JSON. Whoever is still waited for has timed out.
    pub fn finish(mut self) -> (u16, Vec<u8>) {
        self.expire();
        let (mut replies, mut missing) = (Vec::with_capacity(self.asked.len()), Vec::new());
        for (target, outcome) in &mut self.asked {
            let worker = match target.via {
                Via::Worker(id) => Some(id.0),
                Via::Node | Via::Tree => None,
            };
            let node = Cow::Borrowed(&*target.node);
            match outcome {
                Outcome::Replied { status, body } => {
                    let (body, body_base64) = words(body);
                    replies.push(Reply {
                        node,
                        worker,
                        port: target.port,
                        status: *status,
                        body,
                        body_base64,
                    });
                }
                Outcome::Below(below) => {
                    replies.extend(mem::take(&mut below.replies));
                    missing.extend(mem::take(&mut below.missing));
                }
                Outcome::Failed(failure) => {
                    missing.push(Missing { node, worker, error: failure.to_string().into() });
                }
                Outcome::Waiting => {} // none is left
            }
        }
        let answer = Answer {
            channel: Cow::Borrowed(&self.channel),
            direction: Cow::Borrowed(self.direction.name()),
            asked: replies.len() + missing.len(),
            answered: replies.len(),
            replies,
            missing,
        };
        (answer.status(), answer.json())
    }
}

/// A node's answer, with [`ALREADY`], to a cast that ran there already: nobody was asked.
pub fn already(channel: &str, direction: Direction) -> Vec<u8> {
    let (_, json) = Gather::new(channel, direction, Vec::new()).finish();
    json
}

/// The body as text, or in base64.
fn words(body: &[u8]) -> (Option<Cow<'_, str>>, Option<Cow<'_, str>>) {
    match std::str::from_utf8(body) {
        Ok(text) => (Some(Cow::Borrowed(text)), None),
        Err(_) => (None, Some(Cow::Owned(BASE64_STANDARD.encode(body)))),
    }
}

/// What a child node's answer to a tree cast says.
fn unfold(status: u16, body: &[u8]) -> Outcome {
    if status == ALREADY {
        return Outcome::Below(Below::default());
    }
    let wrong = |reason: String| Outcome::Failed(Failure::Wrong(reason));
    if !matches!(status, 200 | 207 | 502 | 504) {
        let line = body.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        return wrong(format!("answered {status}: {}", action::shown(line)));
    }
    match serde_json::from_slice::<Answer<'static>>(body) {
        Ok(answer) if answer.is_sound() => {
            Outcome::Below(Below { replies: answer.replies, missing: answer.missing })
        }
        _ => wrong(format!("answered {status} with something that is no cast's JSON")),
    }
}

impl Answer<'_> {
    fn is_sound(&self) -> bool {
        let bodies = |reply: &Reply<'_>| reply.body.is_some() != reply.body_base64.is_some();
        let statuses = |reply: &Reply<'_>| (100..=999).contains(&reply.status);
        self.asked == self.replies.len() + self.missing.len()
            && self.asked <= REPLIES_MAX
            && self.answered == self.replies.len()
            && self.replies.iter().all(|reply| bodies(reply) && statuses(reply))
    }

    /// 200 where all who were asked say 2xx, 207 where some do. Where none does: 504 if all kept
    /// silent until the end, else 502.
    fn status(&self) -> u16 {
        let good = self.replies.iter().filter(|reply| (200..300).contains(&reply.status)).count();
        let late = || self.missing.iter().all(|missing| missing.error == "timed out");
        match good {
            _ if good == self.asked => 200,
            0 if self.replies.is_empty() && late() => 504,
            0 => 502,
            _ => 207,
        }
    }

    /// Written out, since a serializer would look at each letter of names that never change, which is
    /// a tenth of what a cast over the rings costs.
    fn json(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(128 + 128 * self.asked);
        put(&mut to, b"{\"channel\":", &self.channel);
        put(&mut to, b",\"direction\":", &self.direction);
        put(&mut to, b",\"asked\":", &self.asked);
        put(&mut to, b",\"answered\":", &self.answered);
        to.extend_from_slice(b",\"replies\":[");
        for (at, reply) in self.replies.iter().enumerate() {
            put(&mut to, if at == 0 { b"{\"node\":" } else { b",{\"node\":" }, &reply.node);
            put(&mut to, b",\"worker\":", &reply.worker);
            put(&mut to, b",\"port\":", &reply.port);
            put(&mut to, b",\"status\":", &reply.status);
            reply.body.iter().for_each(|body| put(&mut to, b",\"body\":", body));
            reply.body_base64.iter().for_each(|body| put(&mut to, b",\"body_base64\":", body));
            to.push(b'}');
        }
        to.extend_from_slice(b"],\"missing\":[");
        for (at, missing) in self.missing.iter().enumerate() {
            put(&mut to, if at == 0 { b"{\"node\":" } else { b",{\"node\":" }, &missing.node);
            put(&mut to, b",\"worker\":", &missing.worker);
            put(&mut to, b",\"error\":", &missing.error);
            to.push(b'}');
        }
        to.extend_from_slice(b"]}");
        to
    }
}

/// Appends `before` as it is, and the value.
fn put(to: &mut Vec<u8>, before: &[u8], value: &impl Serialize) {
    to.extend_from_slice(before);
    let _ = serde_json::to_writer(to, value); // fails for maps only, and a Vec takes everything
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ipc::WorkerId;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn worker(id: u16) -> Target {
        Target { node: "a:80".into(), port: Some(8010 + id), via: Via::Worker(WorkerId(id)) }
    }

    fn node(name: &str, via: Via) -> Target {
        Target { node: name.into(), port: Some(80), via }
    }

    fn refused() -> Failure {
        Failure::Unreachable("connection refused".into())
    }

    fn finish(gather: Gather) -> (u16, Value) {
        let (status, json) = gather.finish();
        (status, serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn replies_and_silence_make_one_answer() {
        let mut gather = Gather::new("test", Direction::Workers, (0..4).map(worker).collect());
        gather.reply(2, 200, b"late \"words\"\n".to_vec());
        gather.reply(0, 404, b"\xff\0".to_vec());
        gather.fail(3, refused());
        assert!(!gather.is_done());
        gather.reply(2, 500, b"once only".to_vec());
        gather.reply(9, 200, vec![]);
        let (status, json) = gather.finish();
        assert_eq!(status, 207);
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#"{"channel":"test","direction":"workers","asked":4,"answered":2,"replies":[{"node":"a:80","worker":0,"port":8010,"status":404,"body_base64":"/wA="},{"node":"a:80","worker":2,"port":8012,"status":200,"body":"late \"words\"\n"}],"missing":[{"node":"a:80","worker":1,"error":"timed out"},{"node":"a:80","worker":3,"error":"connection refused"}]}"#
        );
    }

    #[test]
    fn the_status_says_how_many_did_it() {
        let status = |acts: &[Result<u16, Failure>]| {
            let targets = (0..acts.len() as u16).map(worker).collect();
            let mut gather = Gather::new("test", Direction::Workers, targets);
            for (number, act) in acts.iter().enumerate() {
                match act {
                    Ok(status) => gather.reply(number, *status, vec![]),
                    Err(failure) => gather.fail(number, failure.clone()),
                }
            }
            assert!(gather.is_done());
            gather.finish().0
        };
        let late = || Err(Failure::TimedOut);
        assert_eq!(status(&[]), 200);
        assert_eq!(status(&[Ok(200), Ok(204)]), 200);
        assert_eq!(status(&[Ok(200), Ok(302)]), 207);
        assert_eq!(status(&[Ok(200), late()]), 207);
        assert_eq!(status(&[Ok(404)]), 502);
        assert_eq!(status(&[Ok(404), late()]), 502);
        assert_eq!(status(&[Err(refused()), late()]), 502);
        assert_eq!(status(&[late(), late()]), 504);
    }

    /// What the node b:80, with two workers and a dead child, answers to its super.
    fn child() -> (u16, Vec<u8>) {
        let at = |id| Target { node: "b:80".into(), ..worker(id) };
        let targets = vec![at(0), at(1), node("c:80", Via::Tree)];
        let mut gather = Gather::new("test", Direction::Tree, targets);
        gather.reply(0, 200, b"b0".to_vec());
        gather.reply(1, 200, b"\xff".to_vec());
        gather.fail(2, refused());
        gather.finish()
    }

    #[test]
    fn the_replies_of_a_tree_stand_side_by_side() {
        let targets = vec![worker(0), node("b:80", Via::Tree), node("d:80", Via::Tree)];
        let mut gather = Gather::new("test", Direction::Tree, targets);
        let (status, json) = child();
        assert_eq!(status, 207);
        gather.reply(1, status, json);
        gather.reply(0, 200, b"a0".to_vec());
        gather.reply(2, ALREADY, already("test", Direction::Tree));
        let (status, answer) = finish(gather);
        assert_eq!(status, 207);
        assert_eq!(
            answer,
            json!({"channel": "test", "direction": "tree", "asked": 4, "answered": 3,
                "replies": [
                    {"node": "a:80", "worker": 0, "port": 8010, "status": 200, "body": "a0"},
                    {"node": "b:80", "worker": 0, "port": 8010, "status": 200, "body": "b0"},
                    {"node": "b:80", "worker": 1, "port": 8011, "status": 200, "body_base64": "/w=="},
                ],
                "missing": [{"node": "c:80", "worker": null, "error": "connection refused"}]})
        );
    }

    #[test]
    fn a_child_that_makes_no_sense_is_missing() {
        let (_, good) = child();
        let wrong = |from: &str, to: &str| {
            let text = String::from_utf8(good.clone()).unwrap();
            assert!(text.contains(from));
            text.replacen(from, to, 1).into_bytes()
        };
        for (status, body, error) in [
            (200, b"<html>".to_vec(), "answered 200 with something that is no cast's JSON"),
            (
                200,
                wrong("\"asked\":3", "\"asked\":30"),
                "answered 200 with something that is no cast's JSON",
            ),
            (
                207,
                wrong("\"status\":200", "\"status\":7"),
                "answered 207 with something that is no cast's JSON",
            ),
            (
                207,
                wrong("\"body\":\"b0\"", "\"x\":1"),
                "answered 207 with something that is no cast's JSON",
            ),
            (403, b"no proof\r\nX".to_vec(), "answered 403: no proof"),
        ] {
            let mut gather = Gather::new("test", Direction::Tree, vec![node("b:80", Via::Tree)]);
            gather.reply(0, status, body);
            let (status, answer) = finish(gather);
            assert_eq!((status, &answer["missing"][0]["error"]), (502, &json!(error)));
        }
    }

    #[test]
    fn nobody_asked_is_no_failure() {
        let (status, answer) = finish(Gather::new("test", Direction::Clients, vec![]));
        assert_eq!(status, 200);
        assert_eq!(answer["asked"], json!(0));
    }

    proptest! {
        #[test]
        fn any_child_answer_is_read_or_refused(status in 0u16..999, body in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut gather = Gather::new("test", Direction::Tree, vec![node("b:80", Via::Tree)]);
            gather.reply(0, status, body);
            prop_assert!(gather.is_done());
            let _ = gather.finish();
        }

        #[test]
        fn a_tree_answer_survives_the_way_up(bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5)) {
            let mut below = Gather::new("test", Direction::Tree, (0..bodies.len() as u16).map(worker).collect());
            for (number, body) in bodies.iter().enumerate() {
                below.reply(number, 200, body.clone());
            }
            let (status, json) = below.finish();
            let mut above = Gather::new("test", Direction::Tree, vec![node("b:80", Via::Tree)]);
            above.reply(0, status, json.clone());
            prop_assert_eq!(above.finish(), (200, json));
        }
    }
}
