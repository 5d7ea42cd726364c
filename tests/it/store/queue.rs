//! Claiming, leases and rescue: who holds a job, and whose writes count. Never pauses or cancels; that is `control`.

use std::collections::HashSet;

use hikyaku::domain::broadcast::{BroadcastStatus, NewBroadcast, Priority};
use hikyaku::domain::job::{DEATHS_MAX, JobEnd, JobKind, Lease};
use hikyaku::domain::message::MessageStatus;
use hikyaku::domain::worker::WorkerStats;
use hikyaku::store::StoreError;
use hikyaku::store::delivery::Ack;
use hikyaku::store::workers::{Heartbeat, Rescued};
use tokio::task::JoinSet;

use super::contract;
use super::world::{LEASE_MS, NOBODY, World, at, broadcast, people, progress, sent, settled};

contract! {
    claims_come_in_the_order_priority_seq_id,
    a_claim_takes_one_kind_only,
    a_claim_ahead_takes_the_chunk_of_a_broadcast_that_began_later,
    a_worker_that_is_not_live_cannot_claim,
    two_claimers_never_get_the_same_job,
    a_lapsed_lease_cannot_settle,
    the_epoch_rises_at_rescue,
    inflight_survives_rescue_and_is_handed_to_the_next_owner,
    a_healthy_worker_keeps_its_jobs,
    a_heartbeat_after_death_says_so,
    who_comes_back_late_still_has_what_nobody_took,
    a_draining_worker_finishes_but_claims_nothing,
    a_retired_worker_leaves_nothing_behind,
    who_holds_the_database_alone_voids_all_others,
    a_job_whose_owner_died_five_times_is_quarantined_and_gets_another_chance,
    a_job_that_gets_on_from_life_to_life_is_not_set_aside,
    a_finished_job_forgets_its_deaths,
    a_job_can_be_set_aside_with_a_reason,
    a_released_job_is_ready_for_anybody,
    a_job_with_deferred_messages_waits_for_its_time,
    a_job_with_messages_left_is_not_done,
    a_broadcast_is_completed_only_when_all_its_jobs_are_over,
}

async fn claims_come_in_the_order_priority_seq_id(w: World) {
    let worker = w.worker(at(0)).await;
    for (n, priority) in [
        (1, Priority::Bulk),
        (2, Priority::Normal),
        (3, Priority::Normal),
        (4, Priority::High),
    ] {
        let new = NewBroadcast {
            priority,
            ..broadcast(n, 2)
        };
        w.accept_new(&new, &people(2), at(0)).await;
    }
    let fan_outs = w.claim(worker, JobKind::FanOut, 9, at(0)).await.unwrap();
    let order = |claimed: &[hikyaku::domain::job::Claimed]| -> Vec<(String, i64)> {
        claimed.iter().map(|c| (c.broadcast_id.to_string(), c.seq)).collect()
    };
    let id = |n: u128| broadcast(n, 0).id.to_string();
    assert_eq!(order(&fan_outs), [(id(4), 0), (id(2), 0), (id(3), 0), (id(1), 0)]);
    for job in &fan_outs {
        w.fan_out(job, 1, at(1)).await;
    }
    let mut claimed = w.claim(worker, JobKind::Deliver, 3, at(2)).await.unwrap();
    claimed.extend(w.claim(worker, JobKind::Deliver, 9, at(2)).await.unwrap());
    let expected = [
        (id(4), 0),
        (id(4), 1),
        (id(2), 0),
        (id(3), 0),
        (id(2), 1),
        (id(3), 1),
        (id(1), 0),
        (id(1), 1),
    ];
    assert_eq!(order(&claimed), expected, "broadcasts of one priority interleave chunk by chunk");
}

