//! The verbs, in the order a message meets them. Stages never import each other: the worker calls them.

pub mod accept;

pub mod control;
