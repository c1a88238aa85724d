//! Drops what versions were made of, on a thread of its own: whoever lets go of a version last may be serving
//! requests, and freeing a large model takes long.

use std::ops::{Deref, DerefMut};

use crossbeam::channel::{Receiver, Sender, unbounded};

use crate::{
    engine::{Engine, EngineError},
    tensor::{Rows, Signature},
};

/// Takes what is to be dropped. The queue is bounded by what the versions being retired are made of.
#[derive(Clone)]
pub struct Reaper {
    remains: Sender<Box<dyn Send>>,
}

/// The other end, which drops.
pub struct ReaperThread {
    remains: Receiver<Box<dyn Send>>,
}

impl Reaper {
    /// A reaper and the thread that somebody has to run.
    pub fn new() -> (Self, ReaperThread) {
        let (sender, receiver) = unbounded();
        (Self { remains: sender }, ReaperThread { remains: receiver })
    }

    /// Sees to it that `value` is dropped by the reaper, whoever lets go of it.
    pub fn wrap<T: Send + 'static>(&self, value: T) -> Reaped<T> {
        Reaped { value: Some(value), reaper: self.clone() }
    }
}

impl ReaperThread {
    /// Drops what comes until every [`Reaper`] and every [`Reaped`] is gone.
    pub fn run(self) {
        self.remains.iter().for_each(drop);
    }
}

/// A value that is dropped by the reaper.
pub struct Reaped<T: Send + 'static> {
    value: Option<T>,
    reaper: Reaper,
}

impl<T: Send + 'static> Deref for Reaped<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.value.as_ref().expect("taken in drop alone")
    }
}

impl<T: Send + 'static> DerefMut for Reaped<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.value.as_mut().expect("taken in drop alone")
    }
}

impl<T: Send + 'static> Drop for Reaped<T> {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            // Without a reaper, as when the process ends, the value is dropped here after all.
            drop(self.reaper.remains.send(Box::new(value)));
        }
    }
}

impl Engine for Reaped<Box<dyn Engine>> {
    fn signature(&self) -> &Signature {
        (**self).signature()
    }

    fn run(&mut self, rows: &Rows, scores: &mut Vec<f32>) -> Result<(), EngineError> {
        (**self).run(rows, scores)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc,
        thread::{self, ThreadId},
    };

    use super::*;

    struct Tells(mpsc::Sender<ThreadId>);

    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send(thread::current().id()).expect("the test listens");
        }
    }

    #[test]
    fn a_value_is_dropped_on_the_reapers_thread() {
        let (reaper, reaper_thread) = Reaper::new();
        let (sender, dropped_on) = mpsc::channel();
        drop(reaper.wrap(Tells(sender)));
        drop(reaper);
        let handle = thread::spawn(|| reaper_thread.run());
        let expected = handle.thread().id();
        handle.join().expect("the reaper ends with its last handle");
        assert_eq!(dropped_on.recv().expect("dropped"), expected);
    }
}
