//! Cutting an audience into chunks: resumable, fenced, and true to the wishes of an operator. Never sends anything.

use hikyaku::domain::broadcast::{Audience, BroadcastStatus, NewBroadcast};
use hikyaku::domain::counts::Counts;
use hikyaku::domain::id::ListId;
use hikyaku::domain::job::{JobEnd, JobKind, Lease, Stop};
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::recipient::Recipient;
use hikyaku::store::StoreError;
use hikyaku::store::fan_out::{FanOutStep, SOURCE_PAGE_SIZE, Source};
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{LEASE_MS, NOBODY, World, at, broadcast, pages, people, recipient, sorted, step};

contract! {
    a_chunk_and_its_cursor_are_one_transaction,
    an_interrupted_fan_out_goes_on_where_it_stopped,
    a_fenced_fan_out_writes_nothing,
    pages_of_a_run_resume_strictly_after_the_cursor,
    every_run_of_an_inline_audience_is_a_source,
    suppressed_addresses_are_marked_and_counted,
    duplicates_are_counted_and_not_accepted,
    stored_audiences_page_in_the_order_of_sort_keys_and_skip_the_unsubscribed,
    a_stored_audience_is_counted_as_it_is_read,
    a_paused_broadcast_gets_held_chunks,
    a_canceled_broadcast_gets_canceled_chunks,
    a_scheduled_inline_broadcast_is_cut_at_once_and_its_chunks_wait,
    a_scheduled_stored_audience_is_read_when_its_time_comes,
    a_broadcast_without_recipients_is_completed,
    counts_are_conserved_at_every_moment_of_a_fan_out,
    recipients_come_out_of_a_chunk_as_they_went_in,
}

fn list_id(n: u128) -> ListId {
    ListId::new(at(0), n)
}

fn to_all(n: u128) -> NewBroadcast {
    NewBroadcast {
        audience: Audience::All,
        ..broadcast(n, 0)
    }
}

fn addresses(recipients: &[Recipient]) -> Vec<&str> {
    recipients.iter().map(|r| r.email.as_str()).collect()
}

async fn a_chunk_and_its_cursor_are_one_transaction(w: World) {
    let new = broadcast(1, 10);
    let people = people(10);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    assert_eq!(w.next_seq(&new.id).await.unwrap(), 0);
    w.fan_out_next(job.lease, &step(0, &people[..4]), at(1)).await.unwrap();

    // A chunk whose number is taken is refused, and its cursor with it.
    let twice = w.fan_out_next(job.lease, &step(0, &people[4..8]), at(2)).await;
    assert!(matches!(twice, Err(StoreError::Conflict(_))), "{twice:?}");
    w.finish(job.lease, JobEnd::Released, at(3)).await.unwrap();
    let again = w.claim_one(worker, JobKind::FanOut, at(4)).await;
    assert_eq!(again.cursor, Some(people[3].sort_key()));
    assert_eq!(w.next_seq(&new.id).await.unwrap(), 1);
    assert_eq!(w.show(&new.id).await.counts.queued, 10);
}

async fn an_interrupted_fan_out_goes_on_where_it_stopped(w: World) {
    let new = broadcast(1, 20);
    let people = people(20);
    w.accept_new(&new, &people, at(0)).await;
    let dead = w.worker(at(0)).await;
    let job = w.claim_one(dead, JobKind::FanOut, at(0)).await;
    w.fan_out_next(job.lease, &step(0, &people[..9]), at(1)).await.unwrap();

    w.rescue(NOBODY, at(LEASE_MS + 1)).await.unwrap();
    let next = w.worker(at(LEASE_MS + 2)).await;
    let job = w.claim_one(next, JobKind::FanOut, at(LEASE_MS + 2)).await;
    let mut rest = Vec::new();
    let mut after = job.cursor.clone();
    loop {
        let page = w.source_page(&new.id, &Source::Run(0), after.as_ref()).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.sort_key());
        rest.extend(page);
    }
    assert_eq!(addresses(&rest), addresses(&people[9..]), "nobody is skipped or repeated");
}

