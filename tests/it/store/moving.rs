//! Moving everything from one database to another: nothing lost, nothing changed, and never two databases that let somebody send.
//! What stands in both is compared here by their own words, not by the hash that the move itself uses.

use std::collections::BTreeMap;
use std::time::Duration;

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::contact::SuppressionReason;
use hikyaku::domain::id::ListId;
use hikyaku::domain::job::{JobEnd, JobKind};
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::recipient::Recipient;
use hikyaku::domain::worker::WorkerStats;
use hikyaku::store::delivery::Ack;
use hikyaku::store::moving::{self, Ended, Manners, News, Route};
use hikyaku::store::queue::Wish;
use hikyaku::store::workers::Heartbeat;
use hikyaku::store::{self, DatabaseUrl, Store, StoreError};

use super::world::{LEASE_MS, World, at, broadcast, broadcast_id, people, progress, recipient, sent, settled};
use crate::support::database::{TestDatabase, fresh_postgres, fresh_sqlite, sql};

/// Tells each story in both directions.
macro_rules! both_ways {
    ($($case:ident),+ $(,)?) => {
        mod sqlite_to_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (source, target) = (super::World::sqlite().await, super::fresh_postgres().await);
                super::$case(source, target).await;
            })+
        }
        mod postgres_to_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (source, target) = (super::World::postgres().await, super::fresh_sqlite());
                super::$case(source, target).await;
            })+
        }
    };
}

both_ways! {
    every_row_of_every_table_is_moved_and_the_target_goes_on,
    interrupted_at_any_point_it_goes_on_and_never_do_both_databases_open,
    a_worker_that_was_frozen_changes_nothing_and_its_intents_are_heeded,
    running_workers_are_a_reason_to_refuse_and_step_aside_when_asked,
    a_target_that_holds_data_is_refused,
    a_move_that_was_given_up_gives_the_source_back,
    what_somebody_changed_in_the_target_is_found,
    a_plan_changes_nothing,
}

const POLITE: Manners = Manners {
    stop_workers: false,
    patience: Duration::from_secs(60),
};

fn route(source: &str, target: &str) -> Route {
    Route {
        source: DatabaseUrl::parse(source).unwrap(),
        target: DatabaseUrl::parse(target).unwrap(),
    }
}

/// Moves, and hears of everything until `watch` says no.
async fn move_watching(
    source: &World,
    target: &TestDatabase,
    manners: Manners,
    mut watch: impl FnMut(News) -> bool + Send,
) -> store::Result<Ended> {
    // Later than every lease of the stories.
    let now = || at(100 * LEASE_MS);
    moving::carry_out(&route(source.url(), &target.url), manners, "mov_1", &now, &mut watch).await
}

async fn move_all(source: &World, target: &TestDatabase) -> store::Result<Ended> {
    move_watching(source, target, POLITE, |_| true).await
}

async fn open(url: &str) -> store::Result<std::sync::Arc<dyn Store>> {
    store::open(&DatabaseUrl::parse(url).unwrap()).await
}

/// Why a database does not let itself be used; `None` when it does.
async fn closed(url: &str) -> Option<String> {
    match open(url).await {
        Ok(_) => None,
        Err(StoreError::Aside(why)) => Some(why),
        Err(other) => panic!("{url}: {other}"),
    }
}

/// Every table with its columns and their types, as SQLite has them.
async fn tables() -> BTreeMap<String, Vec<(String, String)>> {
    let w = World::sqlite().await;
    let mut tables: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for line in w
        .sql(
            "SELECT m.name, c.name, c.type FROM sqlite_master m JOIN pragma_table_info(m.name) c
              WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name <> '_sqlx_migrations' ORDER BY 1, 2",
        )
        .await
    {
        let [table, column, kind] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        tables
            .entry(table.to_owned())
            .or_default()
            .push((column.to_owned(), kind.to_owned()));
    }
    tables
}

/// All that a database holds, each row as a text; the settings without those that are each database's own.
async fn contents(w: &World) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::new();
    for (table, columns) in tables().await {
        let shown: Vec<String> = columns
            .iter()
            .map(|(name, kind)| match (kind.as_str(), w.is_sqlite()) {
                ("BLOB", true) => format!("lower(hex(\"{name}\"))"),
                ("BLOB", false) => format!("encode(\"{name}\", 'hex')"),
                _ => format!("COALESCE(CAST(\"{name}\" AS TEXT), '(null)')"),
            })
            .collect();
        let own = "('birthmark', 'moving_from', 'moving_to', 'moved_to')";
        let which = if table == "settings" {
            format!(" WHERE name NOT IN {own}")
        } else {
            String::new()
        };
        let mut rows = w.sql(&format!("SELECT {} FROM {table}{which}", shown.join(", "))).await;
        rows.sort_unstable();
        all.insert(table, rows);
    }
    all
}

