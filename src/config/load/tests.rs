//! Tests of the whole way from sources to a guarded configuration.
#![allow(clippy::unwrap_used)]

use super::super::guard::guard;
use super::*;
use std::os::unix::fs::PermissionsExt;

fn env(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    // A root of its own, so that no file of the machine is read.
    let absent = [("PANTRY_ROOT", "/nonexistent/pantry-config-test")];
    absent.iter().chain(pairs).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load_env(pairs: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    load(&Flags::default(), &env(pairs))
}

fn code_of(pairs: &[(&str, &str)]) -> &'static str {
    match load_env(pairs).and_then(|loaded| guard(&loaded.config)) {
        Ok(()) => "ok",
        Err(error) => {
            assert!(error.hint().is_some_and(|hint| !hint.is_empty()));
            error.code()
        }
    }
}

const KEY: &str = "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk";

#[test]
fn nothing_is_needed() {
    let loaded = load_env(&[]).unwrap();
    guard(&loaded.config).unwrap();
    assert_eq!(loaded.config.listen.to_string(), "127.0.0.1:7721");
    assert_eq!(loaded.config.auth_mode, AuthMode::None);
    assert_eq!(loaded.config.store.upload_cap_bytes, 64 << 20);
    assert_eq!(loaded.config.limits.manifest_cap_bytes, 8 << 20);
    assert_eq!(loaded.config.sandbox.test_memory_bytes, 128 << 20);
    assert_eq!(loaded.config.runner.kind, RunnerKind::Embedded);
    assert_eq!(loaded.provenance.len(), SETTINGS.len());
    assert!(loaded.file.is_none() && loaded.warnings.is_empty());
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    fs::write(&path, "listen: 127.0.0.1:3\nstore:\n  concurrent: 3\nlimits:\n  connections: 3\n").unwrap();
    let flags = Flags {
        listen: Some("127.0.0.1:1".parse().unwrap()),
        config: Some(path.clone()),
        ..Flags::default()
    };
    let env = env(&[("PANTRY_LISTEN", "127.0.0.1:2"), ("PANTRY_STORE_CONCURRENT", "2")]);
    let loaded = load(&flags, &env).unwrap();
    let of = |key: &str| {
        let row = loaded.provenance.iter().find(|row| row.0 == key).unwrap();
        (row.1.clone(), row.2)
    };
    assert_eq!(of("listen"), ("127.0.0.1:1".to_owned(), "flag"));
    assert_eq!(of("store.concurrent"), ("2".to_owned(), "environment"));
    assert_eq!(of("limits.connections"), ("3".to_owned(), "file"));
    assert_eq!(of("limits.header_timeout_ms"), ("10000".to_owned(), "default"));
    assert_eq!(of("auth.mode"), ("none".to_owned(), "default"));
    assert_eq!(loaded.file, Some(path));
}

