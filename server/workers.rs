//! The threads that serve connections. Each has an event loop of its own, and a connection stays with the one that it
//! was given: what a request needs is done on one core, and no other core is woken for it.

use std::{
    cell::Cell,
    io,
    num::NonZeroUsize,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::{Notify, watch},
};

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static HEART: Rc<Heart> = Rc::default();
}

/// Which worker the calling thread is, from 0; a thread that is none is taken for the first.
pub fn current() -> usize {
    CURRENT.get()
}

/// Says that the calling worker has a request to answer, for which it may set timers.
pub fn stir() {
    HEART.with(|heart| {
        heart.is_busy.set(true);
        if heart.is_at_rest.replace(false) {
            heart.stirred.notify_one();
        }
    });
}

/// Running threads. Dropping them without [`Workers::stop`] leaves them to end by themselves.
pub struct Workers {
    spawner: Spawner,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Workers {
    /// Starts `count` threads.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let mut handles = Vec::new();
        let mut threads = Vec::new();
        for worker in 0..count.get() {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            handles.push(runtime.handle().clone());
            let stopped = stopped.clone();
            let thread = thread::Builder::new().name("serve".to_owned());
            threads.push(thread.spawn(move || run(&runtime, worker, stopped))?);
        }
        Ok(Self { spawner: Spawner::over(handles), threads, stop })
    }

    /// What gives connections to the threads.
    pub fn spawner(&self) -> Spawner {
        self.spawner.clone()
    }

    /// Ends the threads, and with them what they have not finished.
    pub fn stop(self) {
        self.stop.send_replace(true);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread that serves ended with a panic");
            }
        }
    }
}

/// Gives each connection to the event loop that has the fewest.
#[derive(Clone)]
pub struct Spawner(Arc<[Loop]>);

struct Loop {
    handle: Handle,
    connections: Arc<AtomicUsize>,
}

impl Spawner {
    /// Over the event loop of the calling task alone.
    ///
    /// # Panics
    /// Outside of one.
    pub fn here() -> Self {
        Self::over(vec![Handle::current()])
    }

    fn over(handles: Vec<Handle>) -> Self {
        Self(handles.into_iter().map(|handle| Loop { handle, connections: Arc::default() }).collect())
    }

    /// Serves a connection, which ends with the future.
    pub fn spawn(&self, connection: impl Future<Output = ()> + Send + 'static) {
        // Only the thread that accepts connections adds to the counts, so the fewest cannot become the most meanwhile.
        let fewest = self.0.iter().min_by_key(|event_loop| event_loop.connections.load(Ordering::Relaxed));
        let Loop { handle, connections } = fewest.expect("there is at least one");
        let counted = Counted::new(Arc::clone(connections));
        handle.spawn(async move {
            connection.await;
            drop(counted);
        });
    }
}

/// A connection of an event loop, until this is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(connections: Arc<AtomicUsize>) -> Self {
        connections.fetch_add(1, Ordering::Relaxed);
        Self(connections)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn run(runtime: &Runtime, worker: usize, mut stopped: watch::Receiver<bool>) {
    CURRENT.set(worker);
    runtime.block_on(async {
        tokio::select! {
            // A sender that is gone has nothing more to say, which ends the thread as well.
            _ = stopped.wait_for(|&stopped| stopped) => {}
            () = heartbeat() => {}
        }
    });
}

/// A worker's timer that is always due soon, as long as there are requests.
#[derive(Default)]
struct Heart {
    /// Whether there was a request since the last beat.
    is_busy: Cell<bool>,
    /// Whether the next beat waits for one.
    is_at_rest: Cell<bool>,
    stirred: Notify,
}

/// Keeps a timer of its event loop due soon while requests come, forever.
///
/// A timer that is due before all others makes tokio wake its event loop with a system call. Without a shorter one
/// beside them the timeouts of requests, which hardly ever fire, would do that for every fourth request under load.
async fn heartbeat() {
    let heart = HEART.with(Rc::clone);
    loop {
        tokio::time::sleep(HEARTBEAT).await;
        if !heart.is_busy.replace(false) {
            heart.is_at_rest.set(true);
            heart.stirred.notified().await;
        }
    }
}

/// Shorter than the timeouts that requests have.
const HEARTBEAT: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn workers(count: usize) -> Workers {
        Workers::start(NonZeroUsize::new(count).expect("above zero")).expect("threads")
    }

    #[test]
    fn a_connection_goes_to_the_worker_that_has_the_fewest() {
        let workers = workers(3);
        let (said, workers_of) = mpsc::channel();
        // The first of three ends, so the fourth takes its place.
        let connect = |end: Option<tokio::sync::oneshot::Receiver<()>>| {
            let said = said.clone();
            workers.spawner().spawn(async move {
                said.send(current()).expect("heard");
                match end {
                    Some(end) => drop(end.await),
                    None => std::future::pending().await,
                }
            });
            workers_of.recv().expect("a worker")
        };
        let (end, ended) = tokio::sync::oneshot::channel();
        let first = connect(Some(ended));
        let mut three = [first, connect(None), connect(None)];
        three.sort_unstable();
        assert_eq!(three, [0, 1, 2]);
        end.send(()).expect("it waits");
        let connections = |worker: usize| workers.spawner().0[worker].connections.load(Ordering::Relaxed);
        while connections(first) > 0 {
            thread::yield_now();
        }
        assert_eq!(connect(None), first);
        workers.stop();
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_without_requests_sets_no_timers() {
        let is_at_rest = || HEART.with(|heart| heart.is_at_rest.get());
        let requests = async {
            for _ in 0..3 {
                tokio::time::sleep(10 * HEARTBEAT).await;
                assert!(is_at_rest(), "there was none");
                for _ in 0..10 {
                    stir();
                    tokio::time::sleep(HEARTBEAT / 2).await;
                    assert!(!is_at_rest(), "there was one just now");
                }
            }
        };
        tokio::select! {
            () = heartbeat() => {}
            () = requests => {}
        }
    }

    #[test]
    fn what_is_not_finished_ends_with_the_threads() {
        let workers = workers(2);
        let alive = Arc::new(());
        for _ in 0..4 {
            let alive = Arc::clone(&alive);
            workers.spawner().spawn(async move {
                std::future::pending::<()>().await;
                drop(alive);
            });
        }
        workers.stop();
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
