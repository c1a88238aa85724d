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

impl Member {
    fn waited(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.joined)
    }
}

/// Rows and the requests that they belong to: the members' rows follow one another in the members' order.
#[derive(Debug)]
pub(super) struct Batch {
    rows: Rows,
    members: Vec<Member>,
    /// The earliest deadline of the members that have joined.
    deadline: Option<Instant>,
}

impl Batch {
    pub(super) fn new(signature: &Signature) -> Self {
        Self { rows: Rows::new(signature), members: Vec::new(), deadline: None }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The earliest deadline of the requests that have joined; `None` while nobody has.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// How long the member has waited that has waited least; zero without members.
    pub(super) fn shortest_wait(&self, now: Instant) -> Duration {
        self.members.last().map_or(Duration::ZERO, |member| member.waited(now))
    }

    /// Since when the first member waits; `None` while there is none.
    pub(super) fn oldest(&self) -> Option<Instant> {
        self.members.first().map(|member| member.joined)
    }

    /// Moves everybody of `other` into this batch, behind its own.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.rows.extend_from(&other.rows, 0..other.rows.len());
        self.members.append(&mut other.members);
        self.deadline = self.deadline.into_iter().chain(other.deadline).min();
        other.clear();
    }

    /// Lets a request in with all of `rows`, behind those that have joined before.
    pub(super) fn join(&mut self, rows: &Rows, member: Member) {
        debug_assert_eq!(rows.len(), member.rows, "a member's rows");
        self.deadline = Some(self.deadline.map_or(member.deadline, |earliest| earliest.min(member.deadline)));
        self.rows.extend_from(rows, 0..rows.len());
        self.members.push(member);
    }

