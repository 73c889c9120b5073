//! What a transport has to offer to be measured.

use std::io;

/// Longest message; a transport makes room for several of them.
pub const LONGEST: usize = 64 << 10;

/// One end of a line between two processes; each direction keeps the order.
pub trait Link: Sized {
    /// Both ends. Made before the fork; then each process keeps to its own.
    fn pair() -> io::Result<(Self, Self)>;

    /// Copies the message in; waits while there is no room.
    fn send(&mut self, message: &[u8]) -> io::Result<()>;

    /// Waits for a message, copies it out and tells its length. `into` has room for `LONGEST` bytes.
    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize>;
}
