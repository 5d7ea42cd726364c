//! Source files read as text, and what can be seen in them without compiling: which modules and crates they name.

use std::fs;
use std::path::{Path, PathBuf};

/// A Rust file: its path from the root, its top-level module, its text, and its text without comments.
pub struct RustFile {
    pub path: String,
    pub module: String,
    pub text: String,
    pub code: String,
}

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn rust_files(folders: &[&str]) -> Vec<RustFile> {
    let paths = folders.iter().flat_map(|folder| files_under(&root().join(folder)));
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
        .map(|path| read(&path))
        .collect()
}

fn read(path: &Path) -> RustFile {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let path = path
        .strip_prefix(root())
        .expect("files are under the root")
        .display()
        .to_string();
    RustFile {
        module: path
            .split('/')
            .nth(1)
            .unwrap_or_default()
            .trim_end_matches(".rs")
            .to_owned(),
        code: without_comments(&text),
        path,
        text,
    }
}

/// All files under a folder, sorted, so that complaints come in the same order everywhere; none when there is no such folder.
pub fn files_under(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        match path.is_dir() {
            true => found.extend(files_under(&path)),
            false => found.push(path),
        }
    }
    found.sort_unstable();
    found
}

/// The text without line comments: whole lines, and what follows code after ` // `. Lines stay in their places.
fn without_comments(text: &str) -> String {
    let code = |line: &str| match line.trim_start().starts_with("//") {
        true => "\n".to_owned(),
        false => format!("{}\n", line.split(" // ").next().unwrap_or(line)),
    };
    text.lines().map(code).collect()
}

/// The paths used below `prefix`, cut to two names: `crate::a::b::C` gives `a::b`, `crate::a::{b, c}` gives `a::b` and `a::c`.
pub fn uses(code: &str, prefix: &str) -> Vec<String> {
    let needle = format!("{prefix}::");
    let starts = code.match_indices(&needle).filter(|(at, _)| starts_a_path(code, *at));
    starts
        .flat_map(|(at, _)| expand(&code[at + needle.len()..], 2))
        .collect()
}

/// The paths at the start of `rest`, each of at most `names` names, with braces opened.
fn expand(rest: &str, names: usize) -> Vec<String> {
    if names == 0 {
        return vec![String::new()];
    }
    if let Some(group) = rest.strip_prefix('{') {
        return split_group(group)
            .into_iter()
            .flat_map(|part| expand(part.trim(), names))
            .collect();
    }
    let end = rest.find(|c: char| !is_name_char(c)).unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    match tail.strip_prefix("::") {
        Some(tail) if !name.is_empty() => expand(tail, names - 1)
            .into_iter()
            .map(|below| {
                if below.is_empty() {
                    name.to_owned()
                } else {
                    format!("{name}::{below}")
                }
            })
            .collect(),
        _ if name.is_empty() => Vec::new(),
        _ => vec![name.to_owned()],
    }
}

/// The parts of `a, b::{c, d}, e}…` up to the closing brace.
fn split_group(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts
}

pub fn names_crate(code: &str, name: &str) -> bool {
    let path = format!("{name}::");
    let paths = code.match_indices(&path).any(|(at, _)| starts_a_path(code, at));
    paths || code.contains(&format!("use {name};")) || code.contains(&format!("use {name} as "))
}

/// Whether a path starts here, rather than a longer name or the middle of another path.
fn starts_a_path(code: &str, at: usize) -> bool {
    !code[..at].ends_with(|c| is_name_char(c) || c == ':')
}

fn is_name_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn the_scanner_sees_every_way_to_name_a_module() {
    let code = "use crate::store::Store;
        let x = crate::domain::id::JobId(1);
        use crate::{web::api, clock};
        use crate::pipeline::{accept, control::{pause}};
        pub(crate) fn f() {}";
    let mut seen = uses(code, "crate");
    seen.sort_unstable();
    let expected = [
        "clock",
        "domain::id",
        "pipeline::accept",
        "pipeline::control",
        "store::Store",
        "web::api",
    ];
    assert_eq!(seen, expected);
    assert_eq!(
        uses("use super::deliver;\nuse super::{settle, worker::Tick};", "super"),
        ["deliver", "settle", "worker::Tick"]
    );
    assert!(names_crate("#[derive(sqlx::FromRow)]", "sqlx"));
    assert!(names_crate("use axum::Router;", "axum"));
    assert!(!names_crate("use tokio_rustls::TlsStream;", "rustls"));
    assert!(!names_crate("use crate::config::toml::x;", "toml"));
    assert_eq!(
        without_comments("a(); // crate::web::x\n    /// crate::web\nlet u = \"http://x\";\n"),
        "a();\n\nlet u = \"http://x\";\n"
    );
}
