//! What the design says of the source tree, checked: which module may import which, what every file has, and what no
//! file has.
//!
//! Each check is a pure function of a file's path and text, and is shown to catch what it is for. They read Rust as
//! [`Token`]s, so that comments and strings say what they like.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    path::Path,
};

use toml::{Table, Value};

use crate::workspace;

/// Which module of the server may import which others; `main` and `cli` are the binary's. What is not here is
/// forbidden. Nothing below `http` knows HTTP, and what computes does not know what it computes for.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["app", "config", "engine", "feedback", "http", "repository", "retrain", "rollout", "REVISION"]),
    (
        "app",
        &[
            "http",
            "rollout",
            "repository",
            "engine",
            "drift",
            "feedback",
            "retrain",
            "metrics",
            "config",
            "workers",
            "REVISION",
        ],
    ),
    ("workers", &[]),
    ("pace", &[]),
    (
        "http",
        &[
            "codec",
            "features",
            "rollout",
            "repository",
            "batcher",
            "recommend",
            "tensor",
            "drift",
            "feedback",
            "retrain",
            "metrics",
            "config",
            "workers",
        ],
    ),
    // What is asked of a catalogue is a body of its own, and so is what is told.
    ("codec", &["features", "feedback", "recommend", "tensor"]),
    ("features", &["tensor"]),
    // By what is seen of two versions, and by nothing else of them.
    ("rollout", &["repository", "feedback", "quality", "metrics", "config"]),
    (
        "repository",
        &[
            "batcher",
            "recommend",
            "engine",
            "features",
            "drift",
            "quality",
            "tensor",
            "metrics",
            "config",
            "pace",
        ],
    ),
    // Which worker a request is on decides which batch it joins.
    ("batcher", &["engine", "tensor", "metrics", "workers"]),
    ("recommend", &["engine", "features", "tensor", "metrics"]),
    ("engine", &["tensor"]),
    ("tensor", &[]),
    // What callers sent is in their bodies alone.
    ("drift", &["codec", "features", "metrics", "pace", "quality"]),
    // A label finds its answer by the receipt alone, and never by what is loaded.
    ("feedback", &["metrics", "quality"]),
    // It meets the trainer in files only, and asks the repository which models there are.
    ("retrain", &["feedback", "metrics", "repository"]),
    ("metrics", &[]),
    // How far the values of rows have moved is a question about features.
    ("quality", &["features", "tensor"]),
    // The options of a batcher, drift, an engine, recommendations, a repository, rollouts and a retraining are their types.
    (
        "config",
        &[
            "batcher",
            "drift",
            "engine",
            "feedback",
            "quality",
            "recommend",
            "repository",
            "retrain",
            "rollout",
        ],
    ),
    ("lib", &[]),
];

/// What of the server the trainer may use: it is another process, and knows none of what serves.
const TRAINER_MAY_USE: &[&str] = &["features", "repository", "engine", "quality", "tensor", "REVISION"];

/// What its tests may use as well, to send rows and to ask for items as a caller does, and to export as a server does.
const TRAINER_TESTS_MAY_USE: &[&str] = &["codec", "feedback", "metrics", "recommend"];

/// Names for files that hold whatever was left over.
const NO_NOUNS: &[&str] =
    &["util", "utils", "common", "helper", "helpers", "misc", "types", "manager", "managers"];

/// Paths of the machine that something was written on. Tests may name them.
const MACHINES: &[&str] = &["/work/", "/tmp/", "../shared"];

/// The only folders with unsafe code. The kernels' tests launch them.
const UNSAFE: &[&str] = &["server/engine/", "tensorrt/", "kernels/tests/"];

#[test]
fn modules_import_what_the_design_lets_them() {
    assert_clean(tree().iter().flat_map(|(path, text)| imports(path, text)));
}

