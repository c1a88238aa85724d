//! Looks at some rows of answers, beside the threads that give them and never in their way: a request leaves a copy of
//! its body and its drawn rows' scores in a bounded queue, and where there is no room it leaves nothing.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{
    Subject,
    lot::Turn,
    window::{Index, Moved, Shares, Window},
};
use crate::{
    codec::raw,
    metrics::{DriftFacts, FeatureDrift, Metrics, Psi},
    pace::Pace,
};

/// Draws rows of requests; shared by the threads that serve.
pub struct Sampler {
    queue: Sender<Sample>,
    /// Closed when this is dropped.
    _open: Sender<()>,
    room: Arc<Room>,
    metrics: Arc<Metrics>,
}

/// The other end, which counts them.
pub struct SamplerThread {
    queue: Receiver<Sample>,
    closed: Receiver<()>,
    metrics: Arc<Metrics>,
    versions: Vec<Watched>,
    turned: Instant,
}

/// Drawn rows of a request that has not been answered yet.
#[derive(Debug)]
pub struct Drawn {
    subject: Arc<Subject>,
    /// Which rows.
    rows: Vec<usize>,
    /// Of all rows, as the caller wrote them; `None` where they are encoded already.
    body: Option<Box<[u8]>>,
    _taken: Taken,
}

/// The same with the scores of those rows.
struct Sample {
    drawn: Drawn,
    scores: Vec<f32>,
}

/// A version whose rows have been looked at.
struct Watched {
    /// As long as it is loaded.
    subject: Weak<Subject>,
    window: Window,
    turn: Turn,
}

/// Bytes that samples take.
#[derive(Debug, Default)]
struct Room(AtomicUsize);

/// Room that is taken until this is dropped.
#[derive(Debug)]
struct Taken {
    room: Arc<Room>,
    bytes: usize,
}

impl Sampler {
    /// A sampler, and the thread that somebody has to run.
    pub fn new(metrics: Arc<Metrics>) -> (Self, SamplerThread) {
        let (sender, receiver) = bounded(MOST_SAMPLES);
        let (open, closed) = bounded(0);
        let thread = SamplerThread {
            queue: receiver,
            closed,
            metrics: Arc::clone(&metrics),
            versions: Vec::new(),
            turned: Instant::now(),
        };
        (Self { queue: sender, _open: open, room: Arc::default(), metrics }, thread)
    }

    /// Draws from the `rows` rows of a request to a version, where it is watched. `body` is what they were decoded from;
    /// `None` where they came encoded, so that no more than their scores can be seen.
    pub fn draw(&self, subject: Option<&Arc<Subject>>, rows: usize, body: Option<&[u8]>) -> Option<Drawn> {
        let subject = subject?;
        let drawn = subject.lot.draw(rows);
        if drawn.is_empty() {
            return None;
        }
        let taken = if self.queue.is_full() { None } else { self.room.take(body.map_or(0, <[u8]>::len)) };
        let Some(taken) = taken else {
            self.metrics.drift_dropped(drawn.len());
            return None;
        };
        Some(Drawn { subject: Arc::clone(subject), rows: drawn, body: body.map(Box::from), _taken: taken })
    }

    /// Hands on what was drawn of a request that is answered with `scores`, one for each of its rows.
    pub fn answered(&self, drawn: Option<Drawn>, scores: &[f32]) {
        let Some(drawn) = drawn else { return };
        let scores = drawn.rows.iter().map(|&row| scores[row]).collect();
        if let Err(error) = self.queue.try_send(Sample { drawn, scores }) {
            self.metrics.drift_dropped(error.into_inner().scores.len());
        }
    }
}

