//! From when to when a certificate is good.
//!
//! Source: RFC 5280, section 4.1; ITU-T X.690 for the encoding.

use crate::names::Millis;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The `notAfter` of a certificate in DER form; `None` when it is none.
pub(super) fn not_after(der: &[u8]) -> Option<Millis> {
    span(der).map(|(_, not_after)| not_after)
}

/// The `notBefore` and `notAfter` of a certificate in DER form; `None` when it is none.
pub(super) fn span(der: &[u8]) -> Option<(Millis, Millis)> {
    let (tag, certificate, _) = element(der)?;
    let (inner, to_be_signed, _) = element(certificate)?;
    if (tag, inner) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    let (tag, _, mut rest) = element(to_be_signed)?;
    if tag == VERSION {
        let (tag, _, after_serial) = element(rest)?;
        rest = (tag == INTEGER).then_some(after_serial)?;
    }
    let (_algorithm, _, rest) = element(rest)?;
    let (_issuer, _, rest) = element(rest)?;
    let (tag, validity, _) = element(rest)?;
    let (from_tag, from, rest) = element((tag == SEQUENCE).then_some(validity)?)?;
    let (to_tag, to, _) = element(rest)?;
    Some((instant(from_tag, from)?, instant(to_tag, to)?))
}

fn instant(tag: u8, text: &[u8]) -> Option<Millis> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year: i16 = text[..2].parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (text[..4].parse().ok()?, &text[4..]),
        _ => return None,
    };
    let field = |at: usize| rest[at..at + 2].parse::<i8>().ok();
    let at =
        jiff::civil::DateTime::new(year, field(0)?, field(2)?, field(4)?, field(6)?, field(8)?, 0).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp();
    // What ended before 1970 ended at its beginning.
    Some(Millis(u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

/// Tag, content, and what comes after.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x83 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn made(year: i32) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(year, 2, 3);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    #[test]
    fn the_end_is_read_in_both_forms() {
        for (year, end) in [(2031, "2031-02-03T00:00:00.000Z"), (2057, "2057-02-03T00:00:00.000Z")] {
            assert_eq!(not_after(&made(year)).unwrap().rfc3339(), end);
        }
        let whole = made(2031);
        assert_eq!(span(&whole).unwrap().0.rfc3339(), "1975-01-01T00:00:00.000Z");
        assert_eq!(not_after(&whole[..60]), None);
        assert_eq!(not_after(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(at in 0_usize..300, byte: u8, noise: Vec<u8>) {
            let mut der = made(2031);
            let at = at % der.len();
            der[at] = byte;
            let _ = (not_after(&der), not_after(&noise));
        }
    }
}
