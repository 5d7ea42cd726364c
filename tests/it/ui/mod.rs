//! The pages for people, over real HTTP and in a real browser.

pub mod app;
mod browser;
mod links;
mod outlets;
mod pages;
mod picked;
mod relay_test;
mod relays;
mod send;
mod sign_in;
mod truth;
mod unsubscribe;
mod webdriver;
