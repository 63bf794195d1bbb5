//! The body of a result.

use serde::{Deserialize, Serialize};

use crate::names::Digest;

/// What a runner says about a submission. Fields that aren't known are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultBody {
    /// The verdict.
    pub passed: bool,
    /// One line for people; never read by the program.
    pub summary: String,
    /// How many tests ran.
    pub test_count: u64,
    /// How many of them passed.
    pub pass_count: u64,
    /// How many of them failed.
    #[serde(default)]
    pub fail_count: u64,
    /// `name: message` of each failed test.
    #[serde(default)]
    pub errors: Vec<String>,
    /// What the tests printed: the package's own words.
    #[serde(default)]
    pub raw_output: String,
    /// The pack that was tested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack_digest: Option<Digest>,
    /// Which limits held the tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<serde_json::Value>,
    /// Everything else.
    #[serde(flatten)]
    pub extra: serde_json::Map<String, serde_json::Value>,
}
