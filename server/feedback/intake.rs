//! Where feedback comes in: what is told is held against its receipts, and is in the log before anybody is thanked for it.

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;

use super::{
    Keys, Live, Receipt, ReceiptError, Told,
    event::{Event, EventKey, Label},
    log::{self, Log, LogError},
    seen::{Known, Seen},
};
use crate::metrics::Metrics;

/// The bounds of feedback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeOptions {
    /// How old a receipt may be.
    pub max_age: Duration,
    /// How many of the last events are known again.
    pub remembered: usize,
    /// Of the log.
    pub log: log::Options,
}

/// Why feedback was not taken, none of what was told together.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FeedbackError {
    /// A receipt is not good.
    #[error("event {event}: {reason}")]
    Receipt {
        /// The event, from 0.
        event: usize,
        /// What is wrong with it.
        reason: ReceiptError,
    },
    /// There are no keys to open receipts with.
    #[error("event {event}: this server has no keys to open receipts with")]
    NoKeys {
        /// The event, from 0.
        event: usize,
    },
    /// The answer had fewer rows.
    #[error("event {event}: the receipt is of {rows} rows")]
    Row {
        /// The event, from 0.
        event: usize,
        /// Rows of the answer.
        rows: usize,
    },
    /// An event is larger than the log takes.
    #[error("event {event}: larger than {} bytes", log::MAX_PAYLOAD_BYTES)]
    TooLarge {
        /// The event, from 0.
        event: usize,
    },
    /// Another request tells the same, and is not answered yet.
    #[error("event {event} is being written for another request")]
    Pending {
        /// The event, from 0.
        event: usize,
    },
    /// The log cannot take it.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What became of the events that were told together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Taken {
    /// Events that are in the log now.
    pub accepted: usize,
    /// Events that were there already, or were told twice at once.
    pub duplicates: usize,
}

/// Events that the log has accepted, and has not written yet.
struct Submitted {
    append: log::Append,
    keys: Vec<EventKey>,
    labels: Vec<Label>,
}

/// Takes feedback.
pub struct Intake {
    keys: Option<Arc<Keys>>,
    max_age: Duration,
    log: Arc<Log>,
    seen: Mutex<Seen>,
    live: Arc<Live>,
}

