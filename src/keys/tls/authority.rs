//! The authority of this server's own, which signs the certificate that the port shows.
//!
//! Clients trust the authority once; the certificate below it can be made anew, for new names or at its end, without
//! their hearing of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};

use super::files::{self, Pair};
use super::names::Wanted;
use super::validity;
use crate::keys::KeyError;
use crate::names::{Digest, Millis};

const AUTHORITY_KEY: &str = "tls-authority.key";
const AUTHORITY: &str = "tls-authority.pem";
const KEY: &str = "tls.key";
const CERTIFICATE: &str = "tls.pem";

const DAY: Duration = Duration::from_hours(24);
/// Clients have to be told of another authority, so it lasts.
const AUTHORITY_DAYS: u32 = 3_650;
/// No client refuses a certificate for lasting this long.
const CERTIFICATE_DAYS: u32 = 397;

/// The authority.
pub(super) struct Authority {
    keys_dir: PathBuf,
    key: KeyPair,
    params: CertificateParams,
    der: CertificateDer<'static>,
    pem: String,
    now: Millis,
}

impl Authority {
    /// Reads it, or makes it at the first start.
    pub(super) fn open(keys_dir: &Path, now: Millis) -> Result<Self, KeyError> {
        let key = key(&keys_dir.join(AUTHORITY_KEY))?;
        let params = params(&key, now)?;
        let path = keys_dir.join(AUTHORITY);
        let kept = fs::read_to_string(&path).ok().and_then(|pem| {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
            // It is this key's, and outlasts what it signs.
            let lasts = validity::not_after(&der)? > now.after(DAY * CERTIFICATE_DAYS);
            let ours = contains(&der, key.public_key_raw());
            (lasts && ours).then_some((der, pem))
        });
        let (der, pem) = if let Some(kept) = kept {
            kept
        } else {
            let made = params.self_signed(&key).map_err(|source| KeyError::Make { source })?;
            let pem = made.pem();
            files::put(&path, pem.as_bytes(), 0o600)?;
            (made.der().clone(), pem)
        };
        Ok(Self { keys_dir: keys_dir.to_owned(), key, params, der, pem, now })
    }

    pub(super) fn der(&self) -> &[u8] {
        &self.der
    }

    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// The certificate below it, made anew when it lasts no longer than `renew_before` or lacks a name.
    pub(super) fn certificate(&self, names: &Wanted, renew_before: Duration) -> Result<Pair, KeyError> {
        let (path, key_path) = (self.keys_dir.join(CERTIFICATE), self.keys_dir.join(KEY));
        let good = |pair: &Pair| {
            let [leaf, authority] = pair.chain.as_slice() else { return false };
            let lasts = validity::not_after(leaf).is_some_and(|end| end > self.now.after(renew_before));
            lasts && *authority == self.der && names.all_in(leaf)
        };
        if let Some(pair) = Pair::read(&path, &key_path).ok().filter(good) {
            return Ok(pair);
        }
        let made = |source| KeyError::Make { source };
        let key = KeyPair::generate().map_err(made)?;
        let mut params = CertificateParams::default();
        let names = names.all();
        params.subject_alt_names = names.iter().filter_map(alternative).collect();
        params.distinguished_name = named("Pantry");
        good_for(&mut params, self.now, CERTIFICATE_DAYS - 1);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let signed = params.signed_by(&key, &Issuer::from_params(&self.params, &self.key)).map_err(made)?;
        // The key first: who is interrupted in between finds two that do not belong together, and makes both anew.
        files::put(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
        files::put(&path, format!("{}{}", signed.pem(), self.pem).as_bytes(), 0o600)?;
        Pair::read(&path, &key_path)
    }
}

fn params(key: &KeyPair, now: Millis) -> Result<CertificateParams, KeyError> {
    // The name follows from the key, so that two servers' authorities are never taken for one another.
    let id: String = Digest::of(key.public_key_raw()).hex().chars().take(12).collect();
    let mut params =
        CertificateParams::new(Vec::<String>::new()).map_err(|source| KeyError::Make { source })?;
    params.distinguished_name = named(&format!("Pantry authority {id}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    good_for(&mut params, now, AUTHORITY_DAYS);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn alternative(name: &ServerName<'_>) -> Option<SanType> {
    match name {
        ServerName::DnsName(name) => Some(SanType::DnsName(name.as_ref().to_owned().try_into().ok()?)),
        ServerName::IpAddress(address) => Some(SanType::IpAddress((*address).into())),
        _ => None,
    }
}

/// The key of a file, made when there is none.
fn key(path: &Path) -> Result<KeyPair, KeyError> {
    let made = |source| KeyError::Make { source };
    match fs::read_to_string(path) {
        Ok(pem) => KeyPair::from_pem(&pem).map_err(|_| KeyError::NoKey { path: path.to_owned() }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate().map_err(made)?;
            files::put(path, key.serialize_pem().as_bytes(), 0o600)?;
            Ok(key)
        }
        Err(source) => Err(KeyError::Unreadable { path: path.to_owned(), source }),
    }
}

/// Good from the beginning of yesterday, as clocks differ, to that of the day so many days from now.
fn good_for(params: &mut CertificateParams, now: Millis, days: u32) {
    let day = |days: i64| {
        let at = i64::try_from(now.0).unwrap_or(0).saturating_add(days * 86_400_000);
        let at = jiff::Timestamp::from_millisecond(at).unwrap_or_default();
        let date = at.to_zoned(jiff::tz::TimeZone::UTC).date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    (params.not_before, params.not_after) = (day(-1), day(i64::from(days)));
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