/// A world with something in every table, and in every column what a database could stumble over.
async fn fill(w: &World) {
    let worker = w.worker(at(0)).await;
    let id = w.ready_broadcast(1, 25, 10).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(1)).await;
    let lines = vec![
        sent(0, at(2)),
        settled(1, MessageStatus::Queued, MessageStatus::Deferred, 1, at(2)),
        settled(2, MessageStatus::Queued, MessageStatus::Failed, 1, at(2)),
    ];
    w.commit_one(progress(job.lease, lines, &[5, 7]), at(2)).await;
    w.finish(job.lease, JobEnd::Waiting(at(60_000)), at(3)).await.unwrap();
    // One that is staged, one that has a letter of a megabyte, one that waits for its time.
    w.accept_new(&broadcast(2, 9), &people(9), at(3)).await;
    let mut large = broadcast(3, 9);
    large.letter.content.text = Some("Grüße, 飛脚! 'quoted' \"twice\" \\N \\. \t\r\n".repeat(20_000));
    large.send_at = Some(at(1_000_000));
    w.accept_new(&large, &people(9), at(3)).await;
    let list = ListId::new(at(0), 1);
    w.create_list(&list, "Ünïcode | ' \" \\", at(0)).await.unwrap();
    let mut contacts: Vec<Recipient> = people(40);
    contacts[0].name = Some("Zoë \u{1F426} O'Neil\\".into());
    contacts[1].data = Some(serde_json::value::RawValue::from_string("{\"a\":\"\\u0000 \\n\"}".into()).unwrap());
    w.put_contacts(&contacts, Some(&list), at(0)).await.unwrap();
    w.suppress(&["p3@example.org".to_owned()], SuppressionReason::Manual, "page", at(0))
        .await
        .unwrap();
    w.relay_id("first").await.unwrap();
    let user = w.create_user("anna@example.org", "hash", at(0)).await.unwrap();
    w.create_session("token", user.id, at(1_000_000), at(0)).await.unwrap();
    w.setting_or_insert("signing_secret", "00ff").await.unwrap();
    for statement in [
        "INSERT INTO idempotency_keys (owner, key, body_hash, broadcast_id, answer, created_at)
         VALUES ('o', 'k', 'h', 'brd_1', '{}', -9223372036854775808)",
        "INSERT INTO intake (broadcast_id, run, page, last_key, payload, staged_at) VALUES ('brd_x', 0, 0, '', PAYLOAD, 9223372036854775807)",
        "INSERT INTO templates (id, name, content, version, created_at, updated_at)
         VALUES ('tpl_1', '', '{}', 1, 1, 1)",
        "INSERT INTO campaigns (id, name, status, draft, schedule, next_at, last_at, last_error, created_at, updated_at)
         VALUES ('cmp_1', 'c', 'paused', '{}', '{}', NULL, NULL, NULL, 1, 1)",
        "INSERT INTO api_keys (id, name, secret_hash, scopes, created_at, last_used_at, revoked_at)
         VALUES ('key', 'n', 'h', '[]', 1, NULL, NULL)",
        "INSERT INTO pace (relay_id, lane, updated_at) VALUES (1, '', 7), (1, 'example.org', 7)",
        "INSERT INTO findings (relay_id, kind, address, value, words, found_at, trial_worker)
         VALUES (1, 'flights', 'h:25', NULL, '', 1, 9), (1, 'connections', 'h:25', 4, '421 zuviel ü', 1, NULL)",
        "INSERT INTO dkim_keys (id, domain, selector, algorithm, private_key, public_key, created_at, enabled_at)
         VALUES ('dkm_1', 'example.org', 's', 'rsa', 'p', 'q', 1, NULL)",
        "INSERT INTO bounces (address, class, n, first_at, last_at)
         VALUES ('a@example.org', 'mailbox_full', 1, 1, 1)",
        // The highest numbers were given out, and their rows are gone.
        "INSERT INTO jobs (id, broadcast_id, kind, seq, priority, state, run_at, created_at)
         SELECT 900, id, 'deliver', 900, 1, 'done', 0, 0 FROM broadcasts ORDER BY id LIMIT 1",
        "DELETE FROM jobs WHERE id = 900",
    ] {
        let bytes = (0..=255u8).map(|b| format!("{b:02x}")).collect::<String>();
        let payload = match w.is_sqlite() {
            true => format!("x'{bytes}'"),
            false => format!("'\\x{bytes}'"),
        };
        w.sql(&statement.replace("PAYLOAD", &payload)).await;
    }
    if !w.is_sqlite() {
        // A sequence does not follow numbers that were given by hand.
        w.sql("SELECT setval(pg_get_serial_sequence('jobs', 'id'), 900)").await;
    }
    w.control(
        &id,
        &Wish::Pause {
            reason: "a reason".into(),
        },
        at(4),
    )
    .await
    .unwrap();
    w.control(&id, &Wish::Resume, at(5)).await.unwrap();
    w.retire_worker(worker, at(6)).await.unwrap();
}

