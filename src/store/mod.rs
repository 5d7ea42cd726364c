//! Durable state. Its methods are the steps of the story, one transaction each, never tables' CRUD and
//! never a transaction handed around; `now` is always an argument.
//!
//! The SQL is written once, in [`sql`], and compiled twice: for SQLite and for PostgreSQL. What differs
//! is named in [`lite`] and [`pg`]: how a transaction begins, `FOR UPDATE SKIP LOCKED`, notification.

pub mod access;
pub mod audience;
pub mod error;
pub mod intake;
pub mod library;
pub mod queue;
pub mod reports;

pub use error::{Result, StoreError};

/// All steps together; what the stages and the pages hold as `Arc<dyn Store>`.
pub trait Store:
    access::Access + audience::Audience + intake::Intake + library::Library + queue::Queue + reports::Reports
{
}
