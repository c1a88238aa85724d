//! Work that can wait, and that holds nothing meanwhile which others need: to hash a large table takes seconds of a core,
//! and what serves must not stand in line for them.

use std::{io, panic::resume_unwind, thread};

use rustix::process::setpriority_process;

/// Does `work` on a thread of its own that gives way to all others, and waits for it. What `work` starts in turn gives
/// way as well, and for what it has locked everybody waits, so it should only compute.
pub(super) fn run<T: Send>(name: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, || {
            give_way();
            work()
        })?;
        Ok(thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
    })
}

/// Lets all other threads go before the calling one, from now on.
fn give_way() {
    // Elsewhere it would be the whole process that gives way.
    if cfg!(target_os = "linux")
        && let Err(error) = setpriority_process(None, LAST)
    {
        tracing::warn!(%error, "verifying takes as much of the machine as serving");
    }
}

/// The niceness of what can wait.
const LAST: i32 = 19;

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    #[test]
    fn the_work_gives_way_and_who_waits_for_it_does_not() {
        let before = getpriority_process(None).expect("a niceness");
        let during = run("test", || getpriority_process(None).expect("a niceness")).expect("a thread");
        assert_eq!(during, LAST);
        assert_eq!(getpriority_process(None).expect("a niceness"), before);
    }
}
