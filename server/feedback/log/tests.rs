//! The log as a whole, over a disk that does what it is told to and over a real one.

use std::collections::BTreeMap;

use super::{
    disk::{Dice, FakeDisk, Faults},
    *,
};

fn options() -> Options {
    Options {
        segment_bytes: 2048,
        write_bytes: NonZeroUsize::new(1024).expect("not zero"),
        queue_appends: NonZeroUsize::new(4).expect("not zero"),
        queue_bytes: NonZeroUsize::new(4096).expect("not zero"),
        max_bytes: 1 << 20,
        keep_bytes: 0,
        keep_age: Duration::MAX,
    }
}

fn open(disk: &FakeDisk) -> Result<Log, LogError> {
    Log::over(Arc::new(disk.clone()), options())
}

fn payload(text: impl Into<String>) -> Bytes {
    text.into().into()
}

/// Appends records of 100 bytes, one at a time.
fn fill(log: &Log, records: usize) {
    for index in 0..records {
        let append = log.try_append(vec![payload(format!("{index:0100}"))]).expect("accepted");
        append.wait().expect("durable");
    }
}

fn entries(disk: &FakeDisk) -> Vec<Result<Entry, LogError>> {
    Reader::over(Arc::new(disk.clone()), 1, None).expect("listed").collect()
}

fn payloads(disk: &FakeDisk) -> Vec<Bytes> {
    entries(disk).into_iter().map(|entry| entry.expect("good").payload).collect()
}

#[test]
fn what_was_acknowledged_is_read_in_order_and_after_the_log_was_opened_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let log = Log::open(folder.path(), options()).expect("opened");
    let batch = |from: u64| (from..from + 3).map(|seq| payload(format!("record {seq}"))).collect();
    for from in (1..100).step_by(3) {
        let append = log.try_append(batch(from)).expect("accepted");
        assert_eq!(append.wait().expect("durable"), from..from + 3);
    }
    let stats = log.stats();
    assert_eq!((stats.oldest_seq, stats.newest_seq, stats.records), (Some(1), Some(99), 99));
    assert!(stats.segments > 1 && stats.last_sync.is_some() && !stats.failed && !stats.full, "{stats:?}");
    let seqs: Vec<u64> = log.read(50).expect("listed").map(|entry| entry.expect("good").seq).collect();
    assert_eq!(seqs, (50..100).collect::<Vec<_>>());
    drop(log);
    let log = Log::open(folder.path(), options()).expect("opened");
    assert_eq!(log.report(), &Report::default());
    assert_eq!(log.try_append(batch(100)).expect("accepted").wait().expect("durable"), 100..103);
    drop(log);
    let read: Vec<Bytes> =
        Reader::open(folder.path(), 1).expect("listed").map(|entry| entry.expect("good").payload).collect();
    assert_eq!(read, (1..103).map(|seq| payload(format!("record {seq}"))).collect::<Vec<_>>());
    let checked = verify(folder.path()).expect("read");
    assert!(checked.iter().all(Checked::is_good), "{checked:?}");
    assert_eq!(checked.iter().map(|segment| segment.records).sum::<u64>(), 102);
}

#[test]
fn one_log_at_a_time_writes() {
    let folder = tempfile::tempdir().expect("a folder");
    let first = Log::open(folder.path(), options()).expect("opened");
    assert!(matches!(Log::open(folder.path(), options()), Err(LogError::Locked)));
    drop(first);
    Log::open(folder.path(), options()).expect("it was let go");
}

#[test]
fn everything_accepted_is_written_before_a_drop_returns() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    let appends: Vec<Append> =
        (0..4).map(|index| log.try_append(vec![payload(format!("{index}"))]).expect("accepted")).collect();
    drop(log);
    disk.crash(&mut Dice(1));
    assert_eq!(payloads(&disk), ["0", "1", "2", "3"].map(payload));
    for (append, seq) in appends.into_iter().zip(1..) {
        assert_eq!(append.wait().expect("durable"), seq..seq + 1);
    }
}

