//! The verbs, in the order a message meets them. Stages never import each other, except that delivery carries a message
//! through composing, the lease and settling; the worker calls them.
//!
//! | # | stage | reads → writes | message after it |
//! |---|---|---|---|
//! | 1 | [`accept`] | request → broadcast, staged recipients, fan_out job; one last transaction | queued |
//! | 2 | [`fan_out`] | staged recipients or contacts → chunks and deliver jobs, one transaction each | queued, suppressed |
//! | 3 | [`lease`] | whether this worker may still act | queued |
//! | 4 | [`compose`] | letter + recipient → bytes | failed, if it cannot be rendered |
//! | 5 | [`deliver`] | bytes → relay → reply | on the wire |
//! | 6 | [`settle`] | outcome and next intent → one group commit | sent, deferred, failed, uncertain |
//! | 7 | [`sweep`] | jobs of dead workers → ready again | queued, or in doubt |
//!
//! Beside them: [`schedule`] starts the runs of campaigns, [`control`] passes on what operators want of broadcasts,
//! [`relays`] what they want of relays and [`dkim`] what they want of keys, [`probe`] tests a relay,
//! [`outlook`] says what slows a broadcast down, [`outlet`] where mail goes, [`timekeeper`] keeps the time, and [`worker`] is the loop.

pub mod accept;
pub mod compose;
pub mod control;
pub mod deliver;
pub mod dkim;
pub mod fan_out;
pub mod guard;
pub mod lease;
pub mod outlet;
pub mod outlook;
pub mod probe;
pub mod relays;
pub mod schedule;
pub mod settle;
pub mod sweep;
pub mod timekeeper;
pub mod worker;
