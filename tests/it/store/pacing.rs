//! The pace of the cluster: permits that nobody gets twice, refusals that slow everybody down, and the one probe of a relay that
//! failed.

use hikyaku::domain::ledger::{Account, Ask, PaceRow, period_us};
use hikyaku::domain::relay::RelaySpec;
use hikyaku::store::pacing::{FASTER_GAP_MS, PERMILLE_MIN, RelayAt, SLOWER_GAP_MS, Slower};

use super::contract;
use super::world::{World, at};

contract! {
    permits_are_dealt_out_once_whoever_asks,
    hours_and_days_are_counted_and_given_back,
    a_refusal_halves_the_pace_once_and_success_raises_it,
    one_worker_probes_a_relay_that_failed,
    a_mended_relay_is_tried_at_once_and_by_who_knows_it,
}

fn ask(lane: &str, n: i64) -> Ask {
    Ask {
        lane: lane.into(),
        n,
        unused: 0,
        period_us: Some(period_us(100)),
        per_hour: None,
        per_day: None,
    }
}

async fn row(w: &World, relay_id: i64, lane: &str) -> PaceRow {
    let rows = w.paces().await.unwrap();
    rows.into_iter()
        .find(|r| r.relay_id == relay_id && r.lane == lane)
        .unwrap()
}

async fn permits_are_dealt_out_once_whoever_asks(w: World) {
    let now = at(1_000_000);
    let first = w.take_permits(1, &[ask("", 5), ask("google", 2)], now).await.unwrap();
    assert_eq!(
        first.iter().map(|g| (g.n, g.first_us)).collect::<Vec<_>>(),
        [(5, now.0 * 1_000), (2, now.0 * 1_000)]
    );
    let other = w.open_again().await;
    let second = other.take_permits(1, &[ask("", 5)], now).await.unwrap();
    assert_eq!((second[0].n, second[0].first_us), (5, now.0 * 1_000 + 50_000), "behind the first ones");
    let elsewhere = w.take_permits(2, &[ask("", 1)], now).await.unwrap();
    assert_eq!(elsewhere[0].first_us, now.0 * 1_000, "another relay has a pace of its own");
}

async fn hours_and_days_are_counted_and_given_back(w: World) {
    let limited = |n, unused| Ask {
        n,
        unused,
        period_us: None,
        per_hour: Some(10),
        per_day: Some(15),
        ..ask("", 0)
    };
    let n = async |n, unused, now| w.take_permits(1, &[limited(n, unused)], at(now)).await.unwrap()[0].n;
    let hour = 3_600_000;
    assert_eq!(n(8, 0, 0).await, 8);
    assert_eq!(n(8, 0, 1).await, 2);
    assert_eq!(n(8, 3, 2).await, 3, "what came to nothing was given back");
    assert_eq!(n(8, 0, hour).await, 5, "a new hour of the same day");
    assert_eq!(n(8, 0, 2 * hour).await, 0);
    let Account { day_taken, .. } = row(&w, 1, "").await.account;
    assert_eq!(day_taken, 15);
}

async fn a_refusal_halves_the_pace_once_and_success_raises_it(w: World) {
    let slower = Slower {
        relay_id: 1,
        lane: "google",
        reason: "421 4.7.0 slow down",
        pause_ms: 2_000,
        base_us: 7_000,
    };
    assert!(w.slow_down(&slower, at(0)).await.unwrap());
    assert!(!w.slow_down(&slower, at(1)).await.unwrap(), "another connection heard the same");
    let learnt = row(&w, 1, "google").await;
    assert_eq!((learnt.permille, learnt.base_us, learnt.suspended_until), (500, 7_000, Some(at(2_000))));
    assert_eq!(learnt.reason.as_deref(), Some("421 4.7.0 slow down"));
    assert!(w.slow_down(&slower, at(SLOWER_GAP_MS)).await.unwrap());
    assert_eq!(row(&w, 1, "google").await.permille, 250);
    assert!(!w.speed_up(1, "google", at(SLOWER_GAP_MS + 1)).await.unwrap(), "it has not gone well for long");
    let mut now = SLOWER_GAP_MS + 2_000;
    let mut raised = 0;
    while w.paces().await.unwrap().iter().any(|r| r.permille < 1_000) {
        now += FASTER_GAP_MS;
        assert!(w.speed_up(1, "google", at(now)).await.unwrap());
        raised += 1;
    }
    assert_eq!(raised, 7, "a quarter at a time");
    for n in 0..20 {
        w.slow_down(&slower, at(now + n * SLOWER_GAP_MS)).await.unwrap();
    }
    assert_eq!(row(&w, 1, "google").await.permille, PERMILLE_MIN);
}

