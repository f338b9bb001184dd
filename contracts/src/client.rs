//! Clients of the daemons' unix sockets.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::{Error, Kind};

/// The largest message either side accepts. Lists of ten thousand images fit; a peer cannot make us allocate more.
pub const MAX_MESSAGE: usize = 64 << 20;

/// A channel that connects to `socket` on first use and again whenever the daemon behind it was replaced.
pub fn lazy(socket: &Path) -> Channel {
    endpoint().connect_with_connector_lazy(connector(socket.to_path_buf()))
}

/// A channel that is connected now.
///
/// # Errors
/// [`Kind::Unavailable`] when nobody listens on `socket`.
pub async fn connect(socket: &Path) -> Result<Channel, Error> {
    endpoint().connect_with_connector(connector(socket.to_path_buf())).await.map_err(|e| {
        let full = Error::from_error(Kind::Unavailable, &e);
        let cause = full.causes().last().cloned().unwrap_or_else(|| full.message().to_owned());
        Error::new(Kind::Unavailable, format!("cannot reach {}: {cause}", socket.display()))
            .with_subject(socket.display().to_string())
    })
}

fn endpoint() -> Endpoint {
    // The authority is not used: the connector ignores it.
    Endpoint::from_static("http://davit.invalid")
        .connect_timeout(Duration::from_secs(10))
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
}

fn connector(
    socket: PathBuf,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<UnixStream>,
    Error = std::io::Error,
    Future = impl Future<Output = std::io::Result<TokioIo<UnixStream>>> + Send,
> + Send
+ 'static {
    tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    })
}
