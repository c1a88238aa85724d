//! A file for each segment of a log, while a server runs: segments that are sealed are written as tables and marked, so that
//! retention may delete them. A segment that is written to is sealed when it has been for long enough, so that little
//! feedback does not wait for a segment to be full, and when somebody asks for all that there is.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam::channel::{self, Receiver, RecvTimeoutError, Sender};

use super::{Columns, ExportError, write};
use crate::{
    feedback::log::{Log, LogError, Sealed},
    metrics::Metrics,
};

/// Where tables go, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Their folder, which is made where there is none.
    pub folder: PathBuf,
    /// What labels fill in.
    pub columns: Columns,
    /// How long a segment that is written to may wait.
    pub every: Duration,
}

/// A thread that exports. Dropping it waits for the file at hand.
pub struct Exporter {
    /// `None` once dropped.
    asks: Option<Sender<Ask>>,
    thread: Option<JoinHandle<()>>,
}

/// An export that is asked for, and where to say what came of it.
type Ask = Sender<Result<(), String>>;

impl Exporter {
    /// Starts the thread.
    pub fn start(log: Arc<Log>, options: ExportOptions, metrics: Arc<Metrics>) -> io::Result<Self> {
        let (asks, asked) = channel::bounded(1);
        let work = move || Work { log, options, metrics }.run(&asked);
        let thread = thread::Builder::new().name("feedback export".to_owned()).spawn(work)?;
        Ok(Self { asks: Some(asks), thread: Some(thread) })
    }

    /// Seals the segment that is written to and exports all that is in the log by now. What came of that is received, once: an
    /// error is the reason why a part of it is no table yet. `None` where somebody else's export still waits.
    pub fn export_now(&self) -> Option<Receiver<Result<(), String>>> {
        let (ask, answer) = channel::bounded(1);
        self.asks.as_ref()?.try_send(ask).ok().map(|()| answer)
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        drop(self.asks.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the export of feedback panicked");
        }
    }
}

struct Work {
    log: Arc<Log>,
    options: ExportOptions,
    metrics: Arc<Metrics>,
}

/// Why a segment was not exported.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Work {
    fn run(&self, asked: &Receiver<Ask>) {
        let mut sealed = Instant::now();
        // What was wrong, so that it is said once and not every time.
        let mut said = None;
        loop {
            if sealed.elapsed() >= self.options.every {
                sealed = Instant::now();
                // A log that has failed says so itself.
                let _ = self.log.seal();
            }
            self.attempt(&mut said).ok();
            match asked.recv_timeout(PAUSE.min(self.options.every)) {
                Ok(ask) => {
                    sealed = Instant::now();
                    let seal =
                        self.log.seal().map_err(|error| format!("the segment cannot be sealed: {error}"));
                    let exported = self.attempt(&mut said);
                    // Whoever asked may have lost patience.
                    let _ = ask.send(seal.and(exported));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Exports what is sealed, and tells of failures but those that were `said` the last time.
    fn attempt(&self, said: &mut Option<String>) -> Result<(), String> {
        let fault = self.export_all().err().map(|fault| format!("{:#}", anyhow::Error::from(fault)));
        self.metrics.feedback.exported(fault.is_none());
        if let Some(reason) = fault.as_ref().filter(|reason| said.as_ref() != Some(*reason)) {
            tracing::error!(reason, "feedback cannot be exported; it stays in the log and is tried again");
        }
        said.clone_from(&fault);
        fault.map_or(Ok(()), Err)
    }

    /// Exports what is sealed and was not, oldest first, up to what cannot be.
    fn export_all(&self) -> Result<(), Fault> {
        for segment in self.log.sealed().into_iter().filter(|segment| !segment.exported) {
            let rows = self.export(&segment)?;
            self.log.mark_exported(segment.first_seq)?;
            tracing::info!(first = segment.first_seq, rows, "a segment of feedback is exported");
        }
        Ok(())
    }

    /// A file of that name is a whole one: it is written under another and renamed when it is on disk.
    fn export(&self, segment: &Sealed) -> Result<u64, Fault> {
        let folder = &self.options.folder;
        let name = file_name(segment);
        let (part, whole) = (folder.join(format!("{name}.part")), folder.join(name));
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| Fault::File { path, source }
        };
        fs::create_dir_all(folder).map_err(at(folder))?;
        let file = File::create(&part).map_err(at(&part))?;
        let records = || {
            // By their number, so that the segment behind is not even opened.
            Ok(self.log.read(segment.first_seq)?.take(records_of(segment)))
        };
        let rows = write(records, &self.options.columns, &file)?;
        file.sync_all().map_err(at(&part))?;
        fs::rename(&part, &whole).map_err(at(&whole))?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))?;
        Ok(rows)
    }
}

