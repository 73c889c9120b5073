//! Puts the two layers into an upstream{} while nginx reads its configuration.

use std::ptr;

use ngx::ffi;

use super::method::inner_init;
use super::peer::begin;
use super::{Balancer, Hooks};
use crate::ngx::conf::{Conf, ConfError, ConfResult};
use crate::ngx::cycle::Cycle;
use crate::ngx::guard::guard;
use crate::ngx::http::conf_of;
use crate::ngx::request::Request;

type Upstream = ffi::ngx_http_upstream_srv_conf_t;

/// The upstream{} whose directive is being read.
fn current<'a>(cf: &Conf<'_>) -> Result<&'a mut Upstream, ConfError> {
    // SAFETY: ngx_http_upstream() puts the block's own ngx_http_conf_ctx_t, with its conf at the
    // upstream module's place, where directives of upstream{} find it. Configuration is
    // single-threaded and nothing else holds the reference.
    unsafe {
        let context = (*cf.as_raw()).ctx.cast::<ffi::ngx_http_conf_ctx_t>().as_ref();
        let confs = context.map(|context| context.srv_conf).filter(|confs| !confs.is_null());
        let index = ffi::ngx_http_upstream_module.ctx_index;
        confs
            .and_then(|confs| (*confs.add(index)).cast::<Upstream>().as_mut())
            .ok_or(ConfError::Directive(c"is not allowed here"))
    }
}

/// The servers of an upstream{}.
fn servers(upstream: &Upstream) -> &[ffi::ngx_http_upstream_server_t] {
    // SAFETY: null for an upstream that proxy_pass names, else an array of servers.
    match unsafe { upstream.servers.as_ref() } {
        // SAFETY: as above.
        Some(servers) => unsafe { servers.as_slice() },
        None => &[],
    }
}

fn is(one: ffi::ngx_http_upstream_init_pt, other: ffi::ngx_http_upstream_init_pt) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => ptr::fn_addr_eq(one, other),
        (None, None) => true,
        _ => false,
    }
}

/// A directive of the module stands in this upstream{}.
pub fn ask<M: Balancer>(cf: &Conf<'_>, hooks: &Hooks) -> ConfResult {
    if hooks.asked.replace(true) {
        return Ok(());
    }
    let upstream = current(cf)?;
    if servers(upstream).is_empty() {
        // nginx refuses a block without any
        push_placeholder(upstream)?;
        hooks.placeholder.set(true);
    }
    let now = upstream.peer.init_upstream;
    // below `keepalive` there is a place for us
    if hooks.above.get().is_none() || !is(now, hooks.above.get()) {
        hooks.method.set(now);
        upstream.peer.init_upstream = Some(init_upstream::<M>);
    }
    Ok(())
}

fn push_placeholder(upstream: &mut Upstream) -> ConfResult {
    // SAFETY: ngx_http_upstream() made the array; the new element is zeroed, which is valid.
    unsafe {
        let array = upstream.servers;
        let pool = (*array).pool;
        let server = ffi::ngx_array_push(array).cast::<ffi::ngx_http_upstream_server_t>();
        let address =
            ffi::ngx_pcalloc(pool, size_of::<ffi::ngx_addr_t>()).cast::<ffi::ngx_addr_t>();
        let sockaddr = ffi::ngx_pcalloc(pool, size_of::<libc::sockaddr_in>());
        if server.is_null() || address.is_null() || sockaddr.is_null() {
            return Err(ConfError::Logged);
        }
        (*sockaddr.cast::<libc::sockaddr_in>()).sin_family = libc::AF_INET as libc::sa_family_t;
        (*address).sockaddr = sockaddr.cast();
        (*address).socklen = size_of::<libc::sockaddr_in>() as ffi::socklen_t;
        (*address).name = crate::ngx::conf::literal("none\0");
        ptr::write_bytes(server, 0, 1);
        (*server).name = (*address).name;
        (*server).addrs = address;
        (*server).naddrs = 1;
        (*server).weight = 1;
        (*server).down = 1;
    }
    Ok(())
}

