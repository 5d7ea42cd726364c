//! What a run came to, and which claims it bears out. Pure: it only counts.

use std::collections::BTreeMap;

use super::faults::Fault;
use super::oracle::{Findings, quantile};

/// From a kill to the next message on SQLite, where nobody else is there: at most, in milliseconds.
const NEXT_MAX_MS: u64 = 2_000;
/// From a death to when the dead node's jobs are another's, on PostgreSQL with the lease that the program comes with.
const TAKEN_OVER_MAX_MS: u64 = 15_000;
/// The orderly end: `drain_secs` (8) and the last writes (2).
const EXIT_MAX_MS: u64 = 10_000;
/// From the database's return to full speed.
const FULL_MAX_MS: u64 = 5_000;
/// From when the disk has room again, or writes succeed again, to the next message.
const RESUMED_MAX_MS: u64 = 5_000;
/// Lines of log that a node may write in a second of an outage.
const LINES_PER_SEC_MAX: f64 = 10.0;
/// They are counted over so long at least: an outage of a moment has its first lines all at once.
pub const LINES_OVER_SECS: f64 = 10.0;
/// Memory that a node may take in an outage beside what it had, in KiB.
const GROWTH_KIB_MAX: u64 = 64 * 1_024;

/// What one kind of fault came to, or a mixture of them.
#[derive(Debug, Clone, Default)]
pub struct Row {
    pub title: String,
    pub is_server: bool,
    /// Times are told, and not held against the program: for machines that have other things to do.
    pub is_untimed: bool,
    /// How often each fault was done.
    pub by_fault: BTreeMap<&'static str, u64>,
    pub broadcasts: u64,
    /// How often the law of conservation was looked at meanwhile.
    pub looks: u64,
    pub findings: Findings,
    /// Connections open at the faults: as many copies beyond one are explained.
    pub bound: u64,
    /// From each fault, or its end, to the next message, in milliseconds.
    pub next_ms: Vec<u64>,
    /// From each death to when the dead node's jobs were somebody else's, in milliseconds.
    pub taken_over_ms: Vec<u64>,
    /// How long each orderly end took, in milliseconds.
    pub exit_ms: Vec<u64>,
    /// From each return of the database to full speed, in milliseconds.
    pub full_ms: Vec<u64>,
    /// Outages of the database, and the most lines of log in a second and growth of memory of a node in one.
    pub n_outages: u64,
    pub lines_per_sec: f64,
    pub growth_kib: u64,
    /// Times that a node dropped work that was no longer its own.
    pub n_refused: u64,
    /// Requests that were refused because the disk was full.
    pub n_full: u64,
    /// The most messages in a second, and how many may be, when there is a limit.
    pub pace: Option<(u64, u64)>,
    /// What else was measured.
    pub remarks: Vec<String>,
}

/// Something that was to be shown, and whether it was.
#[derive(Debug, Clone)]
pub struct Claim {
    pub what: String,
    pub measured: String,
    pub holds: bool,
    /// It is a matter of time, and so of the machine.
    pub is_timed: bool,
}

impl Row {
    /// A fault was done once more.
    pub fn count(&mut self, fault: Fault) {
        *self.by_fault.entry(fault.name()).or_default() += 1;
    }

    #[must_use]
    pub fn n(&self) -> u64 {
        self.by_fault.values().sum()
    }

    /// Whether everything that was to be shown was shown.
    #[must_use]
    pub fn holds(&self) -> bool {
        let counts = |claim: &Claim| !(claim.is_timed && self.is_untimed);
        self.claims()
            .iter()
            .filter(|claim| counts(claim))
            .all(|claim| claim.holds)
    }

