//! The decisions about a broadcast under watch, as a table of what was seen and what is done.

use super::*;

/// To relays, of all workers.
const CONNECTIONS: i64 = 8;

const NOW: Timestamp = Timestamp(1_790_000_000_000);

fn classes(of: &[(&str, i64)]) -> Vec<ByClass> {
    let by_class = |(class, n): &(&str, i64)| ByClass {
        class: (*class).to_owned(),
        n: *n,
    };
    of.iter().map(by_class).collect()
}

/// Sent, and failed by reason; nothing is left to do.
fn tally(sent: i64, failed: &[(&str, i64)]) -> Tally {
    let n: i64 = failed.iter().map(|(_, n)| n).sum();
    Tally {
        size: sent + n,
        sent,
        failed: n,
        by_class: classes(failed),
        ..Tally::default()
    }
}

fn watched(tally: Tally) -> Watched {
    Watched {
        safety: Safety::default(),
        canary: None,
        canary_size: 0,
        canary_tried_at: None,
        seen: Seen::default(),
        tally,
    }
}

fn canary(size: i64, tally: Tally) -> Watched {
    Watched {
        safety: Safety {
            canary: Some(CanaryRule {
                first: CanarySize::Count(size),
                hold_above_percent: 5,
            }),
            auto_pause: None,
        },
        canary: Some(CanaryState::Running),
        canary_size: size,
        ..watched(tally)
    }
}

fn kind(step: &Step) -> &'static str {
    match step {
        Step::Nothing => "nothing",
        Step::CanaryTried => "tried",
        Step::OpenGate => "open",
        Step::Pause(pause) => pause.kind.as_str(),
        Step::Reckon(_) => "reckon",
    }
}

fn decided(w: &Watched) -> &'static str {
    kind(&judge(w, &Limits::default(), CONNECTIONS, NOW))
}

#[test]
fn a_broadcast_pauses_when_too_much_of_it_fails() {
    for (sent, failed, expected) in [
        // A handful is no trend, and a share as high as allowed is allowed.
        (0, 199, "nothing"),
        (0, 200, "failures"),
        (180, 20, "nothing"),
        // A little more may be chance: the fewer there are, the more of them it takes.
        (179, 21, "nothing"),
        (152, 48, "nothing"),
        (150, 50, "failures"),
        (890, 98, "nothing"),
        (900, 100, "reckon"),
        (900, 101, "reckon"),
        (830, 170, "failures"),
        (1_000_000, 500, "reckon"),
    ] {
        let w = watched(tally(sent, &[("invalid_recipient", failed)]));
        assert_eq!(decided(&w), expected, "{sent} sent, {failed} failed");
    }
}

#[test]
fn what_the_rest_would_meet_as_well_stops_it_earlier() {
    for (sent, class, n, expected) in [
        (0, "auth_policy", 19, "nothing"),
        (0, "auth_policy", 20, "refused"),
        (0, "sender_rejected", 20, "refused"),
        (0, "spam_content", 20, "refused"),
        (0, "message_too_large", 20, "refused"),
        (0, "reputation_block", 20, "refused"),
        (0, "unknown", 20, "nothing"),
        (0, "policy_other", 20, "nothing"),
        // One odd receiver among many.
        (50, "spam_content", 20, "refused"),
        (80, "spam_content", 20, "nothing"),
        (380, "spam_content", 20, "nothing"),
    ] {
        let w = watched(tally(sent, &[(class, n)]));
        assert_eq!(decided(&w), expected, "{sent} sent, {n} {class}");
    }
    // Two reasons of the kind count together, and the commoner one is named.
    let w = watched(tally(10, &[("spam_content", 12), ("auth_policy", 9), ("invalid_recipient", 30)]));
    let Step::Pause(pause) = judge(&w, &Limits::default(), CONNECTIONS, NOW) else {
        panic!()
    };
    let evidence = pause.evidence.clone().unwrap();
    assert_eq!((evidence.class.as_str(), evidence.failed, evidence.outcomes), ("spam_content", 21, 61));
    assert!(pause.sentence().unwrap().contains("21 of the last 61"), "{pause:?}");
    assert!(pause.advice().unwrap().contains("before you resume"));
}

