//! The feedback log on a real disk: killed while it writes, looked at from the command line, and measured.

use std::{
    collections::VecDeque,
    env,
    io::{BufRead, BufReader, Write},
    num::NonZeroUsize,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use bytes::Bytes;
use millrace::feedback::log::{Entry, Log, Options, Reader, Report};

/// The name of the folder for the process that is killed; it appends only where this is set.
const FOLDER: &str = "MILLRACE_TEST_LOG";

/// Which of the processes it is, so that no two append the same.
const LIFE: &str = "MILLRACE_TEST_LOG_LIFE";

/// How many processes are killed; 20 where this is not set.
const KILLS: &str = "MILLRACE_TEST_KILLS";

/// Small segments, so that some are sealed and created while the process is killed.
fn options() -> Options {
    Options {
        segment_bytes: 64 << 10,
        write_bytes: NonZeroUsize::new(16 << 10).expect("not zero"),
        ..Options::default()
    }
}

/// The process that is killed: appends for ever, several batches at a time, and says what was acknowledged.
#[test]
#[ignore = "run as a process by the test that kills it"]
fn append_until_killed() {
    let Some(folder) = env::var_os(FOLDER) else { return };
    let life = env::var(LIFE).expect("set with the folder");
    let log = Log::open(Path::new(&folder), options()).expect("opened");
    let mut waiting = VecDeque::new();
    for number in 0_u64.. {
        let payloads = [0, 1, 2].map(|nth| format!("{life}:{}", 3 * number + nth));
        let batch = payloads.iter().map(|payload| Bytes::from(payload.clone())).collect();
        waiting.push_back((payloads, log.try_append(batch).expect("fewer wait than may")));
        if waiting.len() == 8 {
            let (payloads, append) = waiting.pop_front().expect("eight");
            let seqs = append.wait().expect("durable");
            let each: Vec<String> =
                seqs.zip(payloads).map(|(seq, payload)| format!("acked {seq} {payload}\n")).collect();
            let said = each.concat();
            // One write, past the harness, which keeps what is printed.
            std::io::stdout().write_all(said.as_bytes()).expect("a pipe");
        }
    }
}

#[test]
fn a_process_that_is_killed_loses_nothing_that_it_acknowledged() {
    let kills = env::var(KILLS).map_or(20, |kills| kills.parse().expect("a number"));
    let folder = tempfile::tempdir().expect("a folder");
    let (mut next_seq, mut acknowledged) = (1, 0);
    for life in 0..kills {
        let acked = killed(folder.path(), life);
        assert!(!acked.is_empty(), "life {life} went on for a while");
        acknowledged += acked.len();
        // Opening repairs it. What earlier lives wrote was read after each of them.
        let log = Log::open(folder.path(), options()).expect("opened");
        assert_eq!(log.report().quarantined, [], "life {life}");
        let read: Vec<Entry> =
            log.read(next_seq).expect("listed").collect::<Result<_, _>>().expect("all good");
        assert!(read.iter().zip(next_seq..).all(|(entry, seq)| entry.seq == seq), "life {life}");
        // All of this life, in order, once; the last few may not have been acknowledged.
        for (number, entry) in read.iter().enumerate() {
            assert_eq!(entry.payload, format!("{life}:{number}"));
        }
        for (number, (seq, payload)) in acked.iter().enumerate() {
            assert_eq!((*seq, &**payload), (next_seq + number as u64, &*format!("{life}:{number}")));
            assert!(number < read.len(), "life {life}: {payload} was acknowledged and is lost");
        }
        next_seq += read.len() as u64;
    }
    let all = Reader::open(folder.path(), 1).expect("listed").map(|entry| entry.expect("good").seq);
    assert!(all.eq(1..next_seq), "what survived one kill survives the next");
    assert!((acknowledged as u64) < next_seq, "from 1");
}

/// What a process acknowledged until it was killed, some time after a number of records that differs from life to life.
fn killed(folder: &Path, life: u64) -> Vec<(u64, String)> {
    let mut child = Killed(appender(folder, life));
    let mut said = BufReader::new(child.0.stdout.take().expect("piped"));
    let mut acked = Vec::new();
    let enough = 3 + usize::try_from(life * 7919 % 1009).expect("small");
    let mut heard = Vec::new();
    while said.read_until(b'\n', &mut heard).expect("a pipe") > 0 {
        // The last line may be cut off.
        if heard.ends_with(b"\n") {
            acked.extend(acknowledgement(std::str::from_utf8(&heard).expect("UTF-8")));
        }
        heard.clear();
        if acked.len() == enough {
            child.0.kill().expect("it runs");
        }
    }
    acked
}

fn acknowledgement(line: &str) -> Option<(u64, String)> {
    // The harness's own words may stand before it on the line.
    let (_, acked) = line.trim_end().split_once("acked ")?;
    let (seq, payload) = acked.split_once(' ')?;
    Some((seq.parse().ok()?, payload.to_owned()))
}

fn appender(folder: &Path, life: u64) -> Child {
    Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "feedback_log::append_until_killed", "--ignored", "--nocapture"])
        .env(FOLDER, folder)
        .env(LIFE, life.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("started")
}

