//! Handing one message to a relay over SMTP, and knowing exactly what came of it.
//!
//! In the order a message meets them: a [`config`] names the relay, [`session`] opens a connection
//! (`tls`, `auth`) and speaks the protocol over a `wire` that reads bounded [`reply`]s, [`body`]
//! writes the content transparently, and [`verdict`] says what a [`failure`] means ([`classify`]
//! names its reason). [`pace`] says when the next message may go.
//!
//! Never decides when to try again, never touches the database, never pools connections: a
//! connection is owned by the future that sends, and dropping it closes it, so a canceled send
//! cannot leave a connection behind that is out of step.

pub mod body;
pub mod certificate;
pub mod classify;
pub mod config;
pub mod failure;
pub mod masked;
pub mod pace;
pub mod parts;
pub mod reply;
pub mod session;
pub mod tls;
pub mod transcript;
pub mod verdict;

mod auth;
mod link;
mod open;
mod wire;

pub use config::{AuthMethod, Credentials, Notify, RelayConfig, Timeouts, TlsMode};
pub use failure::{Cause, Failure, Stage};
pub use pace::Pace;
pub use reply::{Enhanced, Reply};
pub use session::{Connection, Envelope, Flights, Mail, Sign};
pub use tls::TlsContext;
pub use transcript::Recorder;
pub use verdict::{Fault, Verdict, verdict};