async fn a_fenced_fan_out_writes_nothing(w: World) {
    let new = broadcast(1, 10);
    let people = people(10);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    let before = w
        .sql("SELECT chunked, jobs_left, received, duplicates, status FROM broadcasts")
        .await;
    let stale = Lease {
        epoch: job.lease.epoch - 1,
        ..job.lease
    };
    let fenced = w.fan_out_next(stale, &step(0, &people), at(1)).await;
    assert!(matches!(fenced, Err(StoreError::LeaseLost)), "{fenced:?}");
    let fenced = w.finish_fan_out(stale, 5, 5, at(1)).await;
    assert!(matches!(fenced, Err(StoreError::LeaseLost)), "{fenced:?}");
    let unknown = Lease { job_id: 999, epoch: 1 };
    let fenced = w.fan_out_next(unknown, &step(0, &people), at(1)).await;
    assert!(matches!(fenced, Err(StoreError::LeaseLost)), "{fenced:?}");
    assert_eq!(
        w.sql("SELECT chunked, jobs_left, received, duplicates, status FROM broadcasts")
            .await,
        before
    );
    assert_eq!(w.sql("SELECT COUNT(*) FROM chunks").await, ["0"]);
    assert_eq!(w.sql("SELECT COUNT(*) FROM jobs").await, ["1"]);
    assert!(!w.source_page(&new.id, &Source::Run(0), None).await.unwrap().is_empty());
}

async fn pages_of_a_run_resume_strictly_after_the_cursor(w: World) {
    let new = broadcast(1, 30);
    let people = people(30);
    w.accept_new(&new, &people, at(0)).await;
    for (place, last) in people.iter().enumerate() {
        let page = w
            .source_page(&new.id, &Source::Run(0), Some(&last.sort_key()))
            .await
            .unwrap();
        let rest = &people[place + 1..];
        assert_eq!(page.is_empty(), rest.is_empty());
        assert_eq!(addresses(&page), addresses(&rest[..page.len()]), "after {place}");
    }
}

async fn every_run_of_an_inline_audience_is_a_source(w: World) {
    let new = NewBroadcast {
        audience: Audience::Inline { runs: 2 },
        ..broadcast(1, 20)
    };
    let (one, other) = (people(10), sorted(vec![recipient("x@example.org"), recipient("y@example.org")]));
    w.stage_run(&new.id, 0, &pages(&one), at(0)).await.unwrap();
    w.stage_run(&new.id, 1, &pages(&other), at(0)).await.unwrap();
    w.accept(&new, None, at(0)).await.unwrap();
    assert_eq!(w.sources(&new.id).await.unwrap(), [Source::Run(0), Source::Run(1)]);
    let page = w.source_page(&new.id, &Source::Run(1), None).await.unwrap();
    assert_eq!(addresses(&page), addresses(&other));
}

async fn suppressed_addresses_are_marked_and_counted(w: World) {
    let new = broadcast(1, 5);
    let people = people(5);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    let step = FanOutStep {
        suppressed: vec![1, 4],
        ..step(0, &people)
    };
    w.fan_out_next(job.lease, &step, at(1)).await.unwrap();
    w.finish_fan_out(job.lease, 0, 0, at(2)).await.unwrap();
    let expected = Counts {
        queued: 3,
        suppressed: 2,
        ..Counts::default()
    };
    assert_eq!(w.show(&new.id).await.counts, expected);
    assert_eq!(w.recount(&new.id).await.unwrap(), expected);
    let job = w.claim_one(worker, JobKind::Deliver, at(3)).await;
    let earlier = w.chunk_work(job.lease).await.unwrap().earlier;
    let mut marked: Vec<_> = earlier.iter().map(|e| (e.ordinal, e.status)).collect();
    marked.sort_unstable();
    assert_eq!(marked, [(1, MessageStatus::Suppressed), (4, MessageStatus::Suppressed)]);
}

async fn duplicates_are_counted_and_not_accepted(w: World) {
    let new = broadcast(1, 13);
    let people = people(10);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    let step = FanOutStep {
        duplicates: 2,
        ..step(0, &people)
    };
    w.fan_out_next(job.lease, &step, at(1)).await.unwrap();
    w.finish_fan_out(job.lease, 0, 1, at(2)).await.unwrap();
    let shown = w.show(&new.id).await;
    assert_eq!((shown.received.received, shown.received.duplicates), (13, 3));
    assert_eq!((shown.received.accepted(), shown.counts.total(), shown.counts.queued), (10, 10, 10));
}