async fn a_claim_takes_one_kind_only(w: World) {
    w.ready_broadcast(1, 2, 1).await;
    w.accept(&broadcast(2, 0), None, at(0)).await.unwrap();
    let worker = w.worker(at(0)).await;
    assert_eq!(w.claim(worker, JobKind::FanOut, 9, at(0)).await.unwrap().len(), 1);
    let jobs = w.claim(worker, JobKind::Deliver, 9, at(0)).await.unwrap();
    assert!(
        jobs.iter()
            .all(|j| j.kind == JobKind::Deliver && j.cursor.is_none() && j.inflight.is_empty())
    );
    assert_eq!(jobs.len(), 2);
}

async fn a_claim_ahead_takes_the_chunk_of_a_broadcast_that_began_later(w: World) {
    let large = w.ready_broadcast(1, 5, 1).await;
    let worker = w.worker(at(0)).await;
    w.claim(worker, JobKind::Deliver, 3, at(0)).await.unwrap();
    assert!(w.claim_ahead(worker, 1, at(1)).await.unwrap().is_empty(), "only chunks 3 and 4 are left");
    let small = w.ready_broadcast(2, 2, 1).await;
    for seq in [0, 1] {
        let ahead = w.claim_ahead(worker, 1, at(2)).await.unwrap();
        assert_eq!(ahead.iter().map(|j| (&j.broadcast_id, j.seq)).collect::<Vec<_>>(), [(&small, seq)]);
    }
    assert!(w.claim_ahead(worker, 2, at(3)).await.unwrap().is_empty());
    assert_eq!(w.claim_ahead(worker, 3, at(3)).await.unwrap()[0].broadcast_id, large);
}

async fn a_worker_that_is_not_live_cannot_claim(w: World) {
    w.ready_broadcast(1, 1, 1).await;
    let (dead, stopped) = (w.worker(at(0)).await, w.worker(at(LEASE_MS)).await);
    w.rescue(NOBODY, at(LEASE_MS + 1)).await.unwrap();
    w.retire_worker(stopped, at(LEASE_MS + 1)).await.unwrap();
    for worker in [dead, stopped, 999] {
        assert!(
            w.claim(worker, JobKind::Deliver, 1, at(LEASE_MS + 2))
                .await
                .unwrap()
                .is_empty()
        );
    }
    let live = w.worker(at(LEASE_MS + 2)).await;
    assert_eq!(
        w.claim(live, JobKind::Deliver, 1, at(LEASE_MS + 2))
            .await
            .unwrap()
            .len(),
        1
    );
}

async fn two_claimers_never_get_the_same_job(w: World) {
    const JOBS: usize = 60;
    w.ready_broadcast(1, JOBS, 1).await;
    let mut claimers = JoinSet::new();
    for _ in 0..8 {
        let (store, worker) = (w.share(), w.worker(at(0)).await);
        claimers.spawn(async move {
            let mut mine = Vec::new();
            loop {
                let claimed = store.claim(worker, JobKind::Deliver, 3, at(1)).await.unwrap();
                if claimed.is_empty() {
                    return mine;
                }
                mine.extend(claimed.iter().map(|c| c.lease.job_id));
            }
        });
    }
    let all: Vec<i64> = claimers.join_all().await.concat();
    let distinct: HashSet<i64> = all.iter().copied().collect();
    assert_eq!((all.len(), distinct.len()), (JOBS, JOBS));
}

