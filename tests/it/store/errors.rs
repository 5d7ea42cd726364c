//! What can go wrong, said as what the caller can do about it. Uses real damage: closed sockets, torn columns, foreign files.

use hikyaku::domain::broadcast::Audience;
use hikyaku::domain::content::Content;
use hikyaku::domain::id::{MessageId, TemplateId};
use hikyaku::domain::job::JobKind;
use hikyaku::store::{self, DatabaseUrl, StoreError};
use tokio::net::TcpListener;

use super::contract;
use super::world::{World, at, broadcast, people, recipient};

contract! {
    damaged_columns_are_named,
    damaged_payloads_are_named,
    a_store_opened_again_keeps_what_is_there,
}

#[tokio::test]
async fn a_server_that_hangs_up_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    let url = DatabaseUrl::parse(&format!("postgres://nobody@{address}/none")).unwrap();
    let error = store::open(&url).await.err().expect("nobody answers there");
    assert!(matches!(error, StoreError::Unavailable(_)) && error.is_transient(), "{error:?}");
    server.abort();
}

#[tokio::test]
async fn a_url_that_makes_no_sense_is_refused() {
    let url = DatabaseUrl::Postgres("postgres://host:port/name".into());
    let error = store::open(&url).await.err().expect("that is no port");
    assert!(matches!(&error, StoreError::Refused(why) if why.contains("URL")), "{error:?}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_damaged_and_a_folder_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("letter.txt");
    std::fs::write(&file, "Dear Anna, this is not a database. ".repeat(100)).unwrap();
    let error = store::open(&DatabaseUrl::Sqlite(file))
        .await
        .err()
        .expect("that is a letter");
    assert!(matches!(error, StoreError::Corrupt(_)) && !error.is_transient(), "{error:?}");
    let error = store::open(&DatabaseUrl::Sqlite(folder.path().to_owned()))
        .await
        .err()
        .expect("that is a folder");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_was_cut_is_replaced() {
    let w = World::postgres().await;
    let new = broadcast(1, 0);
    w.accept(&new, None, at(0)).await.unwrap();
    w.show(&new.id).await;
    w.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
        .await;
    w.show(&new.id).await;
    w.accept(&broadcast(2, 0), None, at(1)).await.unwrap();
}

/// Asserts that an answer is a complaint about damage which names the place.
fn names<T: std::fmt::Debug>(place: &str, answer: store::Result<T>) {
    match answer {
        Err(StoreError::Corrupt(why)) => assert!(why.contains(place), "{why} does not name {place}"),
        other => panic!("{place}: {other:?}"),
    }
}

async fn damaged_columns_are_named(w: World) {
    let new = broadcast(1, 2);
    w.accept_new(&new, &people(2), at(0)).await;
    for column in ["tags", "metadata", "audience"] {
        let before = w.sql(&format!("SELECT {column} FROM broadcasts")).await.remove(0);
        w.sql(&format!("UPDATE broadcasts SET {column} = '{{'")).await;
        names(&format!("broadcasts.{column}"), w.broadcast(&new.id).await);
        w.sql(&format!("UPDATE broadcasts SET {column} = '{before}'")).await;
    }
    w.sql("UPDATE letters SET letter = '[]'").await;
    names("letters.letter", w.brief(&new.id).await);
    w.sql("UPDATE jobs SET inflight = '[-1]'").await;
    let worker = w.worker(at(0)).await;
    names("jobs.inflight", w.claim(worker, JobKind::FanOut, 1, at(0)).await);

    let content = Content {
        subject: "News".into(),
        html: None,
        text: Some("Hello".into()),
    };
    let id = TemplateId::new(at(0), 1);
    w.put_template(&id, "News", &content, at(0)).await.unwrap();
    w.sql("UPDATE templates SET content = 'null'").await;
    names("templates.content", w.template(&id).await);
    w.put_contacts(&[recipient("anna@example.org")], None, at(0))
        .await
        .unwrap();
    w.sql("UPDATE contacts SET data = 'x'").await;
    // A contact is shown as damaged, and its message fails alone: it must not take a page or a broadcast with it.
    let anna = w.contact("anna@example.org").await.unwrap().expect("she is there");
    assert!(anna.damage.is_some_and(|why| why.contains("import the contact anew")));
    let mut all = broadcast(2, 0);
    all.audience = Audience::All;
    w.accept(&all, None, at(0)).await.unwrap();
    let source = &w.sources(&all.id).await.unwrap()[0];
    let page = w.source_page(&all.id, source, None).await.unwrap();
    assert_eq!(page[0].data.as_deref().map(|data| data.get()), Some("\"damaged\""));
}

async fn damaged_payloads_are_named(w: World) {
    let id = w.ready_broadcast(1, 1, 1).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let torn = if w.is_sqlite() { "x'00'" } else { "'\\x00'" };
    w.sql(&format!("UPDATE chunks SET payload = {torn}")).await;
    let job_id = job.lease.job_id;
    names("chunks.payload", w.chunk_work(job.lease).await);
    // What is shown goes on, with the job's number and what to do.
    let shown = w.messages(&id, None, None, 10).await.unwrap().rows;
    let one = w
        .message(MessageId { job_id, ordinal: 0 })
        .await
        .unwrap()
        .expect("it is there");
    for view in [&shown[0], &one] {
        assert_eq!(view.email, "(damaged)");
        let why = &view.reply.as_ref().expect("it says why").text;
        assert!(why.contains(&format!("job {job_id} are damaged")), "{why}");
    }
    assert_eq!(w.recount(&id).await.unwrap(), w.show(&id).await.counts);
}

async fn a_store_opened_again_keeps_what_is_there(w: World) {
    let id = w.ready_broadcast(1, 3, 1).await;
    let again = w.open_again().await;
    again.ready().await.unwrap();
    let shown = again.broadcast(&id).await.unwrap().expect("it is stored");
    assert_eq!(shown.counts, w.show(&id).await.counts);
    assert_eq!(again.is_exclusive(), w.is_sqlite());
}