async fn every_row_of_every_table_is_moved_and_the_target_goes_on(source: World, target: TestDatabase) {
    fill(&source).await;
    let before = contents(&source).await;
    let empty: Vec<&String> = before
        .iter()
        .filter(|(_, rows)| rows.is_empty())
        .map(|(name, _)| name)
        .collect();
    assert!(empty.is_empty(), "a new table? give it rows in `fill`: {empty:?}");

    let Ended::Moved(moved) = move_all(&source, &target).await.unwrap() else {
        panic!("nothing was moved")
    };
    let counted: BTreeMap<String, usize> = moved.iter().map(|m| (m.table.clone(), m.sum.rows as usize)).collect();
    let expected: BTreeMap<String, usize> = before.iter().map(|(name, rows)| (name.clone(), rows.len())).collect();
    assert_eq!(counted, expected);

    // The source has nothing more to say than where everything is, whoever asks.
    assert_eq!(contents(&source).await, before);
    let why = closed(source.url()).await.expect("the source is closed");
    assert!(why.contains("was moved to"), "{why}");
    refuses_every_write(&source).await;
    assert_eq!(contents(&source).await, before);

    let there = World::opened(target).await;
    assert_eq!(contents(&there).await, before);
    let worker = there.worker(at(10)).await;
    there.accept_new(&broadcast(9, 5), &people(5), at(10)).await;
    let ids = there.sql("SELECT CAST(MAX(id) AS TEXT) FROM jobs").await;
    assert_eq!(ids, ["901"], "no number is given out again");
    // What was under way comes to its end.
    there.promote(at(2_000_000)).await.unwrap();
    let beat = (at(2_000_000).plus_ms(LEASE_MS), WorkerStats::default());
    there
        .heartbeat(worker, beat.0, false, &beat.1, at(2_000_000))
        .await
        .unwrap();
    while let Some(job) = there
        .claim(worker, JobKind::FanOut, 1, at(2_000_000))
        .await
        .unwrap()
        .pop()
    {
        there.fan_out(&job, 4, at(2_000_000)).await;
    }
    while let Some(job) = there
        .claim(worker, JobKind::Deliver, 1, at(2_000_000))
        .await
        .unwrap()
        .pop()
    {
        send_the_rest(&there, &job).await;
    }
    for n in [1, 2, 3, 9] {
        let shown = there.show(&broadcast_id(n)).await;
        assert_eq!(shown.status, BroadcastStatus::Completed, "{n}");
        assert_eq!(shown.counts.total(), shown.received.accepted());
        assert_eq!(there.recount(&shown.id).await.unwrap(), shown.counts);
    }
}

async fn send_the_rest(w: &World, job: &hikyaku::domain::job::Claimed) {
    let work = w.chunk_work(job.lease).await.unwrap();
    let before = |o: u16| {
        work.earlier
            .iter()
            .find(|e| e.ordinal == o)
            .map_or(MessageStatus::Queued, |e| e.status)
    };
    let lines = (0..work.chunk.recipients.len() as u16)
        .filter(|&o| !before(o).is_final())
        .map(|o| settled(o, before(o), MessageStatus::Sent, 2, at(2_000_000)))
        .collect();
    w.commit_one(progress(job.lease, lines, &[]), at(2_000_000)).await;
    w.finish(job.lease, JobEnd::Done, at(2_000_000)).await.unwrap();
}