#[test]
fn the_table_of_imports_names_the_modules_that_there_are() {
    let tree = tree();
    let there: BTreeSet<&str> = tree.keys().filter_map(|path| module(path)).collect();
    let named: BTreeSet<&str> = MAY_IMPORT.iter().map(|(name, _)| *name).collect();
    assert_eq!(named, there);
    let imported = MAY_IMPORT.iter().flat_map(|(_, names)| *names).filter(|name| **name != "REVISION");
    let unknown: Vec<_> = imported.filter(|name| !named.contains(*name)).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

#[test]
fn every_file_says_what_it_is() {
    assert_clean(tree().iter().filter_map(|(path, text)| front_page(path, text)));
}

#[test]
fn every_file_is_part_of_a_target() {
    let (tree, roots) = (tree(), roots());
    assert!(roots.contains("server/lib.rs") && roots.contains("trainer/lib.rs"), "{roots:?}");
    assert_clean(dead_files(&tree, &roots));
}

#[test]
fn every_file_is_named_for_a_noun() {
    assert_clean(tree().keys().filter_map(|path| name(path)));
}

#[test]
fn no_file_knows_the_machine_that_it_was_written_on() {
    assert_clean(texts(|_| true).iter().flat_map(|(path, text)| machine_paths(path, text)));
}

#[test]
fn only_engines_are_unsafe() {
    assert_clean(tree().iter().flat_map(|(path, text)| unsafe_code(path, text)));
}

/// A file, a line, and what is wrong there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    path: String,
    line: usize,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

fn finding(path: &str, line: usize, what: impl Into<String>) -> Finding {
    Finding { path: path.to_owned(), line, what: what.into() }
}

fn assert_clean(findings: impl IntoIterator<Item = Finding>) {
    let findings: Vec<String> = findings.into_iter().map(|finding| finding.to_string()).collect();
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// The module of the server that a file belongs to.
fn module(path: &str) -> Option<&str> {
    let first = path.strip_prefix("server/")?.split('/').next()?;
    Some(first.strip_suffix(".rs").unwrap_or(first))
}

fn imports(path: &str, text: &str) -> Vec<Finding> {
    let (who, allowed) = if path.starts_with("trainer/") {
        ("the trainer", TRAINER_MAY_USE)
    } else {
        let Some(module) = module(path) else { return Vec::new() };
        let row = MAY_IMPORT.iter().find(|(name, _)| *name == module);
        // A module without a row is reported by the check of the table.
        let Some((_, allowed)) = row else { return Vec::new() };
        (module, *allowed)
    };
    let server = path.starts_with("server/");
    paths(&tokens(text), depth(path))
        .into_iter()
        .filter(|found| found.root == Root::Server || server)
        .filter(|found| found.name != who && !allowed.contains(&found.name.as_str()))
        .filter(|found| {
            !(path.starts_with("trainer/tests/") && TRAINER_TESTS_MAY_USE.contains(&&*found.name))
        })
        .map(|found| finding(path, found.line, format!("{who} may not import {}", found.name)))
        .collect()
}

/// How many modules deep a file of the server is: 1 for `server/tensor.rs`, 2 for `server/batcher/queue.rs`.
fn depth(path: &str) -> usize {
    let inside = path.strip_prefix("server/").unwrap_or(path);
    let names = inside.split('/').count();
    let names_its_folder = ["mod.rs", "lib.rs", "main.rs"].iter().any(|name| inside.ends_with(name));
    if names_its_folder { names - 1 } else { names }
}

fn front_page(path: &str, text: &str) -> Option<Finding> {
    let first = text.lines().next().unwrap_or_default();
    let says = first.strip_prefix("//!").is_some_and(|rest| !rest.trim().is_empty());
    (!says).then(|| finding(path, 1, "does not open with `//!` and what it is"))
}

fn name(path: &str) -> Option<Finding> {
    let mut names = path.split('/').map(|name| name.strip_suffix(".rs").unwrap_or(name));
    let found = names.find(|name| NO_NOUNS.contains(name))?;
    Some(finding(path, 1, format!("`{found}` is no noun for what is in it")))
}

fn machine_paths(path: &str, text: &str) -> Vec<Finding> {
    if path.split('/').any(|folder| folder == "tests") {
        return Vec::new();
    }
    // What stands before the path must not be the rest of a longer one.
    let is_longer = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "_.-})".contains(c));
    let names = |line: &str, machine| line.match_indices(machine).any(|(at, _)| !is_longer(&line[..at]));
    let found = |(index, line): (usize, &str)| {
        let machine = MACHINES.iter().find(|machine| names(line, **machine))?;
        Some(finding(path, index + 1, format!("names {machine}")))
    };
    text.lines().enumerate().filter_map(found).collect()
}

fn unsafe_code(path: &str, text: &str) -> Vec<Finding> {
    if UNSAFE.iter().any(|folder| path.starts_with(folder)) {
        return Vec::new();
    }
    let found = tokens(text).into_iter().filter(|token| token.text == "unsafe");
    let what = format!("unsafe code outside of {}", UNSAFE.join(" and "));
    found.map(|token| finding(path, token.line, &*what)).collect()
}

/// The files that no `mod` leads to from one of the `roots`.
fn dead_files(tree: &BTreeMap<String, String>, roots: &BTreeSet<String>) -> Vec<Finding> {
    let mut alive = BTreeSet::new();
    let mut next: Vec<String> = roots.iter().cloned().collect();
    while let Some(path) = next.pop() {
        if let Some(text) = tree.get(&path)
            && alive.insert(path.clone())
        {
            let folder = folder_of_modules(&path, roots.contains(&path));
            for name in modules(&tokens(text)) {
                next.extend([format!("{folder}{name}.rs"), format!("{folder}{name}/mod.rs")]);
            }
        }
    }
    let dead = tree.keys().filter(|path| !alive.contains(*path));
    dead.map(|path| finding(path, 1, "no target has it")).collect()
}

/// Where the modules lie that a file declares, with a `/` at the end.
fn folder_of_modules(path: &str, is_root: bool) -> String {
    let (folder, file) = path.rsplit_once('/').map_or(("", path), |(folder, file)| (folder, file));
    let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    if is_root || file == "mod.rs" { folder } else { format!("{folder}{}/", file.trim_end_matches(".rs")) }
}

/// The modules that `tokens` declare without a body.
fn modules(tokens: &[Token]) -> Vec<&str> {
    let declared = tokens.windows(3).filter(|three| three[0].text == "mod" && three[2].text == ";");
    declared.map(|three| three[1].text.as_str()).collect()
}

/// A path that starts from the crate's root, or from the server's crate by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FromRoot {
    root: Root,
    /// The first name after the root.
    name: String,
    line: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Root {
    /// `crate`, or enough of `super`.
    Crate,
    /// `millrace`.
    Server,
}

/// Every path in a file that is `depth` modules deep, `use` or not, that starts from a root.
fn paths(tokens: &[Token], depth: usize) -> Vec<FromRoot> {
    let mut found = Vec::new();
    let mut inline = InlineModules::default();
    for (at, token) in tokens.iter().enumerate() {
        inline.see(tokens, at);
        // A path goes on here, it does not start.
        if at > 0 && tokens[at - 1].text == "::" {
            continue;
        }
        let mut walk = Walk { tokens, found: &mut found };
        match token.text.as_str() {
            "crate" => walk.follow(at + 1, Start::At(Root::Crate)),
            "millrace" => walk.follow(at + 1, Start::At(Root::Server)),
            "super" => walk.follow(at + 1, Start::Below(depth + inline.depth() - 1)),
            _ => {}
        }
    }
    found
}

/// Where a path has come to.
#[derive(Clone, Copy)]
enum Start {
    At(Root),
    /// So many modules below the root of the crate.
    Below(usize),
}

struct Walk<'a> {
    tokens: &'a [Token],
    found: &'a mut Vec<FromRoot>,
}

