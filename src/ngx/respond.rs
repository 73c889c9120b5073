//! A whole response, made here or taken from another worker's or node's answer.

use std::ptr;

use bytes::Bytes;
use ngx::ffi;

use crate::ngx::module::in_pool;
use crate::ngx::request::Request;

/// Status, headers and body.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// 200 to 599.
    pub status: u16,
    /// In their order. Content-Length counts for a response without a body only.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Empty for HEAD, 204, 304.
    pub body: Bytes,
}

impl Response {
    /// Nothing but a status.
    pub fn status(status: u16) -> Response {
        Response { status, ..Response::default() }
    }

    /// A line of text; the line's end is added.
    pub fn text(status: u16, line: &str) -> Response {
        Response::of(status, "text/plain", format!("{line}\n"))
    }

    /// A body of that type.
    pub fn of(status: u16, kind: &str, body: impl Into<Bytes>) -> Response {
        let headers = vec![(b"Content-Type".to_vec(), kind.as_bytes().to_vec())];
        Response { status, headers, body: body.into() }
    }
}

/// Headers that nginx writes by itself.
const OWN: [&[u8]; 6] =
    [b"content-length", b"content-type", b"connection", b"transfer-encoding", b"server", b"date"];

/// Sends the response, or what of it the client takes now.
///
/// # Safety
/// `r` is a live request that was not answered yet.
pub(crate) unsafe fn send(r: *mut ffi::ngx_http_request_t, response: Response) -> ffi::ngx_int_t {
    const ERROR: ffi::ngx_int_t = ffi::NGX_ERROR as ffi::ngx_int_t;
    const OK: ffi::ngx_int_t = ffi::NGX_OK as ffi::ngx_int_t;
    // SAFETY: the caller's contract.
    let request = unsafe { Request::from_raw(r) };
    // SAFETY: as above; headers_out is the module's to fill before ngx_http_send_header.
    let out = unsafe { &mut (*r).headers_out };
    let mut length = response.body.len() as i64;
    out.status = usize::from(response.status);
    for (name, value) in &response.headers {
        let lower = name.to_ascii_lowercase();
        if lower == b"content-type" {
            let Some(kind) = request.copied(value) else { return ERROR };
            out.content_type = kind;
            out.content_type_len = value.iter().position(|b| *b == b';').unwrap_or(value.len());
            out.content_type_lowcase = ptr::null_mut();
        } else if lower == b"content-length" && response.body.is_empty() {
            let text = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
            // SAFETY: as above.
            if unsafe { (*r).method } as u32 == ffi::NGX_HTTP_HEAD {
                length = text.filter(|length| *length >= 0).unwrap_or(length);
            }
        } else if !OWN.contains(&lower.as_slice()) {
            // SAFETY: as above.
            if unsafe { push(&request, out, name, &lower, value) }.is_none() {
                return ERROR;
            }
        }
    }
    out.content_length_n = length;
    // SAFETY: as above.
    let rc = unsafe { ffi::ngx_http_send_header(r) };
    // SAFETY: as above.
    if rc == ERROR || rc > OK || unsafe { (*r).header_only() } != 0 {
        return rc;
    }
    // SAFETY: as above; the buffer and what it points at live in the request's pool.
    unsafe {
        let buffer = ffi::ngx_pcalloc((*r).pool, size_of::<ffi::ngx_buf_t>());
        let Some(buffer) = buffer.cast::<ffi::ngx_buf_t>().as_mut() else { return ERROR };
        let Some(body) = in_pool((*r).pool, response.body) else { return ERROR };
        let bytes = &*body;
        let last = u32::from(r == (*r).main);
        if !bytes.is_empty() {
            buffer.pos = bytes.as_ptr().cast_mut();
            buffer.last = buffer.pos.add(bytes.len());
            buffer.start = buffer.pos;
            buffer.end = buffer.last;
            buffer.set_memory(1);
        }
        buffer.set_last_buf(last);
        buffer.set_last_in_chain(1);
        buffer.set_sync(u32::from(bytes.is_empty() && last == 0));
        let mut chain: ffi::ngx_chain_t = std::mem::zeroed();
        chain.buf = buffer;
        ffi::ngx_http_output_filter(r, &mut chain)
    }
}

/// # Safety
/// `out` is the request's.
unsafe fn push(
    request: &Request<'_>,
    out: &mut ffi::ngx_http_headers_out_t,
    name: &[u8],
    lower: &[u8],
    value: &[u8],
) -> Option<()> {
    let (key, value) = (request.copied(name)?, request.copied(value)?);
    let lowcase = request.copied(lower)?;
    // SAFETY: the request's own list, initialised by ngx_http_create_request.
    let header =
        unsafe { ffi::ngx_list_push(&mut out.headers).cast::<ffi::ngx_table_elt_t>().as_mut() }?;
    // SAFETY: all-zero is a valid ngx_table_elt_t; fields that this nginx has not do not matter.
    *header = unsafe { std::mem::zeroed() };
    header.hash = 1;
    header.key = key;
    header.value = value;
    header.lowcase_key = lowcase.data;
    let header = ptr::from_mut(header);
    // what nginx's filters ask for
    match lower {
        b"content-encoding" => out.content_encoding = header,
        b"etag" => out.etag = header,
        b"last-modified" => out.last_modified = header,
        b"accept-ranges" => out.accept_ranges = header,
        b"expires" => out.expires = header,
        _ => {}
    }
    Some(())
}
