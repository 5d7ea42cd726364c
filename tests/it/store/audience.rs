//! Contacts, lists and suppressions: who is subscribed stays so, who is not is never subscribed by accident.

use hikyaku::domain::contact::{ContactStatus, SuppressionReason};
use hikyaku::domain::id::ListId;
use hikyaku::domain::recipient::Recipient;
use hikyaku::store::StoreError;
use serde_json::value::RawValue;

use super::contract;
use super::world::{World, at, people, recipient};

contract! {
    putting_contacts_twice_is_an_update,
    a_contact_given_twice_at_once_is_one,
    what_is_not_given_again_is_kept,
    who_unsubscribed_stays_unsubscribed,
    who_unsubscribed_and_was_deleted_stays_unsubscribed,
    counts_over_several_lists_count_a_contact_once,
    a_suppressed_address_keeps_its_first_reason,
    unsuppressing_subscribes_only_who_had_unsubscribed,
    suppressions_page_in_the_order_of_addresses,
    ten_thousand_contacts_page_fully,
    contacts_of_a_list_page_in_the_order_of_sort_keys,
    a_deleted_contact_is_on_no_list,
    a_deleted_list_leaves_its_contacts,
}

fn list_id(n: u128) -> ListId {
    ListId::new(at(0), n)
}

fn named(address: &str, name: &str, data: &str) -> Recipient {
    Recipient {
        name: Some(name.into()),
        data: RawValue::from_string(data.into()).ok(),
        ..recipient(address)
    }
}

async fn putting_contacts_twice_is_an_update(w: World) {
    let people = people(30);
    assert_eq!(w.put_contacts(&people, None, at(0)).await.unwrap(), 30);
    assert_eq!(w.put_contacts(&people[..20], None, at(1)).await.unwrap(), 0);
    assert_eq!(w.put_contacts(&[], None, at(1)).await.unwrap(), 0);
    let changed = named("P0@Example.org", "O'Neil \"Z\" \u{1F4EE}", "{\"city\":\"Łódź's\",\"n\":[1,null]}");
    assert_eq!(
        w.put_contacts(&[changed, recipient("new@example.org")], None, at(2))
            .await
            .unwrap(),
        1
    );
    let contact = w.contact("p0@example.org").await.unwrap().expect("it is stored");
    assert_eq!(
        (contact.email.as_str(), contact.name.as_deref()),
        ("P0@example.org", Some("O'Neil \"Z\" \u{1F4EE}"))
    );
    assert_eq!(data(&contact)["city"], "Łódź's");
    assert_eq!((contact.status, contact.subscribed_at), (ContactStatus::Subscribed, at(0)));
    assert_eq!(w.count_subscribed(None).await.unwrap(), 31);
}

async fn a_contact_given_twice_at_once_is_one(w: World) {
    let twice = [
        named("anna@example.org", "First", "{}"),
        named("ANNA@example.org", "Last", "{\"n\":2}"),
    ];
    assert_eq!(w.put_contacts(&twice, None, at(0)).await.unwrap(), 1);
    let contact = w.contact("anna@example.org").await.unwrap().expect("it is stored");
    assert_eq!((contact.email.as_str(), contact.name.as_deref()), ("ANNA@example.org", Some("Last")));
}

async fn what_is_not_given_again_is_kept(w: World) {
    w.put_contacts(&[named("anna@example.org", "Anna", "{\"n\":1}")], None, at(0))
        .await
        .unwrap();
    w.put_contacts(&[recipient("anna@example.org")], None, at(1))
        .await
        .unwrap();
    let contact = w.contact("anna@example.org").await.unwrap().expect("it is stored");
    assert_eq!((contact.name.as_deref(), &data(&contact)["n"]), (Some("Anna"), &1.into()));
}

async fn who_unsubscribed_stays_unsubscribed(w: World) {
    let anna = [recipient("Anna@example.org")];
    w.put_contacts(&anna, None, at(0)).await.unwrap();
    let gone = ["anna@example.org".to_owned()];
    assert_eq!(
        w.suppress(&gone, SuppressionReason::Unsubscribed, "brd_1", at(1))
            .await
            .unwrap(),
        1
    );
    w.put_contacts(&anna, None, at(2)).await.unwrap();
    let contact = w.contact("anna@example.org").await.unwrap().expect("it is stored");
    assert_eq!(contact.status, ContactStatus::Unsubscribed);
    assert_eq!(w.count_subscribed(None).await.unwrap(), 0);
}

