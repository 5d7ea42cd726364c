//! An empty database for each test, on both engines. Never shared between tests, and never skipped because a server is missing.

use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use hikyaku::selftest::proxy::Proxy;
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection};
use tempfile::TempDir;

use super::program::Place;

/// The variable with the URL of a PostgreSQL server on which the tests may create databases.
const SERVER_VARIABLE: &str = "HIKYAKU_TEST_POSTGRES_URL";

/// An empty database: no tables, nobody else in it. Keep it alive for as long as the URL is used.
pub struct TestDatabase {
    /// As `HIKYAKU_DATABASE_URL` takes it.
    pub url: String,
    /// Where a SQLite file lives; it goes with the value. A PostgreSQL database stays until its throw-away server ends, because a
    /// pool that is still closing would refuse to let it be dropped.
    _dir: Option<TempDir>,
}

impl TestDatabase {
    /// One that is there, and stays when this is gone.
    pub fn at(url: &str) -> Self {
        TestDatabase {
            url: url.to_owned(),
            _dir: None,
        }
    }
}

/// A new database on the PostgreSQL server that the tests were given.
pub async fn fresh_postgres() -> TestDatabase {
    let server = std::env::var(SERVER_VARIABLE).unwrap_or_else(|_| {
        panic!("{SERVER_VARIABLE} is not set: run `scripts/test NAME`, which starts a PostgreSQL server and sets it")
    });
    let name = format!("hikyaku_{:016x}", fastrand::u64(..));
    let options = PgConnectOptions::from_str(&server).expect("the server's URL can be read");
    let mut connection = options
        .connect()
        .await
        .expect("the PostgreSQL server of the tests answers");
    // template0 has no connections of its own that could stand in the way of a copy.
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0")))
        .execute(&mut connection)
        .await
        .expect("a database can be created");
    connection.close().await.expect("the connection closes");

    let mut url = url::Url::parse(&server).expect("the server's URL can be read");
    url.set_path(&name);
    TestDatabase {
        url: url.into(),
        _dir: None,
    }
}

impl TestDatabase {
    /// A line to this database on the server that can be held up and cut, and the database as it is seen through it.
    pub async fn through_a_proxy(&self) -> (Proxy, TestDatabase) {
        let mut url = url::Url::parse(&self.url).expect("the server's URL can be read");
        let (host, port) = (url.host_str().unwrap_or("127.0.0.1").to_owned(), url.port().unwrap_or(5432));
        let server = tokio::net::lookup_host((host, port))
            .await
            .expect("the server's name is known")
            .next();
        let proxy = Proxy::to(server.expect("the server has an address"))
            .await
            .expect("there is a free port");
        url.set_ip_host(proxy.addr().ip()).expect("an address is a host");
        url.set_port(Some(proxy.addr().port())).expect("the URL has a host");
        let database = TestDatabase {
            url: url.into(),
            _dir: None,
        };
        (proxy, database)
    }
}

/// A new SQLite file in a directory of its own. The file itself does not exist yet.
pub fn fresh_sqlite() -> TestDatabase {
    fresh_sqlite_in(&std::env::temp_dir())
}

/// As [`fresh_sqlite`], where no disk has to be waited for, if the system has such a place: for stories of many commits that do
/// not turn on what a disk does.
pub fn fresh_sqlite_in_memory() -> TestDatabase {
    fresh_sqlite_in(Path::new("/dev/shm"))
}

fn fresh_sqlite_in(place: &Path) -> TestDatabase {
    let dir = tempfile::tempdir_in(place).or_else(|_| tempfile::tempdir());
    let dir = dir.expect("a temporary directory can be made");
    let file = dir.path().join("hikyaku.db");
    TestDatabase {
        url: format!("sqlite://{}", file.display()),
        _dir: Some(dir),
    }
}

