//! The one integration test binary; each module is a topic.

mod compose;
mod smtp;
mod support;
mod tidy;
mod ui;