/// Whoever had the source open before the move.
async fn refuses_every_write(w: &World) {
    let n = broadcast(77, 3);
    let answers = [
        w.stage_run(&n.id, 0, &super::world::pages(&people(3)), at(9)).await,
        w.accept(&n, None, at(9)).await.map(drop),
        w.suppress(&["x@example.org".to_owned()], SuppressionReason::Unsubscribed, "link", at(9))
            .await
            .map(drop),
        w.put_contacts(&[recipient("x@example.org")], None, at(9))
            .await
            .map(drop),
        w.control(&broadcast_id(1), &Wish::Cancel, at(9)).await,
        w.register_worker(
            &store::workers::NewWorker {
                host: "late".into(),
                pid: 1,
                version: "0".into(),
            },
            at(9),
            at(9),
        )
        .await
        .map(drop),
        w.put_setting("setup", "x").await,
        w.touch_api_key("key", at(9)).await,
        w.prune(at(9), 10).await.map(drop),
        w.footing().await,
    ];
    for (n, answer) in answers.into_iter().enumerate() {
        // A prune finds nothing to remove, which is no write.
        assert!(
            n == 8 || matches!(&answer, Err(StoreError::Aside(why)) if why.contains("was moved to")),
            "write {n}: {answer:?}"
        );
    }
}

/// The move is broken off after every single thing it tells of, again and again.
async fn interrupted_at_any_point_it_goes_on_and_never_do_both_databases_open(source: World, target: TestDatabase) {
    fill(&source).await;
    // Enough rows for several pages of one table.
    for n in 10..13 {
        source.accept_new(&broadcast(n, 30), &people(30), at(3)).await;
    }
    let before = contents(&source).await;
    let (mut runs, mut told) = (0, 0);
    let ended = loop {
        let mut left = runs;
        let ended = move_watching(&source, &target, POLITE, |_| {
            told += 1;
            left -= 1;
            left >= 0
        })
        .await;
        match ended {
            Ok(ended) => break ended,
            Err(StoreError::Unavailable(_)) => {}
            Err(other) => panic!("run {runs}: {other}"),
        }
        let both = (closed(source.url()).await, closed(&target.url).await);
        let (Some(there), Some(here)) = &both else {
            panic!("run {runs}: {both:?}")
        };
        assert!(there.contains("being moved to") && here.contains("being filled from"), "{both:?}");
        runs += 1;
    };
    assert!(matches!(ended, Ended::Moved(_)));
    assert!(runs > 20, "{runs} runs heard of {told} things");
    assert!(closed(source.url()).await.is_some());
    let there = World::opened(target).await;
    assert_eq!(contents(&there).await, before);
    // Once more: there is nothing left to do, and nothing is done.
    let target = there.into_database();
    assert_eq!(move_all(&source, &target).await.unwrap(), Ended::WasOver);
    assert_eq!(closed(&target.url).await, None);
}

/// A worker that stands still while everything is moved under it.
async fn a_worker_that_was_frozen_changes_nothing_and_its_intents_are_heeded(source: World, target: TestDatabase) {
    let id = source.ready_broadcast(1, 5, 5).await;
    let worker = source.worker(at(0)).await;
    let job = source.claim_one(worker, JobKind::Deliver, at(0)).await;
    source
        .commit_one(progress(job.lease, vec![sent(0, at(1))], &[1, 2]), at(1))
        .await;
    move_all(&source, &target).await.unwrap();

    // It wakes up.
    let late = source
        .commit_progress(&[progress(job.lease, vec![sent(1, at(9))], &[3])], at(9))
        .await;
    assert!(
        matches!(&late, Ok(acks) if acks == &[Ack::Fenced]) || matches!(late, Err(StoreError::Aside(_))),
        "{late:?}"
    );
    let beat = source
        .heartbeat(worker, at(LEASE_MS), false, &WorkerStats::default(), at(9))
        .await;
    assert!(matches!(beat, Ok(Heartbeat::Dead) | Err(StoreError::Aside(_))), "{beat:?}");
    assert!(
        source
            .claim(worker, JobKind::Deliver, 1, at(9))
            .await
            .is_ok_and(|c| c.is_empty())
            || !source.is_sqlite()
    );

    let there = World::opened(target).await;
    let worker = there.worker(at(10)).await;
    let taken = there.claim_one(worker, JobKind::Deliver, at(10)).await;
    assert_eq!((taken.inflight.as_slice(), taken.deaths), (&[1, 2][..], 1), "what was on the wire is in doubt");
    assert!(taken.lease.epoch > job.lease.epoch);
    assert_eq!(there.show(&id).await.counts.sent, 1);
}

