//! What the batcher's tests share: numbered rows whose scores are known, an engine that computes them and misbehaves
//! where a row tells it to, and a view of what was counted.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Priority, ScoreError, Scores, Terms, batch::Member};
use crate::{
    engine::{Engine, EngineError},
    metrics::{Metrics, VersionFacts, VersionMetrics},
    tensor::{DType, Rows, Signature, TensorSpec, Values},
};

/// A row on which the engine fails.
pub(super) const FAILS: i32 = -1;
/// A row whose score is not a number.
pub(super) const NOT_A_NUMBER: i32 = -2;
/// A row on which the engine panics.
pub(super) const PANICS: i32 = -3;

/// Two inputs of different types and widths, so that columns which get out of step show in the scores.
pub(super) fn signature() -> Signature {
    Signature {
        inputs: vec![
            TensorSpec { name: "ids".into(), dtype: DType::I32, width: 2 },
            TensorSpec { name: "dense".into(), dtype: DType::F32, width: 1 },
        ],
        output: "score".into(),
    }
}

/// Row `n` holds `n`, `2n` and `4n`.
pub(super) fn rows(numbers: &[i32]) -> Rows {
    let mut rows = Rows::new(&signature());
    for &number in numbers {
        rows.push_zeroed();
        rows.last_i32(0).copy_from_slice(&[number, 2 * number]);
        rows.last_f32(1)[0] = 4.0 * number as f32;
    }
    rows
}

/// The scores of rows: row `n` scores the sum of what it holds.
pub(super) fn scores(numbers: &[i32]) -> Vec<f32> {
    numbers.iter().map(|&number| 7.0 * number as f32).collect()
}

/// A moment that no test reaches.
pub(super) fn never() -> Instant {
    Instant::now() + Duration::from_hours(1)
}

/// The terms of a request whose scores may come until `deadline`.
pub(super) fn until(deadline: Instant) -> Terms {
    Terms { deadline, priority: Priority::Normal }
}

/// The terms of a request that can wait.
pub(super) fn whenever() -> Terms {
    until(never())
}

/// A request in a batch or queue that a test drives by hand, and where its scores come to.
pub(super) fn member(rows: usize, deadline: Instant) -> (Member, Answer) {
    let (reply, answer) = oneshot::channel();
    (Member { rows, joined: Instant::now(), deadline, reply }, Answer(answer))
}

/// Where a request's scores come to.
pub(super) struct Answer(oneshot::Receiver<Result<Scores, ScoreError>>);

impl Answer {
    /// What the request was answered: by now, as the test has run the batch itself.
    pub(super) fn get(mut self) -> Result<Vec<f32>, ScoreError> {
        self.0.try_recv().unwrap_or(Err(ScoreError::Lost)).map(|scores| scores.to_vec())
    }
}

/// Computes numbered rows and remembers every batch.
pub(super) struct FakeEngine {
    signature: Signature,
    log: Log,
    gate: Option<(Sender<()>, Receiver<()>)>,
}

/// The row numbers of every batch that an engine was given.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Vec<i32>>>>);

impl Log {
    /// The batches so far.
    pub(super) fn batches(&self) -> Vec<Vec<i32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of rows in each batch so far.
    pub(super) fn sizes(&self) -> Vec<usize> {
        self.batches().iter().map(Vec::len).collect()
    }
}

/// Holds an engine in the middle of each batch until the test lets it go on.
pub(super) struct Gate {
    entered: Receiver<()>,
    leave: Sender<()>,
}

impl Gate {
    /// Waits until the engine is in the middle of a batch.
    pub(super) fn wait_until_busy(&self) {
        self.entered.recv().expect("the engine is there");
    }

    /// Lets the engine finish one batch.
    pub(super) fn open(&self) {
        self.leave.send(()).expect("the engine is there");
    }
}

impl FakeEngine {
    /// An engine and what it remembers.
    pub(super) fn new() -> (Self, Log) {
        let log = Log::default();
        (Self::with_log(&log), log)
    }

    /// An engine that remembers its batches in `log`.
    pub(super) fn with_log(log: &Log) -> Self {
        Self { signature: signature(), log: log.clone(), gate: None }
    }

    /// The engine behind a gate.
    pub(super) fn gated(self) -> (Self, Gate) {
        let ((entered, busy), (open, leave)) = (channel(), channel());
        (Self { gate: Some((entered, leave)), ..self }, Gate { entered: busy, leave: open })
    }
}

impl Engine for FakeEngine {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        let [ids, dense] = rows.columns() else { panic!("two inputs") };
        let (Values::I32(ids), Values::F32(dense)) = (ids.values(), dense.values()) else {
            panic!("ids are integers, dense are floats");
        };
        let numbers: Vec<i32> = ids.chunks(2).map(|ids| ids[0]).collect();
        self.log.0.lock().unwrap_or_else(PoisonError::into_inner).push(numbers.clone());
        if let Some((entered, leave)) = &self.gate {
            entered.send(()).expect("the test is there");
            leave.recv().expect("the test is there");
        }
        // As a real engine may, it leaves half an answer behind when it fails.
        scores.clear();
        for (ids, dense) in ids.chunks(2).zip(dense) {
            match ids[0] {
                FAILS => return Err(EngineError::Scores { scores: scores.len(), rows: rows.len() }),
                NOT_A_NUMBER => scores.push(f32::NAN),
                PANICS => panic!("the row says so"),
                _ => scores.push(ids[0] as f32 + ids[1] as f32 + dense),
            }
        }
        Ok(())
    }
}

/// The metrics of one version, to count into and to read back.
pub(super) struct Counts {
    metrics: Arc<Metrics>,
    pub(super) version: Arc<VersionMetrics>,
}

impl Counts {
    pub(super) fn new() -> Self {
        let metrics = Metrics::new("test");
        let version = metrics.version("shop", 1, VersionFacts::default());
        Self { metrics, version }
    }

    /// The value of the one series of `millrace_<family>` that has `label`, as in `reason="full"`.
    pub(super) fn of(&self, family: &str, label: &str) -> u64 {
        let start = format!("millrace_{family}{{");
        let text = self.metrics.render();
        let mut series = text.lines().filter(|line| line.starts_with(&start) && line.contains(label));
        let found = series.next().and_then(|line| line.rsplit(' ').next()?.parse().ok());
        assert_eq!(series.next(), None, "one series");
        found.unwrap_or_else(|| panic!("{family} with {label} in {text}"))
    }
}