#[test]
fn a_trouble_that_begins_late_does_not_drown_in_what_went_well() {
    let mut w = watched(tally(1_000_000, &[("auth_policy", 30)]));
    let Step::Reckon(seen) = judge(&w, &Limits::default(), CONNECTIONS, NOW) else {
        panic!("0.003 per cent is no reason")
    };
    w.seen = seen;
    assert_eq!(decided(&w), "nothing");
    w.tally = tally(1_000_050, &[("auth_policy", 50)]);
    assert_eq!(decided(&w), "refused", "20 of the last 70");
}

#[test]
fn a_broadcast_says_for_itself_when_it_pauses() {
    let mut w = watched(tally(100, &[("auth_policy", 100), ("invalid_recipient", 50)]));
    w.safety.auto_pause = Some(AutoPause::Off);
    assert_eq!(decided(&w), "nothing");
    let mut w = watched(tally(150, &[("invalid_recipient", 50)]));
    for (percent, expected) in [(10, "failures"), (25, "nothing")] {
        w.safety.auto_pause = Some(AutoPause::AbovePercent(percent));
        assert_eq!(decided(&w), expected, "{percent}");
    }
}

#[test]
fn what_a_person_has_seen_is_not_held_against_it_again() {
    let mut w = watched(tally(320, &[("invalid_recipient", 80)]));
    let Step::Pause(pause) = judge(&w, &Limits::default(), CONNECTIONS, NOW) else {
        panic!()
    };
    w.seen = w.seen.anew(&w.tally).tolerating(Some(&pause));
    assert_eq!(decided(&w), "nothing", "the same evidence");
    // The list goes on as it was: a fifth fails, and that was seen.
    w.tally = tally(320 + 400, &[("invalid_recipient", 80 + 100)]);
    assert_eq!(decided(&w), "nothing");
    // It became worse than half as much again.
    w.tally = tally(320 + 200, &[("invalid_recipient", 80 + 200)]);
    assert_eq!(decided(&w), "failures");
    // And more than half is never let pass.
    let everything = watched(tally(0, &[("auth_policy", 20)]));
    let Step::Pause(pause) = judge(&everything, &Limits::default(), CONNECTIONS, NOW) else {
        panic!()
    };
    let seen = everything.seen.anew(&everything.tally).tolerating(Some(&pause));
    assert_eq!((seen.refused_percent, seen.failed_percent), (50, 50));
    let still = Watched {
        seen,
        ..watched(tally(0, &[("auth_policy", 20 + 40)]))
    };
    assert_eq!(decided(&still), "refused", "nothing was put right");
}

#[test]
fn a_retry_takes_failures_away_and_nothing_breaks() {
    let mut w = watched(tally(100, &[]));
    w.seen = Seen::default().at(&tally(100, &[("auth_policy", 60)]));
    assert_eq!(decided(&w), "nothing");
}

#[test]
fn the_rest_follows_a_canary_that_went_well() {
    assert_eq!(decided(&canary(50, tally(50, &[]))), "open");
    assert_eq!(decided(&canary(50, tally(48, &[("invalid_recipient", 2)]))), "open", "4 per cent");
    assert_eq!(decided(&canary(50, tally(47, &[("invalid_recipient", 3)]))), "canary", "6 per cent");
    // The whole audience is smaller than the canary.
    let mut small = canary(50, tally(10, &[]));
    assert_eq!(decided(&small), "nothing", "there may be more");
    small.tally.is_split = true;
    assert_eq!(decided(&small), "open");
}

#[test]
fn a_canary_that_is_lost_is_not_waited_for() {
    let mut w = canary(50, tally(0, &[("auth_policy", 3)]));
    w.tally.size = 50;
    w.tally.queued = 47;
    assert_eq!(decided(&w), "canary", "3 of 50 are more than 5 per cent, whatever becomes of the others");
    w.tally.failed = 2;
    w.tally.by_class = classes(&[("auth_policy", 2)]);
    w.tally.queued = 48;
    assert_eq!(decided(&w), "nothing");
}