impl SamplerThread {
    /// Counts what comes until the sampler is gone. It looks by itself now and then: to wake it would cost a request more than
    /// to be drawn, and it counts several at once for little more than one.
    pub fn run(mut self) {
        let mut pace = Pace::of_core(SHARE);
        while self.closed.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            self.look();
            let now = Instant::now();
            if now >= self.turned + TURN {
                self.turn(now);
            }
            pace.rest();
        }
    }

    /// Counts what waits.
    fn look(&mut self) -> usize {
        let mut rows = 0;
        // What comes meanwhile waits for the next time.
        for _ in 0..self.queue.len() {
            let Ok(sample) = self.queue.try_recv() else { break };
            self.count(&sample, Instant::now());
            rows += sample.scores.len();
        }
        rows
    }

    fn count(&mut self, Sample { drawn, scores }: &Sample, now: Instant) {
        let subject = &drawn.subject;
        let decode = |body: &[u8]| raw::decode(body, subject.observer().encoder(), &drawn.rows);
        let rows = drawn.body.as_deref().map(decode).transpose();
        let rows = rows.unwrap_or_else(|error| {
            tracing::error!(model = subject.model(), %error, "a body that was answered cannot be read again");
            None
        });
        self.window(subject, now).count(subject, scores, &rows.unwrap_or_default(), now);
    }

    fn window(&mut self, subject: &Arc<Subject>, now: Instant) -> &mut Window {
        // No other subject comes to lie where one is that a `Weak` knows.
        let known = self.versions.iter().position(|known| known.subject.as_ptr() == Arc::as_ptr(subject));
        let at = known.unwrap_or_else(|| {
            let subject = Arc::downgrade(subject);
            self.versions.push(Watched { subject, window: Window::new(now), turn: Turn::default() });
            self.versions.len() - 1
        });
        &mut self.versions[at].window
    }

    /// Forgets versions that are gone, and tells how far the rows of the others have moved.
    fn turn(&mut self, now: Instant) {
        let time = now.saturating_duration_since(self.turned);
        self.turned = now;
        let metrics = &self.metrics;
        self.versions.retain_mut(|Watched { subject, window, turn }| {
            let Some(subject) = subject.upgrade() else { return false };
            *turn = subject.lot.turn(*turn, time);
            let moved = window.moved(&subject, now);
            metrics.drift(subject.model(), subject.version(), &facts(&subject, &moved));
            true
        });
    }
}

impl Room {
    /// Takes room for a body of so many bytes; `None` where there is not that much.
    fn take(self: &Arc<Self>, bytes: usize) -> Option<Taken> {
        let before = self.0.fetch_add(bytes, Relaxed);
        // Given back by the drop, whether or not they fit.
        let taken = Taken { room: Arc::clone(self), bytes };
        (before.saturating_add(bytes) <= MOST_BYTES).then_some(taken)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Relaxed);
    }
}

/// What has moved, as metrics have it.
fn facts<'a>(subject: &'a Subject, moved: &Moved) -> DriftFacts<'a> {
    let psi = |index: Option<Index>| Psi {
        found: index.map(|index| index.psi),
        by_chance: index.map(|index| index.by_chance),
    };
    let shares = |Shares { live, training }| [("live", live), ("training", Some(training))];
    let features = subject.reference().features.iter().zip(&moved.features);
    DriftFacts {
        sampled: [
            ("score", moved.scored.requests, moved.scored.rows),
            ("feature", moved.seen.requests, moved.seen.rows),
        ],
        score: psi(moved.score),
        features: features
            .map(|(feature, moved)| FeatureDrift {
                feature: &feature.name,
                psi: psi(moved.index),
                unknown: moved.unknown.map(shares),
                missing: shares(moved.missing),
            })
            .collect(),
    }
}