async fn who_unsubscribed_and_was_deleted_stays_unsubscribed(w: World) {
    let both = [recipient("Anna@example.org"), recipient("bob@example.org")];
    let reasons = [
        ("anna@example.org", SuppressionReason::Unsubscribed),
        ("bob@example.org", SuppressionReason::HardBounce),
    ];
    for (address, reason) in reasons {
        w.suppress(&[address.to_owned()], reason, "import", at(0))
            .await
            .unwrap();
    }
    w.put_contacts(&both, None, at(1)).await.unwrap();
    let anna = w.contact("anna@example.org").await.unwrap().expect("it is stored");
    let bob = w.contact("bob@example.org").await.unwrap().expect("it is stored");
    assert_eq!((anna.status, bob.status), (ContactStatus::Unsubscribed, ContactStatus::Subscribed));
}

async fn counts_over_several_lists_count_a_contact_once(w: World) {
    let people = people(10);
    for (n, some) in [(1, &people[..6]), (2, &people[4..])] {
        w.create_list(&list_id(n), &format!("List {n}"), at(n as i64))
            .await
            .unwrap();
        w.put_contacts(some, Some(&list_id(n)), at(5)).await.unwrap();
        w.put_contacts(some, Some(&list_id(n)), at(6)).await.unwrap();
    }
    assert_eq!(w.count_subscribed(Some(&[list_id(1), list_id(2)])).await.unwrap(), 10);
    assert_eq!(w.count_subscribed(Some(&[list_id(2), list_id(2)])).await.unwrap(), 6);
    assert_eq!(w.count_subscribed(Some(&[])).await.unwrap(), 0);
    let gone = [people[5].email.normalised()];
    w.suppress(&gone, SuppressionReason::Unsubscribed, "ui", at(7))
        .await
        .unwrap();
    assert_eq!(w.count_subscribed(Some(&[list_id(1), list_id(2)])).await.unwrap(), 9);
    let lists: Vec<_> = w
        .lists()
        .await
        .unwrap()
        .into_iter()
        .map(|l| (l.name, l.contacts, l.created_at))
        .collect();
    assert_eq!(lists, [("List 1".to_owned(), 5, at(1)), ("List 2".to_owned(), 5, at(2))]);
    assert_eq!(w.list(&list_id(1)).await.unwrap().expect("it is stored").contacts, 5);
    assert!(w.list(&list_id(9)).await.unwrap().is_none());
}

async fn a_suppressed_address_keeps_its_first_reason(w: World) {
    let both = ["o'neil@example.org", "anna@example.org"].map(str::to_owned);
    assert_eq!(
        w.suppress(&both[..1], SuppressionReason::HardBounce, "brd_1", at(1))
            .await
            .unwrap(),
        1
    );
    assert_eq!(w.suppress(&both, SuppressionReason::Manual, "ui", at(2)).await.unwrap(), 1);
    let twice = ["zoe@example.org", "zoe@example.org"].map(str::to_owned);
    assert_eq!(
        w.suppress(&twice, SuppressionReason::Complaint, "import", at(3))
            .await
            .unwrap(),
        1
    );
    assert_eq!(w.suppress(&[], SuppressionReason::Manual, "ui", at(3)).await.unwrap(), 0);
    let first = w
        .suppression("o'neil@example.org")
        .await
        .unwrap()
        .expect("it is stored");
    assert_eq!((first.reason.as_str(), first.source.as_str(), first.created_at), ("hard_bounce", "brd_1", at(1)));
    assert!(w.suppression("nobody@example.org").await.unwrap().is_none());
}

async fn unsuppressing_subscribes_only_who_had_unsubscribed(w: World) {
    w.put_contacts(&[recipient("anna@example.org"), recipient("bob@example.org")], None, at(0))
        .await
        .unwrap();
    let (anna, bob) = (["anna@example.org".to_owned()], ["bob@example.org".to_owned()]);
    w.suppress(&anna, SuppressionReason::Unsubscribed, "ui", at(1))
        .await
        .unwrap();
    w.suppress(&bob, SuppressionReason::HardBounce, "brd_1", at(1))
        .await
        .unwrap();
    w.suppress(&bob, SuppressionReason::Unsubscribed, "brd_1", at(2))
        .await
        .unwrap();
    for (address, status) in [
        (&anna[0], ContactStatus::Subscribed),
        (&bob[0], ContactStatus::Unsubscribed),
    ] {
        assert!(w.unsuppress(address).await.unwrap());
        assert!(!w.unsuppress(address).await.unwrap());
        assert!(w.suppression(address).await.unwrap().is_none());
        assert_eq!(w.contact(address).await.unwrap().expect("it is stored").status, status, "{address}");
    }
}