/// A process that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn operators_learn_what_is_wrong_with_a_log_and_where() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path(), options()).expect("opened");
    assert_eq!(log.report(), &Report::default());
    for _ in 0..50 {
        let batch = vec![Bytes::from(vec![7; 2000]); 2];
        log.try_append(batch).expect("accepted").wait().expect("durable");
    }
    drop(log);
    let good = look("verify", folder.path());
    let expected = "00000000000000000001.log  32 records  sealed\n\
                    00000000000000000033.log  32 records  sealed\n\
                    00000000000000000065.log  32 records  sealed\n\
                    00000000000000000097.log  4 records  open\n";
    assert_eq!((good.status.code(), &*String::from_utf8_lossy(&good.stdout)), (Some(0), expected));
    let stats = look("stats", folder.path());
    let text = String::from_utf8_lossy(&stats.stdout);
    assert!(stats.status.success() && text.starts_with("segments 4\n"), "{text}");
    assert!(text.ends_with("records  100\noldest   1\nnewest   100\n"), "{text}");

    let second = folder.path().join("00000000000000000033.log");
    let mut bytes = std::fs::read(&second).expect("read");
    // In its third record: after the header and two records.
    let at = 32 + 2 * 2024;
    bytes[at + 100] ^= 1;
    std::fs::write(&second, bytes).expect("written");
    let bad = look("verify", folder.path());
    assert_eq!(bad.status.code(), Some(1));
    let line = format!("033.log  2 records  BAD at byte {at}: the record does not check out\n");
    assert!(String::from_utf8_lossy(&bad.stdout).contains(&line), "{bad:?}");
    assert_eq!(look("verify", &folder.path().join("absent")).status.code(), Some(1));
    assert_eq!(look("mend", folder.path()).status.code(), Some(2));
}

fn look(what: &str, folder: &Path) -> Output {
    let program = env!("CARGO_BIN_EXE_millrace");
    Command::new(program).args(["log", what]).arg(folder).output().expect("run")
}

/// How many records a second are made durable in batches of 100, with 16 batches under way, as a line of JSON. Steal is the
/// share of the processors' time that the host took.
#[test]
#[ignore = "a measurement: run alone, with --nocapture, in the folder to be measured (TMPDIR)"]
fn durable_records_a_second() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path(), Options::default()).expect("opened");
    let batch = vec![Bytes::from(vec![7; 100]); 100];
    let (ticks, start) = (ticks(), Instant::now());
    let (mut waiting, mut batches) = (VecDeque::new(), 0_u32);
    while start.elapsed().as_secs() < 10 {
        waiting.push_back(log.try_append(batch.clone()).expect("fewer wait than may"));
        if waiting.len() == 16 {
            waiting.pop_front().expect("sixteen").wait().expect("durable");
            batches += 1;
        }
    }
    for append in waiting {
        append.wait().expect("durable");
        batches += 1;
    }
    let seconds = start.elapsed().as_secs_f64();
    assert_eq!(log.stats().records, u64::from(batches) * 100);
    let after = self::ticks();
    let line = serde_json::json!({
        "records_per_s": (f64::from(batches) * 100.0 / seconds).round(),
        "payload_bytes": 100,
        "batch_records": 100,
        "batches_under_way": 16,
        "seconds": seconds,
        "last_sync_us": log.stats().last_sync.expect("synced").as_micros(),
        "steal": (after.0 - ticks.0) / (after.1 - ticks.1),
    });
    writeln!(std::io::stdout(), "{line}").expect("written");
}

/// The processors' stolen time and all of their time, as `/proc/stat` counts it.
fn ticks() -> (f64, f64) {
    let text = std::fs::read_to_string("/proc/stat").expect("Linux");
    let line = text.lines().next().expect("the sum over the processors");
    let each: Vec<f64> =
        line.split_whitespace().skip(1).map(|ticks| ticks.parse().expect("a number")).collect();
    // What guests took, after the eighth, is in the first two already.
    (each[7], each[..8].iter().sum())
}
