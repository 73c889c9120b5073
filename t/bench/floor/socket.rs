//! The same over a pair of SEQPACKET sockets: a system call for each message at each end.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair};

use crate::link::Link;

/// One end.
pub struct Socket(OwnedFd);

impl Link for Socket {
    fn pair() -> io::Result<(Self, Self)> {
        let (one, other) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(one), Self(other)))
    }

    fn send(&mut self, message: &[u8]) -> io::Result<()> {
        let parts = [IoSlice::new(message)];
        sendmsg::<()>(self.0.as_raw_fd(), &parts, &[], MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let mut parts = [IoSliceMut::new(into)];
        let got = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, None, MsgFlags::empty())?;
        match got.bytes {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }
}
