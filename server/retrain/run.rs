//! One retraining from its start to its end. Whoever has it asks it every so often how it is; it waits for nothing itself.
//!
//! ```text
//! exporting ─▶ working ─▶ over
//!                 └─▶ ending: was asked to, and is killed where it does not ─▶ over
//! ```

use std::{
    io, mem,
    path::Path,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, TryRecvError};

use super::{Asker, Child, Output, RetrainOptions, Turn};
use crate::repository::ModelName;

/// How a retraining ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit status 0.
    Ok,
    /// With another, or by a signal that was not ours.
    Failed,
    /// It took too long.
    Timeout,
    /// The kill switch was thrown.
    KillSwitch,
    /// The server ended.
    Stopped,
    /// The log of feedback could not be exported, and it was not started.
    NotExported,
    /// It could not be started.
    NotStarted,
}

impl Outcome {
    /// Every one.
    pub const ALL: [Self; 7] = [
        Self::Ok,
        Self::Failed,
        Self::Timeout,
        Self::KillSwitch,
        Self::Stopped,
        Self::NotExported,
        Self::NotStarted,
    ];

    /// Its name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::KillSwitch => "kill_switch",
            Self::Stopped => "stopped",
            Self::NotExported => "not_exported",
            Self::NotStarted => "not_started",
        }
    }
}

/// An export of the log that somebody waits for.
pub(super) type Exported = Receiver<Result<(), String>>;

/// What is to be retrained, who asked, and how.
pub(super) struct Order {
    pub(super) model: ModelName,
    pub(super) asker: Asker,
    pub(super) options: RetrainOptions,
}

/// A retraining that is not over.
pub(super) struct Run {
    order: Order,
    output: Output,
    stage: Stage,
    /// Let go of when its end is known.
    turn: Turn,
}

enum Stage {
    /// Since when, and whose answer is waited for.
    Exporting(Instant, Exported),
    Working(Instant, Child),
    /// Since when, and why.
    Ending(Instant, Outcome, Child),
    Over(Outcome),
}

impl Run {
    /// Begins at `now`, with an export where there is one to wait for.
    pub(super) fn begin(
        order: Order,
        output: Output,
        exported: Option<Exported>,
        turn: Turn,
        now: Instant,
    ) -> Self {
        let mut run = Self { order, output, stage: Stage::Over(Outcome::NotStarted), turn };
        run.stage = match exported {
            Some(exported) => Stage::Exporting(now, exported),
            None => run.work(now),
        };
        run
    }

    pub(super) fn model(&self) -> &ModelName {
        &self.order.model
    }

    pub(super) fn output(&self) -> &Path {
        self.output.path()
    }