async fn stored_audiences_page_in_the_order_of_sort_keys_and_skip_the_unsubscribed(w: World) {
    let n = SOURCE_PAGE_SIZE as usize + 30;
    let everyone = people(n);
    let list = list_id(1);
    w.create_list(&list, "Half", at(0)).await.unwrap();
    let (half, rest): (Vec<_>, Vec<_>) = everyone.iter().cloned().enumerate().partition(|(i, _)| i % 2 == 0);
    let strip = |some: Vec<(usize, Recipient)>| some.into_iter().map(|(_, r)| r).collect::<Vec<_>>();
    let (half, rest) = (strip(half), strip(rest));
    w.put_contacts(&half, Some(&list), at(0)).await.unwrap();
    w.put_contacts(&rest, None, at(0)).await.unwrap();
    let gone: Vec<String> = [&half[3], &rest[5]].iter().map(|r| r.email.normalised()).collect();
    w.suppress(&gone, hikyaku::domain::contact::SuppressionReason::Unsubscribed, "ui", at(1))
        .await
        .unwrap();

    let subscribed = |all: &[Recipient]| -> Vec<String> {
        let kept = all.iter().filter(|r| !gone.contains(&r.email.normalised()));
        kept.map(|r| r.email.to_string()).collect()
    };
    for (n, audience, expected) in [
        (1, Audience::All, subscribed(&everyone)),
        (
            2,
            Audience::Lists {
                list_ids: vec![list.clone()],
            },
            subscribed(&half),
        ),
    ] {
        let new = NewBroadcast {
            audience,
            ..broadcast(n, 0)
        };
        w.accept(&new, None, at(2)).await.unwrap();
        let source = &w.sources(&new.id).await.unwrap()[0];
        let (mut read, mut after) = (Vec::new(), None);
        loop {
            let page = w.source_page(&new.id, source, after.as_ref()).await.unwrap();
            assert!(page.len() as i64 <= SOURCE_PAGE_SIZE);
            let Some(last) = page.last() else { break };
            after = Some(last.sort_key());
            read.extend(page);
        }
        assert_eq!(addresses(&read), expected);
    }
}

async fn a_stored_audience_is_counted_as_it_is_read(w: World) {
    let people = people(10);
    w.put_contacts(&people, None, at(0)).await.unwrap();
    let new = to_all(1);
    w.accept(&new, None, at(0)).await.unwrap();
    assert_eq!(w.show(&new.id).await.counts.total(), 0);
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    for (seq, chunk) in (0..).zip(people.chunks(4)) {
        let step = FanOutStep {
            received: chunk.len() as i64 + 1,
            duplicates: 1,
            ..step(seq, chunk)
        };
        w.fan_out_next(job.lease, &step, at(1)).await.unwrap();
        let shown = w.show(&new.id).await;
        assert_eq!(shown.received.accepted(), shown.counts.total());
    }
    w.finish_fan_out(job.lease, 1, 1, at(2)).await.unwrap();
    let shown = w.show(&new.id).await;
    assert_eq!((shown.received.received, shown.received.duplicates, shown.counts.queued), (14, 4, 10));
}

async fn a_paused_broadcast_gets_held_chunks(w: World) {
    let new = broadcast(1, 10);
    let people = people(10);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    assert_eq!(w.fan_out_next(job.lease, &step(0, &people[..5]), at(1)).await.unwrap(), None);
    let reason = "too early".to_owned();
    w.control(&new.id, &Wish::Pause { reason }, at(2)).await.unwrap();
    let wish = w.fan_out_next(job.lease, &step(1, &people[5..]), at(3)).await.unwrap();
    assert_eq!(wish, Some(Stop::Hold));
    assert!(w.claim(worker, JobKind::Deliver, 10, at(4)).await.unwrap().is_empty());
    w.finish(job.lease, JobEnd::Stopped, at(5)).await.unwrap();
    assert_eq!(w.jobs(Some("held"), 10).await.unwrap().len(), 3);

    w.control(&new.id, &Wish::Resume, at(6)).await.unwrap();
    assert_eq!(w.claim(worker, JobKind::Deliver, 10, at(7)).await.unwrap().len(), 2);
    let job = w.claim_one(worker, JobKind::FanOut, at(7)).await;
    assert_eq!(job.cursor, Some(people[9].sort_key()));
}

async fn a_canceled_broadcast_gets_canceled_chunks(w: World) {
    let new = broadcast(1, 10);
    let people = people(10);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    w.fan_out_next(job.lease, &step(0, &people[..3]), at(1)).await.unwrap();
    w.control(&new.id, &Wish::Cancel, at(2)).await.unwrap();
    let wish = w.fan_out_next(job.lease, &step(1, &people[3..6]), at(3)).await.unwrap();
    assert_eq!(wish, Some(Stop::Cancel));
    assert_eq!(w.show(&new.id).await.finished_at, None, "its fan-out is still held by somebody");
    w.finish(job.lease, JobEnd::Stopped, at(4)).await.unwrap();
    let shown = w.show(&new.id).await;
    assert_eq!((shown.status, shown.finished_at), (BroadcastStatus::Canceled, Some(at(4))));
    let expected = Counts {
        canceled: 10,
        ..Counts::default()
    };
    assert_eq!(shown.counts, expected, "the ones that never came into a chunk are canceled too");
}

