//! Which events are in the log already, so that one which is told twice is there once. Pure.
//!
//! It remembers the last events, not all: they are kept in two generations, of which the older goes when the younger is
//! full.

use std::{collections::HashSet, mem};

use super::event::EventKey;

/// Events that need not be written again.
#[derive(Debug)]
pub(super) struct Seen {
    /// Those that are being written: nobody knows yet whether they will be there.
    pending: HashSet<EventKey>,
    young: HashSet<EventKey>,
    old: HashSet<EventKey>,
    /// How many a generation holds.
    generation: usize,
}

/// What is known of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It is in the log.
    Durable,
    /// It is being written.
    Pending,
    /// Nothing.
    New,
}

impl Seen {
    /// Remembers the last `events` at least, and twice as many at most.
    pub(super) fn new(events: usize) -> Self {
        Self {
            pending: HashSet::new(),
            young: HashSet::new(),
            old: HashSet::new(),
            generation: events.max(1),
        }
    }

    pub(super) fn known(&self, key: EventKey) -> Known {
        if self.young.contains(&key) || self.old.contains(&key) {
            Known::Durable
        } else if self.pending.contains(&key) {
            Known::Pending
        } else {
            Known::New
        }
    }

    /// These are being written. The log's queue bounds how many.
    pub(super) fn begin(&mut self, keys: impl IntoIterator<Item = EventKey>) {
        self.pending.extend(keys);
    }

    /// These are written, or will not be.
    pub(super) fn end(&mut self, keys: &[EventKey], durable: bool) {
        for &key in keys {
            self.pending.remove(&key);
            if durable {
                self.remember(key);
            }
        }
    }

    /// This one is in the log.
    pub(super) fn remember(&mut self, key: EventKey) {
        if self.young.len() >= self.generation {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_pending_until_it_is_durable_or_new_again() {
        let mut seen = Seen::new(10);
        assert_eq!(seen.known(1), Known::New);
        seen.begin([1, 2]);
        assert_eq!((seen.known(1), seen.known(2)), (Known::Pending, Known::Pending));
        seen.end(&[1], true);
        seen.end(&[2], false);
        assert_eq!((seen.known(1), seen.known(2)), (Known::Durable, Known::New));
    }

    #[test]
    fn the_last_events_are_remembered_and_memory_is_bounded() {
        let mut seen = Seen::new(100);
        for key in 0..1_000 {
            seen.remember(key);
            assert!(seen.young.len() + seen.old.len() <= 200);
            let last = key.saturating_sub(99)..=key;
            assert!(last.into_iter().all(|key| seen.known(key) == Known::Durable), "{key}");
        }
        assert_eq!(seen.known(0), Known::New);
    }
}
