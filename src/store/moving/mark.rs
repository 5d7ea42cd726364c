//! What the two databases of a move say about it, and what follows from that. Pure: reads and writes nothing.
//!
//! The marks are settings. The source bears `moving_to` from the first moment and `moved_to` from the last; the target bears
//! `moving_from` until it may be used. So at every moment at most one of the two lets anybody send.

use crate::store::footing::{MOVED_TO, MOVING_FROM, MOVING_TO};
use crate::store::{Result, StoreError};

pub(super) const NAMES: [&str; 3] = [MOVED_TO, MOVING_FROM, MOVING_TO];

/// Which move, and where the other side is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mark {
    pub id: String,
    /// Without a password.
    pub url: String,
}

impl Mark {
    /// As it is stored.
    pub fn value(&self) -> String {
        format!("{} {}", self.id, self.url)
    }

    fn parse(name: &str, value: &str) -> Result<Self> {
        let (id, url) = value
            .split_once(' ')
            .ok_or_else(|| StoreError::Corrupt(format!("the setting {name} is not a move")))?;
        Ok(Self {
            id: id.to_owned(),
            url: url.to_owned(),
        })
    }
}

/// All marks of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Marks {
    pub moved_to: Option<Mark>,
    pub moving_from: Option<Mark>,
    pub moving_to: Option<Mark>,
}

impl Marks {
    pub fn set(&mut self, name: &str, value: Option<&str>) -> Result<()> {
        let mark = value.map(|value| Mark::parse(name, value)).transpose()?;
        match name {
            MOVED_TO => self.moved_to = mark,
            MOVING_FROM => self.moving_from = mark,
            _ => self.moving_to = mark,
        }
        Ok(())
    }
}

/// A target as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub marks: Marks,
    pub has_rows: bool,
}

/// Where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing has happened yet.
    Begin,
    /// A move with this id has begun, and everything that is there may be relied on.
    GoOn(String),
    /// All rows were moved and compared; only the target is not open yet.
    Open,
    /// Nothing is left to be done.
    Over,
}

/// What to do, from what both sides say. `target_url` is how the target is written this time.
///
/// # Errors
/// `Conflict` with the reason and the way out.
pub(super) fn stage(source: &Marks, target: &Found, target_url: &str) -> Result<Stage> {
    let refused = |why: String| Err(StoreError::Conflict(why));
    if let Some(from) = &source.moving_from {
        return refused(format!("the source is itself being filled from {}, and that has not ended", from.url));
    }
    if target.marks.moved_to.is_some() || target.marks.moving_to.is_some() {
        return refused(
            "the target is itself being moved, or was moved, to another database: choose another".to_owned(),
        );
    }
    let filling = target.marks.moving_from.as_ref();
    let is_empty = filling.is_none() && !target.has_rows;
    if let Some(to) = &source.moved_to {
        return match filling {
            Some(from) if from.id == to.id => Ok(Stage::Open),
            None if to.url == target_url && target.has_rows => Ok(Stage::Over),
            _ => refused(format!("the source was moved to {} already", to.url)),
        };
    }
    match (&source.moving_to, filling) {
        (Some(to), Some(from)) if to.id == from.id => Ok(Stage::GoOn(to.id.clone())),
        (Some(to), _) if is_empty && to.url == target_url => Ok(Stage::GoOn(to.id.clone())),
        (Some(to), _) => refused(format!(
            "a move of the source to {} has begun: end it by naming that target, or give it up with --abandon",
            to.url
        )),
        (None, Some(from)) => refused(format!(
            "the target holds what is left of another move, from {}: make it anew, and run this again",
            from.url
        )),
        (None, None) if is_empty => Ok(Stage::Begin),
        (None, None) => refused("the target holds data: a move needs an empty database".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(id: &str, url: &str) -> Option<Mark> {
        Some(Mark {
            id: id.to_owned(),
            url: url.to_owned(),
        })
    }

    fn said(source: &Marks, from: Option<Mark>, has_rows: bool) -> String {
        let marks = Marks {
            moving_from: from,
            ..Marks::default()
        };
        match stage(source, &Found { marks, has_rows }, "T") {
            Ok(stage) => format!("{stage:?}"),
            Err(why) => why.to_string(),
        }
    }

    #[test]
    fn a_move_goes_on_where_it_was_and_nowhere_else() {
        let none = Marks::default();
        let moving = Marks {
            moving_to: mark("a", "T"),
            ..Marks::default()
        };
        let moved = Marks {
            moved_to: mark("a", "T"),
            ..Marks::default()
        };
        for (source, from, has_rows, says) in [
            (&none, None, false, "Begin"),
            (&none, None, true, "holds data"),
            (&none, mark("a", "S"), false, "what is left of another move"),
            (&moving, None, false, "GoOn(\"a\")"),
            (&moving, mark("a", "S"), true, "GoOn(\"a\")"),
            (&moving, mark("b", "S"), true, "has begun"),
            (&moving, None, true, "has begun"),
            (&moved, mark("a", "S"), true, "Open"),
            (&moved, None, true, "Over"),
            (&moved, None, false, "already"),
            (&moved, mark("b", "S"), true, "already"),
        ] {
            let said = said(source, from.clone(), has_rows);
            assert!(said.contains(says), "{source:?}, {from:?}, {has_rows}: {said}");
        }
        let elsewhere = Marks {
            moving_to: mark("a", "U"),
            ..Marks::default()
        };
        assert!(said(&elsewhere, None, false).contains("has begun"));
        // The same database may be written in another way; its own mark decides.
        assert_eq!(said(&elsewhere, mark("a", "S"), true), "GoOn(\"a\")");
        let filled = Marks {
            moving_from: mark("a", "S"),
            ..Marks::default()
        };
        assert!(said(&filled, None, false).contains("itself being filled"));
    }
}