async fn a_scheduled_inline_broadcast_is_cut_at_once_and_its_chunks_wait(w: World) {
    let mut new = broadcast(1, 10);
    new.send_at = Some(at(60_000));
    w.accept_new(&new, &people(10), at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    w.fan_out(&job, 5, at(1)).await;
    let shown = w.show(&new.id).await;
    assert_eq!((shown.status, shown.started_at), (BroadcastStatus::Scheduled, None));
    assert_eq!(w.jobs(Some("waiting"), 10).await.unwrap().len(), 2);
    assert_eq!(w.next_due().await.unwrap(), Some(at(60_000)));
    assert_eq!(w.promote(at(59_999)).await.unwrap(), 0);
    assert!(
        w.claim(worker, JobKind::Deliver, 10, at(59_999))
            .await
            .unwrap()
            .is_empty()
    );

    assert_eq!(w.promote(at(60_000)).await.unwrap(), 2);
    let shown = w.show(&new.id).await;
    assert_eq!((shown.status, shown.started_at), (BroadcastStatus::Sending, Some(at(60_000))));
    assert_eq!(w.claim(worker, JobKind::Deliver, 10, at(60_000)).await.unwrap().len(), 2);
    assert_eq!(w.next_due().await.unwrap(), None);
}

async fn a_scheduled_stored_audience_is_read_when_its_time_comes(w: World) {
    let mut new = to_all(1);
    new.send_at = Some(at(60_000));
    w.accept(&new, None, at(0)).await.unwrap();
    let worker = w.worker(at(0)).await;
    assert!(w.claim(worker, JobKind::FanOut, 1, at(0)).await.unwrap().is_empty());
    w.put_contacts(&people(4), None, at(1)).await.unwrap();
    assert_eq!(w.promote(at(60_000)).await.unwrap(), 1);
    assert_eq!(w.show(&new.id).await.status, BroadcastStatus::Accepted);
    let job = w.claim_one(worker, JobKind::FanOut, at(60_000)).await;
    let (all, _) = w.read_audience(&new.id).await;
    assert_eq!(all.len(), 4, "whoever subscribed meanwhile is in it");
    let all: Vec<Recipient> = all.into_values().collect();
    w.fan_out_next(job.lease, &step(0, &all), at(60_001)).await.unwrap();
    let shown = w.show(&new.id).await;
    assert_eq!((shown.status, shown.started_at), (BroadcastStatus::FanningOut, Some(at(60_000))));
}

async fn a_broadcast_without_recipients_is_completed(w: World) {
    let new = to_all(1);
    w.accept(&new, None, at(0)).await.unwrap();
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    w.finish_fan_out(job.lease, 0, 0, at(7)).await.unwrap();
    let shown = w.show(&new.id).await;
    assert_eq!((shown.status, shown.finished_at), (BroadcastStatus::Completed, Some(at(7))));
    assert_eq!(shown.counts, Counts::default());
}

async fn counts_are_conserved_at_every_moment_of_a_fan_out(w: World) {
    const CHUNKS: usize = 60;
    let new = broadcast(1, CHUNKS);
    let people = people(CHUNKS);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    let (store, id) = (w.share(), new.id.clone());
    let watcher = tokio::spawn(async move {
        loop {
            let shown = store.broadcast(&id).await.unwrap().expect("it exists");
            assert_eq!(shown.counts.total(), CHUNKS as i64);
            let listed = &store.broadcasts(None, 5).await.unwrap().rows[0];
            assert_eq!(listed.counts.total(), CHUNKS as i64);
            if shown.status == BroadcastStatus::Sending {
                break;
            }
        }
    });
    w.fan_out(&job, 1, at(1)).await;
    watcher.await.unwrap();
}

async fn recipients_come_out_of_a_chunk_as_they_went_in(w: World) {
    let mut odd = vec![
        recipient("o'neil+x@example.org"),
        recipient("änna@example.org"),
        recipient("B@Example.org"),
    ];
    odd[0].name = Some("Zoë \"Z\" O'Neil \\ \u{1F4EE}".into());
    odd[1].data = serde_json::value::RawValue::from_string("{\"n\": 1e400, \"s\": \"\\u0000 ' \\\" \"}".into()).ok();
    let odd = sorted(odd);
    let new = broadcast(1, 3);
    w.accept_new(&new, &odd, at(0)).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    w.fan_out(&job, 10, at(1)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(2)).await;
    let work = w.chunk_work(job.lease).await.unwrap();
    assert_eq!(format!("{:?}", work.chunk.recipients), format!("{odd:?}"));
}