#[test]
fn a_disk_that_stalls_makes_appends_busy_and_then_one_sync_serves_all_that_waited() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    let stalled = disk.stall.lock().expect("ours");
    let mut appends = Vec::new();
    let busy = loop {
        match log.try_append(vec![payload("x")]) {
            Ok(append) => appends.push(append),
            Err(error) => break error,
        }
    };
    assert!(matches!(busy, LogError::Busy), "{busy:?}");
    assert_eq!(appends.len(), 4);
    drop(stalled);
    for append in appends {
        append.wait().expect("durable");
    }
    assert!(disk.state().data_syncs <= 4, "{:?}", disk.state().data_syncs);
    log.try_append(vec![payload("x")]).expect("there is room again").wait().expect("durable");
}

#[test]
fn a_disk_that_stalls_while_a_segment_is_marked_stalls_nobody_who_appends() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    fill(&log, 30);
    let first = log.sealed()[0].first_seq;
    thread::scope(|scope| {
        let stalled = disk.stall.lock().expect("ours");
        let marking = scope.spawn(|| log.mark_exported(first));
        while !disk.list().expect("listed").contains(&segment::marker(first)) {
            thread::yield_now();
        }
        let append = log.try_append(vec![payload("x")]).expect("accepted");
        assert!(!log.stats().failed && !log.sealed()[0].exported, "not before it is on disk");
        drop(stalled);
        marking.join().expect("no panic").expect("marked");
        assert_eq!(append.wait().expect("durable"), 31..32);
    });
    assert!(log.sealed()[0].exported);
}

#[tokio::test]
async fn an_append_waits_for_room_and_keeps_its_place() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    let mut appends = Vec::new();
    for index in 0..20_u64 {
        appends.push((index, log.append(vec![payload(format!("{index}"))]).await.expect("accepted")));
    }
    for (index, append) in appends {
        assert_eq!(append.durable().await.expect("durable"), index + 1..index + 2);
    }
}

#[test]
fn batches_that_wait_share_a_write_and_have_their_own_numbers() {
    let disk = FakeDisk::default();
    let store: Arc<dyn Store> = Arc::new(disk.clone());
    let state = recovery::recover(&*store, &options()).expect("empty").state;
    let mut writer = Writer::new(store, options(), state, Arc::default());
    let (one, two) = ([payload("a"), payload("b")], [payload("c")]);
    assert_eq!(writer.commit(&[&one, &two]).expect("durable"), 1);
    assert_eq!(writer.commit(&[&[]]).expect("nothing to do"), 4);
    assert_eq!(disk.state().data_syncs, 1);
    assert_eq!(payloads(&disk), ["a", "b", "c"].map(payload));
}

#[test]
fn what_never_fits_is_the_callers_fault() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    let large = log.try_append(vec![vec![0; MAX_PAYLOAD_BYTES + 1].into()]);
    assert!(matches!(large, Err(LogError::TooLarge { most: MAX_PAYLOAD_BYTES, .. })), "{large:?}");
    let many = log.try_append(vec![payload("0123456789"); 31]);
    assert!(matches!(many, Err(LogError::TooLarge { bytes: 1054, most: 1024 })), "{many:?}");
    let small = Options { segment_bytes: 1000, ..options() };
    assert!(matches!(Log::over(Arc::new(disk), small), Err(LogError::Options(_))));
}

#[test]
fn short_writes_are_gone_on_with() {
    let disk = FakeDisk::default();
    disk.fail(Faults { short: true, ..Faults::default() });
    fill(&open(&disk).expect("opened"), 30);
    assert_eq!(payloads(&disk).len(), 30);
    assert!(verification::over(&disk).expect("read").iter().all(Checked::is_good));
}

#[test]
fn a_disk_that_failed_is_not_written_to_until_the_log_is_opened_anew() {
    let write = Faults { write: Some(io::ErrorKind::Other), ..Faults::default() };
    let no_room = Faults { write: Some(io::ErrorKind::StorageFull), ..Faults::default() };
    let sync = Faults { sync: Some(io::ErrorKind::Other), ..Faults::default() };
    for faults in [write, no_room, sync] {
        let disk = FakeDisk::default();
        let log = open(&disk).expect("opened");
        fill(&log, 2);
        disk.fail(faults);
        let refused = log.try_append(vec![payload("lost")]).expect("accepted").wait();
        assert!(matches!(refused, Err(LogError::Failed { .. })), "{refused:?}");
        disk.fail(Faults::default());
        // The disk says that it is well again, and is not believed.
        let later = log.try_append(vec![payload("later")]);
        assert!(matches!(later, Err(LogError::Failed { .. })), "{later:?}");
        assert!(log.stats().failed);
        assert_eq!(log.read(1).expect("listed").flatten().count(), 2, "what was synced is read");
        drop(log);
        disk.crash(&mut Dice(3));
        let log = open(&disk).expect("opened");
        assert_eq!(log.report().quarantined, []);
        assert!(!log.stats().failed);
        fill(&log, 1);
        assert!(log.stats().newest_seq >= Some(3), "{:?}", log.stats());
    }
}

