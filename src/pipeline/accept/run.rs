//! Sorted runs: what a fan-out merges. Recipients are sorted here, where they are in memory anyway, so that
//! nobody has to sort a million later.

use super::collect::BatchLimit;
use crate::domain::address::SortKey;
use crate::domain::recipient::{self, Recipient};
use crate::store::intake::Page;

/// Recipients in a run. A fan-out reads one page of each run at a time: 50 runs for a million recipients.
pub const RUN_SIZE: usize = 20_000;
/// Most bytes of a run in memory. One is filled while another is stored: that is the memory of an intake.
pub const RUN_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Recipients in a page, and its most bytes: what a merge holds of each run.
pub const PAGE_SIZE: usize = 500;
pub const PAGE_BYTES_MAX: usize = 256 * 1024;

pub(super) const RUN_LIMIT: BatchLimit = BatchLimit {
    recipients: RUN_SIZE,
    bytes: RUN_BYTES_MAX,
};

/// A sorted run, ready to be staged. No address stands in it twice.
#[derive(Debug)]
pub(super) struct Run {
    pub pages: Vec<Page>,
    /// Repeated addresses that were dropped; the first of each stayed.
    pub duplicates: i64,
}

/// Sorts recipients, drops repeated addresses and cuts the rest into pages.
pub(super) fn cut(recipients: Vec<Recipient>) -> Run {
    let mut keyed: Vec<(SortKey, Recipient)> = recipients.into_iter().map(|r| (r.sort_key(), r)).collect();
    let received = keyed.len();
    // A stable sort: of equal addresses the one given first comes first, and stays.
    keyed.sort_by(|a, b| a.0.cmp(&b.0));
    keyed.dedup_by(|a, b| a.0 == b.0);
    let duplicates = (received - keyed.len()) as i64;
    let mut pages = Vec::with_capacity(keyed.len() / PAGE_SIZE + 1);
    let mut page: Vec<Recipient> = Vec::with_capacity(PAGE_SIZE);
    let mut page_bytes = 0;
    let mut last_key: Option<SortKey> = None;
    for (key, recipient) in keyed {
        let bytes = stored_bytes(&recipient);
        let is_full = page.len() >= PAGE_SIZE || page_bytes + bytes > PAGE_BYTES_MAX;
        if let Some(last_key) = last_key.take_if(|_| is_full) {
            pages.push(Page {
                last_key,
                payload: recipient::encode(&page),
            });
            page.clear();
            page_bytes = 0;
        }
        page_bytes += bytes;
        page.push(recipient);
        last_key = Some(key);
    }
    if let Some(last_key) = last_key {
        pages.push(Page {
            last_key,
            payload: recipient::encode(&page),
        });
    }
    Run { pages, duplicates }
}

/// About what a recipient takes in a payload: its texts, and the names and quotes around them.
fn stored_bytes(r: &Recipient) -> usize {
    24 + r.email.as_str().len() + r.name.as_deref().map_or(0, str::len) + r.data.as_deref().map_or(0, |d| d.get().len())
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::domain::address::EmailAddress;

    fn recipient(email: &str, data_bytes: usize) -> Recipient {
        let data = format!("{{\"x\":\"{}\"}}", "y".repeat(data_bytes));
        Recipient {
            email: EmailAddress::parse(email).unwrap(),
            name: None,
            data: (data_bytes > 0).then(|| RawValue::from_string(data).unwrap()),
        }
    }

    fn keys(page: &Page) -> Vec<SortKey> {
        recipient::decode(&page.payload)
            .unwrap()
            .iter()
            .map(Recipient::sort_key)
            .collect()
    }

    #[test]
    fn pages_hold_everybody_in_order() {
        let Run { pages, .. } = cut((0..1_203).map(|n| recipient(&format!("r{n}@example.org"), 0)).collect());
        assert_eq!(pages.len(), 3);
        let all: Vec<SortKey> = pages.iter().flat_map(keys).collect();
        assert_eq!(all.len(), 1_203);
        assert!(all.is_sorted());
        assert!(pages.iter().all(|p| keys(p).last() == Some(&p.last_key)));
    }

    #[test]
    fn a_page_ends_early_when_its_recipients_are_large() {
        let Run { pages, .. } = cut((0..100)
            .map(|n| recipient(&format!("r{n}@example.org"), 16_000))
            .collect());
        assert!(pages.iter().all(|p| p.payload.len() <= PAGE_BYTES_MAX), "a page is too large");
        assert_eq!(pages.iter().map(|p| keys(p).len()).sum::<usize>(), 100);
    }

    #[test]
    fn of_a_repeated_address_the_first_stays() {
        let mut all: Vec<Recipient> = (0..490).map(|n| recipient(&format!("r{n}@example.org"), 0)).collect();
        all.extend(["Anna@example.org", "anna@example.org", "ANNA@example.org"].map(|email| recipient(email, 0)));
        let run = cut(all);
        assert_eq!((run.duplicates, run.pages.len()), (2, 1));
        let kept = recipient::decode(&run.pages[0].payload).unwrap();
        let annas: Vec<&str> = kept
            .iter()
            .map(|r| r.email.as_str())
            .filter(|e| !e.starts_with('r'))
            .collect();
        assert_eq!(annas, ["Anna@example.org"]);
    }

    #[test]
    fn nobody_makes_no_page() {
        assert!(cut(Vec::new()).pages.is_empty());
    }
}
