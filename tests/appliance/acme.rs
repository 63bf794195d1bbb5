//! Certificates by ACME, against a stand-in of an authority.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::Value;

use super::acme_authority::Authority;
use super::support::{Server, Start, fresh_root, show, signal, until};
use super::wire::{handshake, tcp_from, to_the_end};

const NAME: &str = "registry.example";
const NAMES: &str = "registry.example,mirror.registry.example";

/// A server that asks that authority, and lets it look at its own port.
fn start(authority: &Authority, folder: &Path) -> Server {
    let server = start_unseen(authority, folder);
    authority.look_at(server.address().parse().unwrap());
    server
}

fn start_unseen(authority: &Authority, folder: &Path) -> Server {
    let ca = folder.join("authority.pem");
    std::fs::write(&ca, authority.root_pem()).unwrap();
    let directory = authority.directory();
    let environment = [
        ("PANTRY_TLS_MODE", "acme"),
        ("PANTRY_TLS_ACME_DIRECTORY", directory.as_str()),
        ("PANTRY_TLS_ACME_NAMES", NAMES),
        ("PANTRY_TLS_ACME_EMAIL", "keeper@registry.example"),
        ("PANTRY_TLS_ACME_CA", ca.to_str().unwrap()),
    ];
    Start { environment: &environment, ..Start::default() }.on(&folder.join("root"))
}

/// The certificate that is shown for a name, where these roots vouch for it.
fn shown(server: &Server, roots: &str, name: &str) -> Option<Vec<u8>> {
    let connection = handshake(tcp_from(server, "127.0.0.1"), roots, name, &[b"http/1.1"]).ok()?;
    Some(connection.conn.peer_certificates().unwrap()[0].to_vec())
}

fn status(server: &Server) -> Value {
    server.json(&["status"])["tls"].clone()
}

fn shows_its_own(server: &Server) -> bool {
    let own = std::fs::read_to_string(server.root.join("ca.pem")).unwrap();
    shown(server, &own, NAME).is_some()
}

#[test]
fn a_certificate_is_asked_for_shown_and_kept_over_a_restart() {
    let (authority, folder) = (Authority::start(), fresh_root());
    let server = start(&authority, folder.path());
    until("the certificate is shown", || shown(&server, authority.root_pem(), NAME).is_some());
    let first = shown(&server, authority.root_pem(), "mirror.registry.example").unwrap();
    let tls = status(&server);
    assert_eq!((&tls["mode"], &tls["acme"]["issued"]), (&"acme".into(), &true.into()), "{tls}");
    assert_eq!(
        tls["acme"]["names"],
        serde_json::json!(["registry.example", "mirror.registry.example"]),
        "{tls}"
    );
    until("the attempt counts as gone well", || status(&server)["acme"]["failures"] == 0);
    let people = show(&server.pantry(&["status"]));
    assert!(people.contains("tls.acme.next_attempt") && people.contains(NAME), "{people}");
    let mut secrets = 0;
    for entry in std::fs::read_dir(server.root.join("keys")).unwrap().map(Result::unwrap) {
        if entry.file_name().to_str().unwrap().starts_with("acme") {
            assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{entry:?}");
            secrets += 1;
        }
    }
    assert_eq!(secrets, 3, "the account, the certificate with its key, and what was tried");
    // It is called by its name; who offers more than the proof's protocol is a client; and there is no proof any more.
    let mut wire =
        handshake(tcp_from(&server, "127.0.0.1"), authority.root_pem(), NAME, &[b"acme-tls/1", b"http/1.1"])
            .unwrap();
    assert_eq!(wire.conn.alpn_protocol(), Some(&b"http/1.1"[..]));
    wire.write_all(format!("GET /v2/ HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n").as_bytes())
        .unwrap();
    wire.flush().unwrap();
    let told = to_the_end(&mut wire);
    assert!(told.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&told));
    assert!(handshake(tcp_from(&server, "127.0.0.1"), authority.root_pem(), NAME, &[b"acme-tls/1"]).is_err());
    server.stop();
    let (made, asked) = (authority.made(), authority.asked());
    assert_eq!(made, (1, 1, 1));
    let server = start(&authority, folder.path());
    assert_eq!(shown(&server, authority.root_pem(), NAME), Some(first), "the same, at once");
    server.json(&["status"]);
    server.stop();
    assert_eq!((authority.made(), authority.asked()), (made, asked), "nobody was asked again");
}