#[test]
fn a_full_disk_refuses_appends_until_there_is_room() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    fill(&log, 2);
    disk.fail(Faults { room: Some(0), ..Faults::default() });
    let mut accepted = 2;
    let full = loop {
        match log.try_append(vec![payload("x".repeat(100))]).expect("accepted").wait() {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, LogError::Full), "{full:?}");
    assert!(accepted > 10, "what was reserved is used up: {accepted}");
    assert!(log.stats().full && !log.stats().failed);
    let again = log.try_append(vec![payload("x")]).expect("accepted").wait();
    assert!(matches!(again, Err(LogError::Full)), "{again:?}");
    disk.fail(Faults::default());
    let seqs = log.try_append(vec![payload("x")]).expect("accepted").wait().expect("durable");
    assert_eq!(seqs.start, accepted + 1);
    assert!(!log.stats().full);
    assert_eq!(payloads(&disk).len() as u64, seqs.start);
}

#[test]
fn a_log_that_is_opened_on_a_full_disk_recovers_too() {
    let disk = FakeDisk::default();
    fill(&open(&disk).expect("opened"), 3);
    disk.fail(Faults { room: Some(0), ..Faults::default() });
    let log = open(&disk).expect("opened");
    let full = log.try_append(vec![payload("x")]).expect("accepted").wait();
    assert!(matches!(full, Err(LogError::Full)), "{full:?}");
    disk.fail(Faults::default());
    assert_eq!(log.try_append(vec![payload("x")]).expect("accepted").wait().expect("durable"), 4..5);
    assert_eq!(payloads(&disk).len(), 4);
}

#[test]
fn a_log_at_its_bound_takes_more_when_segments_were_exported() {
    let disk = FakeDisk::default();
    let options = Options { max_bytes: 8192, ..options() };
    let log = Log::over(Arc::new(disk.clone()), options).expect("opened");
    let append = || log.try_append(vec![payload("x".repeat(100))]).expect("accepted").wait();
    let accepted = (1..1000).find(|_| append().is_err()).expect("it is full some time") - 1;
    assert!(log.stats().full && log.stats().bytes <= 8192, "{:?}", log.stats());
    let sealed = log.sealed();
    assert!(sealed.len() >= 3, "{sealed:?}");
    assert!(matches!(log.mark_exported(2), Err(LogError::NotSealed(2))));
    // The second is no use while the first is there.
    log.mark_exported(sealed[1].first_seq).expect("marked");
    assert!(matches!(append(), Err(LogError::Full)));
    log.mark_exported(sealed[0].first_seq).expect("marked");
    assert_eq!(append().expect("durable").start, accepted + 1);
    assert_eq!(log.stats().oldest_seq, Some(sealed[2].first_seq));
    let first = log.read(1).expect("listed").next();
    let gone = matches!(first, Some(Err(LogError::Missing { from: 1, next })) if next == sealed[2].first_seq);
    assert!(gone, "{first:?}");
    let names = disk.list().expect("listed");
    assert!(!names.iter().any(|name| name.ends_with(".exported")), "{names:?}");
}

#[test]
fn a_marker_outlasts_the_process() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    fill(&log, 30);
    let first = log.sealed()[0].first_seq;
    log.mark_exported(first).expect("marked");
    drop(log);
    disk.crash(&mut Dice(5));
    let exported: Vec<bool> = open(&disk).expect("opened").sealed().iter().map(|it| it.exported).collect();
    assert!(exported[0] && exported[1..].iter().all(|exported| !exported), "{exported:?}");
}

