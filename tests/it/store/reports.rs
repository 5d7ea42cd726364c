//! Reading what became of everything: pages that miss nothing, and the same words for a message wherever it is found.

use std::collections::BTreeSet;

use hikyaku::domain::id::BroadcastId;
use hikyaku::domain::job::{JobEnd, JobKind};
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::worker::WorkerStats;
use hikyaku::store::queue::Wish;
use hikyaku::store::reports::MessageView;

use super::contract;
use super::world::{LEASE_MS, World, at, broadcast, people, progress, recipient, sent, settled, sorted};

contract! {
    a_new_store_is_ready_and_empty,
    paging_visits_every_message_exactly_once,
    paging_by_status_visits_every_message_of_it_exactly_once,
    a_message_is_found_by_its_address_in_any_spelling,
    messages_to_one_address_are_found_across_broadcasts,
    a_message_looks_the_same_however_it_is_found,
    broadcasts_page_from_the_newest,
    the_rate_is_what_was_settled_lately,
    the_rate_counts_nothing_that_an_earlier_claim_settled,
    workers_that_ended_are_shown_for_a_day,
    jobs_are_listed_by_state_in_the_order_of_the_queue,
}

async fn a_new_store_is_ready_and_empty(w: World) {
    w.ready().await.unwrap();
    assert!(w.broadcasts(None, 10).await.unwrap().rows.is_empty());
    assert!(w.workers(at(0)).await.unwrap().is_empty());
    assert!(w.jobs(None, 10).await.unwrap().is_empty());
    assert_eq!(w.next_due().await.unwrap(), None);
    assert_eq!(w.next_campaign_at().await.unwrap(), None);
}

/// 250 recipients in chunks of 30, with every status among them: some jobs done, one waiting, one canceled job's worth queued.
async fn mixed(w: &World) -> BroadcastId {
    let id = w.ready_broadcast(1, 250, 30).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 4, at(0)).await.unwrap();
    w.send_all(&jobs[0], at(1)).await;
    for job in &jobs[1..] {
        let cycle = [
            MessageStatus::Sent,
            MessageStatus::Failed,
            MessageStatus::Deferred,
            MessageStatus::Suppressed,
            MessageStatus::Uncertain,
            MessageStatus::Expired,
        ];
        let lines = (0..24).map(|o| settled(o, MessageStatus::Queued, cycle[usize::from(o) % 6], 1, at(2)));
        w.commit_one(progress(job.lease, lines.collect(), &[]), at(2)).await;
    }
    w.finish(jobs[1].lease, JobEnd::Waiting(at(9_000)), at(3))
        .await
        .unwrap();
    id
}

async fn all_pages(w: &World, id: &BroadcastId, status: Option<MessageStatus>, limit: i64) -> Vec<MessageView> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = w.messages(id, status, after.as_deref(), limit).await.unwrap();
        assert!(page.rows.len() as i64 <= limit);
        assert!(page.next.is_none() || page.rows.len() as i64 == limit, "only the last page may be short");
        all.extend(page.rows);
        match page.next {
            Some(next) => after = Some(next),
            None => return all,
        }
    }
}

async fn paging_visits_every_message_exactly_once(w: World) {
    let id = mixed(&w).await;
    let expected: BTreeSet<String> = people(250).iter().map(|r| r.email.to_string()).collect();
    let mut lists = Vec::new();
    for limit in [7, 100, 250, 1_000] {
        let all = all_pages(&w, &id, None, limit).await;
        assert_eq!(all.len(), 250);
        assert_eq!(all.iter().map(|m| m.email.clone()).collect::<BTreeSet<_>>(), expected);
        lists.push(all);
    }
    assert!(lists.windows(2).all(|pair| pair[0] == pair[1]), "the order does not depend on the limit");
}

async fn paging_by_status_visits_every_message_of_it_exactly_once(w: World) {
    let id = mixed(&w).await;
    for round in ["sending", "canceled"] {
        let counts = w.show(&id).await.counts;
        for status in MessageStatus::ALL {
            for limit in [1, 7, 100] {
                // One at a time through hundreds would only be slow.
                if limit == 1 && counts.get(status) > 40 {
                    continue;
                }
                let all = all_pages(&w, &id, Some(status), limit).await;
                assert_eq!(all.len() as i64, counts.get(status), "{status} {round} by {limit}");
                assert!(all.iter().all(|m| m.status == status));
                let ids: BTreeSet<_> = all.iter().map(|m| m.id).collect();
                assert_eq!(ids.len(), all.len());
            }
        }
        if round == "sending" {
            w.control(&id, &Wish::Cancel, at(10)).await.unwrap();
        }
    }
}

