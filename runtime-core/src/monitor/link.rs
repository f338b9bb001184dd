//! A control connection to one monitor.
//!
//! A task owns the socket; it matches answers with requests and hands events on in order. The event queue ends when the connection
//! does, which is how the container's task learns that the monitor is gone.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use davit_wire::{
    Decoder, Event, Failure, Frame, FrameError, Hello, PROTOCOL_VERSION, Reply, Request, Role, Welcome,
    encode,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, oneshot};

/// How long a monitor may take to say Welcome.
const HELLO: Duration = Duration::from_secs(5);

/// Why a monitor does not answer.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Nobody listens on its socket.
    #[error("its socket cannot be reached")]
    Connect(#[source] io::Error),
    /// Reading or writing failed.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
    /// It closed the connection, or died.
    #[error("it closed the connection")]
    Closed,
    /// It sent something that is no frame.
    #[error("it sent what is not understood")]
    Frame(#[from] FrameError),
    /// It refused the first frame.
    #[error("it refused the connection: {}", .0.message)]
    Refused(Failure),
    /// It did not answer the first frame.
    #[error("it did not answer within {} s", HELLO.as_secs())]
    Silent,
    /// It answered something else.
    #[error("it answered out of turn")]
    Unexpected,
}

type Answer = Result<Reply, Failure>;
type Question = (Request, oneshot::Sender<Answer>);

/// Requests to one monitor. Cloning is cheap; the connection ends with the last clone.
#[derive(Debug, Clone)]
pub struct Link {
    questions: mpsc::Sender<Question>,
}

/// A connected monitor.
#[derive(Debug)]
pub struct Connected {
    /// For requests.
    pub link: Link,
    /// What it said first.
    pub welcome: Welcome,
    /// What happens, until the connection ends.
    pub events: mpsc::UnboundedReceiver<Event>,
}

/// Connects and says Hello.
pub async fn connect(socket: &Path) -> Result<Connected, LinkError> {
    let mut stream = UnixStream::connect(socket).await.map_err(LinkError::Connect)?;
    let mut decoder = Decoder::default();
    let hello = Frame::Hello(Hello { version: PROTOCOL_VERSION, role: Role::Control });
    send(&mut stream, &hello).await?;
    let first = tokio::time::timeout(HELLO, receive(&mut stream, &mut decoder)).await;
    let welcome = match first.map_err(|_| LinkError::Silent)?? {
        Frame::Welcome(welcome) => welcome,
        Frame::Failed { failure, .. } => return Err(LinkError::Refused(failure)),
        _ => return Err(LinkError::Unexpected),
    };
    let (questions, asked) = mpsc::channel(16);
    let (happened, events) = mpsc::unbounded_channel();
    let task = Task { stream, decoder, asked, happened, waiting: HashMap::new(), next: 1 };
    tokio::spawn(task.run());
    Ok(Connected { link: Link { questions }, welcome, events })
}

impl Link {
    /// Asks and waits for the answer.
    pub async fn request(&self, request: Request) -> Result<Answer, LinkError> {
        let (tx, rx) = oneshot::channel();
        self.questions.send((request, tx)).await.map_err(|_| LinkError::Closed)?;
        rx.await.map_err(|_| LinkError::Closed)
    }
}

async fn send(stream: &mut UnixStream, frame: &Frame) -> Result<(), LinkError> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes);
    stream.write_all(&bytes).await.map_err(LinkError::Broken)
}

async fn receive(stream: &mut UnixStream, decoder: &mut Decoder) -> Result<Frame, LinkError> {
    let mut buffer = [0u8; 4096];
    loop {
        if let Some(frame) = decoder.next_frame()? {
            return Ok(frame);
        }
        // Cancel-safe: bytes are in the decoder before the next await.
        match stream.read(&mut buffer).await.map_err(LinkError::Broken)? {
            0 => return Err(LinkError::Closed),
            n => decoder.push(&buffer[..n]),
        }
    }
}

struct Task {
    stream: UnixStream,
    decoder: Decoder,
    asked: mpsc::Receiver<Question>,
    happened: mpsc::UnboundedSender<Event>,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    next: u64,
}

impl Task {
    async fn run(mut self) {
        if let Err(error) = self.speak().await
            && !matches!(error, LinkError::Closed)
        {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), "lost a monitor's connection");
        }
    }

    async fn speak(&mut self) -> Result<(), LinkError> {
        loop {
            tokio::select! {
                question = self.asked.recv() => {
                    let Some((request, answer)) = question else { return Ok(()) };
                    let id = self.next;
                    self.next += 1;
                    self.waiting.insert(id, answer);
                    send(&mut self.stream, &Frame::Request { id, request }).await?;
                }
                frame = receive(&mut self.stream, &mut self.decoder) => self.take(frame?)?,
            }
        }
    }

    fn take(&mut self, frame: Frame) -> Result<(), LinkError> {
        let (id, answer) = match frame {
            Frame::Reply { id, reply } => (id, Ok(reply)),
            Frame::Failed { id, failure } => (id, Err(failure)),
            Frame::Event(event) => {
                let _ = self.happened.send(event);
                return Ok(());
            }
            _ => return Err(LinkError::Unexpected),
        };
        if let Some(waiting) = self.waiting.remove(&id) {
            let _ = waiting.send(answer);
        }
        Ok(())
    }
}