/// How often it looks whether anything waits.
const LOOK: Duration = Duration::from_millis(100);
/// How often what has moved is told, and how many rows to draw is thought over.
const TURN: Duration = Duration::from_secs(1);
/// Requests that may wait to be counted.
const MOST_SAMPLES: usize = 256;
/// Bytes of their bodies.
const MOST_BYTES: usize = 8 << 20;
/// What the thread may take of a core.
const SHARE: f64 = 0.01;

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, thread};

    use super::*;
    use crate::{
        drift::DriftOptions,
        features::{Encoder, Schema, Vocabulary},
        quality::{Bins, Distribution, FeatureReference, Reference, Seen},
    };

    const BODY: &[u8] = br#"{"input": [[7], ["x"], [7]]}"#;

    fn subject(version: u64) -> Arc<Subject> {
        let schema = r#"feature = [{ name = "user", kind = "categorical", source = "vocabulary" }]"#;
        let schema: Schema = toml::from_str(schema).expect("a schema");
        let encoder = Encoder::new(schema, |_| Ok(Vocabulary::new(["7"]).expect("an id"))).expect("a layout");
        let seven = Seen::Id { id: "7", is_known: true };
        let reference = Reference {
            rows: 10,
            score: Distribution::of(Bins::Boundaries(vec![0.5]), [0.2, 0.7].map(Seen::Number).into_iter()),
            features: vec![FeatureReference {
                name: "user".into(),
                distribution: Distribution::of(Bins::Ids(vec!["7".into()]), [seven; 10].into_iter()),
            }],
        };
        let rows_per_second = NonZeroU32::new(1_000_000).expect("more than there are");
        let options = DriftOptions { rows_per_second, window: Duration::from_hours(1), min_requests: 1 };
        Arc::new(Subject::new(("shop", version), Arc::new(encoder), reference, options).expect("a feature"))
    }

    /// Counts all that waits, and tells it.
    fn count(thread: &mut SamplerThread) -> usize {
        let rows = thread.look();
        thread.turn(Instant::now());
        rows
    }

    fn said(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map(|value| value.trim().parse().expect("a number"))
    }

    #[test]
    fn what_was_drawn_is_counted_with_the_scores_of_its_rows() {
        let metrics = Metrics::new("a");
        let (sampler, mut thread) = Sampler::new(Arc::clone(&metrics));
        let subject = subject(3);
        sampler.answered(sampler.draw(Some(&subject), 3, Some(BODY)), &[0.1, 0.2, 0.3]);
        sampler.answered(sampler.draw(Some(&subject), 2, None), &[0.1, 0.2]);
        sampler.answered(sampler.draw(None, 3, Some(BODY)), &[0.1, 0.2, 0.3]);
        assert_eq!(count(&mut thread), 5);
        let of = |series: &str| said(&metrics, series);
        assert_eq!(of(r#"millrace_drift_rows{model="shop",version="3",of="score"}"#), Some(5.0));
        assert_eq!(of(r#"millrace_drift_rows{model="shop",version="3",of="feature"}"#), Some(3.0));
        let unknown = r#"millrace_drift_unknown_ratio{model="shop",version="3",feature="user",rows="live"}"#;
        let unknown = of(unknown).expect("one of three");
        assert!((unknown - 1.0 / 3.0).abs() < 1e-9, "{unknown}");
        let psi = of(r#"millrace_drift_psi{model="shop",version="3",of="score"}"#).expect("an index");
        assert!(psi > 1.0, "all scores are low: {psi}");
        assert_eq!(of("millrace_drift_dropped_rows_total"), Some(0.0));
        assert_eq!(sampler.room.0.load(Relaxed), 0);
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_told() {
        let metrics = Metrics::new("a");
        let (sampler, mut thread) = Sampler::new(Arc::clone(&metrics));
        let subject = subject(1);
        let large = vec![b' '; MOST_BYTES / 2];
        let held: Vec<_> =
            (0..2).map(|_| sampler.draw(Some(&subject), 1, Some(&large)).expect("room")).collect();
        assert!(sampler.draw(Some(&subject), 2, Some(BODY)).is_none());
        drop(held);
        for _ in 0..=MOST_SAMPLES {
            sampler.answered(sampler.draw(Some(&subject), 3, Some(BODY)), &[0.5; 3]);
        }
        assert_eq!(said(&metrics, "millrace_drift_dropped_rows_total"), Some(2.0 + 3.0));
        assert_eq!(count(&mut thread), 3 * MOST_SAMPLES);
    }

    #[test]
    fn versions_are_apart_and_one_that_is_gone_is_forgotten() {
        let metrics = Metrics::new("a");
        let (sampler, mut thread) = Sampler::new(Arc::clone(&metrics));
        let (old, new) = (subject(1), subject(2));
        for subject in [&old, &new, &new] {
            sampler.answered(sampler.draw(Some(subject), 3, Some(BODY)), &[0.5; 3]);
        }
        count(&mut thread);
        for (version, rows) in [(1, 3.0), (2, 6.0)] {
            let series = format!(r#"millrace_drift_rows{{model="shop",version="{version}",of="feature"}}"#);
            assert_eq!(said(&metrics, &series), Some(rows));
        }
        drop(old);
        count(&mut thread);
        assert_eq!(thread.versions.len(), 1);
    }

    #[test]
    fn the_thread_ends_with_its_sampler() {
        let (sampler, thread) = Sampler::new(Metrics::new("a"));
        let thread = thread::spawn(|| thread.run());
        drop(sampler);
        thread.join().expect("no panic");
    }
}