async fn a_lapsed_lease_cannot_settle(w: World) {
    let id = w.ready_broadcast(1, 3, 10).await;
    let zombie = w.worker(at(0)).await;
    let job = w.claim_one(zombie, JobKind::Deliver, at(0)).await;
    w.rescue(NOBODY, at(LEASE_MS + 1)).await.unwrap();
    let heir = w.worker(at(LEASE_MS + 1)).await;
    let again = w.claim_one(heir, JobKind::Deliver, at(LEASE_MS + 1)).await;
    assert!(again.lease.epoch > job.lease.epoch);

    let now = at(LEASE_MS + 2);
    let acks = w
        .commit_progress(&[progress(job.lease, vec![sent(0, now)], &[1])], now)
        .await
        .unwrap();
    assert_eq!(acks, [Ack::Fenced]);
    for end in [
        JobEnd::Done,
        JobEnd::Released,
        JobEnd::Stopped,
        JobEnd::Waiting(at(99_999)),
    ] {
        let fenced = w.finish(job.lease, end.clone(), now).await;
        assert!(matches!(fenced, Err(StoreError::LeaseLost)), "{end:?}: {fenced:?}");
    }
    let fenced = w.quarantine(job.lease, "why", now).await;
    assert!(matches!(fenced, Err(StoreError::LeaseLost)), "{fenced:?}");
    assert_eq!(w.show(&id).await.counts.queued, 3);
    w.send_all(&again, now).await;
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Completed);
}

async fn the_epoch_rises_at_rescue(w: World) {
    let id = w.ready_broadcast(1, 3, 10).await;
    let zombie = w.worker(at(0)).await;
    let job = w.claim_one(zombie, JobKind::Deliver, at(0)).await;
    w.rescue(NOBODY, at(LEASE_MS + 1)).await.unwrap();
    // Nobody has claimed the job yet; the dead owner comes back in between.
    let late = progress(job.lease, vec![sent(0, at(LEASE_MS + 2))], &[]);
    let acks = w.commit_progress(&[late], at(LEASE_MS + 2)).await.unwrap();
    assert_eq!(acks, [Ack::Fenced]);
    assert_eq!(w.recount(&id).await.unwrap().queued, 3);
    // The state alone would have fenced it. The epoch also holds when somebody else runs the job by then.
    let stored = w
        .sql("SELECT state, deaths, worker_id, epoch FROM jobs WHERE kind = 'deliver'")
        .await;
    assert_eq!(stored, [format!("ready|1||{}", job.lease.epoch + 1)]);
}

async fn inflight_survives_rescue_and_is_handed_to_the_next_owner(w: World) {
    w.ready_broadcast(1, 20, 20).await;
    let dead = w.worker(at(0)).await;
    let job = w.claim_one(dead, JobKind::Deliver, at(0)).await;
    w.commit_one(progress(job.lease, vec![sent(3, at(1))], &[0, 7, 19]), at(1))
        .await;
    let rescued = w.rescue(NOBODY, at(LEASE_MS + 1)).await.unwrap();
    let job_id = job.lease.job_id;
    assert_eq!(
        rescued,
        [Rescued {
            job_id,
            quarantined: false
        }]
    );
    let heir = w.worker(at(LEASE_MS + 1)).await;
    let again = w.claim_one(heir, JobKind::Deliver, at(LEASE_MS + 1)).await;
    assert_eq!((again.inflight.as_slice(), again.deaths), (&[0, 7, 19][..], 1));
    let earlier = w.chunk_work(again.lease).await.unwrap().earlier;
    assert_eq!(earlier.iter().map(|e| (e.ordinal, e.status)).collect::<Vec<_>>(), [(3, MessageStatus::Sent)]);
}

async fn a_healthy_worker_keeps_its_jobs(w: World) {
    w.ready_broadcast(1, 1, 1).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let stats = WorkerStats::default();
    let beat = w
        .heartbeat(worker, at(2 * LEASE_MS), false, &stats, at(LEASE_MS))
        .await
        .unwrap();
    assert_eq!(beat, Heartbeat::Alive { live_workers: 1 });
    assert!(
        w.rescue(NOBODY, at(2 * LEASE_MS)).await.unwrap().is_empty(),
        "a lease is good to its last millisecond"
    );
    w.send_all(&job, at(2 * LEASE_MS)).await;
}

