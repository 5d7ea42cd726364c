//! The one integration test binary; each module is a topic.

mod api;
mod cases;
mod cli;
mod compose;
mod crash;
mod gallery;
mod judges;
mod model;
mod pipeline;
mod smtp;
mod store;
mod support;
mod tidy;
mod ui;
mod upgrade;
