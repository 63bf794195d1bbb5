//! `/v2/token`: the token service.

pub(in crate::server) mod exchange;
pub(in crate::server) mod issue;
