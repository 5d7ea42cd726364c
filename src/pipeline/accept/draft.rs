//! Broadcasts of a stored template to a stored audience: what the "send to all" button, a campaign's "run now"
//! and the schedule start. There is nothing to stream: one look-up, one transaction.

use super::body::sha256_hex;
use super::keys::IdempotencyKey;
use super::problem::{AcceptError, FieldProblem};
use super::{relay, wording};
use crate::domain::broadcast::{Audience, NewBroadcast};
use crate::domain::campaign::{Campaign, Draft};
use crate::domain::content::Content;
use crate::domain::id::BroadcastId;
use crate::domain::time::Timestamp;
use crate::store::Store;
use crate::store::intake::{Accepted, IdempotencyClaim};

/// Makes a draft a durable broadcast, at once or at `send_at`. The same key with the same draft gives the broadcast
/// of the first time.
///
/// # Errors
/// `Invalid` when the template, a list or the relay is gone or the template cannot be compiled, `KeyReused` when the key was
/// used for another draft, `Store` when the database refuses.
pub async fn accept_draft(
    store: &dyn Store,
    draft: &Draft,
    send_at: Option<Timestamp>,
    key: Option<IdempotencyKey>,
    now: Timestamp,
    random: u128,
) -> Result<BroadcastId, AcceptError> {
    let content = look_up(store, draft).await?;
    let id = BroadcastId::new(now, random);
    let broadcast = draft.to_broadcast(id, content, send_at.filter(|at| *at > now));
    accept_once(store, &broadcast, key, hash(draft, send_at), now).await
}

/// Starts a run of a campaign now, beside its plan, which stays as it is. The same key gives the run of the first
/// time.
///
/// # Errors
/// As [`accept_draft`].
pub async fn start_run_now(
    store: &dyn Store,
    campaign: &Campaign,
    key: Option<IdempotencyKey>,
    now: Timestamp,
    random: u128,
) -> Result<BroadcastId, AcceptError> {
    let content = look_up(store, &campaign.draft).await?;
    // Planned for now, so that the draft's own expiry counts from here; nothing is left to wait for.
    let mut broadcast = campaign
        .draft
        .to_broadcast(BroadcastId::new(now, random), content, Some(now));
    broadcast.send_at = None;
    broadcast.campaign = Some((campaign.id.clone(), now));
    accept_once(store, &broadcast, key, hash(&campaign.draft, None), now).await
}

/// Makes a broadcast durable, unless its key was used before: then it gives the broadcast of the first time.
async fn accept_once(
    store: &dyn Store,
    broadcast: &NewBroadcast,
    key: Option<IdempotencyKey>,
    body_hash: String,
    now: Timestamp,
) -> Result<BroadcastId, AcceptError> {
    let claim = key.map(|key| IdempotencyClaim {
        owner: key.owner,
        key: key.key,
        body_hash,
        answer: serde_json::json!({ "id": broadcast.id.as_str() }).to_string(),
    });
    match store.accept(broadcast, claim.as_ref(), now).await? {
        Accepted::New => Ok(broadcast.id.clone()),
        Accepted::Replay(earlier) if claim.is_some_and(|c| c.body_hash == earlier.body_hash) => Ok(earlier
            .broadcast_id
            .parse()
            .map_err(crate::store::StoreError::Corrupt)?),
        Accepted::Replay(_) => Err(AcceptError::KeyReused),
    }
}

/// Checks that a draft could be sent now: its template, its lists, its relay.
///
/// # Errors
/// As [`accept_draft`].
pub async fn check_draft(store: &dyn Store, draft: &Draft) -> Result<(), AcceptError> {
    look_up(store, draft).await.map(|_| ())
}

async fn look_up(store: &dyn Store, draft: &Draft) -> Result<Content, AcceptError> {
    if let Audience::Lists { list_ids } = &draft.audience {
        for (i, id) in list_ids.iter().enumerate() {
            if store.list(id).await?.is_none() {
                let problem =
                    FieldProblem::new(format!("#/list_ids/{i}"), "not_found", format!("there is no list {id}"));
                return Err(AcceptError::invalid(problem));
            }
        }
    }
    if let Some(name) = &draft.relay
        && let Err(problem) = relay::check(store, name).await?
    {
        return Err(AcceptError::invalid(problem));
    }
    let id = &draft.template_id;
    let Some(template) = store.template(id).await? else {
        let problem = FieldProblem::new("#/template_id", "not_found", format!("there is no template {id}"));
        return Err(AcceptError::invalid(problem));
    };
    wording::check(&template.content).map_err(AcceptError::invalid)?;
    Ok(template.content)
}

fn hash(draft: &Draft, send_at: Option<Timestamp>) -> String {
    let text = serde_json::to_vec(&(draft, send_at)).expect("a draft always serialises");
    sha256_hex(&text)
}
