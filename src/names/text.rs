//! What all textual names share: the error, and the macro that gives them their traits.

/// Says which kind of name was refused, the text that was given, and the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {given:?} is not valid: {rule}")]
pub struct NameError {
    /// What was being parsed, as people call it.
    pub kind: &'static str,
    /// The text as it came, cut to 80 characters.
    pub given: String,
    /// The rule that it breaks, as a sentence without a full stop.
    pub rule: &'static str,
}

impl NameError {
    pub(super) fn new(kind: &'static str, given: &str, rule: &'static str) -> Self {
        Self { kind, given: given.chars().take(80).collect(), rule }
    }
}

/// Gives a `struct Name(String)` with a `fn check(&str) -> Result<(), &'static str>` its common traits.
macro_rules! textual {
    ($name:ident, $kind:literal) => {
        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// [`NameError`](super::NameError) when the text breaks the rule of this kind of name.
            pub fn parse(text: &str) -> Result<Self, super::NameError> {
                match Self::check(text) {
                    Ok(()) => Ok(Self(text.to_owned())),
                    Err(rule) => Err(super::NameError::new($kind, text, rule)),
                }
            }

            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = super::NameError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::parse(text)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
pub(super) use textual;
