//! The page: one text with its style and script, which draws the JSON of the same location. It names
//! the two by their hashes to the browser, which then runs nothing else.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// All of it.
pub const TEXT: &str = include_str!("page.html");

/// Its Content-Security-Policy.
pub fn policy() -> &'static str {
    static POLICY: OnceLock<String> = OnceLock::new();
    POLICY.get_or_init(|| {
        format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'",
            source("<script>", "</script>"),
            source("<style>", "</style>")
        )
    })
}

/// What stands between the two, by its hash.
fn source(from: &str, to: &str) -> String {
    let inside = TEXT.split_once(from).and_then(|(_, rest)| rest.split_once(to));
    let hash = Sha256::digest(inside.map_or("", |(inside, _)| inside));
    format!("'sha256-{}'", STANDARD.encode(hash))
}