#[test]
fn one_that_is_near_its_end_is_renewed_also_where_the_account_was_forgotten() {
    let (authority, folder) = (Authority::start(), fresh_root());
    // Of its thirty seconds twenty are to pass before the next is asked for.
    authority.sign_for(-5, 25);
    let server = start(&authority, folder.path());
    until("the first is shown", || shown(&server, authority.root_pem(), NAME).is_some());
    until("another one is signed", || authority.made().2 >= 2);
    assert_eq!(authority.made().0, 1, "for the same account");
    authority.forget_accounts();
    authority.sign_for(-3_600, 86_400);
    until("a third is signed, for another account", || authority.made().0 == 2 && authority.made().2 >= 3);
    until("it is shown", || *status(&server)["not_after"].as_str().unwrap() > *tomorrow_less_an_hour());
    assert!(shown(&server, authority.root_pem(), NAME).is_some());
    until("it counts as gone well", || status(&server)["acme"]["failures"] == 0);
    server.stop();
}

fn tomorrow_less_an_hour() -> String {
    let at = std::time::SystemTime::now() + std::time::Duration::from_hours(23);
    jiff::Timestamp::try_from(at).unwrap().to_string()
}

#[test]
fn an_authority_that_is_down_keeps_nobody_from_starting_and_is_not_asked_in_a_hurry() {
    let (authority, folder) = (Authority::start(), fresh_root());
    authority.set_down(true);
    let server = start(&authority, folder.path());
    assert!(shows_its_own(&server));
    until("the failure is shown", || status(&server)["acme"]["last_error"].is_string());
    let tls = status(&server);
    assert_eq!((&tls["acme"]["failures"], &tls["acme"]["issued"]), (&1.into(), &false.into()), "{tls}");
    assert!(tls["authority_sha256"].is_string(), "clients can trust what is shown meanwhile: {tls}");
    let next = tls["acme"]["next_attempt"].clone();
    server.stop();
    let asked = authority.asked();
    let server = start(&authority, folder.path());
    assert!(shows_its_own(&server));
    assert_eq!(status(&server)["acme"]["next_attempt"], next, "a restart is no reason to hurry");
    assert_eq!(authority.asked(), asked);
    authority.set_down(false);
    signal(server.pid(), nix::sys::signal::Signal::SIGHUP);
    until("an operator may hurry", || shown(&server, authority.root_pem(), NAME).is_some());
    until("the failure is forgotten", || status(&server)["acme"]["last_error"].is_null());
    server.stop();
}

#[test]
fn who_cannot_be_confirmed_keeps_its_own_certificate_and_waits() {
    let (authority, folder) = (Authority::start(), fresh_root());
    let server = start_unseen(&authority, folder.path());
    // Another server answers there, and knows of no proof.
    authority.look_at(authority.address());
    until("the failure is shown", || status(&server)["acme"]["last_error"].is_string());
    let acme = status(&server)["acme"].clone();
    let why = acme["last_error"].as_str().unwrap();
    assert!(why.contains("could not confirm registry.example"), "{why}");
    assert!(shows_its_own(&server));
    assert_eq!(authority.made(), (1, 1, 0));
    let log = server.whole_log();
    assert!(log.contains("the authority gave no certificate"), "{log}");
    // A minute at least lies between two attempts, of which this test has seen none but the first.
    let next: jiff::Timestamp = acme["next_attempt"].as_str().unwrap().parse().unwrap();
    assert!(next.duration_since(jiff::Timestamp::now()).as_secs() > 20, "{acme}");
    authority.look_at(server.address().parse().unwrap());
    signal(server.pid(), nix::sys::signal::Signal::SIGHUP);
    until("the certificate is shown", || shown(&server, authority.root_pem(), NAME).is_some());
    assert_eq!(authority.made(), (1, 2, 1), "with the same account");
    server.stop();
}
