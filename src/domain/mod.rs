//! The nouns of the product. Pure: no I/O, no clock, no randomness, no async.
//!
//! | word | what it is |
//! |---|---|
//! | [`Broadcast`](broadcast::Broadcast) | what one accepted send request becomes |
//! | [`Recipient`](recipient::Recipient) | address + name + data, as given for one broadcast |
//! | [`Chunk`](chunk::Chunk) | up to [`CHUNK_SIZE`](chunk::CHUNK_SIZE) recipients, the payload of one `deliver` job |
//! | [`Claimed`](job::Claimed) | a job in our hands; its [`Lease`](job::Lease) fences our writes |
//! | [`Outcome`](message::Outcome) | what became of one message at one attempt |
//! | [`Letter`](content::Letter) | what all messages of a broadcast have in common |
//! | [`Campaign`](campaign::Campaign) | a saved newsletter with an audience and a schedule |
//! | [`DkimKey`](dkim::DkimKey) | a key that mail of a domain is signed with |
//! | [`Contact`](contact::Contact) | one person of the stored audience |
//! | [`Relay`](relay::Relay) | an SMTP server that mail is handed to, with its limits |

pub mod address;
pub mod brake;
pub mod broadcast;
pub mod campaign;
pub mod chunk;
pub mod contact;
pub mod content;
pub mod counts;
pub mod data_name;
pub mod dkim;
pub mod finding;
pub mod id;
pub mod job;
pub mod lane;
pub mod ledger;
pub mod message;
pub mod outlook;
pub mod reason;
pub mod recipient;
pub mod relay;
pub mod retry;
pub mod safety;
pub mod sign;
pub mod time;
pub mod token;
pub mod worker;
