//! How long a model takes, from measurements: what [`super::stopwatch`] took, as the figures of a report.

use std::time::Duration;

use serde::Serialize;

/// How long the exported model takes for batches of several sizes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// What computed it.
    pub engine: String,
    /// Threads that computed a batch.
    pub threads: usize,
    /// Each size of a batch.
    pub batches: Vec<BatchLatency>,
    /// The share of the machine's time that others took from it meanwhile; `None` where the system does not say.
    pub steal_share: Option<f64>,
}

/// How long a batch takes, from encoded rows to scores.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BatchLatency {
    /// Rows in the batch.
    pub rows: usize,
    /// Runs that were timed.
    pub runs: usize,
    /// What half of the runs did not exceed, in microseconds.
    pub p50_us: f64,
    /// What 99 of 100 runs did not exceed.
    pub p99_us: f64,
    /// Rows in a second, by the mean run.
    pub rows_per_second: f64,
}

impl BatchLatency {
    /// The figures of `runs` on batches of `rows` rows; `None` without a run.
    pub fn of(rows: usize, runs: &[Duration]) -> Option<Self> {
        let mut ascending = runs.to_vec();
        ascending.sort_unstable();
        let quantile = |hundredths: usize| {
            let rank = (ascending.len() * hundredths).div_ceil(100).max(1);
            ascending.get(rank - 1).map(|run| run.as_secs_f64() * 1e6)
        };
        let seconds = runs.iter().sum::<Duration>().as_secs_f64();
        Some(Self {
            rows,
            runs: runs.len(),
            p50_us: quantile(50)?,
            p99_us: quantile(99)?,
            rows_per_second: (rows * runs.len()) as f64 / seconds.max(1e-9),
        })
    }
}

/// The machine's time as Linux counts it, in ticks of all cores together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuTicks {
    all: u64,
    stolen: u64,
}

impl CpuTicks {
    /// Reads the first line of `/proc/stat`. `None` where it is not what proc(5) says.
    pub fn parse(stat: &str) -> Option<Self> {
        let mut fields = stat.lines().next()?.split_whitespace();
        (fields.next()? == "cpu").then_some(())?;
        // What guests took is within the user's time; steal is the eighth.
        let ticks: Vec<u64> = fields.take(8).map(str::parse).collect::<Result<_, _>>().ok()?;
        Some(Self { all: ticks.iter().sum(), stolen: *ticks.get(7)? })
    }

    /// The share that was stolen from here to `later`; `None` where no time has passed.
    pub fn steal_share(self, later: Self) -> Option<f64> {
        let all = later.all.checked_sub(self.all).filter(|&all| all > 0)?;
        Some(later.stolen.checked_sub(self.stolen)? as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_ranks_and_the_mean_of_the_runs() {
        let runs: Vec<Duration> = (1..=200).rev().map(Duration::from_micros).collect();
        let found = BatchLatency::of(64, &runs).expect("runs");
        assert_eq!((found.rows, found.runs), (64, 200));
        assert!((found.p50_us - 100.0).abs() < 1e-6 && (found.p99_us - 198.0).abs() < 1e-6, "{found:?}");
        assert!((found.rows_per_second - 64.0 / 100.5e-6).abs() < 1.0, "{found:?}");
        assert_eq!(BatchLatency::of(1, &[]), None);
    }

    #[test]
    fn steal_is_a_share_of_all_ticks() {
        let earlier = CpuTicks::parse("cpu  100 0 50 800 10 0 0 40 7 0\ncpu0 1 2 3").expect("a line");
        let later = CpuTicks::parse("cpu  160 0 60 820 10 0 0 50 7 0").expect("a line");
        assert_eq!(earlier.steal_share(later), Some(0.1));
        assert_eq!(earlier.steal_share(earlier), None);
        for text in ["", "cpu0 1 2 3 4 5 6 7 8", "cpu 1 2 3", "cpu a b c d e f g h"] {
            assert_eq!(CpuTicks::parse(text), None, "{text}");
        }
    }
}