#[test]
fn every_setting_can_be_given_by_its_variable() {
    for setting in SETTINGS.iter().filter(|setting| setting.path != "root") {
        let value = match setting.path {
            "listen" => "127.0.0.1:9",
            "auth.mode" => "token",
            "auth.token_ttl_seconds" => "600",
            "tls.mode" => "files",
            "runner.kind" => "github_actions",
            "runner.github_repository" => "a/b",
            "callback.previous_key_until" => "2026-01-31T12:00:00Z",
            "log.json" | "registry.delete" => "false",
            "log.filter" => "debug",
            "tls.acme_directory" => "https://example.test/directory",
            "tls.acme_email" => "a@example.test",
            path if path.ends_with("url") || path.ends_with("github_api") => "http://example.test",
            path if path.contains('.') && setting.default.is_some() => "20000000",
            _ => "word",
        };
        let value = if matches!(
            setting.path,
            "store.concurrent"
                | "limits.connections"
                | "limits.per_address_connections"
                | "limits.streams"
                | "sandbox.test_processes"
        ) {
            "7"
        } else {
            value
        };
        let value = if setting.path.ends_with("timeout_ms") { "500" } else { value };
        let loaded =
            load_env(&[(&setting.variable(), value)]).unwrap_or_else(|e| panic!("{}: {e}", setting.path));
        let row = loaded.provenance.iter().find(|row| row.0 == setting.path).unwrap();
        assert_eq!(row.2, "environment", "{}", setting.path);
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    assert_eq!(
        load_env(&[("PANTRY_LISTEN", ""), ("PANTRY_CONTAINER_RUNNER", "")]).unwrap().config.listen.port(),
        7721
    );
    let absent = [("PANTRY_CONTAINER_RUNNER", "github_actions"), ("PANTRY_CALLBACK_SIGNING_KEY", "")];
    assert_eq!(code_of(&absent), "runner_not_configured");
}

#[test]
fn a_wrong_value_is_refused_and_named() {
    for (name, value) in [
        ("PANTRY_LISTEN", "localhost"),
        ("PANTRY_PUBLIC_URL", "ftp://x"),
        ("PANTRY_PUBLIC_URL", "http://user@x"),
        ("PANTRY_PUBLIC_URL", "http://x/?q"),
        ("PANTRY_STORE_CONCURRENT", "0"),
        ("PANTRY_STORE_CONCURRENT", "-1"),
        ("PANTRY_STORE_CONCURRENT", "1e3"),
        ("PANTRY_SANDBOX_TEST_MEMORY_BYTES", "99999999999999999999999"),
        ("PANTRY_REGISTRY_DELETE", "yes"),
        ("PANTRY_REGISTRY_DEFAULT_REPOSITORY", "A/b"),
        ("PANTRY_AUTH_MODE", "off"),
        ("PANTRY_LOG_FILTER", "pantry=loudest"),
        ("PANTRY_CALLBACK_PREVIOUS_KEY_UNTIL", "tomorrow"),
        ("PANTRY_RUNNER_GITHUB_REPOSITORY", "../x"),
        ("PANTRY_ALLOWED_HOSTS", "a b"),
    ] {
        let error = load_env(&[(name, value)]).unwrap_err();
        assert_eq!(error.code(), "config_invalid_value", "{name}={value}");
        assert!(error.to_string().starts_with(name), "{error}");
    }
}

#[test]
fn the_runner_guard_names_what_is_missing() {
    let steps = [
        ("PANTRY_CALLBACK_SIGNING_KEY", KEY),
        ("PANTRY_RUNNER_GITHUB_TOKEN", "t"),
        ("PANTRY_RUNNER_GITHUB_REPOSITORY", "acme/runner"),
        ("PANTRY_PUBLIC_URL", "https://pantry.example"),
    ];
    let mut set = vec![("PANTRY_CONTAINER_RUNNER", "github_actions")];
    for (variable, value) in steps {
        let error = guard(&load_env(&set).unwrap().config).unwrap_err();
        assert_eq!(error.code(), "runner_not_configured");
        assert!(error.to_string().contains(variable), "{error}");
        set.push((variable, value));
    }
    assert_eq!(code_of(&set), "runner_not_available");
    set.push(("PANTRY_CALLBACK_URL", "http://127.0.0.1:7721"));
    assert_eq!(code_of(&set), "runner_not_configured");
}

#[test]
fn an_unknown_runner_and_disagreeing_names_are_refused() {
    let error = load_env(&[("PANTRY_CONTAINER_RUNNER", "docker")]).unwrap_err();
    assert_eq!(error.code(), "runner_unknown");
    assert!(error.to_string().contains("embedded") && error.to_string().contains("github_actions"));
    let both = [("PANTRY_CONTAINER_RUNNER", "github_actions"), ("PANTRY_RUNNER_KIND", "embedded")];
    assert_eq!(load_env(&both).unwrap_err().code(), "config_conflict");
    let agree = [("PANTRY_CONTAINER_RUNNER", "embedded"), ("PANTRY_RUNNER_KIND", "embedded")];
    assert_eq!(code_of(&agree), "ok");
}

#[test]
fn keys_have_32_bytes_at_least() {
    assert_eq!(code_of(&[("PANTRY_CALLBACK_SIGNING_KEY", &KEY[1..])]), "callback_key_too_short");
    assert_eq!(code_of(&[("PANTRY_CALLBACK_SIGNING_KEY", KEY)]), "ok");
    let short = [("PANTRY_CALLBACK_SIGNING_KEY", KEY), ("PANTRY_CALLBACK_SIGNING_KEY_PREVIOUS", "x")];
    assert_eq!(code_of(&short), "callback_key_too_short");
    assert_eq!(code_of(&[("PANTRY_CALLBACK_SIGNING_KEY_PREVIOUS", KEY)]), "callback_key_missing");
}

#[test]
fn anonymous_access_is_for_loopback_only() {
    for (listen, mode, expected) in [
        ("0.0.0.0:1", None, "ok"),
        ("0.0.0.0:1", Some("none"), "auth_none_not_on_loopback"),
        ("[::1]:1", Some("none"), "ok"),
        ("[::ffff:127.0.0.1]:1", Some("none"), "ok"),
        ("[::]:1", Some("none"), "auth_none_not_on_loopback"),
        ("192.0.2.1:1", Some("token"), "ok"),
    ] {
        let mut set = vec![("PANTRY_LISTEN", listen)];
        set.extend(mode.map(|mode| ("PANTRY_AUTH_MODE", mode)));
        assert_eq!(code_of(&set), expected, "{listen} {mode:?}");
    }
    assert_eq!(load_env(&[("PANTRY_LISTEN", "0.0.0.0:1")]).unwrap().config.auth_mode, AuthMode::Token);
}

#[test]
fn secrets_come_from_files_and_credentials_and_never_show() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("callback.signing_key");
    fs::write(&path, format!("{KEY}\n")).unwrap();
    let by_file = [("PANTRY_CALLBACK_SIGNING_KEY_FILE", path.to_str().unwrap())];
    let by_credential = [("CREDENTIALS_DIRECTORY", dir.path().to_str().unwrap())];
    for (set, source) in [(by_file, "environment"), (by_credential, "credential")] {
        let loaded = load_env(&set).unwrap();
        assert_eq!(loaded.config.callback.signing_key.as_ref().unwrap().expose(), KEY);
        let row = loaded.provenance.iter().find(|row| row.0 == "callback.signing_key").unwrap();
        assert_eq!((row.1.as_str(), row.2), ("[secret]", source));
        assert!(!format!("{loaded:?}").contains(KEY));
    }
    let both = [by_file[0], ("PANTRY_CALLBACK_SIGNING_KEY", KEY)];
    assert_eq!(load_env(&both).unwrap_err().code(), "config_conflict");
    let absent = [("PANTRY_CALLBACK_SIGNING_KEY_FILE", "/nonexistent/key")];
    assert_eq!(load_env(&absent).unwrap_err().code(), "config_secret_unreadable");
}

