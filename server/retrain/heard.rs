//! Which alerts of an Alertmanager have led to a retraining: it repeats itself for as long as they fire. Pure.

use std::collections::VecDeque;

/// An alert from one time that it began to fire until it stops: its fingerprint and its start.
pub(super) type Occasion = (String, String);

/// The last occasions that have led to something.
#[derive(Debug, Default)]
pub(super) struct Heard(VecDeque<Occasion>);

impl Heard {
    pub(super) fn knows(&self, occasion: &Occasion) -> bool {
        self.0.contains(occasion)
    }

    pub(super) fn remember(&mut self, occasion: Occasion) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(occasion);
    }
}

/// Occasions that are known again. Each is a retraining, so that these are of months.
const REMEMBERED: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_occasion_is_known_until_there_were_too_many() {
        let occasion = |number: usize| (number.to_string(), "2026-11-27T08:00:00Z".to_owned());
        let mut heard = Heard::default();
        for number in 0..=REMEMBERED {
            assert!(!heard.knows(&occasion(number)));
            heard.remember(occasion(number));
        }
        assert!(
            !heard.knows(&occasion(0)) && heard.knows(&occasion(1)) && heard.knows(&occasion(REMEMBERED))
        );
        assert!(!heard.knows(&("1".to_owned(), "another time".to_owned())));
    }
}
