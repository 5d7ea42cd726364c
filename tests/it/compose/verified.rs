//! Our signatures before the verifier of the library that signs them, which shares the arithmetic but not the way: it parses the
//! message and picks the fields that `h=` names by itself.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Instant;

use hikyaku::domain::dkim::DkimKey;
use mail_auth::common::parse::TxtRecordParser as _;
use mail_auth::common::verify::DomainKey;
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};

use super::letters::numbered;

/// The records of some keys, in the place of the DNS.
struct Zone(Mutex<HashMap<Box<str>, Txt>>);

impl Zone {
    fn of(keys: &[DkimKey]) -> Self {
        let record = |key: &DkimKey| {
            let record = DomainKey::parse(key.record().as_bytes()).expect("the record can be read");
            (format!("{}.", key.record_name()).into(), Txt::from(record))
        };
        Self(Mutex::new(keys.iter().map(record).collect()))
    }
}

impl ResolverCache<Box<str>, Txt> for Zone {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn remove<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.0.lock().unwrap().remove(name)
    }

    fn insert(&self, name: Box<str>, value: Txt, _: Instant) {
        self.0.lock().unwrap().insert(name, value);
    }
}

async fn results(bytes: &[u8], zone: &Zone) -> Vec<DkimResult> {
    // Without a server to ask: what is not in the zone is nowhere.
    let authenticator = MessageAuthenticator::new(Default::default(), Default::default()).unwrap();
    let message = AuthenticatedMessage::parse(bytes).expect("the message can be read");
    let verified = authenticator
        .verify_dkim(Parameters::new(&message).with_txt_cache(zone))
        .await;
    verified.iter().map(|one| one.result().clone()).collect()
}

#[tokio::test]
async fn every_signature_passes_and_none_does_once_the_message_is_another() {
    for i in 0..60 {
        let case = numbered(1, i);
        let (zone, bytes) = (Zone::of(&case.keys), case.bytes());
        let passed = results(&bytes, &zone).await;
        assert_eq!(passed, vec![DkimResult::Pass; case.keys.len()], "message {i}");

        let with_a_line = [&bytes[..], b"Added\r\n"].concat();
        let with_a_subject = [b"Subject: Another one\r\n", &bytes[..]].concat();
        for (what, another) in [("a line more", with_a_line), ("a subject more", with_a_subject)] {
            let failed = results(&another, &zone).await;
            assert_eq!(failed.len(), case.keys.len(), "message {i}");
            assert!(!failed.contains(&DkimResult::Pass), "message {i} with {what}: {failed:?}");
        }
    }
}
