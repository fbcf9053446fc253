//! Batches: several messages as one JSON array, which only 2025-03-26 has.
//!
//! Always holds: a batch that is taken apart has between one and [`BATCH_MESSAGES_MAX`] elements, none of which is an
//! `initialize`; each is a slice of the body. What the elements are is not looked into: each is read as a message of
//! its own.

use std::fmt;

use bytes::Bytes;
use serde::Deserializer;
use serde::de::{Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::json;

/// Most messages of one batch: each is a request of its own, with a record and a place at its server.
pub(crate) const BATCH_MESSAGES_MAX: usize = 64;

/// The one version with batches.
const VERSION: &str = "2025-03-26";

/// Why a batch is not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    /// No JSON array.
    #[error("the batch is no array of messages")]
    Form,
    /// Nothing in it.
    #[error("a batch has at least one message")]
    Empty,
    /// More than its server's share.
    #[error("a batch has at most {BATCH_MESSAGES_MAX} messages")]
    TooMany,
    /// Nothing can be asked before it is answered.
    #[error("`initialize` stands by itself, not in a batch")]
    Initialize,
    /// Another version, which has none.
    #[error("a batch belongs to version {VERSION} alone; send each message by itself")]
    Version,
}

/// Whether a client of this version may send batches. Without a version the specification has one assume this one.
pub(crate) fn is_of(version: Option<&str>) -> bool {
    version.is_none_or(|version| version == VERSION)
}

/// Whether a body is an array.
pub(crate) fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// The messages of a batch, each as it came.
pub(crate) fn split(body: &Bytes) -> Result<Vec<Bytes>, BatchError> {
    let text = json::check_text(body).map_err(|_| BatchError::Form)?;
    let elements = elements(text, BATCH_MESSAGES_MAX)?;
    if elements.is_empty() {
        return Err(BatchError::Empty);
    }
    if elements.iter().any(|element| is_initialize(element.get())) {
        return Err(BatchError::Initialize);
    }
    Ok(elements.into_iter().map(|element| body.slice_ref(element.get().as_bytes())).collect())
}

/// The elements of an array, each as it stands; of one that has more than `most`, no more are read.
pub(crate) fn elements(text: &str, most: usize) -> Result<Vec<&RawValue>, BatchError> {
    let mut is_full = false;
    let mut read = serde_json::Deserializer::from_str(text);
    let elements = read.deserialize_seq(Elements { most, is_full: &mut is_full });
    let elements = elements.and_then(|elements| read.end().map(|()| elements));
    elements.map_err(|_| if is_full { BatchError::TooMany } else { BatchError::Form })
}

struct Elements<'a> {
    most: usize,
    /// Set when there are more.
    is_full: &'a mut bool,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Self::Value, A::Error> {
        let mut elements = Vec::new();
        while let Some(element) = sequence.next_element()? {
            if elements.len() == self.most {
                *self.is_full = true;
                return Err(A::Error::custom("too many elements"));
            }
            elements.push(element);
        }
        Ok(elements)
    }
}

fn is_initialize(element: &str) -> bool {
    let Ok([Some(method)]) = json::fields(element, &["method"]) else { return false };
    serde_json::from_str::<String>(method.get()).is_ok_and(|method| method == "initialize")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split_text(text: &str) -> Result<Vec<Bytes>, BatchError> {
        split(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_batch_is_taken_apart_as_it_came() {
        let ping = Bytes::from_static(br#"{"id": 1 ,"method":"ping"}"#);
        assert_eq!(
            split_text(r#" [ {"id": 1 ,"method":"ping"} , 7 ] "#),
            Ok(vec![ping, Bytes::from_static(b"7")])
        );
    }

    #[test]
    fn what_is_no_batch_is_refused_with_the_reason() {
        assert_eq!(split_text("[]"), Err(BatchError::Empty));
        assert_eq!(split_text("[1,"), Err(BatchError::Form));
        assert_eq!(split_text(r#"[{"method":"in\u0069tialize"}]"#), Err(BatchError::Initialize));
        let of = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
        assert_eq!(split_text(&of(BATCH_MESSAGES_MAX)).map(|batch| batch.len()), Ok(BATCH_MESSAGES_MAX));
        assert_eq!(split_text(&of(BATCH_MESSAGES_MAX + 1)), Err(BatchError::TooMany));
    }

    #[test]
    fn only_one_version_has_batches() {
        assert!(is_of(None) && is_of(Some("2025-03-26")));
        assert!(!is_of(Some("2025-06-18")) && !is_of(Some("2026-07-28")));
    }
}
