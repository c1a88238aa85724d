//! The REST interface of a tracking server, as far as a run needs it. Every call has an end, and one that may be made
//! twice without harm is tried again where the server or the way to it failed, as long as little time was lost on it: a
//! training waits meanwhile.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use ureq::{
    Agent, Body, SendBody,
    http::{Response, StatusCode},
    tls::{RootCerts, TlsConfig},
};

use super::settings::Settings;

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server did not answer.
    #[error("{call}")]
    Transport {
        /// The method and the address.
        call: String,
        /// What went wrong.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The server said no.
    #[error("{call}: status {status}: {code}: {message}")]
    Refused {
        /// The method and the address.
        call: String,
        /// The answer's status.
        status: u16,
        /// MLflow's name of the error; empty where something else answered.
        code: String,
        /// What the server says.
        message: String,
    },
    /// The answer lacks something.
    #[error("{call}: the answer has no `{missing}`; is this an MLflow server?")]
    Unexpected {
        /// The method and the address.
        call: String,
        /// The key.
        missing: &'static str,
    },
    /// A file that is to be sent cannot be read.
    #[error("{file}: cannot be read")]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl ClientError {
    /// Whether the server refused with this error of MLflow's.
    pub(super) fn is(&self, name: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == name)
    }

    fn is_passing(&self) -> bool {
        match self {
            Self::Transport { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Unexpected { .. } | Self::File { .. } => false,
        }
    }
}

/// An answer, and what was asked, for errors.
pub(super) struct Answer {
    call: String,
    body: Value,
}

impl Answer {
    /// What the server said.
    pub(super) fn body(&self) -> &Value {
        &self.body
    }

    /// The text at `keys`, of which the last is named where it is missing.
    pub(super) fn text(&self, keys: &[&'static str]) -> Result<&str, ClientError> {
        let found = keys.iter().try_fold(&self.body, |value, key| value.get(key));
        found.and_then(Value::as_str).ok_or_else(|| ClientError::Unexpected {
            call: self.call.clone(),
            missing: keys.last().copied().unwrap_or_default(),
        })
    }
}

/// A tracking server.
pub(super) struct Client {
    agent: Agent,
    settings: Settings,
}

impl Client {
    pub(super) fn new(settings: Settings) -> Self {
        // The system's store of certificates, which a company's own server is signed by.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(CALL))
            .user_agent(concat!("millrace-trainer/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls);
        Self { agent: config.build().new_agent(), settings }
    }

    /// The server's address.
    pub(super) fn uri(&self) -> &str {
        &self.settings.uri
    }

    /// What `path` has for a query.
    pub(super) fn get(&self, path: &str, (key, value): (&str, &str)) -> Result<Answer, ClientError> {
        let url = self.api(path);
        let call = format!("GET {url}");
        patiently(|| {
            let request = self.agent.get(&url).query(key, value);
            read(&call, self.admit(request).call())
        })
    }

    /// Posts what may arrive twice.
    pub(super) fn post(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        patiently(|| self.create(path, body))
    }

    /// Posts what must not arrive twice, once.
    pub(super) fn create(&self, path: &str, body: &Value) -> Result<Answer, ClientError> {
        let url = self.api(path);
        read(&format!("POST {url}"), self.admit(self.agent.post(&url)).send_json(body))
    }

    /// Stores `file` as the artifact at `path`.
    pub(super) fn put(&self, path: &str, file: &Path) -> Result<(), ClientError> {
        let unreadable = |source| ClientError::File { file: file.to_path_buf(), source };
        let url = format!("{}{ARTIFACTS}/{path}", self.settings.uri);
        let call = format!("PUT {url}");
        patiently(|| {
            let content = File::open(file).map_err(unreadable)?;
            let bytes = content.metadata().map_err(unreadable)?.len();
            let request = self.agent.put(&url).content_type("application/octet-stream");
            // The server answers once it has stored the file, and may pass it on to another one before.
            let longest = CALL * 6 + Duration::from_millis(bytes / SLOWEST_BYTES_PER_MS);
            let request = request.config().timeout_global(Some(longest)).build();
            let request = self.admit(request).header("content-length", bytes);
            read(&call, request.send(SendBody::from_owned_reader(content))).map(drop)
        })
    }

    fn api(&self, path: &str) -> String {
        format!("{}/api/2.0/mlflow/{path}", self.settings.uri)
    }

    fn admit<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        match &self.settings.authorization {
            Some(authorization) => request.header("authorization", authorization),
            None => request,
        }
    }
}

/// Tries again while the failure may pass and little time was lost on it.
pub(super) fn patiently<T>(call: impl Fn() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let start = Instant::now();
    for pause in PAUSES {
        match call() {
            Err(error) if error.is_passing() && start.elapsed() < PATIENCE => thread::sleep(pause),
            result => return result,
        }
    }
    call()
}

fn read(call: &str, response: Result<Response<Body>, ureq::Error>) -> Result<Answer, ClientError> {
    let failed = |source| ClientError::Transport { call: call.to_owned(), source: Box::new(source) };
    let mut response = response.map_err(failed)?;
    let text = response.body_mut().with_config().limit(MAX_ANSWER).read_to_string().map_err(failed)?;
    let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let status = response.status();
    if status.is_success() {
        return Ok(Answer { call: call.to_owned(), body });
    }
    let of = |key| body.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (code, message) = (of("error_code"), of("message"));
    let message = if message.is_empty() { reason(status).to_owned() } else { message };
    Err(ClientError::Refused { call: call.to_owned(), status: status.as_u16(), code, message })
}

fn reason(status: StatusCode) -> &'static str {
    status.canonical_reason().unwrap_or("no reason given")
}

const ARTIFACTS: &str = "/api/2.0/mlflow-artifacts/artifacts";
/// The longest that a call may take, but for a file's.
const CALL: Duration = Duration::from_secs(10);
/// What a file may take besides, by its size: a megabyte a second.
const SLOWEST_BYTES_PER_MS: u64 = 1000;
/// A call that failed is not tried again after this long.
const PATIENCE: Duration = Duration::from_secs(8);
/// What is waited before each further try.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_secs(1), Duration::from_secs(3)];
/// An answer is a run at most, with all its parameters.
const MAX_ANSWER: u64 = 16 << 20;
