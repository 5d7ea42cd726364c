//! The made-up contacts of the demo: plausible names at the domains that RFC 2606 keeps free, in the mix of a real newsletter:
//! a few large providers and a long tail. The same for each run; nobody exists.

use serde_json::value::RawValue;

use crate::domain::address::EmailAddress;
use crate::domain::recipient::Recipient;

const FIRST: [&str; 40] = [
    "Anna", "Ben", "Chiara", "David", "Elif", "Felix", "Grace", "Hugo", "Ines", "Jonas", "Kaito", "Lena", "Mateo", "Nora",
    "Oskar", "Priya", "Quinn", "Rosa", "Samuel", "Tara", "Umut", "Vera", "Wim", "Xenia", "Yuki", "Zoe", "Amir", "Brigitte",
    "Carlos", "Dora", "Emil", "Fatima", "Greta", "Hana", "Ivan", "Jun", "Klara", "Liam", "Mei", "Noah",
];

const LAST: [&str; 50] = [
    "Weber", "Tanaka", "Rossi", "Novak", "Silva", "Jansen", "Kowalski", "Haddad", "Moreau", "Andersen", "Sato", "Fischer",
    "Garcia", "Ivanova", "Keller", "Lopez", "Murphy", "Nguyen", "Olsen", "Patel", "Ricci", "Schmidt", "Torres", "Ueda", "Virtanen",
    "Wagner", "Xu", "Yilmaz", "Zimmer", "Adams", "Bianchi", "Costa", "Dubois", "Egger", "Ferrari", "Gruber", "Horvat", "Ito", "Jones",
    "Kim", "Larsen", "Meyer", "Nielsen", "Okafor", "Petrov", "Quispe", "Roy", "Santos", "Takahashi", "Urban",
];

const CITIES: [&str; 8] = ["Kyoto", "Lisbon", "Basel", "Bergen", "Tallinn", "Porto", "Graz", "Nara"];

/// Large providers with their shares of a hundred contacts; the rest is spread over small domains.
const PROVIDERS: [(&str, u64); 6] = [
    ("bigmail.example", 34),
    ("outpost.example", 17),
    ("yonder.example", 10),
    ("orchard-mail.example", 8),
    ("gmax.example", 6),
    ("quantum-mail.example", 4),
];

/// Domains of the long tail: shops, schools, clubs.
const SMALL_DOMAINS: u64 = 2_000;

/// The contact number `i`; no two have the same address.
#[must_use]
pub fn contact(i: u64) -> Recipient {
    let (n_first, n_last) = (FIRST.len() as u64, LAST.len() as u64);
    let first = FIRST[(i % n_first) as usize];
    let last = LAST[(i / n_first % n_last) as usize];
    let again = match i / (n_first * n_last) {
        0 => String::new(),
        n => n.to_string(),
    };
    let local = format!("{first}.{last}{again}").to_lowercase();
    let email = EmailAddress::parse(&format!("{local}@{}", domain(i))).expect("made of plain letters and digits");
    let city = CITIES[(i % 8) as usize];
    Recipient {
        email,
        name: Some(format!("{first} {last}").into()),
        data: Some(RawValue::from_string(format!("{{\"city\":\"{city}\"}}")).expect("an object with one plain word")),
    }
}

fn domain(i: u64) -> String {
    // Fibonacci hashing: neighbours get unlike numbers, and every run the same ones.
    let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    let mut of_hundred = mixed % 100;
    for (provider, share) in PROVIDERS {
        if of_hundred < share {
            return provider.to_owned();
        }
        of_hundred -= share;
    }
    format!("club{}.example", mixed / 100 % SMALL_DOMAINS)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nobody_is_there_twice_and_the_domains_are_mixed() {
        let people: Vec<Recipient> = (0..20_000).map(contact).collect();
        let addresses: BTreeSet<String> = people.iter().map(|p| p.email.normalised()).collect();
        assert_eq!(addresses.len(), people.len());
        let at = |domain: &str| people.iter().filter(|p| p.email.domain() == domain).count();
        assert!((5_800..7_800).contains(&at("bigmail.example")), "{}", at("bigmail.example"));
        assert!(people.iter().all(|p| p.email.domain().ends_with(".example")));
    }
}