/// Runs nginx's own `keepalive`, with a place for the inner layer below it. Where the kept
/// connections come in later by themselves (nginx 1.29.7), nothing changes.
pub fn below_keepalive<M: Balancer>(cf: &mut Conf<'_>) -> ConfResult {
    let upstream = current(cf)?;
    // SAFETY: srv_conf is the array of the confs of this upstream{}.
    let conf = unsafe { conf_of::<M, M::Server>(upstream.srv_conf) };
    let Some(hooks) = conf.map(M::hooks).filter(|hooks| !hooks.asked.get()) else {
        return cf.delegate();
    };
    let before = upstream.peer.init_upstream;
    let ours: ffi::ngx_http_upstream_init_pt = Some(init_upstream::<M>);
    upstream.peer.init_upstream = ours;
    let result = cf.delegate();
    let upstream = current(cf)?;
    if is(upstream.peer.init_upstream, ours) {
        upstream.peer.init_upstream = before;
    } else {
        hooks.method.set(before);
        hooks.above.set(upstream.peer.init_upstream);
    }
    result
}

/// The method's own init, with the inner layer upon it.
unsafe extern "C" fn init_upstream<M: Balancer>(
    cf: *mut ffi::ngx_conf_t,
    us: *mut Upstream,
) -> ffi::ngx_int_t {
    guard("upstream", ffi::NGX_ERROR as ffi::ngx_int_t, || {
        // SAFETY: ngx_http_upstream_init_main_conf passes the upstream whose hook this is; it has
        // confs, for a directive in its block put the hook there.
        let (upstream, conf) = unsafe { (&mut *us, conf_of::<M, M::Server>((*us).srv_conf)) };
        let Some(hooks) = conf.map(M::hooks) else { return ffi::NGX_ERROR as ffi::ngx_int_t };
        if hooks.placeholder.get() && servers(upstream).len() > 1 {
            drop_first_server(upstream);
            hooks.placeholder.set(false);
        }
        let up = servers(upstream).iter().filter(|server| server.down == 0);
        hooks.servers.set(up.map(|server| server.naddrs).sum());
        // SAFETY: what ngx_http_upstream_init_main_conf would have called without us.
        let result = unsafe {
            match hooks.method.get() {
                Some(method) => method(cf, us),
                None => ffi::ngx_http_upstream_init_round_robin(cf, us),
            }
        };
        if result == ffi::NGX_OK as ffi::ngx_int_t && hooks.asked.get() {
            // SAFETY: as above; the method has changed the upstream through its own pointer.
            let peer = unsafe { &mut (*us).peer };
            hooks.inner.set(peer.init);
            peer.init = Some(inner_init::<M>);
        }
        result
    })
}

fn drop_first_server(upstream: &mut Upstream) {
    // SAFETY: the array has more than one element, all of them plain data.
    unsafe {
        let array = &mut *upstream.servers;
        let first = array.elts.cast::<ffi::ngx_http_upstream_server_t>();
        ptr::copy(first.add(1), first, array.nelts - 1);
        array.nelts -= 1;
    }
}

impl Hooks {
    /// Whether a load balancing method has taken the inner layer's place.
    pub fn is_replaced(&self) -> bool {
        self.asked.get() && self.inner.get().is_none()
    }
}

