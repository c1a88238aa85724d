//! Asks a running server over its management port.

use std::net::SocketAddr;

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header::HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, runtime};

/// Sends a request of this method, path and body, and returns what is answered; where the server refuses, its reason is the error.
pub(super) fn ask(address: SocketAddr, request: (&str, String, String)) -> anyhow::Result<Bytes> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("a runtime")?;
    let (status, body) = runtime
        .block_on(send(address, request))
        .with_context(|| format!("no answer from the management port {address}"))?;
    if status != StatusCode::OK {
        let Refused { error } = serde_json::from_slice(&body).context("an answer that is not understood")?;
        anyhow::bail!(error);
    }
    Ok(body)
}

async fn send(
    address: SocketAddr,
    (method, path, body): (&str, String, String),
) -> anyhow::Result<(StatusCode, Bytes)> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder().method(method).uri(path).header(HOST, address.to_string());
    let request = request.body(Full::new(Bytes::from(body)))?;
    // Driven beside the request; its own errors show in the answer.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[derive(Deserialize)]
struct Refused {
    error: String,
}
