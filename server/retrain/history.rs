//! What was retrained when, in a file, so that neither cooldown nor daily maximum begins anew with a server. Whoever changes it
//! holds the [`Turn`].

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::policy::Asker;

/// Every model's past. Its size is bounded by the models and the starts that each of them may have in a day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct History {
    models: BTreeMap<String, Past>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    /// From when on a schedule counts that was never followed.
    known_since_ms: u64,
    /// Oldest first.
    starts: Vec<Start>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Start {
    started_ms: u64,
    asked_by: Asker,
    /// When and how it ended; a start that has neither was cut off with its server.
    ended_ms: Option<u64>,
    outcome: Option<String>,
}

impl History {
    /// Reads that of `folder`; nothing has happened where there is none.
    pub(super) fn read(folder: &Path) -> io::Result<Self> {
        match fs::read(folder.join(FILE)) {
            Ok(text) => serde_json::from_slice(&text)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE}: {error}"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Puts it in the place of the one of `folder`, on disk, as a whole.
    pub(super) fn write(&self, folder: &Path, _: &Turn) -> io::Result<()> {
        let part = folder.join(format!("{FILE}.part"));
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(part, folder.join(FILE))?;
        File::open(folder)?.sync_all()
    }

    /// When `model` was retrained, as far back as any limit asks.
    pub(super) fn starts(&self, model: &str) -> Vec<Duration> {
        let starts = self.models.get(model).into_iter().flat_map(|past| &past.starts);
        starts.map(|start| Duration::from_millis(start.started_ms)).collect()
    }

    /// When `model` was last retrained, or else since when it is known.
    pub(super) fn last(&self, model: &str) -> Option<Duration> {
        let past = self.models.get(model)?;
        let last = past.starts.last().map_or(past.known_since_ms, |start| start.started_ms);
        Some(Duration::from_millis(last))
    }

    /// Takes note of a model that is there at `now`.
    pub(super) fn know(&mut self, model: &str, now: Duration) {
        self.past(model, now);
    }

    /// Takes note of a start at `now`, and forgets those beyond the last `kept`.
    pub(super) fn begin(&mut self, model: &str, asked_by: Asker, now: Duration, kept: usize) {
        let starts = &mut self.past(model, now).starts;
        starts.push(Start { started_ms: milliseconds(now), asked_by, ended_ms: None, outcome: None });
        starts.drain(..starts.len().saturating_sub(kept));
    }

    /// Takes note of how the last start of `model` has ended at `now`.
    pub(super) fn end(&mut self, model: &str, outcome: &str, now: Duration) {
        if let Some(start) = self.models.get_mut(model).and_then(|past| past.starts.last_mut()) {
            start.ended_ms = Some(milliseconds(now));
            start.outcome = Some(outcome.to_owned());
        }
    }

    fn past(&mut self, model: &str, now: Duration) -> &mut Past {
        let past = || Past { known_since_ms: milliseconds(now), starts: Vec::new() };
        self.models.entry(model.to_owned()).or_insert_with(past)
    }
}

/// The right to retrain, of which there is one in a folder: a lock on a file. A child has it too, so that it lasts as long as
/// anything that the child has started, whatever becomes of the server.
#[derive(Debug)]
pub(super) struct Turn(File);

impl Turn {
    /// Takes it; `None` where another has it.
    pub(super) fn take(folder: &Path) -> io::Result<Option<Self>> {
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(folder.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The same right, for a child to have as its standard input, which is empty.
    pub(super) fn share(&self) -> io::Result<File> {
        self.0.try_clone()
    }
}

/// Milliseconds since 1970.
pub(super) fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

const FILE: &str = "history.json";
const LOCK: &str = "running";

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn minutes(minutes: u32) -> Duration {
        NOW + minutes * Duration::from_mins(1)
    }

    #[test]
    fn what_was_started_is_known_after_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let turn = Turn::take(folder.path()).expect("a folder").expect("nobody has it");
        let mut history = History::read(folder.path()).expect("none");
        assert_eq!((history.starts("shop"), history.last("shop")), (vec![], None));
        history.know("shop", minutes(0));
        assert_eq!((history.starts("shop"), history.last("shop")), (vec![], Some(NOW)));
        for (minute, asker) in [(1, Asker::Alert), (2, Asker::Operator), (3, Asker::Schedule)] {
            history.begin("shop", asker, minutes(minute), 2);
        }
        history.know("shop", minutes(4));
        history.end("shop", "ok", minutes(5));
        history.end("other", "ok", minutes(5));
        history.write(folder.path(), &turn).expect("written");
        let read = History::read(folder.path()).expect("written");
        assert_eq!(read, history);
        assert_eq!(read.starts("shop"), [minutes(2), minutes(3)]);
        assert_eq!((read.last("shop"), read.starts("other")), (Some(minutes(3)), vec![]));
    }

    #[test]
    fn a_file_that_makes_no_sense_is_no_past_without_starts() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(FILE), "{").expect("written");
        let error = History::read(folder.path()).expect_err("no history").to_string();
        assert!(error.starts_with("history.json: "), "{error}");
    }

    #[test]
    fn there_is_one_turn_and_it_lasts_as_long_as_whoever_has_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let turn = Turn::take(folder.path()).expect("a folder").expect("nobody has it");
        let child = turn.share().expect("a copy");
        drop(turn);
        assert!(Turn::take(folder.path()).expect("a folder").is_none());
        drop(child);
        assert!(Turn::take(folder.path()).expect("a folder").is_some());
    }
}