async fn a_heartbeat_after_death_says_so(w: World) {
    let (slow, healthy) = (w.worker(at(0)).await, w.worker(at(10)).await);
    let stats = WorkerStats {
        rate_per_sec: 12.5,
        connections_open: 3,
        trouble: Some("the relay's \"busy\"".into()),
        brakes: Vec::new(),
    };
    let now = at(LEASE_MS + 5);
    w.rescue(NOBODY, now).await.unwrap();
    assert_eq!(w.heartbeat(slow, at(9 * LEASE_MS), false, &stats, now).await.unwrap(), Heartbeat::Dead);
    let beat = w
        .heartbeat(healthy, at(9 * LEASE_MS), false, &stats, now)
        .await
        .unwrap();
    assert_eq!(beat, Heartbeat::Alive { live_workers: 1 });
    let workers = w.workers(now).await.unwrap();
    assert_eq!(
        workers.iter().map(|w| (w.id, w.state.as_str())).collect::<Vec<_>>(),
        [(healthy, "live"), (slow, "dead")]
    );
    assert_eq!(workers[0].stats, stats);
    assert_eq!((workers[0].started_at, workers[0].seen_at), (at(10), now));
}

async fn who_comes_back_late_still_has_what_nobody_took(w: World) {
    w.ready_broadcast(1, 2, 1).await;
    let (late, other) = (w.worker(at(0)).await, w.worker(at(0)).await);
    let job = w.claim_one(late, JobKind::Deliver, at(0)).await;
    let theirs = w.claim_one(other, JobKind::Deliver, at(0)).await;
    let now = at(LEASE_MS + 1);
    let rescued = w.rescue(late, now).await.unwrap();
    assert_eq!(rescued.iter().map(|r| r.job_id).collect::<Vec<_>>(), [theirs.lease.job_id]);
    let beat = w
        .heartbeat(late, at(9 * LEASE_MS), false, &WorkerStats::default(), now)
        .await
        .unwrap();
    assert_eq!(beat, Heartbeat::Alive { live_workers: 1 });
    w.send_all(&job, now).await;
}

async fn a_draining_worker_finishes_but_claims_nothing(w: World) {
    w.ready_broadcast(1, 2, 1).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let beat = w
        .heartbeat(worker, at(LEASE_MS), true, &WorkerStats::default(), at(1))
        .await
        .unwrap();
    assert_eq!(beat, Heartbeat::Alive { live_workers: 0 });
    assert!(w.claim(worker, JobKind::Deliver, 1, at(2)).await.unwrap().is_empty());
    w.send_all(&job, at(3)).await;
}

async fn a_retired_worker_leaves_nothing_behind(w: World) {
    w.ready_broadcast(1, 1, 1).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.retire_worker(worker, at(1)).await.unwrap();
    let rescued = w.rescue(NOBODY, at(2)).await.unwrap();
    assert_eq!(rescued.iter().map(|r| r.job_id).collect::<Vec<_>>(), [job.lease.job_id]);
}

async fn who_holds_the_database_alone_voids_all_others(w: World) {
    w.ready_broadcast(1, 2, 1).await;
    let (before, me) = (w.worker(at(0)).await, w.worker(at(1)).await);
    let (theirs, mine) =
        (w.claim_one(before, JobKind::Deliver, at(1)).await, w.claim_one(me, JobKind::Deliver, at(1)).await);
    let rescued = w.void_other_workers(me).await.unwrap();
    assert_eq!(rescued.iter().map(|r| r.job_id).collect::<Vec<_>>(), [theirs.lease.job_id]);
    w.send_all(&mine, at(2)).await;
    assert_eq!(w.claim_one(me, JobKind::Deliver, at(3)).await.deaths, 1);
}

