//! Whether a database is still this program's to write. A newer program may have changed it so that older ones cannot live
//! with it; it may be a backup that was restored. Never mends anything: it says so, and
//! the program steps aside, or its broadcasts wait for a person.

use async_trait::async_trait;

use super::error::{Result, StoreError};
use super::schema;
use crate::domain::time::Timestamp;

/// The smallest migration that a program must know to write to the database. A migration that takes something away which
/// older programs need (the contract after an expand) raises it, in the transaction that takes it away.
pub const NEEDS: &str = "schema_needs";
/// In a copy made by `hikyaku backup`: when it was made, in milliseconds since the epoch.
pub const BACKUP: &str = "backup";
/// What tells a PostgreSQL database from one that was made of its dump.
pub const BIRTHMARK: &str = "birthmark";

/// In a database that is being moved away, and in one that was: which move it is, and where to.
pub const MOVING_TO: &str = "moving_to";
pub const MOVED_TO: &str = "moved_to";
/// In a database that a move fills: which move it is, and where from.
pub const MOVING_FROM: &str = "moving_from";

/// What was made to wait after a backup was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetAside {
    pub broadcasts: u64,
    pub campaigns: u64,
}

#[async_trait]
pub trait Footing: Send + Sync {
    /// # Errors
    /// `Aside` when this program must not write any more; the text says why and what to do.
    async fn footing(&self) -> Result<()>;

    /// Pauses every unfinished broadcast and every active campaign of a database that was restored from a backup: what
    /// was sent after the backup would be sent again. `taken_at` is when the backup was made; without it, the last sign of
    /// life of a worker in it stands for that.
    async fn set_aside_restored(&self, taken_at: Option<Timestamp>) -> Result<SetAside>;
}

/// What the settings of a database say to a program that knows migrations up to `known`.
///
/// # Errors
/// `Aside`.
pub fn judge(settings: &[(String, String)], known: i64) -> Result<()> {
    let of = |name: &str| {
        settings
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    };
    // What a move writes is its number and the address of the other side.
    let other_side = |name: &str| of(name).map(|value| value.split_once(' ').map_or(value, |(_, url)| url));
    if let Some(url) = other_side(MOVED_TO) {
        return Err(StoreError::Aside(moved_to(url)));
    }
    if let Some(url) = other_side(MOVING_TO) {
        return Err(StoreError::Aside(format!(
            "the database is being moved to {url}: `hikyaku migrate-store` brings that to its end when it is run again, or gives \
             it up with --abandon"
        )));
    }
    if let Some(url) = other_side(MOVING_FROM) {
        return Err(StoreError::Aside(format!(
            "the database is being filled from {url}, and that has not ended: run `hikyaku migrate-store` again"
        )));
    }
    match of(NEEDS).map(str::parse::<i64>) {
        Some(Ok(needs)) if needs > known => Err(StoreError::Aside(format!(
            "the database was changed by a newer program and needs one that knows migration {needs} ({NEEDS}); this one \
             knows {known}: start the newer version"
        ))),
        Some(Err(_)) => Err(StoreError::Corrupt(format!("the setting {NEEDS} is not a number"))),
        _ => Ok(()),
    }
}

/// The words of a database that was left behind, whoever asks.
pub(super) fn moved_to(url: &str) -> String {
    format!("the database was moved to {url}: start this program with that one; nothing is sent from here any more")
}

/// As [`judge`], for this program.
pub(super) fn judge_here(settings: &[(String, String)]) -> Result<()> {
    judge(settings, schema::newest())
}

/// Why a broadcast or campaign waits after a restoration.
pub(super) fn reason(taken_at: Option<Timestamp>) -> String {
    let of = taken_at.map_or_else(String::new, |at| format!(" of {:.0}", at.to_jiff()));
    format!(
        "restored from a backup{of}: messages sent since then would be sent again; resume to send them again, or cancel"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_steps_aside_for_what_it_does_not_know() {
        let says = |name: &str, value: &str| judge(&[(name.to_owned(), value.to_owned())], 7);
        assert!(judge(&[], 7).is_ok());
        assert!(says(NEEDS, "7").is_ok());
        assert!(matches!(says(NEEDS, "8"), Err(StoreError::Aside(why)) if why.contains("migration 8")));
        assert!(matches!(says(NEEDS, "x"), Err(StoreError::Corrupt(_))));
        for (name, words) in [
            (MOVED_TO, "was moved to T"),
            (MOVING_TO, "being moved to T"),
            (MOVING_FROM, "filled from T"),
        ] {
            let said = says(name, "id T");
            assert!(matches!(&said, Err(StoreError::Aside(why)) if why.contains(words)), "{said:?}");
        }
    }
}