/// From postconfiguration: puts the outer layer on every upstream{} that asked, once `check`, which is
/// told its name, has nothing against it.
pub fn finish<M: Balancer>(
    cf: &Conf<'_>,
    mut check: impl FnMut(&[u8], &M::Server) -> ConfResult,
) -> ConfResult {
    for us in upstreams(cf.cycle()) {
        // SAFETY: null where proxy_pass names the upstream, else the array of its block's confs; its
        // name lives as long as the cycle.
        let (conf, name) = unsafe { (conf_of::<M, M::Server>((*us).srv_conf), (*us).host) };
        let Some(conf) = conf else { continue };
        let hooks = M::hooks(conf);
        if !hooks.asked.get() {
            continue;
        }
        check(name.as_bytes(), conf)?;
        // SAFETY: upstreams() gives upstreams of the cycle being configured.
        let peer = unsafe { &mut (*us).peer };
        hooks.outer.set(peer.init);
        peer.init = Some(begin::<M>);
    }
    Ok(())
}

/// Shows every upstream{} that asked, with its name.
pub fn each<M: Balancer>(cycle: Cycle<'_>, mut show: impl FnMut(&[u8], &M::Server)) {
    for us in upstreams(cycle) {
        // SAFETY: as in finish(); an upstream's name lives as long as the cycle.
        let (conf, name) = unsafe { (conf_of::<M, M::Server>((*us).srv_conf), (*us).host) };
        if let Some(conf) = conf.filter(|conf| M::hooks(conf).asked.get()) {
            show(name.as_bytes(), conf);
        }
    }
}

fn upstreams(cycle: Cycle<'_>) -> Vec<*mut Upstream> {
    // SAFETY: ngx_http_block has made the main confs of all http modules; the upstream module's
    // holds an array of pointers to upstreams.
    unsafe {
        let context = (*cycle.get().conf_ctx.add(ffi::ngx_http_module.index))
            .cast::<ffi::ngx_http_conf_ctx_t>();
        let index = ffi::ngx_http_upstream_module.ctx_index;
        let main = context.as_ref().map(|context| *context.main_conf.add(index));
        let main = main.and_then(|main| main.cast::<ffi::ngx_http_upstream_main_conf_t>().as_ref());
        main.map_or_else(Vec::new, |main| main.upstreams.as_slice().to_vec())
    }
}

/// Modules whose location conf begins with an `ngx_http_upstream_conf_t`.
const PROXIES: [&[u8]; 5] = [
    b"ngx_http_proxy_module",
    b"ngx_http_fastcgi_module",
    b"ngx_http_uwsgi_module",
    b"ngx_http_scgi_module",
    b"ngx_http_grpc_module",
];

/// Where their confs are found in a location.
pub fn proxies(cycle: Cycle<'_>) -> Vec<usize> {
    let is_proxy = |module: &&ffi::ngx_module_t| {
        // SAFETY: ngx_preinit_modules and ngx_add_module set each name to a C string.
        let name = unsafe { std::ffi::CStr::from_ptr(module.name) };
        PROXIES.contains(&name.to_bytes())
    };
    let named = cycle.modules().filter(|module| !module.name.is_null());
    named.filter(is_proxy).map(|module| module.ctx_index).collect()
}

/// The limit that the request's location sets to the tries in a balanced upstream (0 is none), how
/// many servers that has, and its conf; None where the location names no such upstream.
pub fn limit<'r, M: Balancer>(
    request: &'r Request<'_>,
    proxies: &[usize],
) -> Option<(usize, usize, &'r M::Server)> {
    let confs = request.get().loc_conf;
    proxies.iter().find_map(|index| {
        // SAFETY: loc_conf has room for every http module; PROXIES says what stands there.
        let conf =
            unsafe { (*confs.add(*index)).cast::<ffi::ngx_http_upstream_conf_t>().as_ref() }?;
        // SAFETY: null, or an upstream of the cycle.
        let upstream = unsafe { conf.upstream.as_ref() }?;
        // SAFETY: null, or the array of the upstream's confs.
        let balanced = unsafe { conf_of::<M, M::Server>(upstream.srv_conf) }?;
        let hooks = M::hooks(balanced);
        let found = (conf.next_upstream_tries, hooks.servers.get(), balanced);
        hooks.asked.get().then_some(found)
    })
}