async fn a_job_whose_owner_died_five_times_is_quarantined_and_gets_another_chance(w: World) {
    let id = w.ready_broadcast(1, 1, 1).await;
    let mut now = at(0);
    let mut job_id = 0;
    for death in 1..=DEATHS_MAX {
        let worker = w.worker(now).await;
        let job = w.claim_one(worker, JobKind::Deliver, now).await;
        assert_eq!(job.deaths, death - 1);
        job_id = job.lease.job_id;
        assert!(!w.release_quarantined(job_id, now).await.unwrap(), "it is not quarantined yet");
        now = now.plus_ms(LEASE_MS + 1);
        let rescued = w.rescue(NOBODY, now).await.unwrap();
        assert_eq!(
            rescued,
            [Rescued {
                job_id,
                quarantined: death == DEATHS_MAX
            }]
        );
    }
    let worker = w.worker(now).await;
    assert!(w.claim(worker, JobKind::Deliver, 1, now).await.unwrap().is_empty());
    let listed = &w.jobs(Some("quarantined"), 10).await.unwrap()[0];
    assert_eq!((listed.id, listed.deaths), (job_id, DEATHS_MAX));
    assert!(listed.last_error.is_some());
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Sending, "a person must look");

    assert!(w.release_quarantined(job_id, now).await.unwrap());
    assert!(!w.release_quarantined(job_id, now).await.unwrap());
    assert!(!w.release_quarantined(999, now).await.unwrap());
    let job = w.claim_one(worker, JobKind::Deliver, now).await;
    assert_eq!(job.deaths, 0);
    w.send_all(&job, now).await;
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Completed);
}

async fn a_job_that_gets_on_from_life_to_life_is_not_set_aside(w: World) {
    w.ready_broadcast(1, 20, 20).await;
    let mut now = at(0);
    for life in 0..2 * DEATHS_MAX as u16 {
        let worker = w.worker(now).await;
        let job = w.claim_one(worker, JobKind::Deliver, now).await;
        assert_eq!(job.deaths, i64::from(life > 0), "a death after some work is the first again");
        w.commit_one(progress(job.lease, vec![sent(life, now)], &[life + 1]), now)
            .await;
        now = now.plus_ms(LEASE_MS + 1);
        let rescued = w.rescue(NOBODY, now).await.unwrap();
        assert!(rescued.iter().all(|r| !r.quarantined), "life {life}");
    }
}

async fn a_finished_job_forgets_its_deaths(w: World) {
    w.ready_broadcast(1, 1, 1).await;
    let dead = w.worker(at(0)).await;
    w.claim_one(dead, JobKind::Deliver, at(0)).await;
    let now = at(LEASE_MS + 1);
    w.rescue(NOBODY, now).await.unwrap();
    let worker = w.worker(now).await;
    let job = w.claim_one(worker, JobKind::Deliver, now).await;
    assert_eq!(job.deaths, 1);
    w.finish(job.lease, JobEnd::Released, now).await.unwrap();
    assert_eq!(w.claim_one(worker, JobKind::Deliver, now).await.deaths, 0, "five in a row, not in all");
}