#[test]
fn the_deferred_ones_of_a_canary_are_waited_for_and_not_for_ever() {
    let mut w = canary(50, tally(40, &[]));
    w.tally.size = 50;
    w.tally.deferred = 10;
    assert_eq!(decided(&w), "tried");
    let wait = Limits::default().canary_wait_ms;
    w.canary_tried_at = Some(NOW.plus_ms(1 - wait));
    assert_eq!(decided(&w), "nothing");
    w.canary_tried_at = Some(NOW.plus_ms(-wait));
    assert_eq!(decided(&w), "open", "those with an outcome decide");
    // Without any outcome nothing was learnt.
    w.tally.sent = 0;
    w.tally.deferred = 50;
    assert_eq!(decided(&w), "canary");
    let Step::Pause(pause) = judge(&w, &Limits::default(), CONNECTIONS, NOW) else {
        panic!()
    };
    assert!(pause.sentence().unwrap().starts_with("none of the first messages"));
    assert!(pause.advice().is_some());
}

#[test]
fn a_canary_may_not_lose_a_single_message_when_that_is_wished() {
    let mut w = canary(1_000, tally(999, &[("unknown", 1)]));
    w.safety.canary.as_mut().unwrap().hold_above_percent = 0;
    assert_eq!(decided(&w), "canary");
    w.tally = tally(1_000, &[]);
    assert_eq!(decided(&w), "open");
}

/// A broadcast of so many messages of which this share fails, looked at by lot after 1 to 200 outcomes: after how many it is stopped.
fn stopped_after(messages: i64, share: f64, class: &str, lot: &mut fastrand::Rng) -> Option<Pause> {
    let mut w = watched(tally(0, &[]));
    let (mut sent, mut failed) = (0, 0);
    while sent + failed < messages {
        for _ in 0..lot.i64(1..=200) {
            match lot.f64() < share {
                true => failed += 1,
                false => sent += 1,
            }
        }
        w.tally = tally(sent, &[(class, failed)]);
        match judge(&w, &Limits::default(), CONNECTIONS, NOW) {
            Step::Pause(pause) => return Some(pause),
            Step::Reckon(seen) => w.seen = seen,
            _ => {}
        }
    }
    None
}

#[test]
fn a_steady_share_below_the_limit_is_not_stopped_by_chance() {
    let mut lot = fastrand::Rng::with_seed(20_261_127);
    // By what is promised, less than a thousandth of a broadcast is stopped of each row. The limits are 10 and 5 per cent.
    for (share, class) in [
        (0.061, "invalid_recipient"),
        (0.095, "invalid_recipient"),
        (0.10, "invalid_recipient"),
        (0.04, "spam_content"),
        (0.05, "spam_content"),
    ] {
        for n in 0..60 {
            let stopped = stopped_after(100_000, share, class, &mut lot);
            assert_eq!(stopped, None, "{share} {class}, broadcast {n}");
        }
    }
}

#[test]
fn a_share_above_the_limit_is_stopped_the_sooner_the_higher_it_is() {
    let mut lot = fastrand::Rng::with_seed(20_261_128);
    for (share, class, at_most) in [
        (1.0, "invalid_recipient", 400),
        (0.5, "invalid_recipient", 400),
        (0.25, "invalid_recipient", 1_200),
        (0.20, "invalid_recipient", 2_000),
        (0.15, "invalid_recipient", 6_000),
        (0.12, "invalid_recipient", 40_000),
        (1.0, "spam_content", 220),
        (0.25, "spam_content", 600),
        (0.08, "spam_content", 10_000),
    ] {
        for n in 0..100 {
            let stopped = stopped_after(100_000, share, class, &mut lot).and_then(|p| p.evidence);
            let evidence = stopped.unwrap_or_else(|| panic!("{share} {class}, broadcast {n} goes on"));
            let outcomes = evidence.over_all.map_or(evidence.outcomes, |all| all.outcomes);
            assert!(outcomes <= at_most, "{share} {class}, broadcast {n}: {evidence:?}");
        }
    }
}

