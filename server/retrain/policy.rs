//! Whether a model is retrained now: who asks, what was started when, and what else is so. Pure: time is an argument.
//!
//! Every start counts, however it ended: a training that fails fails again, and costs as much each time.

use std::{num::NonZeroUsize, time::Duration};

use serde::{Deserialize, Serialize};

/// Who asks for a retraining.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asker {
    /// The model's own alert.
    Alert,
    /// The clock.
    Schedule,
    /// An Alertmanager.
    Webhook,
    /// A person, over the management port.
    Operator,
}

impl Asker {
    /// Its name, as metrics and the child's environment have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Schedule => "schedule",
            Self::Webhook => "webhook",
            Self::Operator => "operator",
        }
    }
}

/// Why nothing is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The file that forbids it is there.
    #[error("the kill switch is on")]
    KillSwitch,
    /// One at a time.
    #[error("a retraining is running")]
    Running,
    /// What the last one has come to is not decided yet; another would take its place.
    #[error("a version is being tried")]
    Trial,
    /// The last one is too near.
    #[error("the last retraining was started less than {} s ago", .0.as_secs_f64())]
    Cooldown(Duration),
    /// There were enough of them.
    #[error("{0} retrainings were started within a day")]
    DailyMaximum(NonZeroUsize),
}

impl Refusal {
    /// Its name, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::KillSwitch => "kill_switch",
            Self::Running => "running",
            Self::Trial => "trial",
            Self::Cooldown(_) => "cooldown",
            Self::DailyMaximum(_) => "daily_maximum",
        }
    }
}

/// How often a model may be retrained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From one start to the next, but for an operator, who knows what the last one has come to, and may have another although a
    /// version is being tried.
    pub cooldown: Duration,
    /// Starts within 24 hours, whoever asks.
    pub max_a_day: NonZeroUsize,
    /// How long after the last start it is due without anybody asking.
    pub every: Option<Duration>,
}

/// What is so when somebody asks.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// When the model was retrained before, since 1970, in any order.
    pub starts: &'a [Duration],
    /// Whether one is running, of this model or another.
    pub running: bool,
    /// Whether a version of the model is being tried beside the one that answers.
    pub tried: bool,
    /// Whether the kill switch is on.
    pub killed: bool,
    /// The time, since 1970.
    pub now: Duration,
}

impl Limits {
    /// Whether `asker` gets a retraining now. A start that is ahead of the clock counts as one of this moment.
    pub fn admit(&self, asker: Asker, situation: &Situation) -> Result<(), Refusal> {
        let Situation { starts, running, tried, killed, now } = *situation;
        let within =
            |span: Duration| starts.iter().filter(|&&start| now.saturating_sub(start) < span).count();
        if killed {
            return Err(Refusal::KillSwitch);
        }
        if running {
            return Err(Refusal::Running);
        }
        if asker != Asker::Operator && tried {
            return Err(Refusal::Trial);
        }
        if asker != Asker::Operator && within(self.cooldown) > 0 {
            return Err(Refusal::Cooldown(self.cooldown));
        }
        if within(DAY) >= self.max_a_day.get() {
            return Err(Refusal::DailyMaximum(self.max_a_day));
        }
        Ok(())
    }

    /// Whether it is due at `now` by the clock alone, where `last` is its last start, or when it was first known of.
    pub fn is_due(&self, last: Duration, now: Duration) -> bool {
        self.every.is_some_and(|every| now.saturating_sub(last) >= every)
    }
}

const DAY: Duration = Duration::from_hours(24);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Duration = Duration::from_hours(500_000);

    fn hours(hours: u32) -> Duration {
        hours * Duration::from_hours(1)
    }

    fn before(time: Duration, ago: u32) -> Duration {
        time.saturating_sub(hours(ago))
    }

    fn limits() -> Limits {
        Limits {
            cooldown: hours(1),
            max_a_day: NonZeroUsize::new(3).expect("not zero"),
            every: Some(hours(24 * 7)),
        }
    }

    const ASKERS: [Asker; 4] = [Asker::Alert, Asker::Schedule, Asker::Webhook, Asker::Operator];

    #[test]
    fn the_table_of_reasons() {
        let ago = |ago: &[u32]| ago.iter().map(|&ago| before(NOW, ago)).collect::<Vec<_>>();
        let maximum = Refusal::DailyMaximum(limits().max_a_day);
        let cooldown = Refusal::Cooldown(hours(1));
        for (starts, running, killed, asked, operator) in [
            (ago(&[]), false, false, Ok(()), Ok(())),
            (ago(&[1]), false, false, Ok(()), Ok(())),
            (ago(&[0]), false, false, Err(cooldown), Ok(())),
            (ago(&[2, 1, 23]), false, false, Err(maximum), Err(maximum)),
            (ago(&[2, 1, 24]), false, false, Ok(()), Ok(())),
            (ago(&[2, 0, 1]), false, false, Err(cooldown), Err(maximum)),
            (ago(&[]), true, false, Err(Refusal::Running), Err(Refusal::Running)),
            (ago(&[]), false, true, Err(Refusal::KillSwitch), Err(Refusal::KillSwitch)),
            (ago(&[0]), true, true, Err(Refusal::KillSwitch), Err(Refusal::KillSwitch)),
            // A clock that was ahead is no way around a limit.
            (vec![NOW + hours(5)], false, false, Err(cooldown), Ok(())),
        ] {
            let situation = Situation { starts: &starts, running, tried: false, killed, now: NOW };
            for asker in ASKERS {
                let expected = if asker == Asker::Operator { operator } else { asked };
                assert_eq!(limits().admit(asker, &situation), expected, "{asker:?} {situation:?}");
            }
        }
    }

    #[test]
    fn it_is_due_so_long_after_the_last_start() {
        let last = before(NOW, 24 * 7);
        assert!(limits().is_due(last, NOW) && limits().is_due(before(last, 1), NOW));
        assert!(!limits().is_due(last + Duration::from_millis(1), NOW));
        assert!(!limits().is_due(NOW + hours(1), NOW));
        assert!(!Limits { every: None, ..limits() }.is_due(Duration::ZERO, NOW));
    }

    #[test]
    fn while_a_version_is_tried_only_an_operator_has_another_trained() {
        for asker in ASKERS {
            let situation = Situation { starts: &[], running: false, tried: true, killed: false, now: NOW };
            let expected = if asker == Asker::Operator { Ok(()) } else { Err(Refusal::Trial) };
            assert_eq!(limits().admit(asker, &situation), expected, "{asker:?}");
        }
    }

    proptest! {
        #[test]
        fn a_loop_never_starts_more_than_it_may(
            steps in prop::collection::vec((0_u64..7_200, 0_usize..4), 1..300),
        ) {
            let (mut now, mut starts): (Duration, Vec<Duration>) = (NOW, Vec::new());
            for (seconds, asker) in steps {
                now += Duration::from_secs(seconds);
                let asker = ASKERS[asker];
                let situation = Situation { starts: &starts, running: false, tried: false, killed: false, now };
                if limits().admit(asker, &situation).is_ok() {
                    let last = starts.last().copied();
                    prop_assert!(asker == Asker::Operator || last.is_none_or(|last| now >= last + hours(1)));
                    starts.push(now);
                }
                let day = starts.iter().filter(|&&start| now < start + DAY).count();
                prop_assert!(day <= 3);
            }
        }
    }
}