    /// How it is at `now`: an outcome once it is over.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Outcome> {
        let stage = mem::replace(&mut self.stage, Stage::Over(Outcome::NotStarted));
        self.stage = match stage {
            Stage::Exporting(since, exported) => match exported.try_recv() {
                Ok(Ok(())) => self.work(now),
                Ok(Err(reason)) => self.fault(Outcome::NotExported, &reason),
                Err(TryRecvError::Disconnected) => self.fault(Outcome::NotExported, "its thread is gone"),
                Err(TryRecvError::Empty) if now - since >= EXPORT_WAIT => {
                    self.fault(Outcome::NotExported, "it took too long")
                }
                Err(TryRecvError::Empty) => Stage::Exporting(since, exported),
            },
            Stage::Working(since, mut child) => {
                child.listen(&mut self.output);
                let options = &self.order.options;
                match child.has_ended() {
                    Ok(false) if now - since >= options.timeout => ending(Outcome::Timeout, child, now),
                    Ok(false) if is_thrown(&options.kill_switch) => ending(Outcome::KillSwitch, child, now),
                    Ok(false) => Stage::Working(since, child),
                    ended => self.over(ended, child, None),
                }
            }
            Stage::Ending(since, outcome, mut child) => {
                child.listen(&mut self.output);
                match child.has_ended() {
                    Ok(false) if now - since < GRACE => Stage::Ending(since, outcome, child),
                    // Killed, where it has not ended yet.
                    ended => self.over(ended, child, Some(outcome)),
                }
            }
            Stage::Over(outcome) => Stage::Over(outcome),
        };
        if let Stage::Over(outcome) = self.stage { Some(outcome) } else { None }
    }

    /// Has it end because the server does.
    pub(super) fn stop(&mut self, now: Instant) {
        self.stage = match mem::replace(&mut self.stage, Stage::Over(Outcome::Stopped)) {
            Stage::Exporting(..) => Stage::Over(Outcome::Stopped),
            Stage::Working(_, child) => ending(Outcome::Stopped, child, now),
            other => other,
        };
    }

    /// Writes the last of what was said, and leaves the turn, once it is over.
    pub(super) fn close(self) -> (io::Result<()>, Turn) {
        (self.output.finish(), self.turn)
    }

    fn work(&mut self, now: Instant) -> Stage {
        let Order { model, asker, options } = &self.order;
        let variables = [("MILLRACE_MODEL", model.as_str()), ("MILLRACE_RETRAIN_BY", asker.name())];
        let child = self.turn.share().and_then(|input| Child::start(options, &variables, input));
        match child {
            Ok(child) => Stage::Working(now, child),
            Err(error) => {
                let program = options.command.first().map_or("", String::as_str);
                let reason = format!("{program}: {error}");
                self.fault(Outcome::NotStarted, &reason)
            }
        }
    }

    fn over(&mut self, ended: io::Result<bool>, mut child: Child, outcome: Option<Outcome>) -> Stage {
        child.listen(&mut self.output);
        let status = ended.and_then(|_| child.reap());
        let (model, by) = (self.order.model.as_str(), self.order.asker.name());
        match &status {
            Ok(status) => tracing::info!(model, by, %status, "the command of a retraining has ended"),
            Err(error) => tracing::error!(model, by, %error, "nobody knows how a retraining has ended"),
        }
        let well = status.is_ok_and(|status| status.success());
        Stage::Over(outcome.unwrap_or(if well { Outcome::Ok } else { Outcome::Failed }))
    }

    fn fault(&mut self, outcome: Outcome, reason: &str) -> Stage {
        tracing::error!(
            model = self.order.model.as_str(),
            outcome = outcome.name(),
            reason,
            "a retraining cannot be"
        );
        self.output.take(format!("{}: {reason}\n", outcome.name()).as_bytes());
        Stage::Over(outcome)
    }
}

fn ending(outcome: Outcome, child: Child, now: Instant) -> Stage {
    child.terminate();
    Stage::Ending(now, outcome, child)
}

/// Whether the kill switch at `path` is on. Where nobody can tell, it is.
pub(super) fn is_thrown(path: &Path) -> bool {
    path.try_exists().unwrap_or(true)
}

/// How long the export of the log may take.
const EXPORT_WAIT: Duration = Duration::from_mins(10);