async fn a_message_is_found_by_its_address_in_any_spelling(w: World) {
    let spelled = [
        "Anna.B@Example.org",
        "o'neil+tag@example.org",
        "Ünal@müller.example",
        "zoe@example.org",
    ];
    let new = broadcast(1, 4);
    w.accept_new(&new, &sorted(spelled.map(recipient).to_vec()), at(0))
        .await;
    assert_eq!(w.message_to(&new.id, "zoe@example.org").await.unwrap(), None, "there is no chunk yet");
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    w.fan_out(&job, 2, at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(1)).await;
    w.send_all(&job, at(2)).await;
    let mut seen = Vec::new();
    for address in spelled {
        let parsed = recipient(address).email;
        let found = w
            .message_to(&new.id, &parsed.normalised())
            .await
            .unwrap()
            .expect(address);
        assert_eq!(found.email, parsed.as_str(), "as it was given");
        seen.push(found.status);
    }
    seen.sort_unstable();
    let (queued, sent) = (MessageStatus::Queued, MessageStatus::Sent);
    assert_eq!(seen, [queued, queued, sent, sent]);
    assert_eq!(w.message_to(&new.id, "nobody@example.org").await.unwrap(), None);
}

async fn messages_to_one_address_are_found_across_broadcasts(w: World) {
    let ids = [
        w.ready_broadcast(1, 40, 7).await,
        w.ready_broadcast(2, 3, 7).await,
        w.ready_broadcast(3, 40, 7).await,
    ];
    let found = w.messages_to("p30@example.org", 10).await.unwrap();
    let of: Vec<_> = found.iter().map(|m| m.broadcast_id.clone()).collect();
    assert_eq!(of, [ids[2].clone(), ids[0].clone()], "the newest first, and none from the one without it");
    assert!(found.iter().all(|m| m.email == "p30@example.org"));
    assert_eq!(w.messages_to("p30@example.org", 1).await.unwrap().len(), 1);
    assert!(w.messages_to("nobody@example.org", 10).await.unwrap().is_empty());
}

async fn a_message_looks_the_same_however_it_is_found(w: World) {
    let id = mixed(&w).await;
    for listed in w.messages(&id, None, None, 100).await.unwrap().rows {
        assert_eq!(w.message(listed.id).await.unwrap().as_ref(), Some(&listed));
        assert_eq!(w.message_to(&id, &listed.email).await.unwrap().as_ref(), Some(&listed));
        assert_eq!(listed.reply.is_none(), listed.status == MessageStatus::Queued);
        assert_eq!(listed.next_at.is_some(), listed.status == MessageStatus::Deferred);
    }
}

async fn broadcasts_page_from_the_newest(w: World) {
    for n in 1..=7 {
        w.accept(&broadcast(n, n as usize), None, at(0)).await.unwrap();
    }
    for limit in [1, 3, 7, 50] {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = w.broadcasts(after.as_deref(), limit).await.unwrap();
            all.extend(page.rows.iter().map(|b| b.counts.queued));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(all, [7, 6, 5, 4, 3, 2, 1], "by {limit}");
    }
}

async fn the_rate_is_what_was_settled_lately(w: World) {
    let id = w.ready_broadcast(1, 200, 100).await;
    assert_eq!(w.rate(&id, at(0)).await.unwrap().per_sec, 0.0);
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    // Ten a second for eight seconds.
    for second in 1..=8 {
        let now = at(i64::from(second) * 1_000);
        let lines = (0..10).map(|i| sent((second - 1) * 10 + i, now));
        w.commit_one(progress(job.lease, lines.collect(), &[]), now).await;
    }
    let rate = w.rate(&id, at(8_000)).await.unwrap().per_sec;
    assert!((9.0..11.0).contains(&rate), "{rate}");
    // Then silence: the rate sinks, and is gone when the window is.
    let later = w.rate(&id, at(12_000)).await.unwrap().per_sec;
    assert!(later < rate && later > 0.0, "{later}");
    assert_eq!(w.rate(&id, at(18_001)).await.unwrap().per_sec, 0.0);
}

