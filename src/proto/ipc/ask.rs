//! A call of an action, and its answer, as they travel between workers. Of an ask the message's
//! name is `CHANNEL NUL ACTION`, its data a short head, the query, the asking node and the body; of
//! an answer the name is how it went, the data the body; of an inquiry the data are the numbers of
//! asks. Who has one of those, or has answered it, says nothing to that; who has not says so.

use super::WorkerId;

const HEAD: usize = 8;

/// Who calls an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin<'a> {
    /// The node's name, empty where it has none.
    pub node: &'a [u8],
    /// The worker there.
    pub worker: WorkerId,
}

/// A call of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask<'a> {
    /// The channel.
    pub channel: &'a [u8],
    /// The action's name.
    pub action: &'a [u8],
    /// The query as it was sent, without `?`.
    pub args: &'a [u8],
    /// The body.
    pub body: &'a [u8],
    /// Who calls.
    pub from: Origin<'a>,
}

/// What an action answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// As of HTTP.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// Why a call has no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.words())]
#[repr(u8)]
pub enum CallFailed {
    /// The time was over.
    Timeout = 1,
    /// The worker has left, or is leaving.
    Gone,
    /// More waits for the worker than is allowed.
    Full,
    /// The call is longer than `cc_ipc_max_message`.
    TooLong,
    /// The reply is.
    ReplyTooLong,
    /// Channel and action are too long together, or hold a NUL.
    Name,
    /// No worker has that number.
    Nobody,
    /// The worker has no such action.
    NoAction,
    /// Too many calls of this worker wait already.
    Busy,
    /// The worker died in the middle of it.
    Died,
}

impl CallFailed {
    /// Why, in words.
    pub fn words(self) -> &'static str {
        match self {
            CallFailed::Timeout => "timeout",
            CallFailed::Gone => "gone",
            CallFailed::Full => "full",
            CallFailed::TooLong => "message too long",
            CallFailed::ReplyTooLong => "reply too long",
            CallFailed::Name => "bad channel or action name",
            CallFailed::Nobody => "no such worker",
            CallFailed::NoAction => "no such action",
            CallFailed::Busy => "too many calls wait",
            CallFailed::Died => "died",
        }
    }

    const ALL: [CallFailed; 10] = [
        CallFailed::Timeout,
        CallFailed::Gone,
        CallFailed::Full,
        CallFailed::TooLong,
        CallFailed::ReplyTooLong,
        CallFailed::Name,
        CallFailed::Nobody,
        CallFailed::NoAction,
        CallFailed::Busy,
        CallFailed::Died,
    ];
}

/// The name under which an action of a channel is known; None where it cannot be one.
pub fn key(name: &mut Vec<u8>, channel: &[u8], action: &[u8]) -> Option<()> {
    name.clear();
    if channel.contains(&0)
        || action.contains(&0)
        || channel.len() + action.len() >= super::NAME_MAX
    {
        return None;
    }
    name.extend_from_slice(channel);
    name.push(0);
    name.extend_from_slice(action);
    Some(())
}

impl<'a> Ask<'a> {
    /// The message's name and data, in buffers that are used again; None where the name cannot be
    /// one.
    pub fn encode(&self, name: &mut Vec<u8>, data: &mut Vec<u8>) -> Option<()> {
        key(name, self.channel, self.action)?;
        let args = u32::try_from(self.args.len()).ok()?;
        let node = u16::try_from(self.from.node.len()).ok()?;
        data.clear();
        data.extend_from_slice(&args.to_ne_bytes());
        data.extend_from_slice(&node.to_ne_bytes());
        data.extend_from_slice(&self.from.worker.0.to_ne_bytes());
        data.extend_from_slice(self.args);
        data.extend_from_slice(self.from.node);
        data.extend_from_slice(self.body);
        Some(())
    }