#[test]
fn a_file_that_is_named_must_be_there_and_one_in_the_root_may_be() {
    let flags = Flags { config: Some("/nonexistent/c.yaml".into()), ..Flags::default() };
    assert_eq!(load(&flags, &env(&[])).unwrap_err().code(), "config_unreadable");
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags { root: Some(dir.path().to_owned()), ..Flags::default() };
    assert!(load(&flags, &env(&[])).unwrap().file.is_none());
    fs::write(dir.path().join("pantry.yaml"), "log:\n  filter: warn\n").unwrap();
    assert_eq!(load(&flags, &env(&[])).unwrap().config.log.filter, "warn");
    fs::write(dir.path().join("pantry.yaml"), "root: /elsewhere\n").unwrap();
    assert_eq!(load(&flags, &env(&[])).unwrap_err().code(), "config_conflict");
}

#[test]
fn what_looks_like_a_setting_is_mentioned() {
    let set = [("PANTRY_STORE_CONCURENT", "3"), ("PANTRY_TOKEN", "x"), ("PANTRY_SOMETHING", "y")];
    let warnings = load_env(&set).unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("did you mean PANTRY_STORE_CONCURRENT?"), "{warnings:?}");
}

#[test]
fn a_secret_in_a_file_for_all_eyes_is_mentioned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.yaml");
    fs::write(&path, format!("callback:\n  signing_key: {KEY}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
    let flags = Flags { config: Some(path.clone()), ..Flags::default() };
    assert_eq!(load(&flags, &env(&[])).unwrap().warnings.len(), 1);
    fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(load(&flags, &env(&[])).unwrap().warnings.len(), 0);
}

#[test]
fn tls_is_on_wherever_others_reach_the_port() {
    let mode = |pairs: &[(&str, &str)]| load_env(pairs).unwrap().config.tls.mode;
    assert_eq!(mode(&[]), TlsMode::Off);
    assert_eq!(mode(&[("PANTRY_LISTEN", "0.0.0.0:1")]), TlsMode::SelfSigned);
    assert_eq!(mode(&[("PANTRY_LISTEN", "0.0.0.0:1"), ("PANTRY_TLS_MODE", "off")]), TlsMode::Off);
    assert_eq!(mode(&[("PANTRY_TLS_MODE", "self_signed")]), TlsMode::SelfSigned);
}

#[test]
fn a_mode_of_tls_needs_its_settings_and_no_others() {
    let files = [("PANTRY_TLS_MODE", "files"), ("PANTRY_TLS_CERTIFICATE", "c"), ("PANTRY_TLS_KEY", "k")];
    assert_eq!(code_of(&files), "ok");
    assert_eq!(code_of(&files[..2]), "tls_not_configured");
    assert_eq!(code_of(&files[1..]), "tls_setting_unused");
    assert_eq!(code_of(&[("PANTRY_TLS_CLIENT_CA", "c")]), "tls_setting_unused");
    let acme = [
        ("PANTRY_TLS_MODE", "acme"),
        ("PANTRY_TLS_ACME_DIRECTORY", "https://authority.example/directory"),
        ("PANTRY_TLS_ACME_NAMES", "Registry.Example, other.example,registry.example"),
    ];
    assert_eq!(code_of(&acme), "ok");
    assert_eq!(code_of(&acme[..2]), "tls_not_configured");
    assert_eq!(code_of(&[acme[0], acme[2]]), "tls_not_configured");
    assert_eq!(code_of(&acme[1..]), "tls_setting_unused");
    assert_eq!(code_of(&[("PANTRY_TLS_ACME_EMAIL", "a@b.example")]), "tls_setting_unused");
    let config = load_env(&acme).unwrap().config;
    assert_eq!(config.tls.acme.names, ["registry.example", "other.example"]);
    assert!(
        config.allowed_hosts.contains(&"registry.example".to_owned()),
        "called by what it is certified for"
    );
    for names in ["*.example", "192.0.2.7", "a.example:443", "-a.example", "a..b", "::1"] {
        assert_eq!(
            code_of(&[acme[0], acme[1], ("PANTRY_TLS_ACME_NAMES", names)]),
            "config_invalid_value",
            "{names}"
        );
    }
    for (variable, value) in [
        ("PANTRY_TLS_ACME_DIRECTORY", "http://authority.example/directory"),
        ("PANTRY_TLS_ACME_EMAIL", "nobody"),
        ("PANTRY_TLS_ACME_EMAIL", "a@b.example?subject=c"),
    ] {
        assert_eq!(code_of(&[(variable, value)]), "config_invalid_value", "{value}");
    }
    assert_eq!(code_of(&[("PANTRY_TLS_MODE", "on")]), "config_invalid_value");
}