async fn a_job_can_be_set_aside_with_a_reason(w: World) {
    let id = w.ready_broadcast(1, 2, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    w.quarantine(job.lease, "the template's \"loop\" never ends", at(1))
        .await
        .unwrap();
    let listed = &w.jobs(None, 10).await.unwrap()[0];
    assert_eq!((listed.state.as_str(), listed.worker_id), ("quarantined", None));
    assert_eq!(listed.last_error.as_deref(), Some("the template's \"loop\" never ends"));
    let acks = w
        .commit_progress(&[progress(job.lease, vec![sent(0, at(2))], &[])], at(2))
        .await
        .unwrap();
    assert_eq!(acks, [Ack::Fenced]);
    assert_eq!(w.show(&id).await.counts.queued, 2);
}

async fn a_released_job_is_ready_for_anybody(w: World) {
    let id = w.ready_broadcast(1, 2, 10).await;
    let (one, other) = (w.worker(at(0)).await, w.worker(at(0)).await);
    let job = w.claim_one(one, JobKind::Deliver, at(0)).await;
    w.commit_one(progress(job.lease, vec![sent(0, at(1))], &[]), at(1))
        .await;
    w.finish(job.lease, JobEnd::Released, at(2)).await.unwrap();
    let again = w.claim_one(other, JobKind::Deliver, at(3)).await;
    assert!(again.lease.epoch > job.lease.epoch);
    w.commit_one(progress(again.lease, vec![sent(1, at(4))], &[]), at(4))
        .await;
    w.finish(again.lease, JobEnd::Done, at(5)).await.unwrap();
    assert_eq!(w.show(&id).await.counts.sent, 2);
}

async fn a_job_with_deferred_messages_waits_for_its_time(w: World) {
    let id = w.ready_broadcast(1, 1, 1).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let deferred = settled(0, MessageStatus::Queued, MessageStatus::Deferred, 1, at(1));
    w.commit_one(progress(job.lease, vec![deferred], &[]), at(1)).await;
    w.finish(job.lease, JobEnd::Waiting(at(5_000)), at(2)).await.unwrap();
    assert_eq!(w.next_due().await.unwrap(), Some(at(5_000)));
    assert!(
        w.claim(worker, JobKind::Deliver, 1, at(4_999))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(w.promote(at(4_999)).await.unwrap(), 0);
    assert_eq!(w.promote(at(5_000)).await.unwrap(), 1);
    let job = w.claim_one(worker, JobKind::Deliver, at(5_000)).await;
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Sending);
    // A time that has come already needs no promotion.
    w.finish(job.lease, JobEnd::Waiting(at(5_001)), at(5_001))
        .await
        .unwrap();
    w.claim_one(worker, JobKind::Deliver, at(5_001)).await;
}

async fn a_job_with_messages_left_is_not_done(w: World) {
    let id = w.ready_broadcast(1, 3, 10).await;
    let worker = w.worker(at(0)).await;
    let job = w.claim_one(worker, JobKind::Deliver, at(0)).await;
    let deferred = settled(1, MessageStatus::Queued, MessageStatus::Deferred, 1, at(1));
    w.commit_one(progress(job.lease, vec![sent(0, at(1)), deferred, sent(2, at(1))], &[]), at(1))
        .await;
    let early = w.finish(job.lease, JobEnd::Done, at(2)).await;
    assert!(matches!(early, Err(StoreError::Refused(_))), "{early:?}");
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Sending);
    let last = settled(1, MessageStatus::Deferred, MessageStatus::Failed, 2, at(3));
    w.commit_one(progress(job.lease, vec![last], &[]), at(3)).await;
    w.finish(job.lease, JobEnd::Done, at(3)).await.unwrap();
    assert_eq!(w.show(&id).await.status, BroadcastStatus::Completed);
}

async fn a_broadcast_is_completed_only_when_all_its_jobs_are_over(w: World) {
    let new = broadcast(1, 2);
    let people = people(2);
    w.accept_new(&new, &people, at(0)).await;
    let worker = w.worker(at(0)).await;
    let fan_out = w.claim_one(worker, JobKind::FanOut, at(0)).await;
    // Both chunks are over before the fan-out is: it might still have found more.
    for (seq, one) in (0..).zip(people.chunks(1)) {
        w.fan_out_next(fan_out.lease, &super::world::step(seq, one), at(1))
            .await
            .unwrap();
        let job = w.claim_one(worker, JobKind::Deliver, at(2)).await;
        w.send_all(&job, at(3)).await;
        let shown = w.show(&new.id).await;
        assert_eq!((shown.status, shown.finished_at), (BroadcastStatus::FanningOut, None));
    }
    w.finish_fan_out(fan_out.lease, 0, 0, at(4)).await.unwrap();
    let shown = w.show(&new.id).await;
    assert_eq!((shown.status, shown.finished_at), (BroadcastStatus::Completed, Some(at(4))));
    let gone = w.finish(Lease { job_id: 999, epoch: 1 }, JobEnd::Done, at(5));
    assert!(matches!(gone.await, Err(StoreError::LeaseLost)));
}