/// The same for the same segment, so that one that is exported again after a crash is the same file, and another one for that
/// of another log, so that replicas can share a folder.
fn file_name(segment: &Sealed) -> String {
    let Sealed { id, first_seq, next_seq, .. } = segment;
    format!("feedback-{first_seq:020}-{:020}-{id:016x}.parquet", next_seq - 1)
}

fn records_of(segment: &Sealed) -> usize {
    usize::try_from(segment.next_seq - segment.first_seq).expect("a segment fits into memory")
}

/// How often it looks.
const PAUSE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use bytes::Bytes;
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;
    use crate::feedback::{Event, Record, log::Options};

    fn open(folder: &Path) -> Arc<Log> {
        let options = Options {
            segment_bytes: 8 << 10,
            write_bytes: NonZeroUsize::new(4 << 10).expect("not zero"),
            max_bytes: 1 << 20,
            keep_bytes: 16 << 10,
            ..Options::default()
        };
        Arc::new(Log::open(folder, options).expect("a log"))
    }

    fn append(log: &Log, ids: std::ops::Range<u32>) {
        for id in ids {
            let event = Event::Behaviour { id: id.to_string(), received_ms: 1, record: Record::new() };
            let payload = Bytes::from(serde_json::to_vec(&event).expect("JSON"));
            log.try_append(vec![payload]).expect("room").wait().expect("durable");
        }
    }

    fn work(log: &Arc<Log>, folder: &Path) -> Work {
        let options = ExportOptions {
            folder: folder.join("tables"),
            columns: Columns::default(),
            every: Duration::from_hours(1),
        };
        Work { log: Arc::clone(log), options, metrics: Metrics::new("test") }
    }

    fn ids(folder: &Path) -> Vec<String> {
        let mut files: Vec<_> = fs::read_dir(folder.join("tables"))
            .expect("a folder")
            .map(|file| file.expect("a file").path())
            .collect();
        files.sort();
        assert!(files.iter().all(|file| file.extension().is_some_and(|end| end == "parquet")), "{files:?}");
        let mut ids = Vec::new();
        for file in files {
            let reader = SerializedFileReader::new(File::open(file).expect("a file")).expect("a table");
            for row in reader.get_row_iter(None).expect("rows") {
                let columns = row.expect("a row").into_columns();
                let (_, id) = columns.into_iter().find(|(name, _)| name == "millrace_event").expect("an id");
                ids.push(id.to_string().trim_matches('"').to_owned());
            }
        }
        ids
    }

    #[test]
    fn sealed_segments_become_tables_once_and_may_go_then() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open(&folder.path().join("log"));
        let work = work(&log, folder.path());
        append(&log, 0..300);
        assert!(log.sealed().len() > 1, "{:?}", log.sealed());
        work.export_all().expect("exported");
        assert!(log.sealed().iter().all(|segment| segment.exported));
        let exported = ids(folder.path());
        assert!(exported.len() < 300, "the last segment is still written to");
        log.seal().expect("sealed");
        log.seal().expect("nothing to seal");
        work.export_all().expect("exported");
        let all: Vec<String> = (0..300).map(|id| id.to_string()).collect();
        assert_eq!(ids(folder.path()), all);
        append(&log, 300..600);
        let oldest = log.stats().oldest_seq.expect("records");
        assert!(oldest > 1, "what was exported went when there was more than is kept");
        work.export_all().expect("exported");
        log.seal().expect("sealed");
        work.export_all().expect("exported");
        let all: Vec<String> = (0..600).map(|id| id.to_string()).collect();
        assert_eq!(ids(folder.path()), all);
    }

    #[test]
    fn logs_share_a_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, ids) in [("a", 0..3), ("b", 3..6)] {
            let log = open(&folder.path().join(name));
            append(&log, ids);
            log.seal().expect("sealed");
            work(&log, folder.path()).export_all().expect("exported");
        }
        let mut ids = ids(folder.path());
        ids.sort_unstable();
        assert_eq!(ids, ["0", "1", "2", "3", "4", "5"]);
    }

    #[test]
    fn a_segment_is_exported_whatever_becomes_of_the_one_behind_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open(&folder.path().join("log"));
        append(&log, 0..2);
        log.seal().expect("sealed");
        append(&log, 2..4);
        let second = folder.path().join("log");
        let mut segments: Vec<_> =
            fs::read_dir(&second).expect("a folder").map(|file| file.expect("a file").path()).collect();
        segments.sort();
        let second = segments.iter().rfind(|path| path.to_string_lossy().ends_with("3.log"));
        let second = second.unwrap_or_else(|| panic!("{segments:?}"));
        fs::write(second, "no segment").expect("written");
        work(&log, folder.path()).export_all().expect("exported");
        assert_eq!(ids(folder.path()), ["0", "1"]);
    }

    #[test]
    fn what_cannot_be_written_stays_in_the_log() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open(&folder.path().join("log"));
        let work = work(&log, folder.path());
        append(&log, 0..2);
        log.seal().expect("sealed");
        fs::write(folder.path().join("tables"), "in the way").expect("a file");
        let fault = work.export_all().expect_err("no folder");
        assert!(matches!(&fault, Fault::File { path, .. } if path.ends_with("tables")), "{fault:?}");
        assert!(!log.sealed()[0].exported);
        fs::remove_file(folder.path().join("tables")).expect("a file");
        work.export_all().expect("exported");
        assert_eq!(ids(folder.path()), ["0", "1"]);
    }

    #[test]
    fn who_asks_gets_all_that_there_is_or_the_reason_why_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open(&folder.path().join("log"));
        append(&log, 0..3);
        let Work { options, metrics, .. } = work(&log, folder.path());
        let exporter = Exporter::start(Arc::clone(&log), options, metrics).expect("a thread");
        let ask = || exporter.export_now().expect("nobody else asks").recv().expect("an answer");
        assert_eq!(ask(), Ok(()));
        assert_eq!(ids(folder.path()), ["0", "1", "2"]);
        assert_eq!(ask(), Ok(()), "there is nothing more");
        append(&log, 3..4);
        fs::rename(folder.path().join("tables"), folder.path().join("away")).expect("renamed");
        fs::write(folder.path().join("tables"), "in the way").expect("a file");
        let reason = ask().expect_err("no folder");
        assert!(reason.contains("tables"), "{reason}");
    }

    #[test]
    fn a_thread_seals_and_exports_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = open(&folder.path().join("log"));
        append(&log, 0..3);
        let Work { options, metrics, .. } = work(&log, folder.path());
        let options = ExportOptions { every: Duration::from_millis(1), ..options };
        let exporter = Exporter::start(Arc::clone(&log), options, metrics).expect("a thread");
        while log.sealed().first().is_none_or(|segment| !segment.exported) {
            thread::sleep(Duration::from_millis(1));
        }
        drop(exporter);
        assert_eq!(ids(folder.path()), ["0", "1", "2"]);
    }
}