/// How long a child has to end by itself.
const GRACE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::{fs, num::NonZeroUsize, path::PathBuf, thread};

    use crossbeam::channel;

    use super::{super::Limits, *};

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().expect("a folder"))
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        /// A run of this shell script.
        fn begin(&self, script: &str, exported: Option<Exported>) -> Run {
            self.begin_with(&["sh", "-c", script], exported)
        }

        fn begin_with(&self, command: &[&str], exported: Option<Exported>) -> Run {
            let limits = Limits { cooldown: Duration::ZERO, max_a_day: NonZeroUsize::MIN, every: None };
            let options = RetrainOptions {
                command: command.iter().map(|&word| word.to_owned()).collect(),
                dir: self.0.path().to_owned(),
                on_alert: false,
                limits,
                timeout: Duration::from_hours(1),
                max_memory_bytes: Some((1 << 30).try_into().expect("not zero")),
                nice: 3,
                kill_switch: self.path("stop"),
            };
            let order = Order { model: "shop".parse().expect("a name"), asker: Asker::Operator, options };
            let output = Output::create(&self.path("output"), 7).expect("a file");
            let turn = Turn::take(self.0.path()).expect("a folder").expect("nobody has it");
            Run::begin(order, output, exported, turn, Instant::now())
        }

        fn said(&self) -> String {
            fs::read_to_string(self.path("output/7.log")).expect("a file")
        }

        fn wait_for(&self, name: &str) {
            while !self.path(name).exists() {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Waits for the end, as of a clock that is ahead by so much.
    fn end(run: &mut Run, ahead: Duration) -> Outcome {
        loop {
            if let Some(outcome) = run.poll(Instant::now() + ahead) {
                return outcome;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    fn close(run: Run) {
        let (said, turn) = run.close();
        said.expect("written");
        drop(turn);
    }

    #[test]
    fn what_it_says_and_how_it_ends_is_known_and_it_runs_within_its_bounds() {
        let place = Place::new();
        let before = rustix::process::getpriority_process(None).expect("a priority");
        let script =
            "sleep 0.2; echo $MILLRACE_MODEL $MILLRACE_RETRAIN_BY; pwd >&2; nice; ulimit -d; cat; exit $0";
        let mut run = place.begin_with(&["sh", "-c", script, "0"], None);
        assert_eq!(end(&mut run, Duration::ZERO), Outcome::Ok);
        close(run);
        let folder = place.0.path().canonicalize().expect("a folder");
        let nice = (before + 3).min(19);
        let expected = format!("shop operator\n{}\n{nice}\n{}\n", folder.display(), 1 << 20);
        assert_eq!(place.said(), expected, "standard input was empty");
        let mut run = place.begin_with(&["sh", "-c", script, "3"], None);
        assert_eq!(end(&mut run, Duration::ZERO), Outcome::Failed);
        close(run);
        let mut run = place.begin_with(&["no-such-program"], None);
        assert_eq!(end(&mut run, Duration::ZERO), Outcome::NotStarted);
        close(run);
        assert!(place.said().starts_with("not_started: no-such-program: "), "{}", place.said());
    }

    #[test]
    fn it_waits_for_the_export_and_is_not_started_without() {
        let place = Place::new();
        let (answer, exported) = channel::bounded(1);
        let mut run = place.begin("touch began", Some(exported));
        assert_eq!(run.poll(Instant::now()), None);
        assert!(!place.path("began").exists());
        answer.send(Ok(())).expect("it waits");
        assert_eq!(end(&mut run, Duration::ZERO), Outcome::Ok);
        assert!(place.path("began").exists());
        close(run);
        let (answer, exported) = channel::bounded(1);
        answer.send(Err("no room".to_owned())).expect("it waits");
        let mut run = place.begin("touch again", Some(exported));
        assert_eq!(end(&mut run, Duration::ZERO), Outcome::NotExported);
        close(run);
        let (_waiting, exported) = channel::bounded(1);
        let mut run = place.begin("touch again", Some(exported));
        assert_eq!(end(&mut run, EXPORT_WAIT), Outcome::NotExported);
        close(run);
        assert_eq!(place.said(), "not_exported: it took too long\n");
        assert!(!place.path("again").exists());
    }

    #[test]
    fn who_takes_too_long_ends_with_all_that_it_has_started() {
        let place = Place::new();
        // Deaf to the polite signal, and so is what it starts, which has the turn too.
        let script = "trap '' TERM; exec 3<&0; sleep 600 <&3 & touch ready; wait";
        let mut run = place.begin(script, None);
        place.wait_for("ready");
        let late = Duration::from_hours(1);
        assert_eq!(run.poll(Instant::now() + late), None, "it is asked to end first");
        assert_eq!(end(&mut run, late + GRACE), Outcome::Timeout);
        close(run);
        while Turn::take(place.0.path()).expect("a folder").is_none() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn the_kill_switch_and_the_servers_end_end_it_too() {
        let place = Place::new();
        let script = "trap 'echo bye; exit 0' TERM; touch ready; while :; do sleep 0.05; done";
        let mut run = place.begin(script, None);
        place.wait_for("ready");
        assert_eq!(run.poll(Instant::now()), None);
        fs::write(place.path("stop"), "").expect("written");
        assert_eq!(end(&mut run, Duration::ZERO), Outcome::KillSwitch);
        close(run);
        // Some shells also say what became of what they waited for.
        assert!(place.said().ends_with("bye\n"), "{}", place.said());
        fs::remove_file(place.path("stop")).expect("it is there");
        let mut run = place.begin("exec sleep 600", None);
        run.stop(Instant::now());
        run.stop(Instant::now());
        assert_eq!(end(&mut run, Duration::ZERO), Outcome::Stopped);
        close(run);
    }

    #[test]
    fn a_switch_that_cannot_be_seen_is_on() {
        let place = Place::new();
        assert!(!is_thrown(&place.path("stop")));
        fs::write(place.path("file"), "").expect("written");
        assert!(is_thrown(&place.path("file")) && is_thrown(&place.path("file/stop")));
    }
}
