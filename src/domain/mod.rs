//! The nouns of the product. Pure: no I/O, no clock, no randomness, no async.

pub mod address;
pub mod content;
pub mod id;
pub mod message;
pub mod recipient;
pub mod time;
pub mod token;
