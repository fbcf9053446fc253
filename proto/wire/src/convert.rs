//! The error of conversions from messages, and the small steps that they share.

use std::borrow::Cow;
use std::str::FromStr;

use gantry_model::name::NameError;

/// A message that does not say what its type promises.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// A field that must be set is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has a value that it may not have.
    #[error("{field}: {message}")]
    Invalid {
        /// The field.
        field: Cow<'static, str>,
        /// What is wrong.
        message: String,
    },
    /// The bytes are no such message.
    #[error("the message cannot be decoded")]
    Decode(#[from] prost::DecodeError),
}

impl WireError {
    /// A field with a value that it may not have.
    pub(crate) fn invalid(field: impl Into<Cow<'static, str>>, message: impl ToString) -> WireError {
        WireError::Invalid { field: field.into(), message: message.to_string() }
    }
}

/// Reads a name.
pub(crate) fn name<T: FromStr<Err = NameError>>(field: &'static str, text: &str) -> Result<T, WireError> {
    text.parse().map_err(|problem| WireError::invalid(field, problem))
}

/// Reads a name where an empty text means none.
pub(crate) fn name_or_none<T: FromStr<Err = NameError>>(
    field: &'static str,
    text: &str,
) -> Result<Option<T>, WireError> {
    if text.is_empty() { Ok(None) } else { name(field, text).map(Some) }
}

/// Reads bytes of a fixed length.
pub(crate) fn bytes<const LENGTH: usize>(
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; LENGTH], WireError> {
    bytes
        .try_into()
        .map_err(|_| WireError::invalid(field, format!("has {} bytes, not {LENGTH}", bytes.len())))
}

/// Writes an optional name, empty for none.
pub(crate) fn text_or_empty<T: AsRef<str>>(value: Option<&T>) -> String {
    value.map(|value| value.as_ref().to_owned()).unwrap_or_default()
}
