//! Hikyaku sends mail to very many people from an application: one queue in the database,
//! rate-limited SMTP workers, and the fate of every single message on record.
//!
//! The modules are listed in the order a message meets them; layers only point downward
//! (`tests/it/tidy.rs` holds the table). The life of one message is told in ARCHITECTURE.md.

#[macro_use]
mod failpoint;

pub mod domain;

pub mod clock;
pub mod config;
pub mod dns;
pub mod telemetry;

pub mod mime;
pub mod smtp;
pub mod store;
pub mod template;

pub mod pipeline;

pub mod web;

pub mod sink;

pub mod selftest;

pub mod app;
pub mod cli;