impl Walk<'_> {
    /// Follows the path that has come to `start` and goes on, if it does, with the `::` at `at`.
    fn follow(&mut self, at: usize, start: Start) {
        if self.text(at) == "::" {
            self.step(at + 1, start);
        }
    }

    /// Follows the path, or each of a group of paths, whose next name is at `at`.
    fn step(&mut self, at: usize, start: Start) {
        let start = match start {
            Start::Below(0) => Start::At(Root::Crate),
            other => other,
        };
        match (self.text(at), start) {
            ("{", start) => self.group(at + 1, start),
            ("super", Start::Below(levels)) => self.follow(at + 1, Start::Below(levels - 1)),
            ("self", _) | (_, Start::Below(_)) => {}
            (name, Start::At(root)) => {
                self.found.push(FromRoot { root, name: name.to_owned(), line: self.tokens[at].line });
            }
        }
    }

    /// Follows each path of the group whose first is at `at`.
    fn group(&mut self, mut at: usize, start: Start) {
        let mut nested = 0;
        let mut first = true;
        loop {
            match self.text(at) {
                "}" if nested == 0 => return,
                "" => return,
                "{" => nested += 1,
                "}" => nested -= 1,
                "," if nested == 0 => {
                    at += 1;
                    first = true;
                    continue;
                }
                _ if first => self.step(at, start),
                _ => {}
            }
            first = false;
            at += 1;
        }
    }

    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| &token.text)
    }
}

