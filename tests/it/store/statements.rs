//! Every statement of the store, prepared on both databases: neither refuses one, and both answer with the same columns. Reads
//! the sources as text; a statement is a string literal that opens with `-- name`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use hikyaku::store::group;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Either, Executor, SqlSafeStr, Statement};

use super::world::World;

/// Fewer than there are: a scanner that suddenly finds none must not pass.
const STATEMENTS_MIN: usize = 90;

/// What a database makes of a statement: its parameters and the names of its columns.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    parameters: usize,
    columns: Vec<String>,
}

#[tokio::test]
async fn every_statement_is_prepared_on_both_databases() {
    let (lite, pg) = (World::sqlite().await, World::postgres().await);
    let mut lite = SqliteConnectOptions::from_str(lite.url())
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut pg = PgConnectOptions::from_str(pg.url()).unwrap().connect().await.unwrap();
    let statements = statements();
    assert!(statements.len() >= STATEMENTS_MIN, "only {} statements were found", statements.len());
    let mut broken = Vec::new();
    for (name, texts) in statements {
        let on_lite = lite.prepare(AssertSqlSafe(texts.lite).into_sql_str()).await;
        let on_lite = on_lite.map(|s| shape(s.parameters(), s.columns()));
        let on_pg = pg.prepare(AssertSqlSafe(texts.pg).into_sql_str()).await;
        let on_pg = on_pg.map(|s| shape(s.parameters(), s.columns()));
        match (on_lite, on_pg) {
            (Ok(one), Ok(other)) if one == other => {}
            (one, other) => broken.push(format!("{name}: {one:?} on SQLite, {other:?} on PostgreSQL")),
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

fn shape<T>(parameters: Option<Either<&[T], usize>>, columns: &[impl Column]) -> Shape {
    Shape {
        parameters: match parameters {
            Some(Either::Left(types)) => types.len(),
            Some(Either::Right(n)) => n,
            None => 0,
        },
        columns: columns.iter().map(|c| c.name().to_owned()).collect(),
    }
}

#[test]
fn no_two_statements_have_one_name() {
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for (file, text) in sources() {
        for literal in literals(&text) {
            let name = name_of(&literal).to_owned();
            // The same words in two places are one statement; other words need another name.
            let before = texts.insert(name.clone(), literal.clone());
            assert!(before.is_none_or(|before| before == literal), "{file}: a second '{name}'");
        }
    }
}

/// The claim as it is sent to each database, for those who want to see its plan.
pub(super) fn claim() -> Texts {
    statements().remove("claim").expect("the claim is among the statements")
}

/// One statement in the words of both databases.
pub(super) struct Texts {
    pub lite: String,
    pub pg: String,
}

/// All statements by name. All but the claim are the same text on both.
fn statements() -> BTreeMap<String, Texts> {
    let mut found = BTreeMap::new();
    for (_, text) in sources() {
        for literal in literals(&text) {
            let (lite, pg) = (literal.clone(), literal.clone());
            found.insert(name_of(&literal).to_owned(), Texts { lite, pg });
        }
    }
    // The claim is made of three pieces; the one in the middle differs, and each database's file says how.
    let pieces = source("src/store/mod.rs");
    let at = pieces.find("\"-- claim").expect("the claim is in src/store/mod.rs");
    let (head, rest) = literal_at(&pieces[at..]);
    let tail = &rest[rest.find('"').expect("the claim has a second half")..];
    let claim = |file: &str| {
        let text = source(file);
        let at = text.find("claim_sql!(\"").expect("each database makes its claim") + "claim_sql!(".len();
        format!("{head}{}{}", literal_at(&text[at..]).0, literal_at(tail).0)
    };
    let (lite, pg) = (claim("src/store/lite.rs"), claim("src/store/pg.rs"));
    found.insert("claim".to_owned(), Texts { lite, pg });
    // The steps of the group commit share their words with the way that goes in one go.
    for text in [group::MOVE_JOBS, group::WRITE_MESSAGES] {
        let (lite, pg) = (text.to_owned(), text.to_owned());
        found.insert(name_of(text).to_owned(), Texts { lite, pg });
    }
    // Only PostgreSQL notifies.
    found.remove("notify");
    // Only PostgreSQL has a birthmark.
    found.remove("birthmark_here");
    // Only PostgreSQL has a clock of its own.
    found.remove("time_there");
    found
}

fn name_of(statement: &str) -> &str {
    statement
        .trim_start_matches("-- ")
        .lines()
        .next()
        .unwrap_or_default()
        .trim()
}

fn source(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files that hold statements, with their names.
fn sources() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/sql");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.push(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/pg.rs"));
    paths.sort_unstable();
    let read = |path: &Path| (path.display().to_string(), fs::read_to_string(path).unwrap());
    paths.iter().map(|path| read(path)).collect()
}

/// All string literals of a source that open with `-- `.
fn literals(text: &str) -> Vec<String> {
    let starts = text.match_indices("\"-- ");
    starts.map(|(at, _)| literal_at(&text[at..]).0).collect()
}

/// The string literal at the start of a text, with `\n` and `\"` undone, and what follows it.
fn literal_at(text: &str) -> (String, &str) {
    let mut literal = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (literal, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => literal.push('\n'),
                Some((_, other)) => literal.push(other),
                None => break,
            },
            other => literal.push(other),
        }
    }
    panic!("a string literal does not end: {}", &text[..text.len().min(80)]);
}
