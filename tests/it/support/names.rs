//! A name server on loopback that knows what a test tells it (RFC 1035), over UDP. Everything else it knows not to exist.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

const MX: u16 = 15;
const TXT: u16 = 16;
/// No error, this server's own word, recursion is at hand.
const FOUND: u16 = 0x8580;
/// As before, and there is no such name.
const NO_SUCH_NAME: u16 = 0x8583;
const SERVER_FAILURE: u16 = 0x8582;

/// How the server takes questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    #[default]
    Answers,
    /// Says nothing at all.
    Silent,
    /// Says that it cannot.
    Fails,
}

#[derive(Default)]
struct Zone {
    records: HashMap<(String, u16), Vec<Vec<u8>>>,
    asked: HashMap<String, usize>,
    mood: Mood,
}

/// A running name server; it ends with the value.
pub struct NameServer {
    addr: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    task: JoinHandle<()>,
}

impl NameServer {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback has a free port");
        let addr = socket.local_addr().unwrap();
        let zone = Arc::<Mutex<Zone>>::default();
        let task = tokio::spawn(serve(socket, Arc::clone(&zone)));
        Self { addr, zone, task }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// A TXT record, in the strings that a zone would hold.
    pub fn text(&self, name: &str, strings: &[String]) {
        let mut data = Vec::new();
        for string in strings {
            data.push(u8::try_from(string.len()).expect("a string of a TXT record has at most 255 bytes"));
            data.extend_from_slice(string.as_bytes());
        }
        self.put(name, TXT, vec![data]);
    }

    /// The mail exchangers of a domain and their preferences.
    pub fn exchangers(&self, domain: &str, exchangers: &[(u16, &str)]) {
        let data = exchangers.iter().map(|(preference, host)| {
            let mut data = preference.to_be_bytes().to_vec();
            for label in host.split('.').filter(|label| !label.is_empty()) {
                data.push(label.len() as u8);
                data.extend_from_slice(label.as_bytes());
            }
            data.push(0);
            data
        });
        self.put(domain, MX, data.collect());
    }

    pub fn behave(&self, mood: Mood) {
        self.zone.lock().unwrap().mood = mood;
    }

    /// How often it was asked about a name.
    pub fn asked(&self, name: &str) -> usize {
        self.zone.lock().unwrap().asked.get(name).copied().unwrap_or(0)
    }

    fn put(&self, name: &str, kind: u16, data: Vec<Vec<u8>>) {
        let mut zone = self.zone.lock().unwrap();
        zone.records.insert((name.to_ascii_lowercase(), kind), data);
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(socket: UdpSocket, zone: Arc<Mutex<Zone>>) {
    let mut buffer = [0; 4096];
    while let Ok((len, peer)) = socket.recv_from(&mut buffer).await {
        let answer = zone.lock().unwrap().answer(&buffer[..len]);
        if let Some(answer) = answer {
            // Who asked may be gone.
            drop(socket.send_to(&answer, peer).await);
        }
    }
}

impl Zone {
    fn answer(&mut self, question: &[u8]) -> Option<Vec<u8>> {
        let (name, end) = name_at(question, 12)?;
        let kind = u16::from_be_bytes([*question.get(end)?, *question.get(end + 1)?]);
        *self.asked.entry(name.clone()).or_default() += 1;
        let found = self.records.get(&(name.clone(), kind)).map_or(&[][..], Vec::as_slice);
        let is_known = self.records.keys().any(|(known, _)| *known == name);
        let flags = match (self.mood, is_known) {
            (Mood::Silent, _) => return None,
            (Mood::Fails, _) => SERVER_FAILURE,
            (Mood::Answers, true) => FOUND,
            (Mood::Answers, false) => NO_SUCH_NAME,
        };
        let found = if flags == FOUND { found } else { &[] };
        let mut answer = question[..2].to_vec();
        for number in [flags, 1, found.len() as u16, 0, 0] {
            answer.extend_from_slice(&number.to_be_bytes());
        }
        answer.extend_from_slice(&question[12..end + 4]);
        for data in found {
            // The name of the question, class IN, to be asked again each time.
            answer.extend_from_slice(&[0xc0, 12]);
            answer.extend_from_slice(&kind.to_be_bytes());
            answer.extend_from_slice(&[0, 1, 0, 0, 0, 0]);
            answer.extend_from_slice(&(data.len() as u16).to_be_bytes());
            answer.extend_from_slice(data);
        }
        Some(answer)
    }
}

/// A name that is not shortened, in lower case, and where it ends.
fn name_at(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            return Some((labels.join("."), at));
        }
        let label = message.get(at..at + len)?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        at += len;
    }
}
