//! What is allowed follows from signs and from what the database says: tables, and a relay that gives every sign at random.

use std::sync::Arc;

use super::*;

fn unanswered() -> Sign {
    Sign::Unanswered("closed".into())
}

fn refused() -> Sign {
    Sign::Refused("503 too early".into())
}

fn lost() -> Sign {
    Sign::Lost("421 bye".into())
}

fn on_trial() -> Allowances {
    let allowances = Allowances::new(8);
    allowances.learn(FindingKind::Flights, Known::OnTrial);
    allowances
}

fn in_use() -> Allowances {
    let allowances = Allowances::new(8);
    allowances.learn(FindingKind::Flights, Known::Taken);
    allowances
}

/// One flight that is taken like this.
fn flight(allowances: &Allowances, sign: &Sign) -> Option<Discovery> {
    let leave = allowances.leave(FindingKind::Flights);
    allowances.heed(&leave, sign)
}

fn known(allowances: &Allowances) -> Known {
    allowances.known(FindingKind::Flights)
}

#[test]
fn nothing_is_written_ahead_until_something_is_known() {
    let allowances = Allowances::new(8);
    assert_eq!(allowances.leave(FindingKind::Flights).flights, Flights::Off);
    allowances.allow_all();
    assert_eq!(allowances.leave(FindingKind::Windows).flights, Flights::On);
}

#[test]
fn one_flight_at_a_time_is_tried_and_three_in_a_row_allow_them() {
    let allowances = on_trial();
    for n in 1..=TRIALS {
        let leave = allowances.leave(FindingKind::Flights);
        assert_eq!(leave.flights, Flights::Trial);
        assert_eq!(allowances.leave(FindingKind::Flights).flights, Flights::Off, "one is out");
        let discovery = allowances.heed(&leave, &Sign::Taken);
        assert_eq!(discovery.is_some(), n == TRIALS);
    }
    assert_eq!(known(&allowances), Known::Taken);
    assert_eq!(allowances.leave(FindingKind::Flights).flights, Flights::On);
}

#[test]
fn a_trial_without_a_sign_is_tried_again() {
    let allowances = on_trial();
    drop(allowances.leave(FindingKind::Flights));
    assert_eq!(allowances.leave(FindingKind::Flights).flights, Flights::Trial);
}

#[test]
fn the_first_bad_sign_of_a_trial_ends_it() {
    for sign in [refused(), lost(), unanswered()] {
        let allowances = on_trial();
        assert_eq!(flight(&allowances, &Sign::Taken), None);
        let discovery = flight(&allowances, &sign).unwrap();
        assert_eq!((discovery.value, known(&allowances)), (Some(0), Known::Refused), "{sign:?}");
        assert!(!discovery.words.is_empty());
        // The database does not know it yet.
        allowances.learn(FindingKind::Flights, Known::OnTrial);
        assert_eq!(known(&allowances), Known::Refused);
    }
}

#[test]
fn flights_in_use_end_at_a_clear_word_and_are_tried_anew_after_a_doubt() {
    let allowances = in_use();
    let leaves = [
        allowances.leave(FindingKind::Flights),
        allowances.leave(FindingKind::Flights),
    ];
    assert_eq!(allowances.heed(&leaves[0], &refused()).unwrap().value, Some(0));
    assert_eq!(allowances.heed(&leaves[1], &refused()), None, "the second hears the same");

    let allowances = in_use();
    assert_eq!(flight(&allowances, &unanswered()).unwrap().value, None);
    assert_eq!(allowances.leave(FindingKind::Flights).flights, Flights::Off);

    let allowances = in_use();
    let signs = [lost(), Sign::Taken, lost(), lost(), lost()];
    let discoveries = signs.map(|sign| flight(&allowances, &sign).map(|d| d.value));
    assert_eq!(discoveries, [None, None, None, None, Some(None)], "three lost in a row");
}

