//! `Range` of a request for a blob, and `Content-Range` of a chunk.

use std::ops::Range;

/// What of a content is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it: no range, one in another unit, one that is not well formed, or several at once.
    Whole,
    /// These bytes, never none.
    Part(Range<u64>),
    /// Nothing that it has.
    Unsatisfiable,
}

/// Reads a `Range` header against a content of `size` bytes.
///
/// Inverted ranges are unsatisfiable (the specification of RFC 9110 would let a server ignore them).
///
/// *Source*: RFC 9110 section 14.
#[must_use]
pub fn parse_byte_range(header: &str, size: u64) -> ByteRange {
    let Some((unit, set)) = header.split_once('=') else { return ByteRange::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return ByteRange::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return ByteRange::Whole };
    match (number(first), number(last)) {
        (Number::Is(first), Number::Absent) if first < size => ByteRange::Part(first..size),
        (Number::Is(first), Number::Is(last)) if first < size && first <= last => {
            ByteRange::Part(first..last.saturating_add(1).min(size))
        }
        (Number::Absent, Number::Is(count)) if count > 0 && size > 0 => {
            ByteRange::Part(size.saturating_sub(count)..size)
        }
        (Number::Not, _) | (_, Number::Not) | (Number::Absent, Number::Absent) => ByteRange::Whole,
        _ => ByteRange::Unsatisfiable,
    }
}

/// Where a chunk says that it stands: first and last byte, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentRange {
    /// The first byte.
    pub first: u64,
    /// How many bytes there are, at least one.
    pub length: u64,
}

/// Reads `<first>-<last>`, and the form of RFC 9110 with a unit and a total; `None` when it is neither.
#[must_use]
pub fn parse_content_range(header: &str) -> Option<ContentRange> {
    let text = header.trim();
    let text = text.strip_prefix("bytes").map_or(text, |rest| rest.trim_start_matches([' ', '=']));
    let text = text.split_once('/').map_or(text, |(range, _)| range);
    let (first, last) = text.split_once('-')?;
    match (number(first), number(last)) {
        (Number::Is(first), Number::Is(last)) if first <= last => {
            Some(ContentRange { first, length: (last - first).checked_add(1)? })
        }
        _ => None,
    }
}

enum Number {
    Is(u64),
    Absent,
    Not,
}

/// Digits only; a number that is too large for 64 bits counts as the largest.
fn number(text: &str) -> Number {
    let text = text.trim();
    if text.is_empty() {
        Number::Absent
    } else if text.bytes().all(|b| b.is_ascii_digit()) {
        Number::Is(text.parse().unwrap_or(u64::MAX))
    } else {
        Number::Not
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_are_read_as_the_rfc_says() {
        use ByteRange::{Part, Unsatisfiable, Whole};
        for (header, size, expected) in [
            ("bytes=0-0", 10, Part(0..1)),
            ("bytes=2-5", 10, Part(2..6)),
            ("bytes=2-", 10, Part(2..10)),
            ("bytes=-3", 10, Part(7..10)),
            ("bytes=-30", 10, Part(0..10)),
            ("bytes=9-99999999999999999999999", 10, Part(9..10)),
            ("Bytes = 1 - 2", 10, Part(1..3)),
            ("bytes=10-", 10, Unsatisfiable),
            ("bytes=5000-10000", 10, Unsatisfiable),
            ("bytes=500-0", 1000, Unsatisfiable),
            ("bytes=-0", 10, Unsatisfiable),
            ("bytes=0-", 0, Unsatisfiable),
            ("bytes=-1", 0, Unsatisfiable),
            ("bytes=0-1,3-4", 10, Whole),
            ("bytes=", 10, Whole),
            ("bytes=-", 10, Whole),
            ("bytes=a-b", 10, Whole),
            ("bytes=--1", 10, Whole),
            ("items=0-1", 10, Whole),
            ("", 10, Whole),
        ] {
            assert_eq!(parse_byte_range(header, size), expected, "{header} of {size}");
        }
    }

    #[test]
    fn chunks_say_where_they_stand() {
        let range = |first, length| Some(ContentRange { first, length });
        for (header, expected) in [
            ("0-0", range(0, 1)),
            ("5-9", range(5, 5)),
            ("bytes 5-9/*", range(5, 5)),
            ("bytes=5-9/10", range(5, 5)),
            ("9-5", None),
            ("0-18446744073709551615", None),
            ("-5", None),
            ("5-", None),
            ("", None),
            ("+1-2", None),
        ] {
            assert_eq!(parse_content_range(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_range_outside_the_content(header in "(bytes=)?[0-9 ,=-]{0,24}", size in 0_u64..5_000) {
            if let ByteRange::Part(part) = parse_byte_range(&header, size) {
                prop_assert!(part.start < part.end && part.end <= size);
            }
        }

        #[test]
        fn any_text_is_read_without_a_panic(header in ".{0,40}", size in any::<u64>()) {
            let _ = parse_byte_range(&header, size);
            let _ = parse_content_range(&header);
        }

        #[test]
        fn a_part_is_read_back(first in 0_u64..1_000, length in 1_u64..1_000, more in 0_u64..1_000) {
            let header = format!("bytes={first}-{}", first + length - 1);
            let size = first + length + more;
            prop_assert_eq!(parse_byte_range(&header, size), ByteRange::Part(first..first + length));
            prop_assert_eq!(parse_content_range(&header[6..]), Some(ContentRange { first, length }));
        }
    }
}
