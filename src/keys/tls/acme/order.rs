//! The account at an authority, and one order from its beginning to the certificate.
//!
//! Source: RFC 8555, sections 7.3 and 7.4.

use std::path::{Path, PathBuf};
use std::time::Duration;

use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use serde::{Deserialize, Serialize};

use super::challenge::Challenges;
use super::client::Https;
use super::error::AcmeError;
use crate::config::AcmeConfig;
use crate::keys::tls::files;
use crate::names::Digest;

/// An authority looks from several places, and may be slow to sign.
const POLLS: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).backoff(1.5).timeout(Duration::from_mins(2));

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    /// Where the authority may write to, as it was told last.
    email: Option<String>,
    credentials: AccountCredentials,
}

/// Asks for a certificate; gives the new private key and the chain in PEM form.
pub(super) async fn obtain(
    asked: &AcmeConfig,
    directory: &str,
    keys_dir: &Path,
    challenges: &Challenges,
) -> Result<String, AcmeError> {
    let file = account_file(keys_dir, directory);
    let (account, known) = match open(asked, &file).await? {
        Some(account) => (account, true),
        None => (create(asked, directory, &file).await?, false),
    };
    match order(&account, asked, challenges).await {
        Err(error) if known && error.is_unknown_account() => {
            tracing::warn!(directory, "the authority has forgotten our account; another one is made");
            let account = create(asked, directory, &file).await?;
            order(&account, asked, challenges).await
        }
        outcome => outcome,
    }
}

/// Another authority has another account, and one that is gone back to has the old one.
fn account_file(keys_dir: &Path, directory: &str) -> PathBuf {
    let id: String = Digest::of(directory.as_bytes()).hex().chars().take(12).collect();
    keys_dir.join(format!("acme-account-{id}.json"))
}

/// The account that is kept, if there is one that can be read.
async fn open(asked: &AcmeConfig, file: &Path) -> Result<Option<Account>, AcmeError> {
    let Some(kept) = files::read(file).ok().and_then(|text| serde_json::from_slice::<Kept>(&text).ok())
    else {
        return Ok(None);
    };
    let text = serde_json::to_value(&kept.credentials).ok();
    let http = Box::new(Https::new(asked.ca.as_deref())?);
    let account = Account::builder_with_http(http)
        .from_credentials(kept.credentials)
        .await
        .map_err(|source| AcmeError::Step { doing: "read the authority's directory", source })?;
    if kept.email != asked.email
        && let Some(credentials) = text.and_then(|text| serde_json::from_value(text).ok())
    {
        let contact = contact(asked);
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        match account.update_contacts(&contact).await {
            Ok(()) => keep(file, &Kept { email: asked.email.clone(), credentials })?,
            // It concerns letters alone, and is tried again with the next order.
            Err(error) => tracing::warn!(%error, "the authority was not told of the new tls.acme_email"),
        }
    }
    Ok(Some(account))
}

async fn create(asked: &AcmeConfig, directory: &str, file: &Path) -> Result<Account, AcmeError> {
    let contact = contact(asked);
    let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let http = Box::new(Https::new(asked.ca.as_deref())?);
    let (account, credentials) = Account::builder_with_http(http)
        .create(&new, directory.to_owned(), None)
        .await
        .map_err(|source| AcmeError::Step { doing: "make an account at the authority", source })?;
    keep(file, &Kept { email: asked.email.clone(), credentials })?;
    tracing::info!(directory, account = account.id(), "an account was made at the authority");
    Ok(account)
}

fn contact(asked: &AcmeConfig) -> Option<String> {
    asked.email.as_ref().map(|email| format!("mailto:{email}"))
}

fn keep(file: &Path, kept: &Kept) -> Result<(), AcmeError> {
    let text = serde_json::to_vec(kept).expect("invariant: an account can be written as JSON");
    Ok(files::put(file, &text, 0o600)?)
}

async fn order(account: &Account, asked: &AcmeConfig, challenges: &Challenges) -> Result<String, AcmeError> {
    let names: Vec<Identifier> = asked.names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account
        .new_order(&NewOrder::new(&names))
        .await
        .map_err(|source| AcmeError::Step { doing: "order a certificate", source })?;
    // Shown until the end of the order, however it goes.
    let mut held = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let step = |source| AcmeError::Step { doing: "read an authorization", source };
        let mut authorization = next.map_err(step)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let Some(mut challenge) = authorization.challenge(ChallengeType::TlsAlpn01) else {
            return Err(AcmeError::NoChallenge { name });
        };
        held.push(challenges.show(&name, challenge.key_authorization().digest().as_ref())?);
        let step = |source| AcmeError::Step { doing: "answer a challenge", source };
        challenge.set_ready().await.map_err(step)?;
    }
    let ready = order.poll_ready(&POLLS).await;
    if !matches!(ready, Ok(OrderStatus::Ready)) {
        return Err(match (unconfirmed(&mut order).await, ready) {
            (Some(unconfirmed), _) => unconfirmed,
            (None, Err(source)) => AcmeError::Step { doing: "have the names confirmed", source },
            (None, Ok(_)) => AcmeError::GivenUp,
        });
    }
    drop(held);
    let step = |source| AcmeError::Step { doing: "have the certificate signed", source };
    let key = order.finalize().await.map_err(step)?;
    let chain = order
        .poll_certificate(&POLLS)
        .await
        .map_err(|source| AcmeError::Step { doing: "get the certificate", source })?;
    Ok(format!("{key}{chain}"))
}

/// The first name that the authority could not confirm, with its words.
async fn unconfirmed(order: &mut Order) -> Option<AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(next) = authorizations.next().await {
        let mut authorization = next.ok()?;
        let name = authorization.identifier().to_string();
        let state = authorization.refresh().await.ok()?;
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return Some(AcmeError::Unconfirmed { name, why: problem.to_string() });
        }
    }
    None
}
