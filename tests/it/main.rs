//! The one integration test binary; each module is a topic.

mod compose;
<<<<<<< HEAD
mod smtp;
=======
mod store;
>>>>>>> w-contract
mod support;
mod tidy;
