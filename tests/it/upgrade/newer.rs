//! A newer program changes the database while old ones work on it. What it does is done here by its statements: it is not written
//! yet.

use super::{ASIDE, Scene, ask, get, stepped_aside, stories};
use crate::support::client::Client;
use crate::support::database::{TestDatabase, sql};
use crate::support::program::ended;

stories! {
    workers_step_aside_for_a_newer_program_and_say_why,
    a_newer_program_that_only_adds_disturbs_nobody,
}

const RECIPIENTS: usize = 600;
/// Thirty seconds of work: long enough that something is left to do when the database changes.
const RATE: u32 = 20;

const RECORDS_ITSELF: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
     SELECT 9999, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1";

/// Expand: what an older program does not know of, and need not.
async fn expand(database: &TestDatabase) {
    sql(&database.url, "ALTER TABLE jobs ADD COLUMN later TEXT").await;
    sql(&database.url, "CREATE TABLE later (id TEXT NOT NULL PRIMARY KEY)").await;
    sql(&database.url, "CREATE INDEX jobs_later ON jobs (later, id)").await;
    sql(&database.url, RECORDS_ITSELF).await;
}

async fn workers_step_aside_for_a_newer_program_and_say_why(database: TestDatabase) {
    let scene = Scene::new().await;
    let web = scene.web(&database.url);
    let workers = scene.workers(&database, RATE);
    let client = Client::of(&web.url);
    let id = client.send_to(RECIPIENTS).await;
    scene.taken(30).await;
    assert_eq!(get(&web, "/readyz").await.0, 200);

    // Contract: what it takes away, older programs cannot live without.
    expand(&database).await;
    sql(&database.url, "INSERT INTO settings (name, value) VALUES ('schema_needs', '9999')").await;
    for worker in workers {
        let log = stepped_aside(worker).await;
        for word in ["steps aside", "schema_needs", "9999", "start the newer version"] {
            assert!(log.contains(word), "{word} in {log}");
        }
    }
    let (status, body) = get(&web, "/readyz").await;
    assert!(status == 503 && body.contains("schema_needs"), "{status} {body}");
    assert_eq!(get(&web, "/healthz").await.0, 200);
    let (status, body) = ask(&web).await;
    assert!(status == 503 && body.contains("newer"), "{status} {body}");
    let late = ended(scene.command(&["worker"], &database.url, RATE));
    assert_eq!(late.code, Some(ASIDE), "{}", late.err);
    assert!(late.err.contains("9999"), "{}", late.err);
    let seen = client.look(&id).await.expect("pages are still to be read");
    assert_ne!(seen["status"], "completed", "there was something left to do");

    // The newer program knows its own migration.
    sql(&database.url, "DELETE FROM settings WHERE name = 'schema_needs'").await;
    let newer = scene.worker(&database.url, "newer", 100_000);
    client.until_completed(&id).await;
    scene.assert_exactly_once(&client, &id, RECIPIENTS).await;
    assert_eq!(newer.0.signal("TERM").0, Some(0));
}

async fn a_newer_program_that_only_adds_disturbs_nobody(database: TestDatabase) {
    let scene = Scene::new().await;
    let web = scene.web(&database.url);
    let workers = scene.workers(&database, RATE);
    let client = Client::of(&web.url);
    let id = client.send_to(RECIPIENTS).await;
    scene.taken(30).await;
    expand(&database).await;
    let before = client.look(&id).await.expect("it answers");
    assert_ne!(before["status"], "completed", "it was changed while they worked");
    let other = client.send_to(20).await;
    client.until_completed(&id).await;
    client.until_completed(&other).await;
    assert_eq!(get(&web, "/readyz").await.0, 200);
    for (worker, _) in workers {
        assert_eq!(worker.signal("TERM").0, Some(0));
    }
    // One of the old version that starts afterwards is welcome as well.
    let late = scene.worker(&database.url, "late", RATE);
    assert_eq!(late.0.signal("TERM").0, Some(0));
}
