//! Taking requests in: what is durable when, and what a repeated request gets. Never looks at delivery.

use hikyaku::domain::broadcast::{Audience, BroadcastStatus, OnUncertain, Priority};
use hikyaku::domain::content::Letter;
use hikyaku::domain::counts::{Counts, Received};
use hikyaku::store::StoreError;
use hikyaku::store::fan_out::Source;
use hikyaku::store::intake::{Accepted, IdempotencyClaim};
use tokio::task::JoinSet;

use super::contract;
use super::world::{World, at, broadcast, broadcast_id, pages, people};

contract! {
    accepted_is_visible_with_its_counts,
    what_was_accepted_reads_back_word_for_word,
    nothing_is_visible_before_it_is_accepted,
    a_repeated_key_answers_as_the_first_time,
    keys_of_different_owners_never_meet,
    of_many_racing_requests_with_one_key_one_is_stored,
    an_id_is_accepted_once,
    staged_pages_without_a_broadcast_are_swept,
    discarding_does_not_touch_an_accepted_broadcast,
}

async fn accepted_is_visible_with_its_counts(w: World) {
    let mut new = broadcast(1, 12);
    (new.received, new.rejected, new.duplicates) = (17, 3, 2);
    w.accept_new(&new, &people(12), at(5)).await;
    let shown = w.show(&new.id).await;
    assert_eq!(shown.status, BroadcastStatus::Accepted);
    assert_eq!(
        shown.received,
        Received {
            received: 17,
            rejected: 3,
            duplicates: 2
        }
    );
    let expected = Counts {
        queued: 12,
        ..Counts::default()
    };
    assert_eq!(shown.counts, expected);
    assert_eq!((shown.created_at, shown.started_at, shown.finished_at), (at(5), None, None));
}

async fn what_was_accepted_reads_back_word_for_word(w: World) {
    let mut new = broadcast(1, 1);
    let words = "\"Żółw's\" {{ name }} \\ \u{1F4EE}\r\n\t<b>&amp;</b> %s $1 ?1";
    new.letter = Letter {
        headers: vec![("X-Words".into(), "a'b".into())],
        data: serde_json::from_value(serde_json::json!({ "nul": "\u{0}", "words": words })).unwrap(),
        ..new.letter
    };
    new.letter.content.subject = "Ünïcode's \"subject\" \u{1F4EE}".into();
    new.letter.content.text = Some(words.into());
    new.send_at = Some(at(10));
    new.expires_at = Some(at(9_000));
    new.on_uncertain = OnUncertain::Hold;
    new.priority = Priority::Bulk;
    new.relay = Some("second".into());
    new.tags = vec!["a'b".into(), words.into()];
    new.metadata = serde_json::from_value(serde_json::json!({ "n": 1.5, "deep": [null, words] })).unwrap();
    w.accept_new(&new, &people(1), at(0)).await;

    let shown = w.show(&new.id).await;
    assert_eq!(shown.status, BroadcastStatus::Scheduled);
    assert_eq!(shown.subject, new.letter.content.subject);
    assert_eq!(shown.from_email, "news@example.com");
    assert_eq!(shown.audience, Audience::Inline { runs: 1 });
    assert_eq!((&shown.tags, &shown.metadata), (&new.tags, &new.metadata));
    assert_eq!((shown.send_at, shown.expires_at), (new.send_at, new.expires_at));
    assert_eq!((shown.on_uncertain, shown.priority), (OnUncertain::Hold, Priority::Bulk));
    assert_eq!(shown.relay.as_deref(), Some("second"));
    let brief = w.brief(&new.id).await.unwrap();
    assert_eq!(brief.letter, new.letter);
    assert_eq!((brief.date, brief.expires_at), (at(10), Some(at(9_000))));
    assert_eq!(brief.relay.as_deref(), Some("second"));
}

async fn nothing_is_visible_before_it_is_accepted(w: World) {
    let id = broadcast_id(1);
    w.stage_run(&id, 0, &pages(&people(20)), at(0)).await.unwrap();
    assert!(w.broadcast(&id).await.unwrap().is_none());
    assert!(w.broadcasts(None, 10).await.unwrap().rows.is_empty());
    assert!(w.jobs(None, 10).await.unwrap().is_empty());
}

