//! `Range` of a request for a blob, and `Content-Range` of a chunk.

use std::ops::Range;

/// A request may ask for this many ranges; one with more gets the whole.
const RANGES_CAP: usize = 32;

/// What of a content is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ByteRange {
    /// All of it: no range, one in another unit, one that is not well formed, too many, or some that overlap.
    Whole,
    /// These bytes, never none.
    Part(Range<u64>),
    /// At least two parts in the order asked for, none of them empty, none overlapping another.
    Parts(Vec<Range<u64>>),
    /// Nothing that it has.
    Unsatisfiable,
}

/// Reads a `Range` header against a content of `size` bytes.
///
/// Inverted ranges are unsatisfiable (RFC 9110 would let a server ignore them). Of several ranges those that the
/// content doesn't have are left out.
///
/// *Limits*: 32 ranges that don't overlap, so that an answer is never larger than the content and what stands around
/// its parts. *Source*: RFC 9110 section 14; CVE-2011-3192.
#[must_use]
pub fn parse_byte_range(header: &str, size: u64) -> ByteRange {
    let Some((unit, set)) = header.split_once('=') else { return ByteRange::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return ByteRange::Whole;
    }
    let mut parts = Vec::new();
    let mut asked = 0;
    for one in set.split(',').filter(|one| !one.trim().is_empty()) {
        asked += 1;
        match range_spec(one, size) {
            _ if asked > RANGES_CAP => return ByteRange::Whole,
            Spec::Malformed => return ByteRange::Whole,
            Spec::Outside => {}
            Spec::Inside(part) => parts.push(part),
        }
    }
    match <[Range<u64>; 1]>::try_from(parts) {
        Ok([part]) => ByteRange::Part(part),
        Err(_) if asked == 0 => ByteRange::Whole,
        Err(parts) if parts.is_empty() => ByteRange::Unsatisfiable,
        Err(parts) if overlap(&parts) => ByteRange::Whole,
        Err(parts) => ByteRange::Parts(parts),
    }
}

/// One member of a set of ranges, against a content.
enum Spec {
    Inside(Range<u64>),
    Outside,
    Malformed,
}

fn range_spec(text: &str, size: u64) -> Spec {
    let Some((first, last)) = text.split_once('-') else { return Spec::Malformed };
    match (number(first), number(last)) {
        (Number::Is(first), Number::Absent) if first < size => Spec::Inside(first..size),
        (Number::Is(first), Number::Is(last)) if first < size && first <= last => {
            Spec::Inside(first..last.saturating_add(1).min(size))
        }
        (Number::Absent, Number::Is(count)) if count > 0 && size > 0 => {
            Spec::Inside(size.saturating_sub(count)..size)
        }
        (Number::Not, _) | (_, Number::Not) | (Number::Absent, Number::Absent) => Spec::Malformed,
        _ => Spec::Outside,
    }
}

fn overlap(parts: &[Range<u64>]) -> bool {
    let mut sorted: Vec<&Range<u64>> = parts.iter().collect();
    sorted.sort_by_key(|part| part.start);
    sorted.windows(2).any(|pair| pair[0].end > pair[1].start)
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
        use ByteRange::{Part, Parts, Unsatisfiable, Whole};
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
            ("bytes=0-1,3-4", 10, Parts(vec![0..2, 3..5])),
            ("bytes=7-,0-0, -3", 10, Whole),
            ("bytes=-1,0-0", 10, Parts(vec![9..10, 0..1])),
            ("bytes=0-4,5-9", 10, Parts(vec![0..5, 5..10])),
            ("bytes=0-4,4-9", 10, Whole),
            ("bytes=0-0,50-", 10, Part(0..1)),
            ("bytes=50-,60-,9-3", 10, Unsatisfiable),
            ("bytes=0-0,x", 10, Whole),
            ("bytes=,0-0,,", 10, Part(0..1)),
            ("bytes=,", 10, Whole),
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
            match parse_byte_range(&header, size) {
                ByteRange::Part(part) => prop_assert!(part.start < part.end && part.end <= size),
                ByteRange::Parts(parts) => {
                    prop_assert!(parts.len() > 1 && !overlap(&parts));
                    prop_assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
                }
                ByteRange::Whole | ByteRange::Unsatisfiable => {}
            }
        }

        /// The model marks each byte of the content that a member of the set names, and forgets where it came from.
        #[test]
        fn a_set_of_ranges_gives_the_bytes_that_its_members_name(
            asked in proptest::collection::vec((0_usize..40, proptest::option::of(0_usize..40)), 1..40),
            size in 1_usize..30,
        ) {
            let mut times = vec![0_u32; size];
            let mut set = Vec::new();
            for (first, last) in &asked {
                set.push(format!("{first}-{}", last.map(|last| last.to_string()).unwrap_or_default()));
                let end = last.unwrap_or(size).min(size - 1);
                for named in times.iter_mut().take(end + 1).skip(*first) {
                    *named += 1;
                }
            }
            let found = parse_byte_range(&format!("bytes={}", set.join(",")), size as u64);
            let again = times.iter().any(|times| *times > 1);
            let none = times.iter().all(|times| *times == 0);
            let parts = match found {
                _ if asked.len() > RANGES_CAP || again => {
                    prop_assert_eq!(found, ByteRange::Whole);
                    return Ok(());
                }
                ByteRange::Part(part) => vec![part],
                ByteRange::Parts(parts) => parts,
                ByteRange::Unsatisfiable => vec![],
                ByteRange::Whole => panic!("nothing overlaps, and nothing is malformed"),
            };
            prop_assert_eq!(parts.is_empty(), none);
            let mut given = vec![0_u32; size];
            for at in parts.into_iter().flatten() {
                given[usize::try_from(at).unwrap()] += 1;
            }
            prop_assert_eq!(given, times);
        }

        #[test]
        fn too_many_ranges_give_the_whole(count in 33_usize..500) {
            let set: Vec<String> = (0..count).map(|n| format!("{}-{}", n * 2, n * 2)).collect();
            prop_assert_eq!(parse_byte_range(&format!("bytes={}", set.join(",")), 5_000), ByteRange::Whole);
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
