//! What a test and the first process of its private host say to each other.
//!
//! One connection a command. The client sends one message (length, JSON, and with it the three descriptors that become
//! stdin, stdout and stderr); then one byte for each signal to send. The server answers one JSON line when the command has
//! started and one when it has ended. A connection that closes early kills its command.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

/// A command to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// Working directory.
    pub cwd: String,
}

/// An answer line.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// It runs under this pid of the private host.
    Started(i32),
    /// It could not be started.
    Failed(String),
    /// It ended; 128+n when signal n ended it.
    Ended(i32),
}

/// Sends a request with the descriptors of the command's stdio.
pub fn send(mut stream: &UnixStream, request: &Request, stdio: [BorrowedFd<'_>; 3]) -> io::Result<()> {
    let body = serde_json::to_vec(request)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&stdio));
    rustix::net::sendmsg(stream, &[IoSlice::new(&length)], &mut control, SendFlags::empty())?;
    stream.write_all(&body)
}

/// Receives what [`send`] sent.
pub fn receive(mut stream: &UnixStream) -> io::Result<(Request, [OwnedFd; 3])> {
    let mut length = [0u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = rustix::net::recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut length)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if got.bytes != length.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body)?;
    let fds = fds.try_into().map_err(|_| io::Error::other("a request carries three descriptors"))?;
    Ok((serde_json::from_slice(&body)?, fds))
}