impl Intake {
    /// Opens the log in `folder`, and reads in it which events it has. Labels go to `live`.
    pub fn open(
        folder: &Path,
        keys: Option<Arc<Keys>>,
        options: IntakeOptions,
        live: Arc<Live>,
    ) -> Result<Self, LogError> {
        let log = Log::open(folder, options.log)?;
        let mut seen = Seen::new(options.remembered);
        let stats = log.stats();
        let remembered = stats.newest_seq.unwrap_or(0).saturating_sub(options.remembered as u64);
        let from = remembered.max(stats.oldest_seq.unwrap_or(0));
        for entry in log.read(from)? {
            match entry {
                Ok(entry) => match serde_json::from_slice::<Event>(&entry.payload) {
                    Ok(event) => {
                        seen.remember(event.key());
                        if let Event::Label(label) = event {
                            live.labelled(&label);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(seq = entry.seq, %error, "the feedback log has an event of another kind");
                    }
                },
                // Segments in quarantine leave a gap; what is in them may come twice.
                Err(error) => tracing::error!(%error, "the feedback log cannot be read as a whole"),
            }
        }
        Ok(Self { keys, max_age: options.max_age, log: Arc::new(log), seen: Mutex::new(seen), live })
    }

    /// The log.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// Tells `metrics` how the log is.
    pub fn export(&self, metrics: &Metrics) {
        let log::Stats { bytes, last_sync, full, failed, .. } = self.log.stats();
        metrics.feedback.log(bytes, last_sync, full, failed);
    }

    /// Takes what is told together at `now` since 1970, all of it or nothing. Once this is ready the events survive a
    /// crash.
    ///
    /// # Cancel safety
    /// What was accepted is written, whether anybody waits or not.
    pub async fn take(self: &Arc<Self>, told: Vec<Told>, now: Duration) -> Result<Taken, FeedbackError> {
        let total = told.len();
        let events = told.into_iter().enumerate().map(|(event, told)| self.checked(event, told, now));
        let events = events.collect::<Result<Vec<Event>, _>>()?;
        let Some(Submitted { append, keys, labels }) = self.submit(events)? else {
            return Ok(Taken { accepted: 0, duplicates: total });
        };
        let accepted = keys.len();
        let intake = Arc::clone(self);
        // On its own, so that a client who goes away does not leave events that are pending for ever.
        let written = tokio::spawn(async move {
            let written = append.durable().await;
            intake.seen().end(&keys, written.is_ok());
            if written.is_ok() {
                for label in &labels {
                    // One that is too late for every window is counted there, and is in the log all the same.
                    intake.live.labelled(label);
                }
            }
            written
        });
        written.await.expect("nothing in it panics, and nobody aborts it")?;
        Ok(Taken { accepted, duplicates: total - accepted })
    }

    fn checked(&self, event: usize, told: Told, now: Duration) -> Result<Event, FeedbackError> {
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let received_ms = milliseconds(now);
        let (text, row, label, record) = match told {
            Told::Behaviour { id, record } => return Ok(Event::Behaviour { id, received_ms, record }),
            Told::Label { receipt, row, label, record } => (receipt, row, label, record),
        };
        let keys = self.keys.as_deref().ok_or(FeedbackError::NoKeys { event })?;
        let receipt = Receipt::open(&text, keys, now, self.max_age);
        let receipt = receipt.map_err(|reason| FeedbackError::Receipt { event, reason })?;
        let rows = receipt.scores.len();
        let (Some(&score), Ok(row)) = (receipt.scores.get(row), u32::try_from(row)) else {
            return Err(FeedbackError::Row { event, rows });
        };
        let answered_ms = milliseconds(receipt.time);
        let Receipt { serial: receipt, model, version, .. } = receipt;
        Ok(Event::Label(Label {
            receipt,
            row,
            received_ms,
            answered_ms,
            model,
            version,
            score,
            label,
            record,
        }))
    }

    /// Gives the log the events that it does not have; nothing where it has all.
    fn submit(&self, events: Vec<Event>) -> Result<Option<Submitted>, FeedbackError> {
        let keyed = events.into_iter().enumerate().map(|(event, told)| {
            let payload = Bytes::from(serde_json::to_vec(&told).expect("names, numbers and texts are JSON"));
            let fits = payload.len() <= log::MAX_PAYLOAD_BYTES;
            if fits { Ok((told.key(), payload, told)) } else { Err(FeedbackError::TooLarge { event }) }
        });
        let keyed = keyed.collect::<Result<Vec<_>, _>>()?;
        let mut seen = self.seen();
        let (mut keys, mut payloads, mut labels) = (Vec::new(), Vec::new(), Vec::new());
        for (event, (key, payload, told)) in keyed.into_iter().enumerate() {
            match seen.known(key) {
                Known::Durable => {}
                Known::Pending => return Err(FeedbackError::Pending { event }),
                Known::New if keys.contains(&key) => {}
                Known::New => {
                    keys.push(key);
                    payloads.push(payload);
                    if let Event::Label(label) = told {
                        labels.push(label);
                    }
                }
            }
        }
        if keys.is_empty() {
            return Ok(None);
        }
        let append = self.log.try_append(payloads)?;
        seen.begin(keys.iter().copied());
        Ok(Some(Submitted { append, keys, labels }))
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        future::{Future, poll_fn},
        num::NonZeroUsize,
        pin::{Pin, pin},
        task::Poll,
    };

    use super::*;
    use crate::feedback::{Record, Scalar, window::WindowOptions};

    const NOW: Duration = Duration::from_hours(500_000);

    fn open(folder: &Path, max_bytes: u64) -> Arc<Intake> {
        let log = log::Options {
            segment_bytes: 128 << 10,
            write_bytes: NonZeroUsize::new(100 << 10).expect("not zero"),
            max_bytes,
            keep_bytes: 0,
            ..log::Options::default()
        };
        let hour = Duration::from_hours(1);
        let window = WindowOptions { step: hour, window: hour, maturity: hour, threshold: 0.5 };
        let live = Live::new(window, BTreeMap::new(), NOW).expect("windows");
        let options = IntakeOptions { max_age: hour, remembered: 1_000, log };
        Arc::new(Intake::open(folder, None, options, Arc::new(live)).expect("a log"))
    }

    fn event(id: &str, bytes: usize) -> Told {
        let record = Record::from([("text".to_owned(), Scalar::Text("x".repeat(bytes)))]);
        Told::Behaviour { id: id.to_owned(), record }
    }

    async fn begin<F: Future>(mut future: Pin<&mut F>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[tokio::test]
    async fn who_tells_the_same_while_it_is_written_comes_again_and_hears_that_it_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let intake = open(folder.path(), 1 << 20);
        let mut first = pin!(intake.take(vec![event("a", 1), event("a", 1)], NOW));
        // Nothing else runs on this thread, so the write cannot be over yet for anybody here.
        assert!(begin(first.as_mut()).await);
        let second = intake.take(vec![event("b", 1), event("a", 1)], NOW).await;
        assert!(matches!(second, Err(FeedbackError::Pending { event: 1 })), "{second:?}");
        assert_eq!(first.await.expect("durable"), Taken { accepted: 1, duplicates: 1 });
        let again = intake.take(vec![event("b", 1), event("a", 1)], NOW).await.expect("durable");
        assert_eq!(again, Taken { accepted: 1, duplicates: 1 });
    }

    #[tokio::test]
    async fn what_was_accepted_is_written_when_the_client_has_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let intake = open(folder.path(), 1 << 20);
        {
            let mut gone = pin!(intake.take(vec![event("a", 1)], NOW));
            assert!(begin(gone.as_mut()).await);
        }
        while !matches!(intake.take(vec![event("a", 1)], NOW).await, Ok(Taken { accepted: 0, duplicates: 1 }))
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(intake.log.stats().records, 1);
    }

