//! Records the git revision that a binary was built from.

use std::process::Command;

fn main() {
    // In a worktree these are not below `.git`, and a path that is not there would make every build a full one.
    for path in ["HEAD", "refs"].into_iter().filter_map(|name| git(&["rev-parse", "--git-path", name])) {
        println!("cargo::rerun-if-changed={path}");
    }
    let revision = git(&["rev-parse", "--short=12", "HEAD"]);
    println!("cargo::rustc-env=MILLRACE_REVISION={}", revision.unwrap_or_else(|| "unknown".to_owned()));
}

/// What git answers; `None` where this is no checkout, as in a source archive.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}
