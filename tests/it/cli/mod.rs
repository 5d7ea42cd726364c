//! The command line as people and scripts use it: the real program in processes of its own, judged by what it prints and by its
//! exit codes. Never calls the library.

mod alone;
mod outlets;
mod relays;
mod sending;
mod serving;
mod signatures;
