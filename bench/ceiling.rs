//! The least that a hyper server can do for a prediction: read the request's body and answer a fixed one. What the
//! server reaches is given as a share of what this reaches on the same machine in the same minute.
//!
//! It has the server's connection settings and response headers, on tokio's work-stealing runtime; with a worker a core,
//! as the server has them, it is no faster. It has no routing, no limits,
//! no metrics, no decoding, no model and no draining, and it is not a part of the product.

use std::{io, net::SocketAddr};

use bytes::Bytes;
use clap::Parser;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

/// Answers every request with the same scores.
#[derive(Parser)]
struct Cli {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:8010")]
    listen: SocketAddr,
    /// Scores in an answer.
    #[arg(long, default_value_t = 1)]
    rows: usize,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let Cli { listen, rows } = Cli::parse();
    let listener = TcpListener::bind(listen).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        result = serve(listener, Answer::new(rows)) => result,
        _ = terminate.recv() => Ok(()),
    }
}

/// The headers and the body of every answer.
#[derive(Clone)]
struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn new(rows: usize) -> Self {
        let headers = [
            (CONTENT_TYPE, "application/json"),
            ("x-model-version".parse().expect("a header's name"), "1"),
            ("x-request-id".parse().expect("a header's name"), "0123456789abcdef0123456789abcdef"),
        ];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        let body = format!(r#"{{"output":[{}]}}"#, vec!["0.85"; rows].join(","));
        Self { headers: headers.into_iter().collect(), body: body.into() }
    }

    async fn to(self, request: Request<Incoming>) -> hyper::Result<Response<Full<Bytes>>> {
        request.into_body().collect().await?;
        let mut response = Response::new(Full::new(self.body));
        *response.headers_mut() = self.headers;
        Ok(response)
    }
}

async fn serve(listener: TcpListener, answer: Answer) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer.clone().to(request));
            // A connection ends when its client does as it likes.
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
