//! Relays as operators keep them: what is said reads back, every change is a new version, and a name outlives its relay.

use hikyaku::domain::broadcast::NewBroadcast;
use hikyaku::domain::relay::{Limits, RelaySpec};
use hikyaku::store::queue::Wish;

use super::contract;
use super::world::{World, at, broadcast, broadcast_id};

contract! {
    a_relay_reads_back_as_it_was_put,
    every_change_of_a_relay_is_a_new_version_and_wakes_the_workers,
    a_name_in_message_rows_is_no_relay_until_something_is_said_about_it,
    a_removed_relay_can_come_back_under_its_id,
    broadcasts_that_name_a_relay_are_counted_until_they_are_over,
}

fn limited(per_sec: u32) -> RelaySpec {
    RelaySpec {
        limits: Limits {
            per_sec: Some(per_sec),
            ..Limits::default()
        },
        ..RelaySpec::of("smtp://u:p@relay.example:587")
    }
}

async fn a_relay_reads_back_as_it_was_put(w: World) {
    w.put_relay("b", &limited(5), at(1)).await.unwrap();
    let a = w.put_relay("a", &RelaySpec::of("smtp://a"), at(2)).await.unwrap();
    let found = w.relays().await.unwrap();
    let names: Vec<&str> = found.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["a", "b"], "by name");
    assert_eq!(found[0], a);
    assert_eq!((found[1].spec.clone(), found[1].updated_at, found[1].paused.clone()), (limited(5), at(1), None));
    assert_eq!(w.relay("a").await.unwrap(), Some(a));
    assert_eq!(w.relay("c").await.unwrap(), None);
}

async fn every_change_of_a_relay_is_a_new_version_and_wakes_the_workers(w: World) {
    let mut wakeups = w.wakeups();
    w.put_relay("r", &limited(1), at(1)).await.unwrap();
    assert!(wakeups.has_changed().unwrap());
    assert!(w.pause_relay("r", Some("maintenance"), at(2)).await.unwrap());
    wakeups.mark_unchanged();
    let edited = w.put_relay("r", &limited(2), at(3)).await.unwrap();
    assert!(wakeups.has_changed().unwrap());
    assert_eq!((edited.version, edited.paused.as_deref()), (3, Some("maintenance")), "an edit does not end a pause");
    assert_eq!(edited.paused_at, Some(at(2)), "nor does it begin it anew");
    assert!(w.pause_relay("r", None, at(4)).await.unwrap());
    let resumed = w.relay("r").await.unwrap().unwrap();
    assert_eq!((resumed.version, resumed.paused, resumed.updated_at), (4, None, at(4)));
    assert_eq!(resumed.paused_at, None);
    for (time, reason) in [(5, "maintenance"), (6, "still at it")] {
        assert!(w.pause_relay("r", Some(reason), at(time)).await.unwrap());
        let paused = w.relay("r").await.unwrap().unwrap();
        assert_eq!((paused.paused.as_deref(), paused.paused_at), (Some(reason), Some(at(5))));
    }
    assert!(!w.pause_relay("unknown", None, at(5)).await.unwrap());
}

async fn a_name_in_message_rows_is_no_relay_until_something_is_said_about_it(w: World) {
    let id = w.relay_id("capture").await.unwrap();
    assert_eq!(w.relays().await.unwrap(), []);
    assert!(!w.pause_relay("capture", Some("no"), at(1)).await.unwrap());
    assert_eq!(w.put_relay("capture", &limited(1), at(2)).await.unwrap().id, id);
}

async fn a_removed_relay_can_come_back_under_its_id(w: World) {
    let relay = w.put_relay("r", &limited(1), at(1)).await.unwrap();
    w.pause_relay("r", Some("broken"), at(2)).await.unwrap();
    assert!(w.delete_relay("r", at(3)).await.unwrap());
    assert!(!w.delete_relay("r", at(4)).await.unwrap(), "it is gone");
    assert_eq!(w.relay("r").await.unwrap(), None);
    assert_eq!(w.relay_id("r").await.unwrap(), relay.id, "its name stays in message rows");
    let again = w.put_relay("r", &limited(2), at(5)).await.unwrap();
    assert_eq!((again.id, again.paused, again.paused_at), (relay.id, None, None));
    assert!(again.version > relay.version);
}

async fn broadcasts_that_name_a_relay_are_counted_until_they_are_over(w: World) {
    for (n, relay) in [(1, Some("r")), (2, Some("r")), (3, Some("other")), (4, None)] {
        let new = NewBroadcast {
            relay: relay.map(str::to_owned),
            ..broadcast(n, 0)
        };
        w.accept(&new, None, at(0)).await.unwrap();
    }
    assert_eq!(w.broadcasts_bound_to("r").await.unwrap(), 2);
    w.control(&broadcast_id(1), &Wish::Cancel, at(1)).await.unwrap();
    assert_eq!(w.broadcasts_bound_to("r").await.unwrap(), 1);
    assert_eq!(w.broadcasts_bound_to("nobody").await.unwrap(), 0);
}
