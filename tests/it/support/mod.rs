//! What the tests stand on: databases of their own, programs to run, clients to talk to them. Holds no assertions about the
//! program.

pub mod client;
pub mod database;
pub mod names;
pub mod program;
