//! Records the git revision that a binary was built from.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=.git/HEAD");
    println!("cargo::rerun-if-changed=.git/refs");
    println!("cargo::rustc-env=MILLRACE_REVISION={}", revision().unwrap_or_else(|| "unknown".to_owned()));
}

/// The short hash of HEAD; `None` where this is no checkout, as in a source archive.
fn revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}