    #[tokio::test]
    async fn what_a_full_disk_refused_is_new_when_there_is_room() {
        let folder = tempfile::tempdir().expect("a folder");
        let intake = open(folder.path(), 256 << 10);
        let mut id = 0;
        let refused = loop {
            id += 1;
            assert!(id < 100, "it must be full at some time");
            let taken = intake.take(vec![event(&id.to_string(), 60_000)], NOW).await;
            if let Err(error) = taken {
                break error;
            }
        };
        assert!(matches!(refused, FeedbackError::Log(LogError::Full)), "{refused:?}");
        let records = intake.log.stats().records;
        assert_eq!(records, id - 1);
        drop(intake);
        let intake = open(folder.path(), 1 << 20);
        let taken = intake.take(vec![event(&id.to_string(), 60_000)], NOW).await.expect("there is room");
        assert_eq!(taken, Taken { accepted: 1, duplicates: 0 });
        assert_eq!(intake.log.stats().records, records + 1);
    }

    #[tokio::test]
    async fn more_than_the_log_takes_at_once_is_refused_as_such() {
        let folder = tempfile::tempdir().expect("a folder");
        let intake = open(folder.path(), 1 << 20);
        let many = (0..3).map(|id| event(&id.to_string(), 60_000)).collect();
        let refused = intake.take(many, NOW).await;
        assert!(matches!(refused, Err(FeedbackError::Log(LogError::TooLarge { .. }))), "{refused:?}");
        let alone = intake.take(vec![event("0", 60_000)], NOW).await.expect("it was never pending");
        assert_eq!(alone.accepted, 1);
    }
}