#[test]
fn a_pause_says_the_share_over_all_beside_that_of_the_window() {
    let mut w = watched(tally(55_441, &[("invalid_recipient", 3_559)]));
    w.seen = Seen::default().at(&w.tally);
    w.tally = tally(55_441 + 136, &[("invalid_recipient", 3_559 + 65)]);
    let Step::Pause(pause) = judge(&w, &Limits::default(), CONNECTIONS, NOW) else {
        panic!("a third of the window failed")
    };
    let said = pause.sentence().unwrap();
    assert!(said.starts_with("65 of the last 201 messages failed (32.3 %, 10 % is allowed)"), "{said}");
    assert!(said.contains("; over all 3624 of 59201 (6.1 %); mostly invalid recipient"), "{said}");
    // Where the window is all there is, nothing is said twice.
    let w = watched(tally(0, &[("invalid_recipient", 200)]));
    let Step::Pause(pause) = judge(&w, &Limits::default(), CONNECTIONS, NOW) else {
        panic!()
    };
    assert!(!pause.sentence().unwrap().contains("over all"), "{pause:?}");
}

#[test]
fn what_was_resumed_is_reckoned_from_there_over_all_too() {
    let mut w = watched(tally(8_000, &[("invalid_recipient", 2_000)]));
    let Step::Pause(pause) = judge(&w, &Limits::default(), CONNECTIONS, NOW) else {
        panic!()
    };
    w.seen = w.seen.anew(&w.tally).tolerating(Some(&pause));
    for k in 1..=20 {
        // As before, and then a little more than nothing.
        w.tally = tally(8_000 + 900 * k, &[("invalid_recipient", 2_000 + 100 * k)]);
        match judge(&w, &Limits::default(), CONNECTIONS, NOW) {
            Step::Reckon(seen) => w.seen = seen,
            step => assert_eq!(step, Step::Nothing),
        }
    }
    assert_eq!(w.seen.base.outcomes, 10_000);
}

#[test]
fn the_size_of_a_canary() {
    assert_eq!(CanarySize::Count(50).of(10), 50);
    assert_eq!([1, 99, 100, 101].map(|n| CanarySize::Percent(1).of(n)), [1, 1, 1, 2]);
    assert_eq!(CanarySize::Percent(99).of(0), 1);
    let read = |first: &str| CanaryRule::parse(first, None).map(|r| r.first);
    assert_eq!(read("50"), Ok(CanarySize::Count(50)));
    assert_eq!(read(" 5 % "), Ok(CanarySize::Percent(5)));
    for wrong in ["0", "-1", "100%", "0%", "1.5%", "few", "100001"] {
        assert!(read(wrong).is_err_and(|why| why.contains("1 to 100000")), "{wrong}");
    }
    assert!(CanaryRule::parse("5", Some("101")).is_err());
    assert_eq!(CanaryRule::parse("5", Some("0%")).map(|r| r.hold_above_percent), Ok(0));
}

#[test]
fn doubts_beyond_one_for_each_connection_stop_a_broadcast_whatever_it_asks_for() {
    let doubt = |relay: &str, n| Doubts {
        relay: relay.into(),
        class: "network".into(),
        n,
    };
    let in_doubt = |doubts: Vec<Doubts>, seen: Vec<Doubts>| {
        let mut w = watched(tally(50, &[]));
        (w.tally.doubts, w.seen.doubts) = (doubts, seen);
        w.safety.auto_pause = Some(AutoPause::Off);
        w
    };
    let limits = Limits::default();
    let most = limits.doubts_max + CONNECTIONS;
    let step = |doubts, seen| judge(&in_doubt(doubts, seen), &limits, CONNECTIONS, NOW);
    assert_eq!(step(vec![doubt("a", most)], vec![]), Step::Nothing, "a restart");
    assert_eq!(step(vec![doubt("a", most), doubt("b", most)], vec![]), Step::Nothing, "two restarts");
    assert_eq!(
        step(vec![doubt("a", 2 * most)], vec![doubt("a", most)]),
        Step::Nothing,
        "somebody has seen the first"
    );
    let Step::Pause(pause) = step(vec![doubt("b", 1), doubt("a", most + 1)], vec![]) else {
        panic!("it goes on");
    };
    let evidence = pause.evidence.as_ref().unwrap();
    assert_eq!((pause.kind, evidence.failed, evidence.relay.as_deref()), (PauseKind::Doubt, most + 1, Some("a")));
    assert!(
        pause
            .sentence()
            .unwrap()
            .starts_with("the relay a gave no reply to the end of 14 messages, so that")
    );
}
