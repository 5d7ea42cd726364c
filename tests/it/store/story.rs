//! The whole story once, from the request to the last message. Leaves every detail to the other cases.

use hikyaku::domain::broadcast::BroadcastStatus;
use hikyaku::domain::counts::Counts;
use hikyaku::domain::job::JobKind;

use super::contract;
use super::world::{World, at, broadcast, people};

contract! {
    a_broadcast_goes_from_the_request_to_its_last_message,
}

async fn a_broadcast_goes_from_the_request_to_its_last_message(w: World) {
    let new = broadcast(1, 25);
    w.accept_new(&new, &people(25), at(0)).await;
    let shown = w.show(&new.id).await;
    assert_eq!(shown.status, BroadcastStatus::Accepted);
    assert_eq!(shown.counts.queued, 25, "what is not in chunks yet is queued");

    let worker = w.worker(at(10)).await;
    let fan_out = w.claim_one(worker, JobKind::FanOut, at(10)).await;
    w.fan_out(&fan_out, 10, at(20)).await;
    assert_eq!(w.show(&new.id).await.status, BroadcastStatus::Sending);

    let jobs = w.claim(worker, JobKind::Deliver, 10, at(30)).await.unwrap();
    assert_eq!(jobs.iter().map(|j| j.seq).collect::<Vec<_>>(), [0, 1, 2]);
    for job in &jobs {
        w.send_all(job, at(40)).await;
    }
    let shown = w.show(&new.id).await;
    assert_eq!(shown.status, BroadcastStatus::Completed);
    assert_eq!(shown.started_at, Some(at(20)));
    assert_eq!(shown.finished_at, Some(at(40)));
    let expected = Counts {
        sent: 25,
        ..Counts::default()
    };
    assert_eq!(shown.counts, expected);
    assert_eq!(w.recount(&new.id).await.unwrap(), expected);
}