/// The modules with a body that enclose a token.
#[derive(Default)]
struct InlineModules {
    /// For each open brace whether it is a module's.
    braces: Vec<bool>,
}

impl InlineModules {
    fn see(&mut self, tokens: &[Token], at: usize) {
        match tokens[at].text.as_str() {
            "{" => self.braces.push(at >= 2 && tokens[at - 2].text == "mod"),
            "}" => drop(self.braces.pop()),
            _ => {}
        }
    }

    fn depth(&self) -> usize {
        self.braces.iter().filter(|is_module| **is_module).count()
    }
}

/// A word, a `::`, or any other character of Rust code; comments, strings and characters are left out.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        let is_word = first.is_alphanumeric() || first == '_';
        let is_literal = is_word && token.contains(['"', '\'']);
        if (is_word && !is_literal) || token == "::" || (length == first.len_utf8() && !first.is_whitespace())
        {
            found.push(Token { text: token.to_owned(), line });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    found
}

/// Bytes of the comment, literal, word or character that `text` starts with.
fn token_length(text: &str) -> usize {
    let word = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (prefix, rest) = text.split_at(word);
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    match prefix {
        "r" | "br" | "cr" if rest[hashes..].starts_with('"') => {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = word + hashes + 1;
            text[start..].find(&end).map_or(text.len(), |length| start + length + end.len())
        }
        "" | "b" | "c" if rest.starts_with('"') => word + quoted(rest, '"'),
        "" | "b" if rest.starts_with('\'') && !is_lifetime(rest) => word + quoted(rest, '\''),
        "" if text.starts_with("//") => text.find('\n').unwrap_or(text.len()),
        "" if text.starts_with("/*") => block_comment(text),
        "" if text.starts_with("::") => 2,
        "" => text.chars().next().map_or(0, char::len_utf8),
        _ => word,
    }
}

/// Bytes of a literal between two `quote`s, both among them.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    let end = text.char_indices().skip(1).find(|&(_, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    end.map_or(text.len(), |(at, _)| at + quote.len_utf8())
}

/// Whether the quote that `text` starts with is a lifetime's and not a character's.
fn is_lifetime(text: &str) -> bool {
    let mut chars = text.chars().skip(1);
    chars.next().is_some_and(|c| c.is_alphabetic() || c == '_') && chars.next() != Some('\'')
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        match rest {
            [b'/', b'*', ..] => depth += 1,
            [b'*', b'/', ..] => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Every Rust file of the workspace.
fn tree() -> BTreeMap<String, String> {
    let tree = texts(|path| path.extension().is_some_and(|extension| extension == "rs"));
    assert!(tree.contains_key("tests/it/tidy.rs"), "the workspace was found");
    tree
}

/// Every file of the workspace that is text and that somebody wrote, by its path.
fn texts(wanted: impl Fn(&Path) -> bool) -> BTreeMap<String, String> {
    let mut folders = vec![workspace()];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = entry.expect("an entry of the workspace").path();
            let relative =
                path.strip_prefix(workspace()).expect("inside").to_str().expect("UTF-8").to_owned();
            let is_made = NOT_WRITTEN.contains(&relative.as_str());
            let is_hidden = relative.rsplit('/').next().is_some_and(|name| name.starts_with('.'));
            if path.is_dir() {
                folders.extend((!is_made && !is_hidden).then_some(path));
            } else if !is_hidden && wanted(&path) {
                // What is no text was not written by hand.
                found.extend(fs::read_to_string(&path).ok().map(|text| (relative, text)));
            }
        }
    }
    found
}

