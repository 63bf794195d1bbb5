//! The certificate of the port: made, trusted, exchanged; and everything else with it on.

use std::io::Write as _;
use std::path::Path;

use super::support::{PANTRY, Server, Start, example, fresh_root, show, signal, until};
use super::wire::{connect, handshake_as, others_are_served, tcp_from, to_the_end};

const SELF_SIGNED: (&str, &str) = ("PANTRY_TLS_MODE", "self_signed");

/// A pair of certificate and key for this machine, which is its own authority.
fn pair() -> (String, String) {
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn put(folder: &Path, (certificate, key): &(String, String)) {
    for (file, text) in [("c.pem", certificate), ("k.pem", key)] {
        std::fs::write(folder.join("new"), text).unwrap();
        std::fs::rename(folder.join("new"), folder.join(file)).unwrap();
    }
}

/// A client command over the network, trusting that file.
fn by_network(server: &Server, ca: &Path, arguments: &[&str]) -> std::process::Output {
    std::process::Command::new(PANTRY)
        .args(["--host", &server.url, "--ca"])
        .arg(ca)
        .args(["--token", &server.token()])
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_plain_request_is_told_that_this_port_speaks_tls() {
    let server = Server::start_with(&[SELF_SIGNED]);
    let mut plain = tcp_from(&server, "127.0.0.1");
    plain.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let told = String::from_utf8(to_the_end(&mut plain)).unwrap();
    assert!(told.starts_with("HTTP/1.1 400") && told.contains("TLS_REQUIRED"), "{told}");
    others_are_served(&server);
    server.stop();
}

#[test]
fn the_command_line_trusts_what_it_is_told_to_and_nothing_else() {
    let server = Server::start_with(&[SELF_SIGNED]);
    let own = server.root.join("ca.pem");
    let output = by_network(&server, &own, &["status"]);
    assert!(output.status.success(), "{}", show(&output));
    assert!(show(&output).contains("self_signed"), "{}", show(&output));
    let other = fresh_root();
    std::fs::write(other.path().join("ca.pem"), pair().0).unwrap();
    let output = by_network(&server, &other.path().join("ca.pem"), &["status"]);
    assert_eq!(output.status.code(), Some(3), "{}", show(&output));
    let output = by_network(&server, &other.path().join("none.pem"), &["status"]);
    assert!(show(&output).contains("[ca_unusable]"), "{}", show(&output));
}

#[test]
fn a_submission_is_tested_and_published_with_tls_on() {
    let server = Server::start_with(&[SELF_SIGNED]);
    let package = example("greeter");
    server.submit(package.path());
    let submission = server.json(&["submission", &last(&server)]);
    assert_eq!(submission["state"], "published", "{submission}\n{}", server.log());
}

/// The id of the newest submission, over the local socket.
fn last(server: &Server) -> String {
    let socket = server.root.join("run/pantry.sock");
    let client = reqwest::blocking::Client::builder().unix_socket(socket.as_path()).build().unwrap();
    let list: serde_json::Value =
        client.get("http://localhost/v1/submissions").send().unwrap().json().unwrap();
    list["items"][0]["id"].as_str().unwrap().to_owned()
}

#[test]
fn another_certificate_is_shown_without_a_restart_and_a_bad_one_is_not() {
    let folder = fresh_root();
    let (root, files) = (folder.path().join("root"), folder.path());
    let first = pair();
    put(files, &first);
    let (certificate, key) = (files.join("c.pem"), files.join("k.pem"));
    let environment = [
        ("PANTRY_TLS_MODE", "files"),
        ("PANTRY_TLS_CERTIFICATE", certificate.to_str().unwrap()),
        ("PANTRY_TLS_KEY", key.to_str().unwrap()),
    ];
    let server = Start { environment: &environment, ..Start::default() }.on(&root);
    let trusts = |pem: &str| {
        std::fs::write(files.join("trusted.pem"), pem).unwrap();
        by_network(&server, &files.join("trusted.pem"), &["status"]).status.success()
    };
    assert!(trusts(&first.0));
    // One that is open through all of this.
    std::fs::write(root.join("ca.pem"), &first.0).unwrap();
    let mut open = connect(&server);
    let second = pair();
    put(files, &second);
    until("the new certificate is shown", || trusts(&second.0));
    assert!(!trusts(&first.0));
    // A key that is not of its certificate, at once by a signal: the one before stays.
    put(files, &(second.0.clone(), pair().1));
    signal(server.pid(), nix::sys::signal::Signal::SIGHUP);
    until("the log tells of it", || server.whole_log().contains("the one before is still shown"));
    assert!(trusts(&second.0));
    assert!(server.json(&["status"])["tls"]["last_error"].is_string());
    let third = pair();
    put(files, &third);
    signal(server.pid(), nix::sys::signal::Signal::SIGHUP);
    until("the third is shown", || trusts(&third.0));
    open.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    open.flush().unwrap();
    assert!(to_the_end(open.as_mut()).starts_with(b"HTTP/1.1 200"), "open connections stay");
    drop(open);
    server.stop();
}

#[test]
fn a_pair_that_does_not_belong_together_does_not_start() {
    let folder = fresh_root();
    put(folder.path(), &(pair().0, pair().1));
    let (certificate, key) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
    let environment = [
        ("PANTRY_TLS_MODE", "files"),
        ("PANTRY_TLS_CERTIFICATE", certificate.to_str().unwrap()),
        ("PANTRY_TLS_KEY", key.to_str().unwrap()),
    ];
    let refused = Server::try_start(&folder.path().join("root"), &environment).map(|_| ()).unwrap_err();
    assert!(refused.contains("[tls_certificate_unusable]") && refused.contains("hint:"), "{refused}");
    let refused = Server::try_start(&folder.path().join("root"), &[("PANTRY_TLS_MODE", "acme")]);
    assert!(refused.map(|_| ()).unwrap_err().contains("[tls_not_configured]"));
}

#[test]
fn a_client_certificate_must_be_that_of_a_known_authority_and_gives_no_rights() {
    let folder = fresh_root();
    let authority = |name: &str| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        (rcgen::Issuer::new(params, key), pem)
    };
    let ((known, known_pem), (other, _)) = (authority("known"), authority("other"));
    let client_of = |issuer: &rcgen::Issuer<'_, rcgen::KeyPair>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["client.example".to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, issuer).unwrap().der().clone();
        (certificate, rustls_pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()))
    };
    let ca = folder.path().join("clients.pem");
    std::fs::write(&ca, known_pem).unwrap();
    let environment =
        [SELF_SIGNED, ("PANTRY_TLS_CLIENT_CA", ca.to_str().unwrap()), ("PANTRY_AUTH_MODE", "token")];
    let server = Start { environment: &environment, ..Start::default() }.on(&folder.path().join("root"));
    let roots = std::fs::read_to_string(server.root.join("ca.pem")).unwrap();
    let told = |client| {
        let stream = tcp_from(&server, "127.0.0.1");
        let mut wire = handshake_as(client, stream, &roots, "localhost", &[b"http/1.1"]).ok()?;
        // With TLS 1.3 the client learns only now that its certificate was refused.
        let _ = wire.write_all(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let _ = wire.flush();
        String::from_utf8(to_the_end(&mut wire)).unwrap().lines().next().map(str::to_owned)
    };
    let unknown = Some("HTTP/1.1 401 Unauthorized".to_owned());
    assert_eq!(told(None), unknown, "none is demanded");
    assert_eq!(told(Some(client_of(&known))), unknown, "one that is shown gives no rights");
    assert_eq!(told(Some(client_of(&other))), None, "nobody is served who shows another one");
    server.stop();
}
