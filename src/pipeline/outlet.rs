//! Where mail goes now: to the relays that are stored, to the capture relay as long as there never was one, or nowhere. Each
//! sentence about it, on pages and on the command line, is made from what stands here. Only looks.

use crate::domain::relay::Relay;
use crate::store::{Result, Store};

/// Where mail goes.
#[derive(Debug, Clone, PartialEq)]
pub enum Outlet {
    /// There never was a relay: the capture relay of a worker keeps everything.
    Captured,
    /// Through these, those that are paused among them; one at least.
    Relays(Vec<Relay>),
    /// The last relay was removed. Mail waits: it must not vanish into the capture relay.
    Waits,
}

impl Outlet {
    /// Reads it.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn read(store: &dyn Store) -> Result<Self> {
        let relays = store.relays().await?;
        if !relays.is_empty() {
            return Ok(Self::Relays(relays));
        }
        Ok(match store.has_had_relays().await? {
            true => Self::Waits,
            false => Self::Captured,
        })
    }

    /// Whether all mail stays on this machine.
    #[must_use]
    pub fn is_captured(&self) -> bool {
        *self == Self::Captured
    }

    /// The relays that mail may take now; none while all are paused.
    #[must_use]
    pub fn open(&self) -> Vec<&Relay> {
        match self {
            Self::Relays(relays) => relays.iter().filter(|r| r.paused.is_none()).collect(),
            Self::Captured | Self::Waits => Vec::new(),
        }
    }

    /// In one sentence, the relays by their names.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Self::Relays(all) = self else {
            return match self {
                Self::Captured => "There never was a relay, so nothing leaves this machine: the built-in capture relay takes every mail.",
                _ => "The last relay was removed, so mail waits until another is added.",
            }
            .to_owned();
        };
        match self.open()[..] {
            [] if all.len() == 1 => format!("The relay {} is paused, so mail waits until it is resumed.", all[0].name),
            [] => "All relays are paused, so mail waits until one is resumed.".to_owned(),
            [one] => format!("Mail goes out through the relay {}.", one.name),
            [first, second] => format!("Mail goes out through the relays {} and {}.", first.name, second.name),
            [first, ref rest @ ..] => {
                format!("Mail goes out through the relay {} and {} others.", first.name, rest.len())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::relay::RelaySpec;
    use crate::domain::time::Timestamp;

    fn relay(name: &str, paused: Option<&str>) -> Relay {
        Relay {
            id: 1,
            name: name.to_owned(),
            spec: RelaySpec::of("smtp://127.0.0.1"),
            paused: paused.map(ToOwned::to_owned),
            paused_at: None,
            version: 1,
            updated_at: Timestamp(0),
        }
    }

    #[test]
    fn each_state_has_its_own_sentence() {
        let through = |relays: &[(&str, Option<&str>)]| {
            Outlet::Relays(relays.iter().map(|(name, paused)| relay(name, *paused)).collect()).sentence()
        };
        assert!(Outlet::Captured.sentence().contains("nothing leaves this machine"));
        assert!(Outlet::Waits.sentence().contains("mail waits until another is added"));
        assert_eq!(through(&[("a", None)]), "Mail goes out through the relay a.");
        assert_eq!(through(&[("a", None), ("b", Some("x"))]), "Mail goes out through the relay a.");
        assert_eq!(through(&[("a", None), ("b", None)]), "Mail goes out through the relays a and b.");
        assert_eq!(
            through(&[("a", None), ("b", None), ("c", None)]),
            "Mail goes out through the relay a and 2 others."
        );
        assert_eq!(through(&[("a", Some("x"))]), "The relay a is paused, so mail waits until it is resumed.");
        assert!(through(&[("a", Some("x")), ("b", Some("x"))]).starts_with("All relays are paused"));
    }
}
