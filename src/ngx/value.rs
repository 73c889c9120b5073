//! A directive's parameter that may hold variables.

use std::ptr;

use ngx::ffi;

use crate::ngx::conf::{Conf, ConfError, borrowed};
use crate::ngx::module::in_pool;
use crate::ngx::request::Request;

/// A compiled parameter; lives as long as the cycle.
#[derive(Clone, Copy)]
pub struct Value {
    raw: *mut ffi::ngx_http_complex_value_t,
}

impl Value {
    /// Compiles word `index` of the directive. Unknown variables are reported by nginx.
    pub fn compile(cf: &Conf<'_>, index: usize) -> Result<Value, ConfError> {
        Value::of(cf, cf.arg(index).unwrap_or_default())
    }

    /// Compiles `text`.
    pub fn of(cf: &Conf<'_>, text: &[u8]) -> Result<Value, ConfError> {
        let mut word = borrowed(text);
        // SAFETY: cf is the running callback's conf; its pool lives as long as the cycle. nginx's
        // compiler keeps pointers into the text, so it gets a copy in the pool.
        unsafe {
            let pool = (*cf.as_raw()).pool;
            let data = ffi::ngx_pnalloc(pool, word.len + 1).cast::<u8>();
            if data.is_null() {
                return Err(ConfError::Logged);
            }
            ptr::copy_nonoverlapping(word.data, data, word.len);
            *data.add(word.len) = 0;
            word.data = data;
            let raw = in_pool(pool, std::mem::zeroed::<ffi::ngx_http_complex_value_t>())
                .ok_or(ConfError::Logged)?;
            let mut compile: ffi::ngx_http_compile_complex_value_t = std::mem::zeroed();
            compile.cf = cf.as_raw();
            compile.value = &mut word;
            compile.complex_value = raw;
            if ffi::ngx_http_compile_complex_value(&mut compile) != ffi::NGX_OK as ffi::ngx_int_t {
                return Err(ConfError::Logged);
            }
            Ok(Value { raw })
        }
    }

    /// The text where it holds no variable.
    pub fn constant(&self) -> Option<&[u8]> {
        // SAFETY: compile() filled it.
        let value = unsafe { &*self.raw };
        value.lengths.is_null().then(|| value.value.as_bytes())
    }

    /// The text for `request`; None when memory ran out.
    pub fn of_request<'r>(&self, request: &'r Request<'_>) -> Option<&'r [u8]> {
        let mut text = borrowed(b"");
        // SAFETY: a live request; the result lies in the cycle's or the request's pool.
        unsafe {
            let answer = ffi::ngx_http_complex_value(request.as_raw(), self.raw, &mut text);
            if answer != ffi::NGX_OK as ffi::ngx_int_t {
                return None;
            }
            if text.len == 0 {
                return Some(&[]);
            }
            Some(std::slice::from_raw_parts(text.data, text.len))
        }
    }
}
