//! The house rules as tests: who may use whom, where a vendor's crate may appear, what a file looks like. Reads the source as
//! text and is content with patterns; it never compiles anything, and a folder that does not exist yet breaks no rule.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

mod source;

use source::{RustFile, files_under, names_crate, root, rust_files, uses};

/// Who may use whom, by top-level module; `pipeline::accept` means that stage only. Layers point downward: a new arrow needs a
/// reason in ARCHITECTURE.md, not just a line here.
const LAYERS: &[(&str, &[&str])] = &[
    ("domain", &[]),
    // A macro and what it needs; it stands wherever a process may be made to die.
    ("failpoint", &[]),
    ("clock", &["domain"]),
    ("dns", &[]),
    ("config", &["domain"]),
    ("telemetry", &["config"]),
    ("template", &["domain"]),
    ("mime", &["domain", "template"]),
    ("smtp", &["domain", "clock", "config"]),
    ("sink", &["domain", "clock", "smtp"]),
    ("store", &["domain", "config"]),
    ("pipeline", &["domain", "clock", "config", "dns", "template", "mime", "smtp", "store"]),
    ("selftest", &["domain", "clock", "sink", "store"]),
    (
        "web",
        &[
            "domain",
            "clock",
            "config",
            "dns",
            "sink",
            "store",
            "template",
            "mime",
            "pipeline::accept",
            "pipeline::control",
            "pipeline::outlet",
            "pipeline::outlook",
            "pipeline::dkim",
            "pipeline::relays",
            // Testing a relay is the one thing that a request speaks SMTP for.
            "pipeline::probe",
        ],
    ),
];

/// The modules that put everything together and so may use everything.
const TOP: &[&str] = &["app", "cli", "main", "lib"];

/// The stages of the pipeline. None of them imports another, but for those that delivery carries messages through: the
/// worker calls them, in order.
const STAGES: &[&str] = &[
    "accept", "fan_out", "lease", "compose", "deliver", "settle", "sweep", "schedule", "control", "relays", "probe",
    "outlook", "dkim",
];

/// What delivery carries every single message through: it composes it, watches the lease and settles it.
const CARRIED: &[&str] = &["compose", "lease", "settle"];

/// One vendor, one folder: where each of these crates may be named. Crates not listed are tools for everybody.
const VENDORS: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("minijinja", &["template"]),
    ("html2text", &["template"]),
    ("html5ever", &["template"]),
    ("encoding_rs", &["pipeline"]),
    ("lettre", &["mime"]),
    ("mail_auth", &["mime"]),
    ("governor", &["smtp"]),
    ("hickory_resolver", &["dns"]),
    ("rustls", &["smtp", "sink"]),
    ("tokio_rustls", &["smtp", "sink"]),
    ("rustls_platform_verifier", &["smtp"]),
    ("axum", &["web"]),
    ("axum_extra", &["web"]),
    ("tower_http", &["web"]),
    ("askama", &["web"]),
    ("askama_web", &["web"]),
    ("utoipa", &["web"]),
    ("utoipa_axum", &["web"]),
    ("argon2", &["web"]),
    ("idna", &["domain"]),
    ("toml", &["config"]),
    ("fail", &["failpoint"]),
    ("tracing_subscriber", &["telemetry"]),
    ("clap", &["cli", "main"]),
    ("indicatif", &["cli", "main"]),
];

/// Most lines of a source file. What is longer tells two stories.
const FILE_LINES_MAX: usize = 600;

#[test]
fn layers_point_downward() {
    let mut broken = Vec::new();
    for file in rust_files(&["src"]) {
        let Some(allowed) = allowed_modules(&file.module) else {
            broken.push(format!("{}: `{}` is not in the table of layers: give it a place", file.path, file.module));
            continue;
        };
        for used in uses(&file.code, "crate").into_iter().chain(uses_through_super(&file)) {
            let top = used.split("::").next().unwrap_or(&used);
            if top != file.module && !allowed.contains(&top) && !allowed.contains(&used.as_str()) {
                broken.push(format!("{}: {} may not use crate::{used}", file.path, file.module));
            }
        }
    }
    report("a layer is skipped or turned round", "move the code down, or pass the value in", broken);
}

#[test]
fn stages_of_the_pipeline_do_not_import_each_other() {
    let mut broken = Vec::new();
    for file in rust_files(&["src/pipeline"]) {
        let stage = file.path.split('/').nth(2).unwrap_or_default().trim_end_matches(".rs");
        if !STAGES.contains(&stage) {
            continue;
        }
        for used in uses(&file.code, "crate::pipeline")
            .into_iter()
            .chain(uses(&file.code, "super"))
        {
            let other = used.split("::").next().unwrap_or(&used);
            let carries = stage == "deliver" && CARRIED.contains(&other);
            if other != stage && STAGES.contains(&other) && !carries {
                broken.push(format!("{}: {stage} uses {other}", file.path));
            }
        }
    }
    report("a stage knows another", "let the worker hand the value over, or move it to domain", broken);
}

#[test]
fn a_vendors_crate_stays_in_its_folder() {
    let mut broken = Vec::new();
    for file in rust_files(&["src"]) {
        for (vendor, homes) in VENDORS {
            if !homes.contains(&file.module.as_str()) && names_crate(&file.code, vendor) {
                broken.push(format!("{}: `{vendor}` belongs to {}", file.path, homes.join(" and ")));
            }
        }
    }
    report("a vendor's crate leaks", "wrap it where it belongs and use our own type here", broken);
}

