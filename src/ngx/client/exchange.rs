//! One exchange in hyper's terms: the request that is sent for a call, and the answer gathered from
//! what comes back, never more of it than the caller allows.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderName, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Frame, Incoming, SizeHint};

use super::{Answer, Call};

/// Headers that belong to a connection, or that the client sets itself.
const OURS: [HeaderName; 7] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Why an exchange failed.
pub(super) enum Fault {
    Http(hyper::Error),
    TooLarge,
    Malformed(&'static str),
}

/// The body of a request: one piece.
pub(super) struct Payload(Option<Bytes>);

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// The request for `call`. Its headers are moved out, or copied where the call may have to be `kept`
/// for a second try.
pub(super) fn request(call: &mut Call, kept: bool) -> Result<Request<Payload>, String> {
    if call.method == Method::CONNECT {
        return Err(String::from("CONNECT is not a call"));
    }
    if call.target.contains('#') {
        return Err(format!("\"{}\" holds a fragment", call.target.escape_debug()));
    }
    let target = PathAndQuery::try_from(call.target.as_str())
        .map_err(|_| format!("\"{}\" is no request target", call.target.escape_debug()))?;
    let host = HeaderValue::from_str(&call.host)
        .map_err(|_| format!("\"{}\" is no host", call.host.escape_debug()))?;

    let mut headers = if kept { call.headers.clone() } else { std::mem::take(&mut call.headers) };
    for name in &OURS {
        headers.remove(name);
    }
    headers.insert(header::HOST, host);
    let payload = Payload(Some(call.body.clone()).filter(|body| !body.is_empty()));
    if payload.0.is_none() && matches!(call.method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }

    let mut request = Request::new(payload);
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = Uri::from(target);
    *request.headers_mut() = headers;
    Ok(request)
}

/// Waits for the answer and its whole body.
pub(super) async fn answer(
    response: impl Future<Output = hyper::Result<Response<Incoming>>>,
    max_body: usize,
) -> Result<Answer, Fault> {
    let (head, mut body) = response.await.map_err(Fault::Http)?.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Fault::Malformed("the answer switches protocols unasked"));
    }
    // hyper reads an unknown coding to the end of the connection, and ignores a length beside a coding
    if let Some(coding) = head.headers.get(header::TRANSFER_ENCODING) {
        if head.headers.contains_key(header::CONTENT_LENGTH) {
            return Err(Fault::Malformed("the answer has both a length and a transfer coding"));
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err(Fault::Malformed("the answer has an unknown transfer coding"));
        }
    }
    let announced = body.size_hint().lower();
    if announced > max_body as u64 {
        return Err(Fault::TooLarge);
    }
    let body = gather(&mut body, announced as usize, max_body).await?;
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// The body in one piece; one that came in one piece is not copied.
async fn gather(body: &mut Incoming, announced: usize, max: usize) -> Result<Bytes, Fault> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
        // trailers say nothing to us
        let Ok(data) = frame.map_err(Fault::Http)?.into_data() else { continue };
        if first.len().max(all.len()) + data.len() > max {
            return Err(Fault::TooLarge);
        }
        if first.is_empty() {
            first = data;
        } else {
            if all.is_empty() {
                all.reserve(announced.max(first.len() + data.len()));
                all.extend_from_slice(&first);
            }
            all.extend_from_slice(&data);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// What is wrong with the chunked coding, if that is what hyper complains of.
pub(super) fn broken_coding(error: &hyper::Error) -> Option<String> {
    let cause = error.source()?.downcast_ref::<io::Error>()?;
    matches!(cause.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData)
        .then(|| cause.to_string())
}