async fn the_rate_counts_nothing_that_an_earlier_claim_settled(w: World) {
    let id = w.ready_broadcast(1, 100, 100).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let mut lines: Vec<_> = (0..99).map(|o| sent(o, at(1_000))).collect();
    lines.push(settled(99, MessageStatus::Queued, MessageStatus::Deferred, 1, at(1_000)));
    w.commit_one(progress(job.lease, lines, &[]), at(1_000)).await;
    w.finish(job.lease, JobEnd::Waiting(at(20_000)), at(1_000))
        .await
        .unwrap();
    w.promote(at(20_000)).await.unwrap();
    let job = w.claim_one(worker, JobKind::Deliver, at(20_000)).await;
    let last = settled(99, MessageStatus::Deferred, MessageStatus::Sent, 2, at(21_000));
    w.commit_one(progress(job.lease, vec![last], &[]), at(21_000)).await;
    let rate = w.rate(&id, at(21_000)).await.unwrap().per_sec;
    assert!((0.9..1.1).contains(&rate), "{rate}");
}

async fn workers_that_ended_are_shown_for_a_day(w: World) {
    w.ready_broadcast(1, 2, 1).await;
    let (one, other) = (w.worker(at(0)).await, w.worker(at(1)).await);
    w.claim(other, JobKind::Deliver, 2, at(2)).await.unwrap();
    let of = |workers: Vec<hikyaku::domain::worker::Worker>| -> Vec<(i64, String, i64)> {
        let known = workers.into_iter().filter(|w| w.id >= one);
        known.map(|w| (w.id, w.state, w.jobs)).collect()
    };
    let (live, stopped, draining) = ("live".to_owned(), "stopped".to_owned(), "draining".to_owned());
    assert_eq!(of(w.workers(at(3)).await.unwrap()), [(other, live.clone(), 2), (one, live, 0)]);
    w.heartbeat(one, at(LEASE_MS), true, &WorkerStats::default(), at(4))
        .await
        .unwrap();
    w.retire_worker(other, at(5)).await.unwrap();
    let day = 24 * 3_600_000;
    let expected = [(one, draining.clone(), 0), (other, stopped, 2)];
    assert_eq!(of(w.workers(at(day)).await.unwrap()), expected, "the living first");
    assert_eq!(of(w.workers(at(day + 5)).await.unwrap()), [(one, draining, 0)]);
}

async fn jobs_are_listed_by_state_in_the_order_of_the_queue(w: World) {
    let id = w.ready_broadcast(1, 5, 1).await;
    let worker = w.worker(at(0)).await;
    let jobs = w.claim(worker, JobKind::Deliver, 3, at(10)).await.unwrap();
    w.finish(jobs[0].lease, JobEnd::Waiting(at(9_000)), at(11))
        .await
        .unwrap();
    w.quarantine(jobs[1].lease, "poison", at(12)).await.unwrap();
    let states = |jobs: &[hikyaku::domain::worker::JobView]| -> Vec<(String, i64)> {
        jobs.iter().map(|j| (j.state.clone(), j.seq)).collect()
    };
    let listed = w.jobs(None, 10).await.unwrap();
    let expected = [
        ("quarantined", 1),
        ("running", 2),
        ("ready", 3),
        ("ready", 4),
        ("waiting", 0),
    ];
    assert_eq!(states(&listed), expected.map(|(state, seq)| (state.to_owned(), seq)));
    assert_eq!(states(&w.jobs(None, 2).await.unwrap()), states(&listed[..2]));
    let running = &w.jobs(Some("running"), 10).await.unwrap()[0];
    let told = (running.worker_id, running.kind.as_str(), running.size, running.settled, running.touched_at);
    assert_eq!(told, (Some(worker), "deliver", 1, 0, Some(at(10))));
    assert_eq!((running.broadcast_id.as_str(), running.subject.as_str()), (id.as_str(), "News 1"));
    assert_eq!(w.jobs(Some("done"), 10).await.unwrap().len(), 1, "the fan-out");
}
