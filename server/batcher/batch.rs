//! Rows of several requests on their way through an engine together.

use std::{
    ops::{Deref, Range},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::ScoreError;
use crate::{
    engine::{Engine, EngineError},
    metrics::{Dropped, VersionSeries},
    tensor::{Rows, Signature},
};

/// The scores of one request's rows, in their order: a part of what the engine answered for its batch.
#[derive(Clone, Debug, Default)]
pub struct Scores {
    batch: Arc<[f32]>,
    range: Range<usize>,
}

impl Deref for Scores {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.batch[self.range.clone()]
    }
}

/// Where a request's scores go.
pub(super) type Reply = oneshot::Sender<Result<Scores, ScoreError>>;

/// One request in a batch.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) rows: usize,
    pub(super) joined: Instant,
    pub(super) deadline: Instant,
    pub(super) reply: Reply,
}

/// Rows and the requests that they belong to: the members' rows follow one another in the members' order.
#[derive(Debug)]
pub(super) struct Batch {
    rows: Rows,
    members: Vec<Member>,
}

impl Batch {
    pub(super) fn new(signature: &Signature) -> Self {
        Self { rows: Rows::new(signature), members: Vec::new() }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Lets a request in with all of `rows`.
    pub(super) fn join(&mut self, rows: &Rows, member: Member) {
        debug_assert_eq!(rows.len(), member.rows, "a member's rows");
        self.rows.extend_from(rows, 0..rows.len());
        self.members.push(member);
    }

    /// Drops the requests that are too late, which are told, or that nobody waits for any more.
    pub(super) fn drop_dead(&mut self, now: Instant, metrics: &VersionSeries) {
        let dead = |member: &Member| member.deadline <= now || member.reply.is_closed();
        if !self.members.iter().any(dead) {
            return;
        }
        let (mut start, mut kept) = (0, 0);
        for member in std::mem::take(&mut self.members) {
            let range = start..start + member.rows;
            start = range.end;
            if !dead(&member) {
                self.rows.copy_within(range, kept);
                kept += member.rows;
                self.members.push(member);
            } else if member.deadline <= now {
                // Its own timer may have gone off first, which looks as if the client had gone away.
                metrics.dropped(Dropped::Expired);
                answer(member.reply, Err(ScoreError::Expired));
            } else {
                metrics.dropped(Dropped::Cancelled);
            }
        }
        self.rows.resize(kept);
    }

    /// Computes the batch and answers every member, which leaves the batch empty. When the engine fails, each member
    /// is computed on its own, so that one request's rows cannot fail another's. Returns how long the engine took.
    pub(super) fn run(
        &mut self,
        engine: &mut dyn Engine,
        scores: &mut Vec<f32>,
        metrics: &VersionSeries,
    ) -> Duration {
        let start = Instant::now();
        let result = engine.run(&self.rows, scores);
        let duration = start.elapsed();
        match result {
            Ok(()) => self.answer_all(scores),
            Err(error) => self.run_singly(engine, scores, metrics, error),
        }
        self.rows.clear();
        duration
    }

    /// How long each member has waited.
    pub(super) fn waits(&self, now: Instant) -> impl Iterator<Item = Duration> {
        self.members.iter().map(move |member| now.saturating_duration_since(member.joined))
    }

    fn answer_all(&mut self, scores: &[f32]) {
        let batch: Arc<[f32]> = scores.into();
        let mut start = 0;
        for member in self.members.drain(..) {
            let range = start..start + member.rows;
            start = range.end;
            answer(member.reply, finite(Scores { batch: Arc::clone(&batch), range }));
        }
    }

    fn run_singly(
        &mut self,
        engine: &mut dyn Engine,
        scores: &mut Vec<f32>,
        metrics: &VersionSeries,
        error: EngineError,
    ) {
        if self.members.len() == 1 {
            let member = self.members.pop().expect("one member");
            return answer(member.reply, Err(error.into()));
        }
        let mut rows = Rows::new(engine.signature());
        let mut start = 0;
        for member in self.members.drain(..) {
            metrics.retried();
            rows.clear();
            rows.extend_from(&self.rows, start..start + member.rows);
            start += member.rows;
            let result = engine.run(&rows, scores).map_err(ScoreError::from);
            let result = result
                .and_then(|()| finite(Scores { batch: scores.as_slice().into(), range: 0..scores.len() }));
            answer(member.reply, result);
        }
    }
}

fn finite(scores: Scores) -> Result<Scores, ScoreError> {
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(scores),
        Some(row) => Err(ScoreError::NotFinite { row }),
    }
}

fn answer(reply: Reply, result: Result<Scores, ScoreError>) {
    // The client may have gone away in the meantime; then there is nobody to tell.
    drop(reply.send(result));
}
