//! Many datagrams in one call: recvmmsg(2) and sendmmsg(2), with buffers that are used again and again.
//!
//! Both work on non-blocking sockets with IPv4 addresses and allocate nothing once their buffers have grown.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// Datagrams as they came in.
#[derive(Debug)]
pub struct Incoming {
    size: usize,
    memory: Box<[u8]>,
    senders: Box<[libc::sockaddr_in]>,
    parts: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

impl Incoming {
    /// Room for `count` datagrams of at most `size` bytes each; the rest of a longer one is lost.
    pub fn new(count: usize, size: usize) -> Self {
        // SAFETY: these are plain C structures for which all zeroes is a valid value.
        let (sender, part, header) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed::<libc::iovec>(), std::mem::zeroed()) };
        Self {
            size,
            memory: vec![0; count * size].into_boxed_slice(),
            senders: vec![sender; count].into_boxed_slice(),
            parts: vec![part; count].into_boxed_slice(),
            headers: vec![header; count].into_boxed_slice(),
        }
    }

    /// Takes what has arrived and answers how many datagrams that is: at least one, or an error such as `WouldBlock`.
    pub fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let memory = self.memory.as_mut_ptr();
        for (n, header) in self.headers.iter_mut().enumerate() {
            // SAFETY: there are as many pieces of `size` bytes as headers, so the offset stays within the memory.
            self.parts[n].iov_base = unsafe { memory.add(n * self.size) }.cast();
            self.parts[n].iov_len = self.size;
            header.msg_hdr.msg_name = (&raw mut self.senders[n]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut self.parts[n];
            header.msg_hdr.msg_iovlen = 1;
        }
        let count = self.headers.len() as libc::c_uint;
        // SAFETY: all headers point at memory of ours that outlives the call, of the lengths that they state.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// The datagram at a place below what [`Self::receive`] answered, and who sent it.
    pub fn datagram(&self, at: usize) -> (&[u8], SocketAddrV4) {
        let len = (self.headers[at].msg_len as usize).min(self.size);
        let sender = &self.senders[at];
        let ip = Ipv4Addr::from(u32::from_be(sender.sin_addr.s_addr));
        let start = at * self.size;
        (&self.memory[start..start + len], SocketAddrV4::new(ip, u16::from_be(sender.sin_port)))
    }
}

/// Datagrams that are to go out together.
#[derive(Debug, Default)]
pub struct Outgoing {
    /// Buffers stay, with what they have grown to, when the datagrams are gone.
    buffers: Vec<Vec<u8>>,
    receivers: Vec<libc::sockaddr_in>,
    parts: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    count: usize,
}

impl Outgoing {
    /// Adds a datagram; the answer is its empty buffer.
    pub fn add(&mut self, to: SocketAddrV4) -> &mut Vec<u8> {
        // SAFETY: a plain C structure for which all zeroes is a valid value.
        let mut receiver: libc::sockaddr_in = unsafe { std::mem::zeroed() };
        receiver.sin_family = libc::AF_INET as libc::sa_family_t;
        receiver.sin_port = to.port().to_be();
        receiver.sin_addr.s_addr = u32::from(*to.ip()).to_be();
        self.receivers.truncate(self.count);
        self.receivers.push(receiver);
        if self.buffers.len() == self.count {
            self.buffers.push(Vec::new());
        }
        self.count += 1;
        let buffer = &mut self.buffers[self.count - 1];
        buffer.clear();
        buffer
    }

    /// Takes the last one back.
    pub fn take_back(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Sends all and forgets them. What the socket does not take is lost, as datagrams are.
    pub fn send(&mut self, socket: BorrowedFd<'_>) {
        self.prepare();
        let mut done = 0;
        while done < self.count {
            let left = (self.count - done) as libc::c_uint;
            // SAFETY: `prepare` made a header for each datagram, pointing at memory of ours that outlives the call.
            let n = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr().add(done),
                    left,
                    (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
                )
            };
            match usize::try_from(n) {
                Ok(sent) => done += sent.max(1),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => break,
                // Only the first of those that are left failed.
                Err(_) => done += 1,
            }
        }
        self.count = 0;
    }

    fn prepare(&mut self) {
        self.parts.clear();
        self.headers.clear();
        for buffer in &mut self.buffers[..self.count] {
            self.parts.push(libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() });
        }
        for n in 0..self.count {
            // SAFETY: a plain C structure for which all zeroes is a valid value.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = (&raw mut self.receivers[n]).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = &raw mut self.parts[n];
            header.msg_hdr.msg_iovlen = 1;
            self.headers.push(header);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd as _;

    use super::*;

    fn v4(socket: &UdpSocket) -> SocketAddrV4 {
        match socket.local_addr().unwrap() {
            std::net::SocketAddr::V4(v4) => v4,
            std::net::SocketAddr::V6(v6) => panic!("{v6}"),
        }
    }

    #[test]
    fn datagrams_come_and_go_in_numbers() {
        let [a, b] = [0, 1].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        let mut out = Outgoing::default();
        let mut incoming = Incoming::new(2, 8);
        assert_eq!(incoming.receive(b.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for round in 0..2u8 {
            for n in 0..3u8 {
                out.add(v4(&b)).extend([round, n]);
            }
            out.add(v4(&b)).extend([0; 3]);
            out.take_back();
            out.add(v4(&b)).extend([9; 9]);
            out.send(a.as_fd());
            assert_eq!(incoming.receive(b.as_fd()).unwrap(), 2);
            assert_eq!(incoming.datagram(0), (&[round, 0][..], v4(&a)));
            assert_eq!(incoming.datagram(1), (&[round, 1][..], v4(&a)));
            assert_eq!(incoming.receive(b.as_fd()).unwrap(), 2);
            assert_eq!(incoming.datagram(0), (&[round, 2][..], v4(&a)));
            assert_eq!(incoming.datagram(1), (&[9; 8][..], v4(&a)), "cut to the room there is");
            assert!(incoming.receive(b.as_fd()).is_err());
        }
    }
}