async fn one_worker_probes_a_relay_that_failed(w: World) {
    let relay = put(&w, "smtp://a").await;
    assert_eq!(relay.id, 1);
    assert_eq!(w.relay_failed(relay, "connection refused", 1_000, at(0)).await.unwrap(), 1);
    assert_eq!(
        w.relay_failed(relay, "connection refused", 9_000, at(5)).await.unwrap(),
        0,
        "it is suspended already"
    );
    assert!(!w.try_probe(relay, 7, at(60_000), at(999)).await.unwrap(), "too early");
    let other = w.open_again().await;
    assert!(w.try_probe(relay, 7, at(60_000), at(1_000)).await.unwrap());
    assert!(!other.try_probe(relay, 8, at(60_000), at(1_001)).await.unwrap(), "another one tries");
    assert!(
        other.try_probe(relay, 8, at(90_000), at(60_000)).await.unwrap(),
        "the first was never heard of again"
    );
    assert_eq!(
        w.relay_failed(relay, "connection refused", 2_000, at(60_001))
            .await
            .unwrap(),
        2
    );
    assert!(w.try_probe(relay, 7, at(99_000), at(62_001)).await.unwrap());
    w.relay_works(1, at(62_002)).await.unwrap();
    let well = row(&w, 1, "").await;
    assert_eq!((well.failures, well.suspended_until, well.reason, well.probe_until), (0, None, None, None));
}

async fn put(w: &World, url: &str) -> RelayAt {
    let relay = w.put_relay("r", &RelaySpec::of(url), at(0)).await.unwrap();
    RelayAt {
        id: relay.id,
        version: relay.version,
    }
}

async fn a_mended_relay_is_tried_at_once_and_by_who_knows_it(w: World) {
    let before = put(&w, "smtp://a").await;
    w.relay_failed(before, "connection refused", 300_000, at(0))
        .await
        .unwrap();
    let reweighed = w
        .put_relay(
            "r",
            &RelaySpec {
                weight: 5,
                ..RelaySpec::of("smtp://a")
            },
            at(1),
        )
        .await
        .unwrap();
    assert!(row(&w, before.id, "").await.suspended_until > Some(at(2)), "its address is still the same");
    let at_weight = RelayAt {
        id: reweighed.id,
        version: reweighed.version,
    };
    assert!(!w.try_probe(at_weight, 7, at(60_000), at(2)).await.unwrap());

    let now = w.put_relay("r", &RelaySpec::of("smtp://b"), at(3)).await.unwrap();
    let now = RelayAt {
        id: now.id,
        version: now.version,
    };
    assert!(!w.try_probe(at_weight, 7, at(60_000), at(3)).await.unwrap(), "it would try the old address");
    assert_eq!(
        w.relay_failed(at_weight, "connection refused", 9_000, at(3))
            .await
            .unwrap(),
        0,
        "that was the old one"
    );
    assert!(w.try_probe(now, 8, at(60_000), at(3)).await.unwrap());

    w.pause_relay("r", Some("why"), at(4)).await.unwrap();
    w.pause_relay("r", None, at(5)).await.unwrap();
    let resumed = RelayAt {
        version: now.version + 2,
        ..now
    };
    assert!(w.try_probe(resumed, 7, at(60_000), at(5)).await.unwrap(), "whoever resumes it wants to see it try");
}
