//! This program's SMTP sessions alone: the connections that deliver, used as delivery uses them, with nothing to render, to decide or to
//! record. Never a session of its own making.

use std::sync::Arc;

use super::super::exit::Failed;
use super::Smtp;
use super::field::{Field, Slice};
use super::letters::Letters;
use crate::smtp::{Connection, Failure, Mail, RelayConfig, TlsContext};

/// Hands `n` messages over.
pub(super) async fn turn(args: &Smtp, n: u64, in_flight: u32) -> Result<Slice, Failed> {
    let field = Field::lay(args.latency).await?;
    let mut relay = RelayConfig::clear(field.addr().ip().to_string(), field.addr().port());
    relay.chunking = in_flight;
    let tls = TlsContext::new(&relay).map_err(Failed::here)?;
    let relay = Arc::new(relay);
    let letters = Arc::new(Letters::new(n, args.size as usize, args.seed));
    let sessions = (0..args.connections).map(|_| {
        let (relay, tls, letters) = (Arc::clone(&relay), tls.clone(), Arc::clone(&letters));
        tokio::spawn(async move { carry_all(&relay, &tls, &letters).await })
    });
    let sessions: Vec<_> = sessions.collect();
    let all = async {
        for session in sessions {
            let carried = session
                .await
                .map_err(|e| Failed::here(format!("a session broke: {e}")))?;
            carried.map_err(|failure| Failed::here(format!("a session failed: {failure}")))?;
        }
        Ok(())
    };
    Ok(field.time(n, all).await?.0)
}

/// One slot: connections one after the other, each for as many messages as it may carry.
async fn carry_all(relay: &RelayConfig, tls: &TlsContext, letters: &Letters) -> Result<(), Failure> {
    let mut at_hand = Vec::from_iter(letters.take());
    while !at_hand.is_empty() {
        let mut connection = Connection::open(relay, tls).await?;
        let first = &at_hand[0];
        connection.begin(&first.envelope, first.bytes.len()).await?;
        while !at_hand.is_empty() && (connection.awaits_content() || connection.window() > 0) {
            while at_hand.len() < connection.window() {
                let Some(letter) = letters.take() else { break };
                at_hand.push(letter);
            }
            let next = if connection.takes_next() { letters.take() } else { None };
            let load: Vec<Mail> = at_hand.iter().map(|letter| letter.mail()).collect();
            let next_mail = next.as_ref().map(|letter| (&letter.envelope, letter.bytes.len()));
            for verdict in connection.send(&load, next_mail).await {
                verdict?;
            }
            if let Some((envelope, size)) = next_mail {
                connection.begin(envelope, size).await?;
            }
            at_hand = next.or_else(|| letters.take()).into_iter().collect();
        }
        connection.quit().await;
    }
    Ok(())
}
