//! Messages with descriptors over Unix sequenced-packet sockets.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use crate::{
    spec::MAX_MESSAGE,
    wire::{Wire, malformed},
};

/// Most descriptors in one message.
const MAX_DESCRIPTORS: usize = 8;

/// Two connected ends.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends one message with descriptors. The other end gone is `BrokenPipe`, never a signal.
pub(crate) fn send(socket: impl AsFd, message: &impl Wire, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = message.to_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let sent =
        rustix::io::retry_on_intr(|| sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL))?;
    if sent == bytes.len() { Ok(()) } else { Err(io::Error::from(io::ErrorKind::WriteZero)) }
}

/// Receives messages; keeps its buffer between them, which is as large as the largest of them.
pub(crate) struct Receiver(Vec<u8>);

impl Receiver {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Waits for a message and makes room for it.
    fn make_room(&mut self, socket: impl AsFd) -> rustix::io::Result<()> {
        // The true length is given, whatever there is room for.
        let flags = RecvFlags::PEEK | RecvFlags::TRUNC;
        let length = rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut [0u8; 1], flags).map(|(_, n)| n))?;
        if length > MAX_MESSAGE {
            return Err(rustix::io::Errno::MSGSIZE);
        }
        if length > self.0.len() {
            self.0.resize(length, 0);
        }
        Ok(())
    }

    /// The next message and its descriptors; `None` when the other end is gone.
    pub(crate) fn receive<T: Wire>(&mut self, socket: impl AsFd) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        match self.make_room(&socket) {
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            other => other?,
        }
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [IoSliceMut::new(&mut self.0)];
        let got = loop {
            match recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::CONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        if got.flags.contains(ReturnFlags::TRUNC) {
            return Err(malformed());
        }
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(list) = message {
                descriptors.extend(list);
            }
        }
        match self.0.get(..got.bytes) {
            Some([]) => Ok(None),
            Some(bytes) => Ok(Some((T::from_bytes(bytes)?, descriptors))),
            None => Err(malformed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_any_length_arrive_whole_and_the_end_is_told() {
        let (near, far) = pair().unwrap();
        let mut receiver = Receiver::new();
        for length in [0, 1, 5000, 3, MAX_MESSAGE - 8] {
            let sent: Box<[u8]> = vec![7; length].into();
            send(&near, &sent, &[far.as_fd()]).unwrap();
            let (got, descriptors) = receiver.receive::<Box<[u8]>>(&far).unwrap().unwrap();
            assert_eq!((got, descriptors.len()), (sent, 1));
        }
        drop(near);
        assert!(receiver.receive::<Box<[u8]>>(&far).unwrap().is_none());
    }
}
