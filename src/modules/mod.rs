//! WIRES. One file per `ngx_module_t`: directives, lifecycle hooks, handlers; safe code, few
//! decisions. Here: the table that nginx reads when it loads the library.

pub mod cluster;
pub mod core;
pub mod http;
pub mod ipc;
pub mod lifecycle;
pub mod listen;
pub mod lua;
pub mod metrics;
pub mod say;
pub mod status;
pub mod upstream;

use std::ffi::c_char;
use std::ptr;

use ngx::ffi::ngx_module_t;

/// A slot of a static table of C strings.
type Name = *const c_char;

/// Read by `ngx_load_module`.
#[allow(unsafe_code, non_upper_case_globals, missing_docs)]
#[unsafe(no_mangle)]
pub static mut ngx_modules: [*mut ngx_module_t; 5] = [
    &raw mut core::ngx_cc_module,
    &raw mut listen::ngx_cc_listen_module,
    &raw mut upstream::ngx_cc_upstream_module,
    &raw mut http::ngx_http_cc_module,
    ptr::null_mut(),
];

#[allow(unsafe_code, non_upper_case_globals, missing_docs)]
#[unsafe(no_mangle)]
pub static mut ngx_module_names: [Name; 5] = [
    c"ngx_cc_module".as_ptr(),
    c"ngx_cc_listen_module".as_ptr(),
    c"ngx_cc_upstream_module".as_ptr(),
    c"ngx_http_cc_module".as_ptr(),
    ptr::null(),
];

/// Each of our modules goes before the first later-named one that is already loaded: the core
/// module before the event core (its init_process decides which sockets that one opens, its
/// init_conf runs after the sockets of http{} and stream{} are known), `listen` before the http
/// core and `keepalive` before the kept connections (their directives are found first). ngx_http_cc_module keeps the usual place.
#[allow(unsafe_code, non_upper_case_globals, missing_docs)]
#[unsafe(no_mangle)]
pub static mut ngx_module_order: [Name; 7] = [
    c"ngx_cc_module".as_ptr(),
    c"ngx_event_core_module".as_ptr(),
    c"ngx_cc_listen_module".as_ptr(),
    c"ngx_http_core_module".as_ptr(),
    c"ngx_cc_upstream_module".as_ptr(),
    c"ngx_http_upstream_keepalive_module".as_ptr(),
    ptr::null(),
];