    /// Drops the requests that are too late, which are told, or that nobody waits for any more; and all of them where
    /// each has waited for more than `longest_wait`. Not some of them, for a batch with gaps costs nearly as much.
    pub(super) fn drop_dead(
        &mut self,
        now: Instant,
        longest_wait: Option<Duration>,
        metrics: &VersionSeries,
    ) {
        let all = longest_wait.is_some_and(|longest| self.shortest_wait(now) > longest);
        let dead = |member: &Member| member.deadline <= now || member.reply.is_closed() || all;
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
            } else if member.reply.is_closed() {
                metrics.dropped(Dropped::Cancelled);
            } else {
                metrics.dropped(Dropped::Overloaded);
                answer(member.reply, Err(ScoreError::Overloaded));
            }
        }
        self.rows.resize(kept);
        self.deadline = self.members.iter().map(|member| member.deadline).min();
    }

    /// Computes the batch and answers every member, which leaves the batch empty. When the engine fails, each member
    /// is computed on its own, so that one request's rows cannot fail another's. Returns how long the engine took for the
    /// batch, as an error where it failed.
    pub(super) fn run(
        &mut self,
        engine: &mut dyn Engine,
        scores: &mut Vec<f32>,
        metrics: &VersionSeries,
    ) -> Result<Duration, Duration> {
        let start = Instant::now();
        let result = engine.run(&self.rows, scores);
        let duration = start.elapsed();
        let took = match result {
            Ok(()) => {
                self.answer_all(scores);
                Ok(duration)
            }
            Err(error) => {
                self.run_singly(engine, scores, metrics, error);
                Err(duration)
            }
        };
        self.clear();
        took
    }

    /// Forgets what is in the batch.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.members.clear();
        self.deadline = None;
    }

    /// How long each member has waited.
    pub(super) fn waits(&self, now: Instant) -> impl Iterator<Item = Duration> {
        self.members.iter().map(move |member| member.waited(now))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::fake::{self, Answer, Counts, FAILS, FakeEngine, NOT_A_NUMBER, never, scores, signature},
        *,
    };

    /// A batch with a request for each slice of row numbers, and where their scores come to.
    fn batch(requests: &[&[i32]]) -> (Batch, Vec<Answer>) {
        let mut batch = Batch::new(&signature());
        let answers = requests.iter().map(|numbers| join(&mut batch, numbers, never())).collect();
        (batch, answers)
    }

    fn join(batch: &mut Batch, numbers: &[i32], deadline: Instant) -> Answer {
        let (member, answer) = fake::member(numbers.len(), deadline);
        batch.join(&fake::rows(numbers), member);
        answer
    }

    /// Runs the batch: what the engine was given.
    fn run(batch: &mut Batch, counts: &Counts) -> Vec<Vec<i32>> {
        let (mut engine, log) = FakeEngine::new();
        // Whether it failed is what the answers say.
        let _ = batch.run(&mut engine, &mut Vec::new(), &counts.version.series());
        log.batches()
    }

    #[test]
    fn each_member_gets_the_scores_of_its_own_rows() {
        let (mut batch, answers) = batch(&[&[1, 2], &[3], &[4, 5, 6]]);
        assert_eq!(run(&mut batch, &Counts::new()), [[1, 2, 3, 4, 5, 6]]);
        let found: Vec<_> = answers.into_iter().map(|answer| answer.get().expect("scores")).collect();
        assert_eq!(found, [scores(&[1, 2]), scores(&[3]), scores(&[4, 5, 6])]);
        assert_eq!((batch.len(), batch.members.len()), (0, 0), "ready to be used again");
    }

    #[test]
    fn dead_requests_leave_the_batch_with_their_rows_and_are_counted() {
        let now = Instant::now();
        let mut batch = Batch::new(&signature());
        let alive = join(&mut batch, &[1, 2], never());
        drop(join(&mut batch, &[3], never()));
        let expired = join(&mut batch, &[4, 5], now);
        let alive_too = join(&mut batch, &[6], now + Duration::from_nanos(1));
        drop(join(&mut batch, &[7], never()));
        let counts = Counts::new();
        batch.drop_dead(now, None, &counts.version.series());
        assert_eq!(batch.len(), 3);
        assert_eq!(run(&mut batch, &counts), [[1, 2, 6]]);
        assert_eq!(alive.get().expect("scores"), scores(&[1, 2]));
        assert!(matches!(expired.get(), Err(ScoreError::Expired)));
        assert_eq!(alive_too.get().expect("scores"), scores(&[6]));
        assert_eq!(counts.of("dropped_requests_total", "expired"), 1);
        assert_eq!(counts.of("dropped_requests_total", "cancelled"), 2);
    }

    #[test]
    fn the_deadline_of_a_batch_is_that_of_those_who_are_left() {
        let now = Instant::now();
        let (later, latest) = (now + Duration::from_secs(1), now + Duration::from_secs(2));
        let mut batch = Batch::new(&signature());
        let answers = [now, later, latest].map(|deadline| join(&mut batch, &[1], deadline));
        let counts = Counts::new();
        batch.drop_dead(now, None, &counts.version.series());
        assert_eq!(batch.deadline(), Some(later));
        drop(answers);
        batch.drop_dead(now, None, &counts.version.series());
        assert_eq!((batch.len(), batch.deadline()), (0, None));
    }

    /// A request's own timer drops its future when its deadline passes, mostly before the batch gets to it. That was
    /// once counted as if the client had gone away.
    #[test]
    fn a_request_that_gave_up_at_its_deadline_counts_as_expired() {
        let now = Instant::now();
        let mut batch = Batch::new(&signature());
        drop(join(&mut batch, &[1], now));
        let counts = Counts::new();
        batch.drop_dead(now, None, &counts.version.series());
        assert_eq!(batch.len(), 0);
        assert_eq!(counts.of("dropped_requests_total", "expired"), 1);
        assert_eq!(counts.of("dropped_requests_total", "cancelled"), 0);
    }

    #[test]
    fn when_a_batch_fails_only_the_member_with_the_bad_row_does() {
        let (mut batch, answers) = batch(&[&[1, 2], &[3, FAILS], &[4]]);
        let counts = Counts::new();
        let (mut engine, log) = FakeEngine::new();
        let took = batch.run(&mut engine, &mut Vec::new(), &counts.version.series());
        assert!(took.is_err(), "nothing is to be learnt from it");
        let runs = log.batches();
        assert_eq!(runs, [&[1, 2, 3, FAILS, 4][..], &[1, 2], &[3, FAILS], &[4]]);
        let found: Vec<_> = answers.into_iter().map(Answer::get).collect();
        assert!(matches!(&found[1], Err(ScoreError::Engine(_))), "{found:?}");
        assert!(matches!(&found[0], Ok(found) if *found == scores(&[1, 2])), "{found:?}");
        assert!(matches!(&found[2], Ok(found) if *found == scores(&[4])), "{found:?}");
        assert_eq!(counts.of("retried_requests_total", ""), 3);
        assert_eq!((batch.len(), batch.members.len()), (0, 0), "ready to be used again");
    }

    #[test]
    fn a_request_that_failed_on_its_own_is_not_run_again() {
        let (mut batch, mut answers) = batch(&[&[1, FAILS]]);
        let counts = Counts::new();
        assert_eq!(run(&mut batch, &counts), [[1, FAILS]]);
        let answer = answers.pop().expect("one request").get();
        assert!(matches!(answer, Err(ScoreError::Engine(_))), "{answer:?}");
        assert_eq!(counts.of("retried_requests_total", ""), 0);
    }

    #[test]
    fn a_score_that_is_not_a_number_fails_its_member_alone_and_names_the_row_within_it() {
        let (mut batch, answers) = batch(&[&[1, 2], &[3, NOT_A_NUMBER], &[4]]);
        assert_eq!(run(&mut batch, &Counts::new()).len(), 1, "nothing is run again");
        let found: Vec<_> = answers.into_iter().map(Answer::get).collect();
        assert!(matches!(&found[0], Ok(found) if *found == scores(&[1, 2])), "{found:?}");
        assert!(matches!(found[1], Err(ScoreError::NotFinite { row: 1 })), "{found:?}");
        assert!(matches!(&found[2], Ok(found) if *found == scores(&[4])), "{found:?}");
    }

    #[test]
    fn what_has_waited_for_too_long_is_refused_where_that_is_limited() {
        let (mut batch, mut answers) = batch(&[&[1], &[2, 3]]);
        let joined = batch.members[0].joined;
        batch.members[1].joined = joined + Duration::from_millis(1);
        let now = joined + Duration::from_millis(6);
        let counts = Counts::new();
        // The first has waited for six milliseconds, the second for five.
        batch.drop_dead(now, Some(Duration::from_millis(5)), &counts.version.series());
        assert_eq!(batch.len(), 3, "a batch has no gaps for that");
        batch.drop_dead(now, Some(Duration::from_millis(4)), &counts.version.series());
        assert_eq!(batch.len(), 0);
        for answer in answers.drain(..).map(Answer::get) {
            assert!(matches!(answer, Err(ScoreError::Overloaded)), "{answer:?}");
        }
        assert_eq!(counts.of("dropped_requests_total", "overloaded"), 2);
    }

    #[test]
    fn two_batches_become_one_and_the_other_is_as_new() {
        let now = Instant::now();
        let (mut one, mut answers) = batch(&[&[1, 2]]);
        let mut other = Batch::new(&signature());
        answers.push(join(&mut other, &[3], now + Duration::from_secs(1)));
        answers.push(join(&mut other, &[4], now + Duration::from_secs(2)));
        one.append(&mut other);
        assert_eq!(one.deadline(), Some(now + Duration::from_secs(1)));
        assert_eq!((other.len(), other.deadline(), other.oldest()), (0, None, None));
        assert_eq!(run(&mut one, &Counts::new()), [[1, 2, 3, 4]]);
        let found: Vec<_> = answers.into_iter().map(|answer| answer.get().expect("scores")).collect();
        assert_eq!(found, [scores(&[1, 2]), scores(&[3]), scores(&[4])]);
        assert_eq!(one.deadline(), None, "nobody is in it any more");
    }

    #[test]
    fn a_wait_counts_from_the_moment_when_its_request_joined() {
        let (batch, _answers) = batch(&[&[1], &[2]]);
        let joined = batch.members[1].joined;
        let waits: Vec<_> = batch.waits(joined + Duration::from_millis(5)).collect();
        assert_eq!(waits[1], Duration::from_millis(5));
        assert!(waits[0] >= waits[1], "the first has waited longest");
    }

    /// What becomes of a request before its batch closes.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Waits,
        Expires,
        GoesAway,
    }

    fn request() -> impl Strategy<Value = (Vec<i32>, Fate)> {
        let row = prop_oneof![30 => 0..1_000_000, 1 => Just(NOT_A_NUMBER), 1 => Just(FAILS)];
        let fate = prop_oneof![4 => Just(Fate::Waits), 1 => Just(Fate::Expires), 1 => Just(Fate::GoesAway)];
        (prop::collection::vec(row, 1..6), fate)
    }

    proptest! {
        #[test]
        fn whatever_its_neighbours_are_each_member_gets_what_it_would_get_alone(
            requests in prop::collection::vec(request(), 1..20),
        ) {
            let now = Instant::now();
            let mut batch = Batch::new(&signature());
            let mut answers = Vec::new();
            for (numbers, fate) in &requests {
                let deadline = if matches!(fate, Fate::Expires) { now } else { never() };
                let answer = join(&mut batch, numbers, deadline);
                answers.push((!matches!(fate, Fate::GoesAway)).then_some(answer));
            }
            let counts = Counts::new();
            batch.drop_dead(now, None, &counts.version.series());
            run(&mut batch, &counts);
            for ((numbers, fate), answer) in requests.iter().zip(answers) {
                let Some(answer) = answer.map(Answer::get) else { continue };
                let strange = numbers.iter().position(|&number| number == NOT_A_NUMBER);
                let as_alone = match (fate, &answer) {
                    (Fate::Expires, answer) => matches!(answer, Err(ScoreError::Expired)),
                    (_, answer) if numbers.contains(&FAILS) => matches!(answer, Err(ScoreError::Engine(_))),
                    (_, Ok(found)) => *found == scores(numbers),
                    (_, Err(ScoreError::NotFinite { row })) => Some(*row) == strange,
                    (_, Err(_)) => false,
                };
                prop_assert!(as_alone, "{:?} {:?}: {:?}", numbers, fate, answer);
            }
        }
    }
}