#[test]
fn every_file_says_what_it_is() {
    let without = rust_files(&["src", "tests", "benches"]).into_iter();
    let broken = without
        .filter(|f| !f.text.starts_with("//! "))
        .map(|f| f.path)
        .collect();
    report("a file does not open with `//!`", "say in a line or two what it is and what it never does", broken);
}

#[test]
fn a_file_tells_one_story() {
    let lengths = rust_files(&["src", "tests", "benches"])
        .into_iter()
        .map(|f| (f.text.lines().count(), f.path));
    let broken = lengths
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    report("a file has more than 600 lines", "split it by what it tells", broken);
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |engine: &str| -> BTreeSet<String> {
        let files = files_under(&root().join("migrations").join(engine)).into_iter();
        files
            .filter_map(|p| Some(p.file_name()?.to_str()?.to_owned()))
            .collect()
    };
    let broken = names("sqlite")
        .symmetric_difference(&names("postgres"))
        .cloned()
        .collect();
    report("a migration exists for one database only", "write its twin under the same name", broken);
}

#[test]
fn no_tabs_and_nothing_at_the_end_of_a_line() {
    let mut broken = Vec::new();
    for path in ["src", "tests", "benches", "migrations", "templates", "scripts"]
        .iter()
        .flat_map(|d| files_under(&root().join(d)))
    {
        check_whitespace(&path, &mut broken);
    }
    for path in fs::read_dir(root())
        .expect("the root can be listed")
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_file())
    {
        check_whitespace(&path, &mut broken);
    }
    report("a line has a tab, or a space at its end", "remove it", broken);
}

#[test]
fn the_wall_clock_is_read_in_one_place() {
    let broken = rust_files(&["src"])
        .into_iter()
        .filter(|f| f.module != "clock")
        .filter(|f| {
            ["SystemTime", "Timestamp", "Zoned"]
                .iter()
                .any(|t| f.code.contains(&format!("{t}::now(")))
        })
        .map(|f| f.path)
        .collect();
    report(
        "the time is read outside src/clock.rs",
        "take `now: Timestamp`, or a `&dyn Clock` in a loop",
        broken,
    );
}

#[test]
fn only_the_command_line_prints() {
    let broken = rust_files(&["src"])
        .into_iter()
        .filter(|f| !TOP.contains(&f.module.as_str()))
        .filter(|f| {
            ["println!(", "eprintln!(", "print!("]
                .iter()
                .any(|p| f.code.contains(p))
        })
        .map(|f| f.path)
        .collect();
    report("something prints past the log", "use tracing; the print macros panic when nobody reads", broken);
}

#[test]
fn what_cannot_fail_says_why() {
    let broken = rust_files(&["src"])
        .into_iter()
        .filter(|f| !f.path.ends_with("tests.rs") && !f.path.contains("/tests/"))
        .filter(|f| {
            f.code
                .split("#[cfg(test)]\nmod tests {")
                .next()
                .is_some_and(|c| c.contains(".unwrap()"))
        })
        .map(|f| f.path)
        .collect();
    report("`unwrap()` outside tests", "use `expect(\"why it cannot fail\")`, or return the error", broken);
}

#[test]
fn every_test_file_is_part_of_the_test_program() {
    let dir = root().join("tests/it");
    let main = fs::read_to_string(dir.join("main.rs")).expect("tests/it/main.rs is there");
    let broken = fs::read_dir(&dir)
        .expect("tests/it can be listed")
        .flatten()
        .filter_map(|entry| entry.path().file_stem()?.to_str().map(str::to_owned))
        .filter(|name| !["main", "snapshots"].contains(&name.as_str()))
        .filter(|name| !main.lines().any(|line| line == format!("mod {name};")))
        .collect();
    report("a file in tests/it is not compiled, so its tests never run", "add `mod NAME;` to main.rs", broken);
}

/// What a module may use; `None` when it has no place in the table. Modules at the top may use everything.
fn allowed_modules(module: &str) -> Option<Vec<&'static str>> {
    if TOP.contains(&module) {
        return Some(
            LAYERS
                .iter()
                .map(|(name, _)| *name)
                .chain(TOP.iter().copied())
                .collect(),
        );
    }
    LAYERS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, allowed)| allowed.to_vec())
}

/// Top-level modules that a file reaches upward, by `super::` from a module's own file or `super::super::` from below it.
fn uses_through_super(file: &RustFile) -> Vec<String> {
    let depth = file.path.trim_end_matches("/mod.rs").split('/').count() - 1;
    let known = |name: &String| {
        let top = name.split("::").next().unwrap_or(name);
        LAYERS.iter().any(|(module, _)| *module == top) || TOP.contains(&top)
    };
    uses(&file.code, &vec!["super"; depth].join("::"))
        .into_iter()
        .filter(known)
        .collect()
}

/// Complains about tabs and trailing blanks, in the files that people write.
fn check_whitespace(path: &Path, broken: &mut Vec<String>) {
    let written = ["rs", "sql", "toml", "md", "html", "css", "yml", ""];
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let Ok(text) = fs::read_to_string(path) else {
        return;
    };
    if !written.contains(&extension) {
        return;
    }
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains('\t') || line.ends_with(' '))
    {
        let shown = path.strip_prefix(root()).unwrap_or(path).display();
        broken.push(format!("{shown}:{}: {}", number + 1, line.escape_debug()));
    }
}

/// Fails with the rule, the way out and every place that breaks the rule.
fn report(rule: &str, fix: &str, broken: Vec<String>) {
    assert!(broken.is_empty(), "{rule} ({fix}):\n  {}", broken.join("\n  "));
}