async fn suppressions_page_in_the_order_of_addresses(w: World) {
    // Locales disagree on where these stand; bytes do not.
    let mut all = [
        "~a@example.org",
        "_b@example.org",
        "a-b@example.org",
        "a@example.org",
        "ab@example.org",
        "é@example.org",
    ]
    .map(str::to_owned)
    .to_vec();
    w.suppress(&all, SuppressionReason::Manual, "ui", at(0)).await.unwrap();
    all.sort_unstable();
    for limit in [1, 2, 6, 100] {
        let (mut read, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = w.suppressions(after.as_deref(), limit).await.unwrap();
            read.extend(page.rows.into_iter().map(|s| s.email));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(read, all, "by {limit}");
    }
}

/// Every contact's address, read in pages.
async fn read_contacts(w: &World, list: Option<&ListId>, limit: i64) -> Vec<String> {
    let (mut read, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = w.contacts(list, after.as_deref(), limit).await.unwrap();
        read.extend(page.rows.into_iter().map(|c| c.email));
        match page.next {
            Some(next) => after = Some(next),
            None => return read,
        }
    }
}

async fn ten_thousand_contacts_page_fully(w: World) {
    let people = people(10_000);
    for some in people.chunks(2_500) {
        assert_eq!(w.put_contacts(some, None, at(0)).await.unwrap(), 2_500);
    }
    let expected: Vec<String> = people.iter().map(|r| r.email.to_string()).collect();
    assert_eq!(read_contacts(&w, None, 999).await, expected);
    assert_eq!(w.count_subscribed(None).await.unwrap(), 10_000);
}

async fn contacts_of_a_list_page_in_the_order_of_sort_keys(w: World) {
    let people = people(20);
    w.create_list(&list_id(1), "Some", at(0)).await.unwrap();
    w.put_contacts(&people, None, at(0)).await.unwrap();
    w.put_contacts(&people[5..16], Some(&list_id(1)), at(0)).await.unwrap();
    let expected: Vec<String> = people[5..16].iter().map(|r| r.email.to_string()).collect();
    for limit in [1, 3, 11, 50] {
        assert_eq!(read_contacts(&w, Some(&list_id(1)), limit).await, expected);
    }
    let unknown = w.put_contacts(&people, Some(&list_id(9)), at(1)).await;
    assert!(matches!(unknown, Err(StoreError::Conflict(_))), "{unknown:?}");
}

async fn a_deleted_contact_is_on_no_list(w: World) {
    w.create_list(&list_id(1), "Some", at(0)).await.unwrap();
    w.put_contacts(&people(3), Some(&list_id(1)), at(0)).await.unwrap();
    assert!(w.delete_contact("p1@example.org").await.unwrap());
    assert!(!w.delete_contact("p1@example.org").await.unwrap());
    assert_eq!(w.count_subscribed(Some(&[list_id(1)])).await.unwrap(), 2);
    assert_eq!(w.sql("SELECT COUNT(*) FROM list_members").await, ["2"]);
}

async fn a_deleted_list_leaves_its_contacts(w: World) {
    w.create_list(&list_id(1), "Some", at(0)).await.unwrap();
    w.put_contacts(&people(3), Some(&list_id(1)), at(0)).await.unwrap();
    assert!(w.delete_list(&list_id(1)).await.unwrap());
    assert!(!w.delete_list(&list_id(1)).await.unwrap());
    assert_eq!(w.count_subscribed(None).await.unwrap(), 3);
    assert_eq!(w.sql("SELECT COUNT(*) FROM list_members").await, ["0"]);
}

/// A contact's data, read.
fn data(contact: &hikyaku::domain::contact::Contact) -> serde_json::Value {
    serde_json::from_str(contact.data.get()).expect("data are JSON")
}
