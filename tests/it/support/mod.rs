//! What the tests stand on: databases of their own, servers to talk to, builders. Holds no assertions about the program.

pub mod database;