    /// What was to be shown.
    #[must_use]
    pub fn claims(&self) -> Vec<Claim> {
        let f = &self.findings;
        let none = |what: &str, n: u64| claim(format!("{what}: none"), n.to_string(), n == 0);
        let (extra, flagged, bound) = (f.extra, f.flagged, self.bound);
        let mut claims = vec![
            none("lost", f.lost),
            none("called sent, and unknown to the relay", f.false_sent),
            claim(
                format!(
                    "copies beyond one, and messages in doubt: at most {bound}, the connections open at the faults"
                ),
                format!("{extra} and {flagged}"),
                extra <= bound && flagged <= bound,
            ),
            none("copies beyond one that are not flagged", f.unflagged),
            none("copies to the suppressed, or before their time", f.forbidden),
            claim(
                "the counts add up at every look, the rows agree, the database is sound".to_owned(),
                format!("{} looks, {} times wrong", self.looks, f.broken),
                f.broken == 0,
            ),
        ];
        if let Some((most, max)) = self.pace {
            claims.push(claim(format!("in no second more than {max} messages"), most.to_string(), most <= max));
        }
        if self.is_server && self.by_fault.len() == 1 && self.by_fault.contains_key(Fault::Stop.name()) {
            let measured = format!("{} refused, {} applied", self.n_refused, f.broken);
            // Without one that was tried nothing would be shown.
            claims.push(claim(
                "writes of a node whose jobs were another's already: none applied".to_owned(),
                measured,
                self.n_refused > 0 && f.broken == 0,
            ));
        }
        if self.by_fault.len() == 1 && self.by_fault.contains_key(Fault::Disk.name()) {
            let n = self.n_full;
            claims.push(claim("requests refused while the disk was full: some".to_owned(), n.to_string(), n > 0));
        }
        claims.extend(self.claims_of_outages());
        claims.extend(self.claims_of_time());
        claims
    }

    fn claims_of_outages(&self) -> Vec<Claim> {
        if self.n_outages == 0 {
            return Vec::new();
        }
        let (lines, kib) = (self.lines_per_sec, self.growth_kib);
        vec![
            claim(
                format!(
                    "a node writes at most {LINES_PER_SEC_MAX} lines of log a second, over {LINES_OVER_SECS} s or the outage"
                ),
                format!("{lines:.1}"),
                lines <= LINES_PER_SEC_MAX,
            ),
            claim(
                format!("a node grows by at most {GROWTH_KIB_MAX} KiB in an outage"),
                format!("{kib} KiB"),
                kib <= GROWTH_KIB_MAX,
            ),
        ]
    }

    /// Of a mixture nobody can say which fault a time belongs to.
    fn claims_of_time(&self) -> Vec<Claim> {
        if self.by_fault.len() != 1 {
            return Vec::new();
        }
        let was_done = |fault: Fault| self.by_fault.contains_key(fault.name());
        let mut claims = Vec::new();
        let mut timed = |what: &str, times: &[u64], q: f64, max: u64| {
            let at = |q: f64| quantile(times, q).unwrap_or(0);
            claims.push(Claim {
                what: format!("{what}: at most {max} ms"),
                measured: format!("N {}, p50 {} ms, p99 {} ms, max {} ms", times.len(), at(0.5), at(0.99), at(1.0)),
                holds: !times.is_empty() && at(q) <= max,
                is_timed: true,
            });
        };
        match self.is_server {
            _ if !was_done(Fault::Kill) => {}
            false => timed("from a kill to the next message, p99", &self.next_ms, 0.99, NEXT_MAX_MS),
            true => timed("from a death to the taking over, p99", &self.taken_over_ms, 0.99, TAKEN_OVER_MAX_MS),
        }
        if was_done(Fault::Disk) || was_done(Fault::Io) {
            timed("from the disk's return to the next message", &self.next_ms, 1.0, RESUMED_MAX_MS);
        }
        if was_done(Fault::Term) {
            timed("an orderly end", &self.exit_ms, 1.0, EXIT_MAX_MS);
        }
        if self.n_outages > 0 {
            timed("from the database's return to full speed", &self.full_ms, 1.0, FULL_MAX_MS);
        }
        claims
    }
}

fn claim(what: String, measured: String, holds: bool) -> Claim {
    Claim {
        what,
        measured,
        holds,
        is_timed: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn killed(next_ms: u64) -> Row {
        let mut row = Row {
            next_ms: vec![next_ms],
            bound: 16,
            ..Row::default()
        };
        row.count(Fault::Kill);
        row
    }

    #[test]
    fn a_late_message_counts_unless_times_do_not() {
        assert!(killed(NEXT_MAX_MS).holds());
        let late = killed(NEXT_MAX_MS + 1);
        assert!(!late.holds());
        assert!(
            Row {
                is_untimed: true,
                ..late
            }
            .holds()
        );
    }

    #[test]
    fn a_time_that_was_never_measured_is_not_shown() {
        let row = Row {
            next_ms: vec![],
            ..killed(1)
        };
        assert!(!row.holds());
    }

    #[test]
    fn nothing_is_explained_beyond_the_bound() {
        let mut row = killed(1);
        (row.findings.extra, row.findings.flagged) = (16, 16);
        assert!(row.holds());
        row.findings.flagged = 17;
        assert!(!row.holds());
    }
}
