//! The server of one sandbox: a task for its UDP socket and one for its TCP socket.
//!
//! What we know is answered at once in the task. What must be asked upstream gets a task of its own, of which a sandbox
//! may have a bounded number: a slow upstream never delays an answer of ours, and a flood costs a bounded amount.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::answer::{Outcome, Way, answer};
use super::forward::{Silence, Upstream};
use super::zone::Snapshot;
use crate::driver::inside::Resolver;

/// Questions of one sandbox that may wait for upstreams.
const WAITING: usize = 64;
/// TCP connections of one sandbox.
const CONNECTIONS: usize = 16;
/// How long a TCP client may be silent.
const IDLE: Duration = Duration::from_secs(10);
/// The largest query over UDP; more is no honest question.
const QUERY: usize = 1232;
/// Queries answered before other tasks of the thread get a turn.
const TURN: usize = 64;

/// A running server; dropping it closes the sockets.
#[derive(Debug)]
pub struct Server {
    tasks: [JoinHandle<()>; 2],
}

impl Drop for Server {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Context {
    sandbox: String,
    names: watch::Receiver<Arc<Snapshot>>,
    upstream: Arc<Upstream>,
    waiting: Arc<Semaphore>,
}

impl Context {
    fn answer(&self, query: &[u8], way: Way) -> Outcome {
        let snapshot = self.names.borrow().clone();
        answer(query, &snapshot, &self.sandbox, way)
    }
}

/// Starts serving.
pub fn start(
    runtime: &Handle,
    resolver: Resolver,
    sandbox: &str,
    names: watch::Receiver<Arc<Snapshot>>,
    upstream: Arc<Upstream>,
) -> io::Result<Server> {
    let _inside = runtime.enter();
    let udp = Arc::new(UdpSocket::from_std(resolver.udp)?);
    let tcp = TcpListener::from_std(resolver.tcp)?;
    let waiting = Arc::new(Semaphore::new(WAITING));
    let context = Arc::new(Context { sandbox: sandbox.to_owned(), names, upstream, waiting });
    let tasks = [runtime.spawn(serve_udp(udp, context.clone())), runtime.spawn(serve_tcp(tcp, context))];
    Ok(Server { tasks })
}

async fn serve_udp(socket: Arc<UdpSocket>, context: Arc<Context>) {
    while socket.readable().await.is_ok() {
        for _ in 0..TURN {
            match receive(&socket, &context) {
                Ok(()) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // An ICMP error of an earlier reply; the next query is as good as any.
                Err(error) => tracing::debug!(sandbox = %context.sandbox, %error, "DNS socket"),
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes one query and answers it or sends it on its way. Not async, so that the buffer is not kept between queries.
fn receive(socket: &Arc<UdpSocket>, context: &Arc<Context>) -> io::Result<()> {
    let mut buffer = [0; QUERY];
    let (n, client) = socket.try_recv_from(&mut buffer)?;
    let query = &buffer[..n];
    match context.answer(query, Way::Udp) {
        Outcome::Ignore => {}
        Outcome::Reply(reply) => {
            // A full send buffer loses the reply, as networks do; the client asks again.
            let _ = socket.try_send_to(&reply, client);
        }
        Outcome::Forward { servers, failure, nobody } => {
            let Ok(permit) = context.waiting.clone().try_acquire_owned() else {
                let _ = socket.try_send_to(&failure, client);
                return Ok(());
            };
            let (socket, upstream, query) = (socket.clone(), context.upstream.clone(), query.to_vec());
            tokio::spawn(async move {
                let asked = upstream.ask(&query, &servers, Way::Udp).await;
                let reply = asked.unwrap_or_else(|s| if s == Silence::Nobody { nobody } else { failure });
                let _ = socket.send_to(&reply, client).await;
                drop(permit);
            });
        }
    }
    Ok(())
}

async fn serve_tcp(listener: TcpListener, context: Arc<Context>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, client)) => {
                let context = context.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &context).await {
                        report(client, &error);
                    }
                    drop(permit);
                });
            }
            // Out of descriptors, most likely: wait for some to close.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn report(client: SocketAddr, error: &io::Error) {
    tracing::debug!(%client, %error, "DNS connection ended");
}

async fn converse(mut stream: TcpStream, context: &Context) -> io::Result<()> {
    loop {
        let Ok(len) = timeout(IDLE, stream.read_u16()).await else { return Ok(()) };
        let len = match len {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => usize::from(other?),
        };
        let mut query = vec![0; len];
        timeout(IDLE, stream.read_exact(&mut query)).await??;
        let reply = match context.answer(&query, Way::Tcp) {
            Outcome::Ignore => return Ok(()),
            Outcome::Reply(reply) => reply,
            Outcome::Forward { servers, failure, nobody } => {
                let asked = context.upstream.ask(&query, &servers, Way::Tcp).await;
                asked.unwrap_or_else(|s| if s == Silence::Nobody { nobody } else { failure })
            }
        };
        let len = u16::try_from(reply.len()).map_err(|_| io::ErrorKind::InvalidData)?;
        timeout(IDLE, stream.write_all(&[&len.to_be_bytes()[..], &reply].concat())).await??;
    }
}