/// Build outputs, and models that were trained.
const NOT_WRITTEN: &[&str] = &["target", "models"];

/// The file of every target of every package.
fn roots() -> BTreeSet<String> {
    let mut roots = BTreeSet::new();
    for (path, text) in texts(|path| path.ends_with("Cargo.toml")) {
        let folder = path.strip_suffix("Cargo.toml").expect("asked for");
        let manifest: Table = toml::from_str(&text).expect("a manifest");
        // A member's target may lie beside it, never further away: the members are folders of the root.
        let path =
            |target: &str| target.strip_prefix("../").map_or(format!("{folder}{target}"), str::to_owned);
        roots.extend(targets(&manifest).into_iter().map(path));
    }
    roots
}

/// The files of a package's targets, which all give their path.
fn targets(manifest: &Table) -> Vec<&str> {
    let kinds = ["lib", "bin", "test", "bench", "example"];
    let listed = kinds.iter().filter_map(|kind| manifest.get(*kind)).flat_map(|targets| match targets {
        Value::Array(targets) => targets.iter().collect(),
        target => vec![target],
    });
    let paths = listed.filter_map(|target| target.get("path")?.as_str());
    let build = manifest.get("package").and_then(|package| package.get("build")?.as_str());
    paths.chain(build).collect()
}

mod tests {
    use super::*;

    fn said(findings: impl IntoIterator<Item = Finding>) -> Vec<String> {
        findings.into_iter().map(|finding| finding.to_string()).collect()
    }

    #[test]
    fn a_forbidden_import_is_found_however_it_is_written() {
        for text in [
            "use crate::batcher::Batcher;",
            "use crate::{tensor::Rows, batcher::{Batcher, Lane}};",
            "use crate::{\n    tensor::{DType, Rows},\n    batcher,\n};",
            "fn f(b: &crate::batcher::Batcher) {}",
            "pub use crate::batcher as b;",
            "use super::super::batcher::Batcher;",
            "use super::{super::batcher::Batcher, Engine};",
            "mod tests { use super::super::super::batcher::Batcher; }",
            "mod tests { use super::{super::super::{tensor, batcher::Batcher}, *}; }",
            "#[cfg(test)]\nmod tests {\n    use crate::batcher::Batcher;\n}",
        ] {
            let found = said(imports("server/engine/onnx.rs", text));
            assert_eq!(found.len(), 1, "{text}: {found:?}");
            assert!(found[0].ends_with("engine may not import batcher"), "{found:?}");
        }
        let found = said(imports("server/tensor.rs", "\n\nuse super::engine::Engine;"));
        assert_eq!(found, ["server/tensor.rs:3: tensor may not import engine"]);
    }

    #[test]
    fn what_only_looks_like_an_import_is_none() {
        for text in [
            "use crate::tensor::Rows;",
            "use crate::engine::Engine;",
            "use super::{Engine, EngineError};",
            "use super::batcher::NotTheOther;",
            "mod tests { use super::super::Engine; }",
            "mod tests { mod more { use super::super::super::Engine; } }",
            "pub(crate) fn f() {}",
            "// use crate::batcher::Batcher;",
            "/* use crate::batcher /* nested */ ::Batcher; */",
            "//! See [`crate::batcher`].",
            r#"const S: &str = "crate::batcher";"#,
            r##"const S: &str = r#"a " crate::batcher"#;"##,
            r#"const C: char = '"'; const D: char = '\''; // crate::batcher"#,
            "fn f<'a>(x: &'a str) {} // crate::batcher",
            "use other::crate_like::batcher;",
        ] {
            assert_eq!(said(imports("server/engine/onnx.rs", text)), [""; 0], "{text}");
        }
    }

