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
    /// The variable that is all of it: read without a copy.
    lone: Option<usize>,
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
            Ok(Value { raw, lone: lone(cf, text)? })
        }
    }

    /// The text where it holds no variable.
    pub fn constant(&self) -> Option<&[u8]> {
        // SAFETY: compile() filled it.
        let value = unsafe { &*self.raw };
        value.lengths.is_null().then(|| value.value.as_bytes())
    }

    /// The text for `request`; None when memory ran out or a variable failed.
    pub fn of_request<'r>(&self, request: &'r Request<'_>) -> Option<&'r [u8]> {
        if let Some(index) = self.lone {
            // SAFETY: a live request, an index of this configuration; the text lives in the
            // request's pool or longer.
            return unsafe {
                let value = ffi::ngx_http_get_flushed_variable(request.as_raw(), index);
                let value = value.as_ref()?;
                if value.not_found() != 0 || value.len() == 0 {
                    return Some(&[]);
                }
                Some(std::slice::from_raw_parts(value.data, value.len() as usize))
            };
        }
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

/// The index of the variable where `text` is just `$name`.
fn lone(cf: &Conf<'_>, text: &[u8]) -> Result<Option<usize>, ConfError> {
    let Some((b'$', name)) = text.split_first() else { return Ok(None) };
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    // $1 and its kin, with whatever follows, are captures
    if name.first().is_none_or(u8::is_ascii_digit) || !name.iter().all(word) {
        return Ok(None);
    }
    let mut name = borrowed(name);
    // SAFETY: cf is the running callback's conf; nginx copies the name.
    let index = unsafe { ffi::ngx_http_get_variable_index(cf.as_raw(), &mut name) };
    usize::try_from(index).map(Some).map_err(|_| ConfError::Logged)
}
