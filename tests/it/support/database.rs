//! An empty database for each test, on both engines. Never shared between tests, and never skipped because a server is missing.

use std::str::FromStr;

use hikyaku::selftest::proxy::Proxy;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;

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
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let file = dir.path().join("hikyaku.db");
    TestDatabase {
        url: format!("sqlite://{}", file.display()),
        _dir: Some(dir),
    }
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
