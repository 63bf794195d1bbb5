use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use fs_err as fs;

use super::*;
use crate::config::{self, Flags, TlsMode};
use crate::names::{ManualClock, Millis};

const DAY: std::time::Duration = std::time::Duration::from_hours(24);
/// 2026-06-01.
const NOW: Millis = Millis(1_780_272_000_000);

fn config(root: &Path, mode: TlsMode) -> Config {
    let mut config = config::load(
        &Flags { root: Some(root.to_owned()), ..Flags::default() },
        &std::collections::BTreeMap::new(),
    )
    .unwrap()
    .config;
    config.tls.mode = mode;
    fs::create_dir_all(root.join("keys")).unwrap();
    config
}

/// A pair for `name`, in files.
fn pair(folder: &Path, name: &str) -> (std::path::PathBuf, std::path::PathBuf) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let (certificate, key) = (folder.join("c.pem"), folder.join("k.pem"));
    fs::write(&certificate, made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

#[test]
fn one_of_our_own_is_made_once_and_again_before_its_end_under_the_same_authority() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), TlsMode::SelfSigned);
    let clock = Arc::new(ManualClock::at(NOW));
    let open = || Tls::open(&config, clock.clone()).unwrap().unwrap();
    let first = open();
    assert_eq!(first.info().not_after, "2027-07-02T00:00:00.000Z");
    for secret in ["tls.key", "tls-authority.key"] {
        let mode = fs::metadata(folder.path().join("keys").join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert_eq!(fs::metadata(folder.path().join("ca.pem")).unwrap().permissions().mode() & 0o777, 0o644);
    assert_eq!(first.refresh().unwrap(), Refreshed::Same);
    assert_eq!(open().info().certificate_sha256, first.info().certificate_sha256);
    let old = first.info();
    clock.advance(DAY * 340);
    assert_eq!(first.refresh().unwrap(), Refreshed::Exchanged);
    let new = first.info();
    assert_ne!(new.certificate_sha256, old.certificate_sha256);
    assert_eq!(new.authority_sha256, old.authority_sha256);
    assert_eq!(first.refresh().unwrap(), Refreshed::Same);
}

#[test]
fn a_further_name_makes_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), TlsMode::SelfSigned);
    let clock = Arc::new(ManualClock::at(NOW));
    let first = Tls::open(&config, clock.clone()).unwrap().unwrap().info();
    config.allowed_hosts = vec!["pantry.example:7721".to_owned(), "192.0.2.7".to_owned()];
    config.public_url = Some("https://registry.example".to_owned());
    let second = Tls::open(&config, clock).unwrap().unwrap().info();
    assert_ne!(first.certificate_sha256, second.certificate_sha256);
    assert_eq!(first.authority_sha256, second.authority_sha256);
    let names = names::Wanted::of(&config);
    let leaf = files::certificates(&folder.path().join("keys/tls.pem")).unwrap().remove(0);
    assert!(names.all_in(&leaf) && names.all().len() >= 6, "{:?}", names.all());
}

#[test]
fn files_are_exchanged_as_a_pair_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path(), TlsMode::Files);
    let (certificate, key) = pair(folder.path(), "a.example");
    (config.tls.certificate, config.tls.key) = (Some(certificate.clone()), Some(key.clone()));
    let tls = Tls::open(&config, Arc::new(ManualClock::at(NOW))).unwrap().unwrap();
    let first = tls.info().certificate_sha256;
    // The new certificate is there before its key.
    let other = tempfile::tempdir().unwrap();
    let (new_certificate, new_key) = pair(other.path(), "b.example");
    fs::rename(new_certificate, &certificate).unwrap();
    let error = tls.refresh().unwrap_err();
    assert_eq!(error.code(), "tls_certificate_unusable");
    assert!(error.hint().is_some());
    assert_eq!(tls.info().certificate_sha256, first);
    assert!(tls.info().last_error.is_some());
    assert_eq!(tls.refresh().unwrap(), Refreshed::Same, "what failed is not tried again and again");
    fs::rename(new_key, &key).unwrap();
    assert_eq!(tls.refresh().unwrap(), Refreshed::Exchanged);
    assert_ne!(tls.info().certificate_sha256, first);
    assert_eq!(tls.info().last_error, None);
    fs::write(&key, "no key").unwrap();
    assert_eq!(tls.reload().unwrap_err().code(), "tls_file_invalid");
    fs::remove_file(&key).unwrap();
    assert_eq!(tls.refresh().unwrap_err().code(), "tls_file_unreadable");
}
