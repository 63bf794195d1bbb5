use proptest::prelude::*;

use super::super::signature::sign;
use super::*;

const BODY: &[u8] = br#"{"passed":true,"summary":"s","test_count":1,"pass_count":1,"later":{"x":[1,null]}}"#;

fn key(letter: &str) -> CallbackKey {
    CallbackKey::from_text(&letter.repeat(32)).unwrap()
}

fn id(text: &str) -> SubmissionId {
    SubmissionId::parse(text).unwrap()
}

fn nonce(text: &str) -> Nonce {
    Nonce::parse(text).unwrap()
}

/// Verifies against one key and one nonce.
fn check(header: &str, body: &[u8]) -> Result<VerifiedResult, Refusal> {
    verify(&[&key("k")], &id("42"), &[nonce("n1")], &[header.as_bytes()], body)
}

fn signed(body: &[u8]) -> String {
    sign(&key("k"), &id("42"), &nonce("n1"), body)
}

fn reason(result: Result<VerifiedResult, Refusal>) -> &'static str {
    match result.unwrap_err() {
        refusal @ Refusal::Unauthorized { reason } => {
            assert_eq!(refusal.to_string(), "signature missing or not valid");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_signed_result_is_accepted_and_unknown_fields_are_kept() {
    let header = signed(BODY);
    let result = check(&header, BODY).unwrap();
    assert_eq!(result.nonce, nonce("n1"));
    assert_eq!(result.key_id, key("k").id());
    assert_eq!(result.body.extra["later"], serde_json::json!({"x": [1, null]}));
    assert_eq!(
        result.fingerprint,
        Digest::of(format!("{header}{}", String::from_utf8_lossy(BODY)).as_bytes())
    );
    assert_eq!((result.body.fail_count, result.body.errors.len()), (0, 0));
}

#[test]
fn every_pair_of_key_and_nonce_is_accepted_and_named() {
    let (keys, nonces) = ([key("a"), key("b")], [nonce("n1"), nonce("n2"), nonce("n3")]);
    let accepted: Vec<&CallbackKey> = keys.iter().collect();
    for key in &keys {
        for nonce in &nonces {
            let header = sign(key, &id("42"), nonce, BODY);
            let result = verify(&accepted, &id("42"), &nonces, &[header.as_bytes()], BODY).unwrap();
            assert_eq!((result.key_id.as_str(), &result.nonce), (key.id(), nonce));
        }
    }
}

#[test]
fn a_header_that_is_not_64_lowercase_digits_once_is_refused_with_one_message() {
    let good = signed(BODY);
    assert_eq!(reason(verify(&[&key("k")], &id("42"), &[nonce("n1")], &[], BODY)), "header_missing");
    let twice = [good.as_bytes(), good.as_bytes()];
    assert_eq!(reason(verify(&[&key("k")], &id("42"), &[nonce("n1")], &twice, BODY)), "header_repeated");
    let listed = format!("{good}, {good}");
    for bad in [
        "",
        &good[1..],
        &format!("{good}0"),
        &good.to_uppercase(),
        &format!(" {}", &good[1..]),
        &"g".repeat(64),
        &listed,
    ] {
        assert_eq!(reason(check(bad, BODY)), "header_malformed", "{bad}");
    }
    let not_text = [[0xff_u8; 64].as_slice()];
    assert_eq!(reason(verify(&[&key("k")], &id("42"), &[nonce("n1")], &not_text, BODY)), "header_malformed");
}

#[test]
fn another_key_id_or_nonce_is_refused() {
    let header = signed(BODY);
    let headers = [header.as_bytes()];
    let (k, n) = (key("k"), [nonce("n1")]);
    assert_eq!(reason(verify(&[&key("x")], &id("42"), &n, &headers, BODY)), "no_match");
    assert_eq!(reason(verify(&[&k], &id("43"), &n, &headers, BODY)), "no_match");
    assert_eq!(reason(verify(&[&k], &id("42"), &[nonce("n2")], &headers, BODY)), "no_match");
    assert_eq!(reason(verify(&[&k], &id("42"), &[], &headers, BODY)), "no_match");
    assert_eq!(reason(verify(&[], &id("42"), &n, &headers, BODY)), "no_match");
}

#[test]
fn size_comes_first_then_signature_then_schema() {
    let large = vec![b' '; BODY_CAP + 1];
    assert_eq!(check("no header", &large).unwrap_err(), Refusal::TooLarge);
    let cap = [b"{".as_slice(), &vec![b' '; BODY_CAP - 1]].concat();
    assert_eq!(cap.len(), BODY_CAP);
    assert!(matches!(check(&signed(&cap), &cap), Err(Refusal::Schema(_))));
    let forged = "0".repeat(64);
    assert_eq!(reason(check(&forged, b"not json")), "no_match");
    assert!(matches!(check(&signed(b"not json"), b"not json"), Err(Refusal::Schema(_))));
}

#[test]
fn what_is_not_of_the_schema_is_refused() {
    let start = r#"{"summary":"s","test_count":1,"pass_count":1"#;
    for rest in [
        "}",
        r#","passed":"true"}"#,
        r#","passed":1}"#,
        r#","passed":null}"#,
        r#","passed":true,"passed":false}"#,
        r#","passed":true,"fail_count":-1}"#,
        r#","passed":true,"errors":"x"}"#,
        r#","passed":true,"pack_digest":"sha256:00"}"#,
        r#","passed":true} trailing"#,
    ] {
        let body = format!("{start}{rest}");
        let refused = check(&signed(body.as_bytes()), body.as_bytes());
        assert!(matches!(refused, Err(Refusal::Schema(_))), "{body}: {refused:?}");
    }
    for body in [b"".as_slice(), b"[]", b"null", b"\xff", b"\xef\xbb\xbf{}"] {
        assert!(matches!(check(&signed(body), body), Err(Refusal::Schema(_))));
    }
}

#[test]
fn a_mebibyte_of_brackets_does_not_exhaust_the_stack() {
    for bracket in ["[", "{\"a\":"] {
        let bare = bracket.repeat(BODY_CAP / bracket.len());
        assert!(matches!(check(&signed(bare.as_bytes()), bare.as_bytes()), Err(Refusal::Schema(_))));
        let start = r#"{"passed":true,"summary":"s","test_count":1,"pass_count":1,"receipt":"#;
        let inside = format!("{start}{}", bracket.repeat((BODY_CAP - start.len()) / bracket.len()));
        assert!(matches!(check(&signed(inside.as_bytes()), inside.as_bytes()), Err(Refusal::Schema(_))));
        let kept = inside.replace("receipt", "unknown");
        assert!(matches!(check(&signed(kept.as_bytes()), kept.as_bytes()), Err(Refusal::Schema(_))));
    }
}

fn flipped(text: &[u8], at: usize, bit: u32) -> Vec<u8> {
    let mut bytes = text.to_vec();
    let at = at % bytes.len();
    bytes[at] ^= 1 << (bit % 8);
    bytes
}

proptest! {
    #[test]
    fn a_flipped_bit_of_the_body_is_refused(at: usize, bit: u32) {
        let refused = check(&signed(BODY), &flipped(BODY, at, bit));
        prop_assert_eq!(refused.unwrap_err(), Refusal::Unauthorized { reason: "no_match" });
    }

    #[test]
    fn a_flipped_bit_of_id_or_nonce_is_refused(at: usize, bit: u32) {
        let (id, nonce) = ("0190-abc_DEF", "nonce-0001");
        let header = sign(&key("k"), &self::id(id), &self::nonce(nonce), BODY);
        let refuses = |id: &[u8], nonce: &[u8]| {
            let (Ok(id), Ok(nonce)) = (std::str::from_utf8(id), std::str::from_utf8(nonce)) else { return true };
            // What is no id can't be asked for at all.
            let (Ok(id), Ok(nonce)) = (SubmissionId::parse(id), Nonce::parse(nonce)) else { return true };
            verify(&[&key("k")], &id, &[nonce], &[header.as_bytes()], BODY).is_err()
        };
        prop_assert!(!refuses(id.as_bytes(), nonce.as_bytes()));
        prop_assert!(refuses(&flipped(id.as_bytes(), at, bit), nonce.as_bytes()));
        prop_assert!(refuses(id.as_bytes(), &flipped(nonce.as_bytes(), at, bit)));
    }

    #[test]
    fn a_flipped_bit_of_the_header_is_refused(at: usize, bit: u32) {
        let header = flipped(signed(BODY).as_bytes(), at, bit);
        let refused = verify(&[&key("k")], &id("42"), &[nonce("n1")], &[&header], BODY);
        let unauthorized = matches!(refused, Err(Refusal::Unauthorized { .. }));
        prop_assert!(unauthorized);
    }

    #[test]
    fn any_bytes_are_judged_without_a_panic(header: Vec<u8>, body: Vec<u8>) {
        prop_assert!(verify(&[&key("k")], &id("42"), &[nonce("n1")], &[&header], &body).is_err());
    }
}
