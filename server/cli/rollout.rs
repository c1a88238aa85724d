//! `millrace rollout`: shows how the versions of a model are rolled out, and takes part in it.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use anyhow::Context;
use millrace::rollout::{RolloutStatus, Side, Tried};

use super::{flags::Rollout, management};

/// Gives the wish and writes how the rollout stands then.
pub(super) fn run(flags: &Rollout) -> anyhow::Result<()> {
    let body = management::ask(flags.server.management, flags.wish.request())?;
    let status = serde_json::from_slice(&body).context("an answer that is not understood")?;
    io::stdout().write_all(page(&status).as_bytes()).context("standard output")
}

/// What a person wants to know, a line each.
fn page(status: &RolloutStatus) -> String {
    let mut page = format!("{}\n", status.model);
    let mut line = |name: &str, text: &str| {
        let _ = writeln!(page, "  {name:10} {text}");
    };
    line("stable", &status.stable.map_or_else(|| "none".to_owned(), |version| version.to_string()));
    match &status.candidate {
        None => line("candidate", "none"),
        Some(tried) => {
            let Tried { version, stage, share, since, .. } = tried;
            let share = f64::from(*share) * 100.0;
            line("candidate", &format!("{version}, {stage} with {share} % of requests since {since}"));
            if let Some(waiting) = &tried.waiting {
                line("", waiting);
            }
            if let Some(evidence) = &tried.evidence {
                line("", &format!("stable:    {}", side(&evidence.stable)));
                line("", &format!("candidate: {}", side(&evidence.candidate)));
                if let Some([low, high]) = evidence.gain {
                    line("", &format!("better by {low:.4} to {high:.4}"));
                }
            }
        }
    }
    if !status.refused.is_empty() {
        let refused: Vec<String> = status.refused.iter().map(ToString::to_string).collect();
        line("refused", &refused.join(", "));
    }
    if let Some(last) = &status.last {
        let (event, version, reason) = (last.event.name(), last.version, &last.reason);
        line("last", &format!("{}: version {version} {event}, {reason}", last.time));
    }
    page
}

fn side(side: &Side) -> String {
    let Side { answered, faults, p99_ms, labels, quality, .. } = side;
    let number =
        |value: &Option<f64>| value.map_or_else(|| "unknown".to_owned(), |value| format!("{value:.4}"));
    let p99 = p99_ms.map_or_else(|| "unknown".to_owned(), |p99| format!("{p99:.2} ms"));
    format!("{answered} answered, {faults} not, p99 {p99}, {labels} labels, quality {}", number(quality))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_shows_what_is_known() {
        let status = r#"{
            "model": "shop", "stable": 1, "refused": [2], "last": null,
            "candidate": {
                "version": 3, "stage": "canary", "share": 0.25, "since": "2026-01-02T03:04:05Z", "waiting": "waits for labels",
                "evidence": {
                    "age_ms": 5000, "stage": "canary", "measure": "accuracy", "slow": 0, "gain": [-0.1, 0.2],
                    "stable": { "answered": 90, "faults": 0, "p99_ms": 1.5, "labels": 7, "quality": 0.75, "variance": 0.02 },
                    "candidate": { "answered": 30, "faults": 1, "p99_ms": null, "labels": 0, "quality": null, "variance": null }
                }
            }
        }"#;
        let page = page(&serde_json::from_str(status).expect("a status"));
        let expected = "shop
  stable     1
  candidate  3, canary with 25 % of requests since 2026-01-02 3:04:05.0 +00:00:00
             waits for labels
             stable:    90 answered, 0 not, p99 1.50 ms, 7 labels, quality 0.7500
             candidate: 30 answered, 1 not, p99 unknown, 0 labels, quality unknown
             better by -0.1000 to 0.2000
  refused    2
";
        assert_eq!(page, expected);
    }
}
