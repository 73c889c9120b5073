//! In which form a request gets the status: what its query says, what the location says, what it
//! accepts, in this order.

use crate::proto::cluster::query;

/// A form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Everything.
    Json,
    /// A page that draws it.
    Html,
    /// Metrics.
    Prometheus,
    /// Whether all workers are ready.
    Ready,
}

/// No form has that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the format is none of json, html, prometheus, ready")]
pub struct Unknown;

impl Format {
    /// The form of that name.
    pub fn named(name: &[u8]) -> Result<Format, Unknown> {
        match name {
            b"json" => Ok(Format::Json),
            b"html" => Ok(Format::Html),
            b"prometheus" => Ok(Format::Prometheus),
            b"ready" => Ok(Format::Ready),
            _ => Err(Unknown),
        }
    }

    /// Of a request. Who is let in to ask whether the node is ready gets nothing else.
    pub fn of(
        configured: Option<Format>,
        query: &[u8],
        accept: Option<&[u8]>,
    ) -> Result<Format, Unknown> {
        if configured == Some(Format::Ready) {
            return Ok(Format::Ready);
        }
        if let Some(arg) = query::find(query, b"format") {
            return Format::named(arg.value.text());
        }
        Ok(configured.unwrap_or_else(|| accepted(accept.unwrap_or_default())))
    }

    /// Its Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Json | Format::Ready => "application/json",
            Format::Html => "text/html; charset=utf-8",
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// What is accepted best; of equals, what comes first. JSON where nothing of ours is.
fn accepted(accept: &[u8]) -> Format {
    let mut best = (0.0, Format::Json);
    for range in accept.split(|byte| *byte == b',') {
        let range = range.to_ascii_lowercase();
        let mut words = range.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let (mut quality, mut version) = (1.0, None);
        let kind = words.next().unwrap_or_default();
        for word in words {
            if let Some(value) = word.strip_prefix(b"q=") {
                let value = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                quality = value.filter(|quality| (0.0..=1.0).contains(quality)).unwrap_or(0.0);
            } else if let Some(value) = word.strip_prefix(b"version=") {
                version = Some(value.to_vec());
            }
        }
        let format = match kind {
            b"text/html" | b"application/xhtml+xml" => Format::Html,
            b"application/openmetrics-text" => Format::Prometheus,
            b"text/plain" if version.as_deref() == Some(b"0.0.4") => Format::Prometheus,
            b"application/json" | b"application/*" | b"*/*" => Format::Json,
            _ => continue,
        };
        if quality > best.0 {
            best = (quality, format);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(accept: &str) -> Format {
        Format::of(None, b"", Some(accept.as_bytes())).unwrap()
    }

    #[test]
    fn who_asks_gets_what_it_can_read() {
        let firefox = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            text/plain;version=0.0.4;q=0.5,*/*;q=0.4";
        assert_eq!(of(firefox), Format::Html);
        assert_eq!(of(prometheus), Format::Prometheus);
        assert_eq!(of("text/plain; version=0.0.4"), Format::Prometheus);
        assert_eq!(of("*/*"), Format::Json);
        assert_eq!(of("application/json"), Format::Json);
        assert_eq!(of("text/html;q=0.1, application/json"), Format::Json);
        assert_eq!(of("text/html;q=0, image/png"), Format::Json);
        assert_eq!(of("text/html;q=nonsense"), Format::Json);
        assert_eq!(of("text/plain"), Format::Json);
        assert_eq!(of(""), Format::Json);
        assert_eq!(Format::of(None, b"", None), Ok(Format::Json));
    }

    #[test]
    fn the_query_comes_before_the_location_but_for_ready() {
        let html = Some(&b"text/html"[..]);
        assert_eq!(Format::of(Some(Format::Json), b"", html), Ok(Format::Json));
        let asked = Format::of(Some(Format::Json), b"a&format=prometheus", html);
        assert_eq!(asked, Ok(Format::Prometheus));
        assert_eq!(Format::of(None, b"format=ready", html), Ok(Format::Ready));
        assert_eq!(Format::of(None, b"format=yaml", html), Err(Unknown));
        assert_eq!(Format::of(Some(Format::Ready), b"format=json", html), Ok(Format::Ready));
    }

    proptest! {
        #[test]
        fn any_header_is_read(accept in prop::collection::vec(any::<u8>(), 0..60), text in "[a-z/;=,.* 0-9]{0,60}") {
            let _ = Format::of(None, &accept, Some(&accept));
            let _ = of(&text);
        }
    }
}
