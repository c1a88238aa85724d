//! The program as its users start and stop it.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::Value;

use crate::{
    artifact::Models,
    client::Client,
    library,
    server::{BODY, Finished, MODEL, PREDICT, first, second},
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_millrace");

/// `millrace serve` as a process, killed at the end of its test if it has not ended by then.
struct Process {
    child: Child,
    address: SocketAddr,
    management: SocketAddr,
}

impl Process {
    /// Starts it over `models` and waits until a model serves.
    fn start(models: &Models) -> Self {
        let mut child = serve(models).stderr(Stdio::piped()).spawn().expect("started");
        let mut log = BufReader::new(child.stderr.take().expect("piped")).lines();
        let line = log.by_ref().map(|line| line.expect("text")).find(|line| line.contains("\"listening\""));
        let listening: Value = serde_json::from_str(&line.expect("it listens")).expect("a line of JSON");
        // The rest of the log is read by nobody, and must not stop the server when the pipe is full.
        std::thread::spawn(move || log.for_each(drop));
        let address = |name: &str| listening[name].as_str().expect("an address").parse().expect("an address");
        let process = Self { child, address: address("address"), management: address("management") };
        process.wait_until_ready();
        process
    }

    /// Asks as an orchestrator would. A line of the log is no sign: a version is live before the first look at the
    /// repository is over, and what operators are shown is that look's result.
    fn wait_until_ready(&self) {
        while Client::connect(self.management).get("/readyz").status != 200 {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn repo(&self, arguments: &[&str]) -> Output {
        let management = self.management.to_string();
        let mut command = Command::new(PROGRAM);
        command.args(["repo", "--management", &management]).args(arguments).output().expect("run")
    }

    fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(kill.expect("kill is there").success());
    }

    fn wait(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }

    /// Bytes of memory that are resident.
    fn resident(&self) -> usize {
        let text = fs::read_to_string(format!("/proc/{}/statm", self.child.id())).expect("Linux");
        let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
        pages.expect("a number") * 4096
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(models: &Models) -> Command {
    let mut command = Command::new(PROGRAM);
    command
        .args([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--management-listen",
            "127.0.0.1:0",
            "--log-format",
            "json",
        ])
        .arg("--models-dir")
        .arg(models.path())
        .arg("--onnxruntime")
        .arg(library())
        .stdout(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

#[test]
fn operators_see_and_change_what_answers() {
    let models = Models::new();
    models.publish(MODEL, 1, first());
    models.publish(MODEL, 2, second());
    let process = Process::start(&models);
    let list = process.repo(&["list"]);
    let expected = "MODEL  VERSION  STATE        NOTES\nshop         2  ready        answers\nshop         1  available\n";
    assert_eq!((list.status.code(), text(&list.stdout)), (Some(0), expected));
    let rollback = process.repo(&["rollback", MODEL]);
    assert!(text(&rollback.stdout).contains("shop         1  ready        answers, pinned"), "{rollback:?}");
    let answer = Client::connect(process.address).post(PREDICT, BODY);
    assert_eq!(answer.header("x-model-version"), Some("1"));
    let promote = process.repo(&["promote", MODEL, "2"]);
    assert!(text(&promote.stdout).contains("shop         2  ready        answers, pinned"), "{promote:?}");
    let refused = process.repo(&["promote", MODEL, "9"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("there is no version 9"), "{refused:?}");
    assert_eq!(process.repo(&["promote", "../x", "1"]).status.code(), Some(2));
}

#[test]
fn a_signal_lets_requests_in_flight_finish() {
    for name in ["-INT", "-TERM"] {
        let models = Models::new();
        models.publish(MODEL, 1, first());
        let process = Process::start(&models);
        let mut client = Client::connect(process.address);
        let head = format!("content-length: {}\r\nexpect: 100-continue\r\n\r\n", BODY.len());
        client.send(format!("POST {PREDICT} HTTP/1.1\r\nhost: test\r\n{head}").as_bytes());
        assert_eq!(client.answer().expect("leave to send").status, 100);
        process.signal(name);
        // Not ready any more, as whoever balances the load will see, although it still answers what it has begun.
        while Client::connect(process.management).get("/readyz").status != 503 {
            std::thread::yield_now();
        }
        assert_eq!(Client::connect(process.management).get("/livez").status, 200);
        client.send(BODY.as_bytes());
        assert_eq!(client.answer().expect("an answer").scores().len(), 1);
        assert_eq!(process.wait().code(), Some(0), "{name}");
    }
}

#[test]
fn a_start_that_cannot_succeed_says_what_to_do() {
    let models = Models::new();
    let missing = |flag: &str| {
        let output = serve(&models).args([flag, "/nonexistent"]).output().expect("run");
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr).to_owned()
    };
    let error = missing("--config");
    assert!(error.contains("/nonexistent: cannot be read"), "{error}");
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--onnxruntime", "/nonexistent", "--models-dir"]).arg(models.path());
    command.args(["--listen", "127.0.0.1:0", "--management-listen", "127.0.0.1:0"]);
    let error = command.output().expect("run");
    assert_eq!(error.status.code(), Some(1));
    assert!(text(&error.stderr).contains("deploy/onnxruntime.sh"), "{error:?}");
}

#[test]
fn a_thousand_swaps_leave_no_memory_behind() {
    let models = Models::new();
    models.publish(MODEL, 1, first());
    models.publish(MODEL, 2, second());
    let process = Process::start(&models);
    let done = AtomicBool::new(false);
    let resident: Vec<usize> = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(process.address);
            while !done.load(Ordering::Relaxed) {
                assert_eq!(client.post(PREDICT, BODY).scores().len(), 1);
            }
        });
        let _finished = Finished(&done);
        let mut management = Client::connect(process.management);
        let resident = (0..1000).map(|number| {
            // One version alone is wanted, the newest that is there: each of these loads one and drops the other.
            if number % 2 == 0 {
                models.withdraw(MODEL, 2);
            } else {
                models.restore(MODEL, 2);
            }
            assert_eq!(management.post("/models/shop/load", "").status, 200);
            // A retired version takes memory until its last request is answered.
            while !management.get("/metrics").text().contains("\nmillrace_versions_in_memory 1\n") {
                std::thread::yield_now();
            }
            process.resident()
        });
        resident.collect()
    });
    // The allocator keeps or gives back a megabyte now and then, which is a fiftieth of all there is: fifty readings
    // tell more than one.
    let mean = |readings: &[usize]| readings.iter().sum::<usize>() / readings.len();
    let (after_100, after_1000) = (mean(&resident[50..100]), mean(&resident[950..]));
    assert!(after_1000 <= after_100 + after_100 / 20, "{after_100} bytes became {after_1000}");
    let metrics = Client::connect(process.management).get("/metrics").text();
    assert!(metrics.contains(r#"millrace_model_swaps_total{model="shop"} 1001"#), "{metrics}");
    process.signal("-TERM");
    assert_eq!(process.wait().code(), Some(0));
}
