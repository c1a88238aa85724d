//! A tracking server that answers as MLflow's does what the trainer asks, and remembers what it was told.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

use serde_json::{Value, json};

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The method, and the path without what is before the API's own.
    pub(crate) name: String,
    pub(crate) authorization: Option<String>,
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// The server; it lives as long as the test's process.
pub(crate) struct TrackingServer {
    pub(crate) uri: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl TrackingServer {
    pub(crate) fn start() -> Self {
        Self::with(|_, _| None)
    }

    /// Answers what `special` has a status and a body for with that; it is given the call and how often the same was
    /// asked before.
    pub(crate) fn with(
        special: impl Fn(&Call, usize) -> Option<(u16, Value)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let uri = format!("http://{}/tracking/", listener.local_addr().expect("bound"));
        let calls: Arc<Mutex<Vec<Call>>> = Arc::default();
        let (special, known) = (Arc::new(special), Arc::clone(&calls));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (special, calls) = (Arc::clone(&special), Arc::clone(&known));
                thread::spawn(move || serve(&stream.expect("a connection"), &*special, &calls));
            }
        });
        Self { uri, calls }
    }

    /// Everything that was asked so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.calls).clone()
    }

    /// What was asked by this name.
    pub(crate) fn named(&self, name: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.name == name).collect()
    }

    /// The entries of all batches of this kind: `params`, `metrics` or `tags`.
    pub(crate) fn logged(&self, kind: &str) -> Vec<Value> {
        let batches = self.named("POST runs/log-batch").into_iter();
        batches.flat_map(|call| call.json()[kind].as_array().cloned().unwrap_or_default()).collect()
    }

    /// How the run was said to be, in order.
    pub(crate) fn statuses(&self) -> Vec<String> {
        let updates = self.named("POST runs/update").into_iter();
        updates.map(|call| call.json()["status"].as_str().expect("a status").to_owned()).collect()
    }
}

fn lock(calls: &Mutex<Vec<Call>>) -> MutexGuard<'_, Vec<Call>> {
    calls.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(
    stream: &TcpStream,
    special: &impl Fn(&Call, usize) -> Option<(u16, Value)>,
    calls: &Mutex<Vec<Call>>,
) {
    let mut reader = BufReader::new(stream);
    while let Some(call) = read(&mut reader) {
        let before = {
            let mut calls = lock(calls);
            let before = calls.iter().filter(|known| known.name == call.name).count();
            calls.push(call.clone());
            before
        };
        let (status, body) = special(&call, before).unwrap_or_else(|| (200, answer(&call)));
        let body = body.to_string();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut stream = stream;
        if stream.write_all((answer + &body).as_bytes()).is_err() {
            return;
        }
    }
}

/// The next request of a connection; `None` at its end.
fn read(reader: &mut impl BufRead) -> Option<Call> {
    let line = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        (reader.read_line(&mut line).ok()? > 0).then(|| line.trim_end().to_owned())
    };
    let first = line(reader)?;
    let (mut length, mut authorization) = (0, None);
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().expect("a length"),
            "authorization" => authorization = Some(value.to_owned()),
            "transfer-encoding" => panic!("the length of everything is known"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (method, path) = first.strip_suffix(" HTTP/1.1")?.split_once(" /tracking/api/2.0/")?;
    let path = path.strip_prefix("mlflow/").unwrap_or(path);
    Some(Call { name: format!("{method} {path}"), authorization, body })
}

fn answer(call: &Call) -> Value {
    match call.name.as_str() {
        "GET experiments/get-by-name?experiment_name=shop" => {
            json!({ "experiment": { "experiment_id": "4", "lifecycle_stage": "active" } })
        }
        "POST experiments/create" => json!({ "experiment_id": "5" }),
        "POST runs/create" => {
            json!({ "run": { "info": { "run_id": "abc", "artifact_uri": "mlflow-artifacts:/4/abc/artifacts" } } })
        }
        _ => json!({}),
    }
}