    #[test]
    fn the_binary_and_the_trainer_are_held_to_what_they_name_of_the_server() {
        let found = said(imports("server/cli/serve.rs", "use millrace::{app::App, batcher::Lane};"));
        assert_eq!(found, ["server/cli/serve.rs:1: cli may not import batcher"]);
        let text = "use millrace::{REVISION, features::Encoder};\nuse crate::app::X;\nuse millrace::http::Y;";
        let found = said(imports("trainer/model/mod.rs", text));
        assert_eq!(found, ["trainer/model/mod.rs:3: the trainer may not import http"]);
        assert_eq!(said(imports("tests/it/x.rs", "use millrace::http::Y;")), [""; 0]);
    }

    #[test]
    fn a_file_that_does_not_say_what_it_is_is_found() {
        assert_eq!(front_page("a.rs", "//! What it is.\n"), None);
        for text in ["", "use std::fs;", "\n//! Too late.", "/// Of what follows.", "//!\n//! Not at once."] {
            assert!(front_page("a.rs", text).is_some(), "{text}");
        }
    }

    #[test]
    fn a_file_that_no_module_leads_to_is_found() {
        let files = [
            ("build.rs", ""),
            ("server/lib.rs", "pub mod a;\nmod b;\nmod inline { fn f() {} }"),
            ("server/a.rs", "mod deep;"),
            ("server/a/deep.rs", ""),
            ("server/b/mod.rs", "#[cfg(test)]\nmod tests;\n// mod commented;"),
            ("server/b/tests.rs", ""),
            ("server/b/commented.rs", ""),
            ("server/inline.rs", ""),
            ("server/deep.rs", ""),
        ];
        let tree = files.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        let roots = ["build.rs", "server/lib.rs"].map(str::to_owned).into();
        let dead: Vec<_> = dead_files(&tree, &roots).into_iter().map(|finding| finding.path).collect();
        assert_eq!(dead, ["server/b/commented.rs", "server/deep.rs", "server/inline.rs"]);
    }

    #[test]
    fn targets_are_found_in_a_manifest() {
        let manifest = r#"
            package = { name = "x", build = "build.rs" }
            lib = { path = "lib.rs" }
            bin = [{ path = "main.rs" }, { path = "other.rs" }]
            test = [{ name = "it", path = "tests/main.rs" }]
        "#;
        let manifest = toml::from_str(manifest).expect("a manifest");
        assert_eq!(targets(&manifest), ["lib.rs", "main.rs", "other.rs", "tests/main.rs", "build.rs"]);
    }

    #[test]
    fn a_name_without_a_noun_is_found() {
        for path in ["server/util.rs", "server/http/helpers.rs", "trainer/common/mod.rs", "tests/it/types.rs"]
        {
            assert!(name(path).is_some(), "{path}");
        }
        for path in ["server/utility_bill.rs", "server/tensor.rs", "server/http/mod.rs"] {
            assert_eq!(name(path), None);
        }
    }

    #[test]
    fn a_path_of_some_machine_is_found_outside_of_tests() {
        let text = "fine\npath = \"/work/x\"\ntarget/tmp/x $HOME/work/x\n# ../shared/data\nTMP=/tmp/x";
        let found = said(machine_paths("deploy/x.sh", text));
        let expected =
            ["deploy/x.sh:2: names /work/", "deploy/x.sh:4: names ../shared", "deploy/x.sh:5: names /tmp/"];
        assert_eq!(found, expected);
        assert_eq!(machine_paths("trainer/tests/x.rs", text), []);
    }

    #[test]
    fn unsafe_code_is_found_outside_of_engines() {
        let text = "#![deny(unsafe_code)]\n// unsafe\nfn f() { unsafe { g() } }";
        assert_eq!(
            said(unsafe_code("server/http/mod.rs", text)),
            ["server/http/mod.rs:3: unsafe code outside of server/engine/ and tensorrt/ and kernels/tests/"]
        );
        assert_eq!(unsafe_code("server/engine/onnx.rs", text), []);
        assert_eq!(unsafe_code("tensorrt/library.rs", text), []);
    }

    #[test]
    fn the_depth_of_a_file_is_that_of_its_module() {
        let depths = ["server/lib.rs", "server/tensor.rs", "server/engine/mod.rs", "server/engine/onnx.rs"];
        assert_eq!(depths.map(depth), [0, 1, 1, 2]);
    }
}
