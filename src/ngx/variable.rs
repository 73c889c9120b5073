//! http variables: `$name` computed by a safe function, its text kept in the request's pool.

use ngx::ffi;

use crate::ngx::conf::{Conf, ConfError, ConfResult};
use crate::ngx::guard::guard;
use crate::ngx::request::Request;

/// A variable: a name and the function that computes it.
pub trait Variable: 'static {
    /// Without the `$`.
    const NAME: &'static str;

    /// Another look may find another value.
    const CHANGES: bool = false;

    /// The value for `request`; None is nginx's "not found".
    fn get(request: &Request<'_>) -> Option<String>;
}

/// Registers `V`; called from preconfiguration.
pub fn add<V: Variable>(cf: &mut Conf<'_>) -> ConfResult {
    let mut name = crate::ngx::conf::borrowed(V::NAME.as_bytes());
    // SAFETY: cf is the conf of ngx_http_block; nginx copies the name.
    let flags = if V::CHANGES { ffi::NGX_HTTP_VAR_NOCACHEABLE as usize } else { 0 };
    // SAFETY: as above.
    let variable = unsafe { ffi::ngx_http_add_variable(cf.as_raw(), &mut name, flags) };
    // SAFETY: null or a variable that lives as long as the cycle.
    match unsafe { variable.as_mut() } {
        Some(variable) => {
            variable.get_handler = Some(get::<V>);
            Ok(())
        }
        None => Err(ConfError::Message(format!("cannot add variable \"{}\"", V::NAME))),
    }
}

unsafe extern "C" fn get<V: Variable>(
    request: *mut ffi::ngx_http_request_t,
    value: *mut ffi::ngx_http_variable_value_t,
    _data: usize,
) -> ffi::ngx_int_t {
    guard(V::NAME, ffi::NGX_ERROR as ffi::ngx_int_t, || {
        // SAFETY: ngx_http_get_variable passes the request and a value to fill.
        let (request, value) = unsafe { (Request::from_raw(request), &mut *value) };
        let Some(text) = V::get(&request) else {
            value.set_not_found(1);
            return ffi::NGX_OK as ffi::ngx_int_t;
        };
        let Some(text) = request.copied(text.as_bytes()) else {
            return ffi::NGX_ERROR as ffi::ngx_int_t;
        };
        value.data = text.data;
        value.set_len(text.len as u32);
        value.set_valid(1);
        value.set_no_cacheable(V::CHANGES.into());
        value.set_not_found(0);
        ffi::NGX_OK as ffi::ngx_int_t
    })
}
