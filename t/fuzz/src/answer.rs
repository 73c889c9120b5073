//! Answers of other servers: read whole and in pieces, which must come to the same.

use http::Method;
use ngx_http_cc_module::proto::cluster::wire::{Reader, Unreadable, Whole};

use crate::input::Input;

const MAX: usize = 2048;

/// Takes any bytes.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let method = if input.byte() % 8 == 0 { Method::HEAD } else { Method::GET };
    let piece = 1 + usize::from(input.byte());
    let at_once = read(&method, &[input.0]);
    let pieces: Vec<&[u8]> = input.0.chunks(piece).collect();
    let in_pieces = read(&method, &pieces);
    match (at_once, in_pieces) {
        (Ok(one), Ok(other)) => {
            assert!(one.body.len() <= MAX);
            assert_eq!(
                (one.status, one.headers, one.body),
                (other.status, other.headers, other.body)
            );
            // what follows the answer may come later than it
            assert!(other.keep || !one.keep);
        }
        (Err(_), Err(_)) => {}
        (one, other) => panic!("at once {one:?}, in pieces {other:?}"),
    }
}

fn read(method: &Method, pieces: &[&[u8]]) -> Result<Whole, Unreadable> {
    let mut reader = Reader::new(method, MAX);
    for piece in pieces {
        if let Some(whole) = reader.feed(piece)? {
            return Ok(whole);
        }
    }
    reader.end()
}