    /// From a message's name and data.
    pub fn decode(name: &'a [u8], data: &'a [u8]) -> Option<Ask<'a>> {
        let nul = name.iter().position(|byte| *byte == 0)?;
        let (channel, action) = (name.get(..nul)?, name.get(nul + 1..)?);
        let (&[a, b, c, d, e, f, g, h], rest) = data.split_first_chunk::<HEAD>()?;
        let args = u32::from_ne_bytes([a, b, c, d]) as usize;
        let node = usize::from(u16::from_ne_bytes([e, f]));
        let worker = WorkerId(u16::from_ne_bytes([g, h]));
        let (args, rest) = rest.split_at_checked(args)?;
        let (node, body) = rest.split_at_checked(node)?;
        Some(Ask { channel, action, args, body, from: Origin { node, worker } })
    }
}

/// The name of an answer.
pub fn verdict(result: Result<u16, CallFailed>) -> [u8; 3] {
    match result {
        Ok(status) => {
            let [low, high] = status.to_ne_bytes();
            [0, low, high]
        }
        Err(failed) => [failed as u8, 0, 0],
    }
}

/// An answer from its name and data; None where it is none.
pub fn answer<'a>(name: &[u8], data: &'a [u8]) -> Option<Result<Reply<'a>, CallFailed>> {
    match *name {
        [0, low, high] => Some(Ok(Reply { status: u16::from_ne_bytes([low, high]), body: data })),
        [code, _, _] => CallFailed::ALL.into_iter().find(|f| *f as u8 == code).map(Err),
        _ => None,
    }
}

/// The data of an inquiry about calls with these numbers.
pub fn inquiry(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_ne_bytes()).collect()
}

/// The numbers in an inquiry's data.
pub fn inquired(data: &[u8]) -> impl Iterator<Item = u32> {
    data.chunks_exact(4).filter_map(|bytes| bytes.try_into().ok().map(u32::from_ne_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_asked_arrives(
            channel in "[a-z]{1,20}", action in "[a-zA-Z.]{1,100}",
            args in prop::collection::vec(any::<u8>(), 0..50),
            body in prop::collection::vec(any::<u8>(), 0..50),
            node in "[0-9.:]{0,30}", worker in any::<u16>(),
        ) {
            let from = Origin { node: node.as_bytes(), worker: WorkerId(worker) };
            let ask = Ask {
                channel: channel.as_bytes(), action: action.as_bytes(), args: &args, body: &body, from,
            };
            let (mut name, mut data) = (Vec::new(), vec![1, 2, 3]);
            prop_assert_eq!(ask.encode(&mut name, &mut data), Some(()));
            prop_assert_eq!(Ask::decode(&name, &data), Some(ask));
        }

        #[test]
        fn any_bytes_decode_or_fail_without_panic(
            name in prop::collection::vec(0u8..3, 0..5),
            data in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let _ = (Ask::decode(&name, &data), answer(&name, &data));
            prop_assert_eq!(inquired(&data).count(), data.len() / 4);
        }
    }

    #[test]
    fn a_name_has_bounds() {
        let mut name = Vec::new();
        assert_eq!(key(&mut name, b"a\0", b"b"), None);
        assert_eq!(key(&mut name, b"a", &[b'b'; 253]), None);
        assert_eq!(key(&mut name, b"a", &[b'b'; 252]), Some(()));
        assert_eq!(name.len(), super::super::NAME_MAX);
    }

    #[test]
    fn an_inquiry_has_its_numbers() {
        let numbers = [0, 7, u32::MAX];
        assert_eq!(inquired(&inquiry(&numbers)).collect::<Vec<_>>(), numbers);
    }

    #[test]
    fn answers_say_how_it_went() {
        let reply = Reply { status: 404, body: b"x" };
        assert_eq!(answer(&verdict(Ok(404)), b"x"), Some(Ok(reply)));
        for failed in CallFailed::ALL {
            assert_eq!(answer(&verdict(Err(failed)), b""), Some(Err(failed)));
        }
        assert_eq!(answer(&[99, 0, 0], b""), None);
    }
}