#[test]
fn a_tail_of_any_length_is_cut_off_and_the_log_goes_on() {
    let whole = FakeDisk::default();
    let log = open(&whole).expect("opened");
    fill(&log, 2);
    let end = HEADER_BYTES + 3 * (FRAME_HEADER_BYTES + 100);
    fill(&log, 1);
    drop(log);
    let name = segment::name(1);
    for length in 0..end {
        for zeros in [0, 500] {
            let disk = FakeDisk::default();
            let mut bytes = whole.bytes(&name)[..length].to_vec();
            bytes.resize(length + zeros, 0);
            disk.put(&name, &bytes);
            let log = open(&disk).expect("opened");
            // A header that lacks nothing but zeros at its end is whole once they are there.
            let records = length.saturating_sub(HEADER_BYTES) / (FRAME_HEADER_BYTES + 100);
            assert_eq!(log.report().quarantined, [], "{length}");
            assert_eq!(log.stats().records, records as u64, "{length}");
            let next = log.try_append(vec![payload("next")]).expect("accepted").wait().expect("durable");
            assert_eq!(next.start, records as u64 + 1, "{length}");
            drop(log);
            let read = payloads(&disk);
            assert_eq!(read[..records], payloads(&whole)[..records], "{length}");
            assert_eq!(read[records..], [payload("next")], "{length}");
        }
    }
}

#[test]
fn any_changed_byte_of_a_sealed_segment_is_found_and_none_is_read_as_it_was() {
    let good = FakeDisk::default();
    let log = open(&good).expect("opened");
    fill(&log, 30);
    let name = segment::name(1);
    drop(log);
    let bytes = good.bytes(&name);
    let expected = payloads(&good);
    for at in 0..bytes.len() {
        for flip in [0xff, 0x01] {
            let mut bad = bytes.clone();
            bad[at] ^= flip;
            good.put(&name, &bad);
            let checked = verification::over(&good).expect("read");
            let State::Bad { offset, .. } = checked[0].state else {
                panic!("byte {at} by {flip}: {checked:?}")
            };
            assert!(offset <= at as u64, "byte {at} by {flip}: {checked:?}");
            let read = entries(&good);
            assert!(read.iter().any(Result::is_err), "byte {at} by {flip}");
            assert!(
                read.iter().flatten().all(|entry| expected.contains(&entry.payload)),
                "byte {at} by {flip}"
            );
        }
    }
}

#[test]
fn a_sealed_segment_with_a_bad_footer_goes_into_quarantine_and_is_missed() {
    let disk = FakeDisk::default();
    let log = open(&disk).expect("opened");
    fill(&log, 40);
    let (sealed, stats) = (log.sealed(), log.stats());
    drop(log);
    let name = segment::name(sealed[1].first_seq);
    let mut bytes = disk.bytes(&name);
    *bytes.last_mut().expect("bytes") ^= 1;
    disk.put(&name, &bytes);
    let log = open(&disk).expect("opened");
    let offset = sealed[1].bytes - FOOTER_BYTES as u64;
    assert_eq!(log.report().quarantined, [Quarantined { file: name.clone(), offset, flaw: Flaw::Footer }]);
    assert_eq!(disk.state().quarantined, [name]);
    assert_eq!(log.stats().newest_seq, stats.newest_seq);
    let errors: Vec<String> =
        entries(&disk).into_iter().filter_map(|entry| Some(entry.err()?.to_string())).collect();
    let (first, last) = (sealed[1].first_seq, sealed[1].next_seq - 1);
    assert_eq!(errors, [format!("records {first} to {last} are in no segment")]);
    assert_eq!(verification::over(&disk).expect("read")[1].missing, last + 1 - first);
}

#[test]
fn a_hole_in_the_last_segment_that_was_on_disk_once_is_no_tear() {
    let disk = FakeDisk::default();
    fill(&open(&disk).expect("opened"), 5);
    let name = segment::name(1);
    let mut bytes = disk.bytes(&name);
    let hole = HEADER_BYTES + 2 * (FRAME_HEADER_BYTES + 100);
    bytes[hole + 50] ^= 1;
    disk.put(&name, &bytes);
    let found = entries(&disk).pop().expect("entries").expect_err("corrupt").to_string();
    assert_eq!(found, format!("{name}, byte {hole}: the record does not check out"));
    let log = open(&disk).expect("opened");
    let quarantined = Quarantined { file: name, offset: hole as u64, flaw: Flaw::Record };
    assert_eq!(log.report().quarantined, [quarantined]);
    let next = log.try_append(vec![payload("next")]).expect("accepted").wait().expect("durable");
    assert!(next.start > 5, "no number is given twice: {next:?}");
    let missing = log.read(1).expect("listed").next();
    assert!(matches!(missing, Some(Err(LogError::Missing { from: 1, next: gap })) if gap == next.start));
}