#[test]
fn a_session_that_ends_twice_alike_or_says_why_has_a_limit() {
    let value = |d: Option<Discovery>| d.and_then(|d| d.value);
    let allowances = Allowances::new(8);
    assert_eq!(value(allowances.session_ended(100, true, "452 too many messages")), Some(100));
    assert_eq!(value(allowances.session_ended(100, true, "452 too many messages")), None, "known");
    assert_eq!(allowances.session_max(), Some(100));
    let allowances = Allowances::new(8);
    let ends = [50, 30, 50, 50].map(|n| value(allowances.session_ended(n, false, "421 bye")));
    assert_eq!(ends, [None, None, None, Some(50)]);
    let allowances = Allowances::new(8);
    let ends = [1, 1, 1].map(|n| value(allowances.session_ended(n, false, "421 bye")));
    assert_eq!(ends, [None; 3], "what ends so soon has other reasons");
}

#[test]
fn connections_are_limited_to_those_that_were_let_in() {
    let begun = Instant::now();
    let after = |secs| begun + Duration::from_secs(secs);
    let value = |d: Option<Discovery>| d.and_then(|d| d.value);
    let said = |a: &Allowances| value(a.turned_away(true, "421 too many connections", begun, None));
    let silent = |a: &Allowances, secs| value(a.turned_away(false, "closed", after(secs), Some(after(secs))));

    let allowances = Allowances::new(8);
    assert_eq!(said(&allowances), None, "none is open");
    for _ in 0..5 {
        allowances.opened();
    }
    assert_eq!(said(&allowances), Some(5));
    assert_eq!(said(&allowances), None, "known");

    let allowances = Allowances::new(8);
    allowances.opened();
    assert_eq!([0, 0, 0].map(|secs| silent(&allowances, secs)), [None; 3], "it may be restarting");
    assert_eq!(silent(&allowances, 2), Some(1), "the other one goes on");

    let allowances = Allowances::new(8);
    allowances.opened();
    assert_eq!([0, 1].map(|secs| silent(&allowances, secs)), [None; 2]);
    allowances.opened();
    assert_eq!([2, 3].map(|secs| silent(&allowances, secs)), [None; 2], "one was let in meanwhile");

    let allowances = Arc::new(Allowances::new(8));
    allowances.opened();
    let opening: Vec<Opening> = (0..4).map(|_| allowances.opening()).collect();
    assert_eq!(said(&allowances), Some(5), "of those being opened some may be let in");
    drop(opening);
    assert_eq!(said(&allowances), Some(1));
}

#[tokio::test]
async fn a_place_is_had_when_another_one_is_given_up_or_there_are_more() {
    let allowances = Arc::new(Allowances::new(8));
    allowances.limit(None, 1);
    let place = allowances.place().await;
    let mut second = std::pin::pin!(allowances.place());
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(place);
    let second = second.await;
    let mut third = std::pin::pin!(allowances.place());
    assert!(futures_util::poll!(&mut third).is_pending());
    allowances.limit(None, 2);
    let third = third.await;
    drop((second, third));
    assert_eq!(allowances.state().n_placed, 0);
}

/// A relay that hangs up on everything that is written ahead, seen by two workers with many connections in any order: one message is in
/// doubt, whatever the order.
#[test]
fn at_most_one_message_comes_into_doubt_before_a_relay_is_known() {
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let workers = [Allowances::new(16), Allowances::new(16)];
        // What the database says: which worker tries, and what was found.
        let (mut trial, mut value) = (None, None);
        let mut n_in_doubt = 0;
        for _ in 0..200 {
            let n = random.usize(0..2);
            let known = match (trial, value) {
                (_, Some(0)) => Known::Refused,
                (None, _) => {
                    trial = Some(n);
                    Known::OnTrial
                }
                (Some(of), _) if of == n => Known::OnTrial,
                _ => Known::Nothing,
            };
            if random.bool() {
                workers[n].learn(FindingKind::Flights, known);
            }
            let leaves: Vec<Leave<'_>> = (0..random.usize(1..16))
                .map(|_| workers[n].leave(FindingKind::Flights))
                .collect();
            for leave in &leaves {
                if leave.flights != Flights::Off {
                    n_in_doubt += 1;
                    let discovery = workers[n].heed(leave, &unanswered());
                    value = value.or(discovery.and_then(|d| d.value));
                }
            }
        }
        assert!(n_in_doubt <= 1, "seed {seed}: {n_in_doubt} in doubt");
    }
}
