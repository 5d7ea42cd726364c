//! Decisions that follow from the options alone: who is refused, and by chance what. Never remembers
//! more than a count.

use super::script::Wish;
use super::{REMEMBERED_MAX, Shared, count, locked};

/// How a recipient is received.
pub(super) enum Reception {
    Accept(Option<Wish>),
    Refuse(String),
    Close,
    Stall,
}

impl Shared {
    pub(super) fn receive(&self, address: &str) -> Reception {
        match Wish::of(address) {
            Some(Wish::RefuseRcpt(reply)) => Reception::Refuse(reply),
            Some(Wish::CloseAtRcpt) => Reception::Close,
            Some(Wish::Stall) => Reception::Stall,
            Some(Wish::DeferOnce) if self.is_new(address) => {
                Reception::Refuse("451 4.3.0 busy with something else, come again\r\n".into())
            }
            wish => match self.refusal_by_chance(address) {
                Some(reply) => Reception::Refuse(reply.into()),
                None => Reception::Accept(wish),
            },
        }
    }

    fn is_new(&self, address: &str) -> bool {
        let mut seen = locked(&self.seen_once);
        if seen.len() >= REMEMBERED_MAX {
            seen.clear();
        }
        seen.insert(address.to_owned())
    }

    fn refusal_by_chance(&self, address: &str) -> Option<&'static str> {
        let options = &self.options;
        // By the address and not by chance: a mailbox that does not exist never does.
        let is_dead = options.reject_rate > 0.0 && share(hash(options.seed, address.as_bytes())) < options.reject_rate;
        if is_dead {
            return Some("550 5.1.1 no such user here\r\n");
        }
        self.draw(options.defer_rate)
            .then_some("451 4.3.0 busy, try again later\r\n")
    }

    /// Whether something that happens at `rate` happens now.
    pub(super) fn draw(&self, rate: f64) -> bool {
        rate > 0.0 && share(mix(self.options.seed ^ mix(count(&self.counters.draws)))) < rate
    }
}

/// Where in 0 to 1 a hash lies.
fn share(hash: u64) -> f64 {
    (hash >> 11) as f64 / (1u64 << 53) as f64
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(mix(seed), |state, &b| mix(state ^ u64::from(b)))
}

/// SplitMix64's last step: spreads a counter over all bits.
fn mix(n: u64) -> u64 {
    let n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::{Sink, SinkOptions};
    use super::*;

    #[test]
    fn the_same_addresses_are_refused_each_time_at_the_rate_asked_for() {
        let refused = |seed| {
            let options = SinkOptions {
                reject_rate: 0.1,
                seed,
                ..SinkOptions::default()
            };
            let sink = Sink::new(options).unwrap();
            let is_refused = |n: &u32| matches!(sink.0.receive(&format!("a{n}@example.org")), Reception::Refuse(_));
            (0..10_000).filter(is_refused).collect::<Vec<u32>>()
        };
        let first = refused(1);
        assert!((900..1_100).contains(&first.len()), "{}", first.len());
        assert_eq!(first, refused(1));
        assert_ne!(first, refused(2));
    }

    #[test]
    fn chance_follows_the_rate() {
        let options = SinkOptions {
            defer_rate: 0.25,
            ..SinkOptions::default()
        };
        let sink = Sink::new(options).unwrap();
        let deferred = (0..10_000)
            .filter(|_| matches!(sink.0.receive("a@example.org"), Reception::Refuse(_)))
            .count();
        assert!((2_350..2_650).contains(&deferred), "{deferred}");
    }
}
