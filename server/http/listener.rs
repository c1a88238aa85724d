//! Accepts connections and speaks HTTP/1.1 on them until it is told to stop, within bounds: how many connections are
//! open, how long a client may take over a request's headers, how large these may be.

use std::{convert::Infallible, io, num::NonZeroUsize, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{metrics::Metrics, workers::Spawner};

/// The bounds of the connections on one port.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections that may be open; more wait in the system's backlog.
    pub max_connections: NonZeroUsize,
    /// The largest sum of a request's header names and values.
    pub max_header_bytes: NonZeroUsize,
    /// How long a client may take to send a request's headers, and how long an idle connection is kept.
    pub header_read_timeout: Duration,
    /// How long requests in flight may take to finish once the port is closed.
    pub drain_timeout: Duration,
}

/// A port and the connections on it.
pub struct Connections {
    listener: TcpListener,
    limits: ConnectionLimits,
    /// Who serves them.
    spawner: Spawner,
    /// Where to count them; those of the management port are not counted.
    metrics: Option<Arc<Metrics>>,
}

impl Connections {
    /// Connections that come in at `listener`.
    pub fn new(
        listener: TcpListener,
        limits: ConnectionLimits,
        spawner: Spawner,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        Self { listener, limits, spawner, metrics }
    }

    /// Answers requests with `answer` until `stop` completes, closes the port, and lets the requests that are in
    /// flight finish within the drain timeout. Returns whether all of them did.
    pub async fn serve<A, F>(self, answer: A, stop: impl Future<Output = ()>) -> bool
    where
        A: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let Self { listener, limits, spawner, metrics } = self;
        let http = Arc::new(protocol(&limits));
        let room = Arc::new(Semaphore::new(limits.max_connections.get().min(Semaphore::MAX_PERMITS)));
        let open = GracefulShutdown::new();
        let spawn = |stream: std::net::TcpStream, permit: OwnedSemaphorePermit| {
            let answer = answer.clone();
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let counted = metrics.as_ref().map(|metrics| Counted::new(Arc::clone(metrics)));
            let (http, watcher) = (Arc::clone(&http), open.watcher());
            spawner.spawn(async move {
                match TcpStream::from_std(stream) {
                    // It ends when its client does as it likes; requests have told what went wrong with them.
                    Ok(stream) => {
                        drop(watcher.watch(http.serve_connection(TokioIo::new(stream), service)).await);
                    }
                    Err(error) => tracing::warn!(%error, "a connection cannot be served"),
                }
                drop((counted, permit));
            });
        };
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut stop => break,
                accepted = accept(&listener, &room) => accepted,
            };
            let (stream, permit) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    if let Some(metrics) = &metrics {
                        metrics.accept_errors.increment(1);
                    }
                    tracing::warn!(%error, "a connection cannot be accepted");
                    // Out of file descriptors, most likely: asking again at once would only burn the processor.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            spawn(stream, permit);
        }
        // Who has connected by now gets an answer: the system has accepted for us already.
        while let Ok(Ok((stream, permit))) = timeout(Duration::ZERO, accept(&listener, &room)).await {
            spawn(stream, permit);
        }
        drop(listener);
        timeout(limits.drain_timeout, open.shutdown()).await.is_ok()
    }
}

/// The next connection, once there is room for it.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> io::Result<(std::net::TcpStream, OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.expect("the semaphore is never closed");
    let (stream, _) = listener.accept().await?;
    // Answers are written whole; waiting for more to send with them would only delay them. Where this fails the
    // connection is gone, which its first read will say.
    let _ = stream.set_nodelay(true);
    // It is served by another event loop than the one that accepted it.
    Ok((stream.into_std()?, permit))
}

fn protocol(limits: &ConnectionLimits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Headers beyond the limit but within the buffer are answered by us, those beyond it by the library.
    let buffer = limits.max_header_bytes.get().saturating_mul(2).max(MIN_BUFFER);
    // Without a timer the timeout would silently not apply.
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_read_timeout).max_buf_size(buffer);
    http
}

/// A connection that the metrics know of, until this is dropped.
struct Counted(Arc<Metrics>);

impl Counted {
    fn new(metrics: Arc<Metrics>) -> Self {
        metrics.connections.increment(1);
        metrics.connections_open.increment(1.0);
        Self(metrics)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections_open.decrement(1.0);
    }
}

/// The least that is buffered for a connection: enough to read large bodies in few pieces.
const MIN_BUFFER: usize = 64 << 10;

const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