async fn running_workers_are_a_reason_to_refuse_and_step_aside_when_asked(source: World, target: TestDatabase) {
    source.ready_broadcast(1, 5, 5).await;
    // Its lease is longer than the move's patience.
    let worker = source.worker(at(1_000 * LEASE_MS)).await;
    let lock = store::lock::take(&DatabaseUrl::parse(source.url()).unwrap()).unwrap();
    let refused = move_all(&source, &target).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("--stop-workers")), "{refused:?}");
    assert_eq!((closed(source.url()).await, closed(&target.url).await), (None, None), "a refusal changes nothing");

    let manners = Manners {
        stop_workers: true,
        ..POLITE
    };
    // What a worker does that is told by its heartbeat, in its own time.
    let store = source.share();
    let (said, heard) = tokio::sync::oneshot::channel();
    let mut said = Some(said);
    let stepping_aside = async move {
        heard.await.expect("the move waits");
        assert!(matches!(store.footing().await, Err(StoreError::Aside(_))));
        store.retire_worker(worker, at(1_001 * LEASE_MS)).await.unwrap();
        drop(lock);
    };
    let moving = move_watching(&source, &target, manners, |news| {
        if let (News::Waiting { .. }, Some(said)) = (news, said.take()) {
            said.send(()).unwrap();
        }
        true
    });
    let (moved, ()) = tokio::join!(moving, stepping_aside);
    assert!(matches!(moved, Ok(Ended::Moved(_))), "{moved:?}");
}

async fn a_target_that_holds_data_is_refused(source: World, target: TestDatabase) {
    fill(&source).await;
    let there = World::opened(target).await;
    there.setting_or_insert("signing_secret", "11").await.unwrap();
    let before = contents(&there).await;
    let target = there.into_database();
    let refused = move_all(&source, &target).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("empty database")), "{refused:?}");
    assert_eq!(closed(source.url()).await, None);
    assert_eq!(contents(&World::opened(target).await).await, before);
    let same = moving::plan(&route(source.url(), source.url())).await;
    assert!(matches!(&same, Err(StoreError::Conflict(why)) if why.contains("same database")), "{same:?}");
}

async fn a_move_that_was_given_up_gives_the_source_back(source: World, target: TestDatabase) {
    fill(&source).await;
    let url = DatabaseUrl::parse(source.url()).unwrap();
    assert!(moving::abandon(&url).await.is_err(), "nothing was begun");
    let mut left = 12;
    let broken_off = move_watching(&source, &target, POLITE, |_| {
        left -= 1;
        left > 0
    })
    .await;
    assert!(matches!(broken_off, Err(StoreError::Unavailable(_))), "{broken_off:?}");
    // Another target is not what was begun.
    let other = fresh_sqlite();
    let refused = move_all(&source, &other).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("has begun")), "{refused:?}");

    moving::abandon(&url).await.unwrap();
    assert_eq!(closed(source.url()).await, None);
    source.ready_broadcast(20, 3, 3).await;
    assert!(closed(&target.url).await.is_some(), "what is left over is of no use");
    let refused = move_all(&source, &target).await;
    assert!(matches!(&refused, Err(StoreError::Conflict(why)) if why.contains("another move")), "{refused:?}");
    let before = contents(&source).await;
    move_all(&source, &other).await.unwrap();
    assert_eq!(contents(&World::opened(other).await).await, before);
    let over = moving::abandon(&url).await;
    assert!(matches!(&over, Err(StoreError::Conflict(why)) if why.contains("come to its end")), "{over:?}");
}

async fn what_somebody_changed_in_the_target_is_found(source: World, target: TestDatabase) {
    fill(&source).await;
    // Broken off at the first comparison: everything was moved.
    let broken_off = move_watching(&source, &target, POLITE, |news| !matches!(news, News::Compared { .. })).await;
    assert!(broken_off.is_err());
    sql(
        &target.url,
        "UPDATE contacts SET name = NULL WHERE sort_key = (SELECT sort_key FROM contacts WHERE name IS NOT NULL)",
    )
    .await;
    let found = move_all(&source, &target).await;
    assert!(matches!(&found, Err(StoreError::Conflict(why)) if why.starts_with("contacts differs")), "{found:?}");
    assert!(closed(&target.url).await.is_some(), "the target stays closed");
    assert!(
        closed(source.url())
            .await
            .is_some_and(|why| why.contains("being moved"))
    );
}

async fn a_plan_changes_nothing(source: World, target: TestDatabase) {
    fill(&source).await;
    let before = contents(&source).await;
    let plan = moving::plan(&route(source.url(), &target.url)).await.unwrap();
    let rows: BTreeMap<String, u64> = plan.tables.into_iter().collect();
    let expected: BTreeMap<String, u64> = before.iter().map(|(t, rows)| (t.clone(), rows.len() as u64)).collect();
    assert_eq!(rows, expected);
    assert!(!plan.is_begun && plan.in_the_way.is_none());
    assert_eq!(contents(&source).await, before);
    assert_eq!(closed(source.url()).await, None);
    if let DatabaseUrl::Sqlite(path) = DatabaseUrl::parse(&target.url).unwrap() {
        assert!(!path.exists());
    }
}
