//! A restored backup says so when a program starts on it, and sends nothing before somebody has decided.

use super::{Scene, read, stories};
use crate::support::client::Client;
use crate::support::database::{TestDatabase, copy_of};

stories! {
    a_program_on_a_restored_backup_says_so_and_waits,
}

const RECIPIENTS: usize = 600;

async fn a_program_on_a_restored_backup_says_so_and_waits(database: TestDatabase) {
    let scene = Scene::new().await;
    let web = scene.web(&database.url);
    let workers = scene.workers(&database, 100);
    let client = Client::of(&web.url);
    let id = client.send_to(RECIPIENTS).await;
    scene.taken(60).await;
    let copy = copy_of(&database, &scene.place).await;
    client.until_completed(&id).await;
    for (worker, log) in workers {
        assert_eq!(worker.signal("TERM").0, Some(0));
        assert!(!read(&log).contains("restored"), "the original knows of no backup");
    }
    assert_eq!(scene.sink.sink().stats().accepted, RECIPIENTS as u64);

    let (worker, log) = scene.worker(&copy.url, "restored", 100_000);
    let told = read(&log);
    assert!(told.contains("WARN") && told.contains("restored from a backup"), "{told}");
    let restored = scene.web(&copy.url);
    let client = Client::of(&restored.url);
    let seen = client.look(&id).await.expect("it answers");
    assert_eq!(seen["status"], "paused", "{seen}");
    // Something else goes out meanwhile, so that it is known that the worker works.
    let other = client.send_to(10).await;
    client.until_completed(&other).await;
    assert_eq!(scene.sink.sink().stats().accepted, RECIPIENTS as u64 + 10, "nothing of it was sent again");
    assert_eq!(worker.signal("TERM").0, Some(0));
}