fn claim(owner: &str, hash: &str) -> IdempotencyClaim {
    IdempotencyClaim {
        owner: owner.into(),
        key: "order-7".into(),
        body_hash: hash.into(),
        answer: format!("{{\"hash\":\"{hash}\"}}"),
    }
}

async fn a_repeated_key_answers_as_the_first_time(w: World) {
    assert_eq!(w.find_replay("key_a", "order-7").await.unwrap(), None);
    let (first, second) = (broadcast(1, 0), broadcast(2, 0));
    let accepted = w.accept(&first, Some(&claim("key_a", "h1")), at(0)).await.unwrap();
    assert_eq!(accepted, Accepted::New);
    let again = w.accept(&second, Some(&claim("key_a", "h2")), at(1)).await.unwrap();
    let Accepted::Replay(replay) = again else {
        panic!("{again:?}")
    };
    assert_eq!(replay.broadcast_id, first.id.as_str());
    assert_eq!((replay.body_hash.as_str(), replay.answer.as_str()), ("h1", "{\"hash\":\"h1\"}"));
    assert_eq!(w.find_replay("key_a", "order-7").await.unwrap(), Some(replay));
    assert!(w.broadcast(&second.id).await.unwrap().is_none(), "a replay stores nothing");
}

async fn keys_of_different_owners_never_meet(w: World) {
    for (n, owner) in [(1, "key_a"), (2, "key_b")] {
        let accepted = w
            .accept(&broadcast(n, 0), Some(&claim(owner, "h")), at(0))
            .await
            .unwrap();
        assert_eq!(accepted, Accepted::New);
    }
}

async fn of_many_racing_requests_with_one_key_one_is_stored(w: World) {
    let mut racers = JoinSet::new();
    for n in 0..16 {
        let store = w.share();
        racers.spawn(async move {
            store
                .accept(&broadcast(n, 0), Some(&claim("key_a", "h")), at(0))
                .await
                .unwrap()
        });
    }
    let answers = racers.join_all().await;
    assert_eq!(answers.iter().filter(|a| **a == Accepted::New).count(), 1);
    let stored = w.broadcasts(None, 100).await.unwrap().rows;
    assert_eq!(stored.len(), 1);
    for answer in answers {
        if let Accepted::Replay(replay) = answer {
            assert_eq!(replay.broadcast_id, stored[0].id.as_str());
        }
    }
}

async fn an_id_is_accepted_once(w: World) {
    w.accept(&broadcast(1, 0), None, at(0)).await.unwrap();
    let again = w.accept(&broadcast(1, 0), None, at(0)).await;
    assert!(matches!(again, Err(StoreError::Conflict(_))), "{again:?}");
}

async fn staged_pages_without_a_broadcast_are_swept(w: World) {
    let (lost, fresh, accepted) = (broadcast_id(1), broadcast_id(2), broadcast(3, 10));
    w.stage_run(&lost, 0, &pages(&people(10)), at(0)).await.unwrap();
    w.accept_new(&accepted, &people(10), at(0)).await;
    w.stage_run(&fresh, 0, &pages(&people(10)), at(100)).await.unwrap();
    let n_pages = pages(&people(10)).len() as u64;
    assert_eq!(w.sweep_staged(at(50)).await.unwrap(), n_pages);
    for (id, left) in [(&lost, false), (&fresh, true), (&accepted.id, true)] {
        let page = w.source_page(id, &Source::Run(0), None).await.unwrap();
        assert_eq!(!page.is_empty(), left, "{id}");
    }
}

async fn discarding_does_not_touch_an_accepted_broadcast(w: World) {
    let (refused, accepted) = (broadcast_id(1), broadcast(2, 10));
    w.stage_run(&refused, 0, &pages(&people(10)), at(0)).await.unwrap();
    w.accept_new(&accepted, &people(10), at(0)).await;
    w.discard_staged(&refused).await.unwrap();
    w.discard_staged(&accepted.id).await.unwrap();
    assert!(w.source_page(&refused, &Source::Run(0), None).await.unwrap().is_empty());
    assert!(
        !w.source_page(&accepted.id, &Source::Run(0), None)
            .await
            .unwrap()
            .is_empty()
    );
    // The same run may be staged anew after it was discarded.
    w.stage_run(&refused, 0, &pages(&people(10)), at(0)).await.unwrap();
}
