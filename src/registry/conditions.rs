//! What a request makes a condition of a change.

use crate::names::Digest;

/// `If-Match` and `If-None-Match` as they came, each as one list; absent is no condition.
///
/// *Source*: RFC 9110 section 13.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The manifest must be one of these, or there at all (`*`).
    pub if_match: Option<String>,
    /// The manifest must be none of these, or not be there (`*`).
    pub if_none_match: Option<String>,
}

impl Conditions {
    /// Tells whether they hold for what is there now.
    pub(super) fn hold(&self, current: Option<&Digest>) -> bool {
        let tag = current.map(|digest| format!("\"{digest}\""));
        let names = |list: &str, weak: bool| {
            tag.as_deref().is_some_and(|tag| {
                list.split(',').map(str::trim).any(|one| {
                    one == "*" || one == tag || weak && one.strip_prefix("W/").is_some_and(|one| one == tag)
                })
            })
        };
        self.if_match.as_deref().is_none_or(|list| names(list, false))
            && !self.if_none_match.as_deref().is_some_and(|list| names(list, true))
    }
}

/// Whether conditions hold for what is there: for tests.
#[cfg(any(test, feature = "fault-points"))]
#[doc(hidden)]
#[must_use]
pub fn conditions_hold(conditions: &Conditions, current: Option<&Digest>) -> bool {
    conditions.hold(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_compare_with_what_is_there() {
        let (here, other) = (Digest::of(b"here"), Digest::of(b"other"));
        let quoted = |digest: &Digest| format!("\"{digest}\"");
        let list = format!("{}, {}", quoted(&other), quoted(&here));
        for (list, there, matches, weakly) in [
            ("*", Some(&here), true, true),
            ("*", None, false, false),
            (quoted(&here).as_str(), Some(&here), true, true),
            (quoted(&here).as_str(), None, false, false),
            (quoted(&other).as_str(), Some(&here), false, false),
            (list.as_str(), Some(&here), true, true),
            (format!("W/{}", quoted(&here)).as_str(), Some(&here), false, true),
            (here.to_string().as_str(), Some(&here), false, false),
            ("", Some(&here), false, false),
        ] {
            let only = Conditions { if_match: Some(list.to_owned()), if_none_match: None };
            assert_eq!(only.hold(there), matches, "If-Match: {list}");
            let unless = Conditions { if_match: None, if_none_match: Some(list.to_owned()) };
            assert_eq!(unless.hold(there), !weakly, "If-None-Match: {list}");
        }
        assert!(Conditions::default().hold(None));
    }
}
