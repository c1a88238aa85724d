//! Copies of requests for a version that is tried as a shadow: it scores what another version has answered already, and nobody
//! sees its scores.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    batcher::{Priority, ScoreError, Terms},
    codec::json,
    repository::{CopyRoom, Trial, TrialStage},
};

/// Has the version that is tried score the rows of `body` as well, where it is a shadow and this is one of its requests. Whoever
/// asked does not wait for that. `scores` are what was answered, after so much time from the body's last byte on: what counts for
/// the version that answered is what counts for the other.
pub(super) fn copy(trial: &Arc<Trial>, key: Option<&[u8]>, body: &Bytes, scores: &[f32], duration: Duration) {
    if trial.candidate.stage != TrialStage::Shadow || !trial.takes(key) {
        return;
    }
    let Some(room) = trial.copy(body.len()) else { return };
    trial.stable.answered(duration);
    tokio::spawn(score(room, body.clone(), scores.to_vec()));
}

async fn score(room: CopyRoom, body: Bytes, answered: Vec<f32>) {
    let trial = room.trial();
    let version = &*trial.version;
    let started = Instant::now();
    let terms =
        Terms { deadline: started + version.request_timeout().min(PATIENCE), priority: Priority::Low };
    let mut rows = version.take_buffer();
    let limit = version.batcher().batching().max_batch_rows.get();
    if json::decode(&body, version.encoder(), &mut rows, limit).is_err() {
        version.return_buffer(rows);
        return trial.tried.failed();
    }
    let scores = version.batcher().score(&rows, terms).await;
    version.return_buffer(rows);
    match scores {
        Ok(scores) => {
            trial.tried.answered(started.elapsed());
            trial.copies.compare(&answered, &scores);
        }
        // It goes behind all others and waits for less long: that it came too late says nothing of the version.
        Err(ScoreError::QueueFull | ScoreError::NoTime | ScoreError::Overloaded | ScoreError::Expired) => {
            trial.copies.drop_one();
        }
        Err(_) => trial.tried.failed(),
    }
}

/// How long a copy may wait: nobody waits for it, and its body takes memory.
const PATIENCE: Duration = Duration::from_secs(1);
