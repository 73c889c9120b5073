//! What Lua calls through FFI for `ngx.cc.balancer`: thin functions over `choice`, C types only.

use super::choice::Kept;
use super::tries;
use crate::modules::http::Http;
use crate::ngx::http::context;
use crate::ngx::lua::{Address, Out, Text, exported};
use crate::ngx::request::Request;
use crate::ngx::upstream::{self, Target};
use crate::proto::upstream::address::{self, Beside};
use crate::proto::upstream::tries::{State, Wish};

/// Answers; negative ones to -8 are `AddressError`. src/lua/balancer.lua has the words.
const OK: i32 = 0;
const CUT: i32 = 1;
const NO_MEMORY: i32 = -20;
const BUG: i32 = -21;

/// A try. The addresses hold until the next call.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Row {
    address: *const u8,
    address_len: usize,
    /// 1 ok, 2 next, 4 failed as nginx numbers them; 0 open.
    state: i32,
    status: i32,
    /// Milliseconds; -1 none.
    connect: i64,
    header: i64,
}

fn with(request: &Address, f: impl FnOnce(&Request<'_>, &Kept) -> i32) -> i32 {
    let Some(request) = request.request() else { return BUG };
    match context::<Http>(&request) {
        Some(context) => f(&request, &context.upstream),
        None => NO_MEMORY,
    }
}

exported! {
    /// Adds a peer to those that are being listed, `first` begins anew. `port` counts where
    /// `has_port`.
    fn ngx_cc_balancer_add(request: Address, first: i32, host: Text, len: usize, has_port: i32, port: i32) -> i32, BUG, {
        with(&request, |_, kept| {
            let Ok(mut asked) = kept.asked.try_borrow_mut() else { return BUG };
            let asked = asked.get_or_insert_default();
            if first != 0 {
                asked.pending.clear();
            }
            let beside = if has_port != 0 { Beside::Port(port.into()) } else { Beside::Nothing };
            match address::peer(host.bytes(len), beside) {
                Ok(peer) => {
                    asked.pending.push(peer);
                    OK
                }
                Err(error) => error as i32,
            }
        })
    }

    /// The request goes to those listed.
    fn ngx_cc_balancer_commit(request: Address) -> i32, BUG, {
        with(&request, |_, kept| {
            let Ok(mut asked) = kept.asked.try_borrow_mut() else { return BUG };
            let asked = asked.get_or_insert_default();
            let peers = std::mem::take(&mut asked.pending);
            asked.peers = Some(Target::all(&peers));
            OK
        })
    }

    /// So many more tries: 1 when not all of them can be had in the upstream that the location
    /// names.
    fn ngx_cc_balancer_more_tries(request: Address, more: u32) -> i32, BUG, {
        with(&request, |request, kept| {
            let Ok(mut asked) = kept.asked.try_borrow_mut() else { return BUG };
            let asked = asked.get_or_insert_default();
            asked.more = Some(u16::try_from(more).unwrap_or(u16::MAX));
            let proxies = request.main::<Http>().map_or(&[][..], |main| &main.upstream.proxies);
            let found = upstream::limit::<Http>(request, proxies);
            let (limit, servers, total) = found.map_or((0, 1, None), |(limit, servers, conf)| {
                (limit, servers, conf.upstream.tries)
            });
            let peers = asked.peers.as_ref().map_or(0, |peers| peers.len());
            let wish = Wish { total, more: asked.more };
            if wish.is_cut(peers.max(servers), limit) { CUT } else { OK }
        })
    }

    /// Milliseconds for this request; -1 keeps what was.
    fn ngx_cc_balancer_timeouts(request: Address, connect: i32, send: i32, read: i32) -> i32, BUG, {
        with(&request, |_, kept| {
            let Ok(mut asked) = kept.asked.try_borrow_mut() else { return BUG };
            let asked = asked.get_or_insert_default();
            for (timeout, ms) in asked.timeouts.iter_mut().zip([connect, send, read]) {
                if let Ok(ms @ 1..) = usize::try_from(ms) {
                    *timeout = Some(ms);
                }
            }
            OK
        })
    }

    /// How many tries there were; `ngx_cc_balancer_try` has them.
    fn ngx_cc_balancer_tries(request: Address) -> i32, BUG, {
        with(&request, |request, kept| {
            let tries = tries(request);
            let count = tries.len() as i32;
            let Ok(mut asked) = kept.asked.try_borrow_mut() else { return BUG };
            asked.get_or_insert_default().told = tries;
            count
        })
    }

    /// One of them, from 0: 1 there it is.
    fn ngx_cc_balancer_try(request: Address, index: usize, row: Out<Row>) -> i32, BUG, {
        with(&request, |_, kept| {
            let Ok(asked) = kept.asked.try_borrow() else { return BUG };
            let time = |ms: Option<u64>| ms.and_then(|ms| i64::try_from(ms).ok()).unwrap_or(-1);
            let one = asked.as_ref().and_then(|asked| asked.told.get(index));
            let told = one.map(|one| Row {
                address: one.address.as_ptr(),
                address_len: one.address.len(),
                state: match one.state {
                    State::Ok => 1,
                    State::Next => 2,
                    State::Failed => 4,
                    State::Open => 0,
                },
                status: one.status.into(),
                connect: time(one.connect),
                header: time(one.header),
            });
            row.fill(1, told.into_iter()) as i32
        })
    }
}