#[test]
fn what_was_read_once_outlasts_the_next_crash_although_its_sync_had_failed() {
    for seed in 0..20 {
        let disk = FakeDisk::default();
        let log = open(&disk).expect("opened");
        fill(&log, 1);
        disk.fail(Faults { sync: Some(io::ErrorKind::Other), ..Faults::default() });
        log.try_append(vec![payload("unsure")]).expect("accepted").wait().expect_err("it is not on disk");
        drop(log);
        disk.fail(Faults::default());
        let log = open(&disk).expect("opened");
        assert_eq!(log.read(2).expect("listed").flatten().count(), 1);
        drop(log);
        disk.crash(&mut Dice(seed));
        assert_eq!(payloads(&disk)[1], payload("unsure"));
    }
}

/// What a crash test knows of the log.
#[derive(Default)]
struct Model {
    acknowledged: BTreeMap<u64, Bytes>,
    attempted: Vec<Bytes>,
}

impl Model {
    /// Writes until the power fails.
    fn live(&mut self, disk: &FakeDisk, dice: &mut Dice) {
        disk.fail(Faults { power: Some(dice.roll(80)), short: dice.roll(8) == 0, ..Faults::default() });
        let store: Arc<dyn Store> = Arc::new(disk.clone());
        let Ok(Recovered { report, state }) = recovery::recover(&*store, &options()) else { return };
        assert_eq!(report.quarantined, [], "a crash corrupts nothing");
        let shared = Arc::<Shared>::default();
        let mut writer = Writer::new(store, options(), state, Arc::clone(&shared));
        loop {
            let batch: Vec<Bytes> = (0..=dice.roll(3)).map(|_| self.payload(dice)).collect();
            let Ok(first) = writer.commit(&[&batch]) else { return };
            self.acknowledged.extend((first..).zip(batch));
        }
    }

    fn payload(&mut self, dice: &mut Dice) -> Bytes {
        let number = self.attempted.len();
        let payload = payload(format!("{number:0width$}", width = dice.roll(200)));
        self.attempted.push(payload.clone());
        payload
    }

    fn check(&self, disk: &FakeDisk) {
        let store: Arc<dyn Store> = Arc::new(disk.clone());
        let recovered = recovery::recover(&*store, &options()).expect("the power is back");
        assert_eq!(recovered.report.quarantined, [], "a crash corrupts nothing");
        let read: BTreeMap<u64, Bytes> = Reader::over(store, 1, None)
            .expect("listed")
            .map(|entry| entry.expect("good"))
            .map(|entry| (entry.seq, entry.payload))
            .collect();
        for (seq, payload) in &self.acknowledged {
            assert_eq!(read.get(seq), Some(payload), "record {seq} was acknowledged");
        }
        // In the order of the attempts, so none is there twice.
        let mut attempts = self.attempted.iter();
        assert!(read.values().all(|payload| attempts.any(|attempted| attempted == payload)));
        let checked = verification::over(disk).expect("read");
        assert!(checked.iter().all(Checked::is_good), "{checked:?}");
    }
}

#[test]
fn what_was_acknowledged_is_there_once_and_in_order_whatever_a_crash_leaves() {
    let mut acknowledged = 0;
    for seed in 0..400 {
        let (disk, mut dice, mut model) = (FakeDisk::default(), Dice(seed), Model::default());
        for _ in 0..6 {
            model.live(&disk, &mut dice);
            // A process that is killed leaves what it wrote to the system, synced or not.
            if dice.roll(3) == 0 {
                disk.fail(Faults::default());
            } else {
                disk.crash(&mut dice);
            }
            if dice.roll(2) == 0 {
                model.check(&disk);
            }
        }
        model.check(&disk);
        acknowledged += model.acknowledged.len();
    }
    assert!(acknowledged > 10_000, "the power lasts for some records: {acknowledged}");
}