/// Runs a statement past the store and gives every row as one line of text, columns separated by `|`.
pub async fn sql(url: &str, text: &str) -> Vec<String> {
    let mut raw = Raw::open(url).await;
    let lines = raw.lines(text).await;
    raw.close().await;
    lines
}

/// A way past the store.
pub enum Raw {
    Lite(SqliteConnection),
    Pg(PgConnection),
}

impl Raw {
    pub async fn open(url: &str) -> Self {
        if url.starts_with("sqlite") {
            Raw::Lite(SqliteConnectOptions::from_str(url).unwrap().connect().await.unwrap())
        } else {
            Raw::Pg(PgConnectOptions::from_str(url).unwrap().connect().await.unwrap())
        }
    }

    /// Runs a statement and gives every row as one line of text, columns separated by `|`.
    pub async fn lines(&mut self, text: &str) -> Vec<String> {
        match self {
            Raw::Lite(lite) => {
                let rows = sqlx::query(AssertSqlSafe(text)).fetch_all(lite).await.unwrap();
                rows.iter()
                    .map(|row| line(row.len(), |i| row.get_unchecked(i)))
                    .collect()
            }
            Raw::Pg(pg) => {
                let rows = sqlx::raw_sql(AssertSqlSafe(text)).fetch_all(pg).await.unwrap();
                rows.iter()
                    .map(|row| line(row.len(), |i| row.get_unchecked(i)))
                    .collect()
            }
        }
    }

    /// Runs a statement for what it does.
    pub async fn run(&mut self, text: &str) {
        self.lines(text).await;
    }

    async fn close(self) {
        match self {
            Raw::Lite(lite) => lite.close().await.unwrap(),
            Raw::Pg(pg) => pg.close().await.unwrap(),
        }
    }
}

fn line(columns: usize, column: impl Fn(usize) -> Option<String>) -> String {
    (0..columns)
        .map(|i| column(i).unwrap_or_default())
        .collect::<Vec<_>>()
        .join("|")
}

/// The PostgreSQL tools that belong to the server of the tests.
pub fn run_tool(name: &str, args: &[&str]) {
    let done = Command::new(tool(name)).args(args).output().expect("the tool starts");
    assert!(done.status.success(), "{name}: {}", String::from_utf8_lossy(&done.stderr));
}

/// Debian keeps each version's programs in a folder of its own; the newest can read every older server.
fn tool(name: &str) -> std::path::PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<_> = versions
        .map(|v| v.path().join("bin").join(name))
        .filter(|p| p.exists())
        .collect();
    found.sort();
    found.pop().unwrap_or_else(|| name.into())
}

pub fn dump(from: &str, file: &Path) {
    run_tool("pg_dump", &["--format=custom", "--file", file.to_str().unwrap(), from]);
}

/// A backup of the database as the manual tells it, restored into another one.
pub async fn copy_of(database: &TestDatabase, place: &Place) -> TestDatabase {
    if let Some(path) = database.url.strip_prefix("sqlite://") {
        let copy = fresh_sqlite();
        let file = copy.url.strip_prefix("sqlite://").expect("it is a file");
        let from = format!("sqlite://{path}");
        let made = place.run(&["backup", "--database-url", &from, file]);
        assert_eq!(made.code, Some(0), "{}", made.err);
        return copy;
    }
    let (file, copy) = (place.path().join("hikyaku.dump"), fresh_postgres().await);
    dump(&database.url, &file);
    run_tool("pg_restore", &["--dbname", &copy.url, file.to_str().expect("it is text")]);
    copy
}

#[tokio::test]
async fn a_test_database_is_empty_and_its_own() {
    let (one, other) = (fresh_postgres().await, fresh_postgres().await);
    assert_ne!(one.url, other.url);
    let mut connection = PgConnectOptions::from_str(&one.url).unwrap().connect().await.unwrap();
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(tables, 0);
    let (one, other) = (fresh_sqlite(), fresh_sqlite());
    assert_ne!(one.url, other.url);
}
