//! Names of tenants and of what belongs to them.
//!
//! Always holds: a [`Name`] is 1 to [`NAME_BYTES_MAX`] bytes of `a-z`, `0-9`, `-`, and begins and ends with a letter
//! or digit; so it stands unescaped in a URL path, a file name, a Cedar entity id and a metric label. A [`ToolName`]
//! is what a server calls its tool and is freer.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longest name in bytes: a DNS label, because endpoints and tenants may become host names.
pub const NAME_BYTES_MAX: usize = 63;

/// Longest tool name in bytes. The specification asks for at most 128; some servers exceed it, none seen 256.
pub const TOOL_NAME_BYTES_MAX: usize = 256;

/// Name of the agent as whom callers without a key are served, where an endpoint allows that.
pub const ANONYMOUS_AGENT: &str = "anonymous";

/// A checked name. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing stands there.
    #[error("a name may not be empty")]
    Empty,
    /// Longer than the limit.
    #[error("a name has at most {limit} bytes, this one has {length}")]
    TooLong {
        /// Bytes found.
        length: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A character that may not stand there.
    #[error("{character:?} may not stand in a name (lowercase letters, digits and `-`)")]
    Character {
        /// The first such character.
        character: char,
    },
    /// `-` at an end.
    #[error("a name begins and ends with a letter or digit")]
    Edge,
}

impl Name {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Name, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { length: text.len(), limit: NAME_BYTES_MAX });
        }
        let legal = |character: &char| matches!(character, 'a'..='z' | '0'..='9' | '-');
        if let Some(character) = text.chars().find(|character| !legal(character)) {
            return Err(NameError::Character { character });
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::Edge);
        }
        Ok(Name(Arc::from(text)))
    }
}

macro_rules! text_newtype {
    ($type:ident) => {
        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, "{:?}", self.as_str())
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! name_of {
    ($(#[$doc:meta])* $type:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Name);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }

            /// The name without what it names.
            pub fn as_name(&self) -> &Name {
                &self.0
            }
        }

        impl From<Name> for $type {
            fn from(name: Name) -> Self {
                $type(name)
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                text.parse().map($type)
            }
        }

        text_newtype!($type);
    };
}

text_newtype!(Name);
name_of!(
    /// Name of a tenant.
    TenantName
);
name_of!(
    /// Name of a region, in which nodes are.
    RegionName
);
name_of!(
    /// Name of a server within its tenant.
    ServerName
);
name_of!(
    /// Name of an endpoint within its tenant.
    EndpointName
);
name_of!(
    /// Name of an agent within its tenant.
    AgentName
);
name_of!(
    /// Name of a group of agents within a tenant.
    GroupName
);
name_of!(
    /// Name of a policy within its tenant.
    PolicyName
);
name_of!(
    /// Name of a limit within its tenant.
    LimitName
);
name_of!(
    /// Name of a credential within its tenant.
    CredentialName
);
name_of!(
    /// Name of a provider within its tenant.
    ProviderName
);

/// What a server calls one of its tools: 1 to [`TOOL_NAME_BYTES_MAX`] bytes without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolName(Arc<str>);

impl ToolName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ToolName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<ToolName, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > TOOL_NAME_BYTES_MAX {
            return Err(NameError::TooLong { length: text.len(), limit: TOOL_NAME_BYTES_MAX });
        }
        if let Some(character) = text.chars().find(|character| character.is_control()) {
            return Err(NameError::Character { character });
        }
        Ok(ToolName(Arc::from(text)))
    }
}

text_newtype!(ToolName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_to_a_dns_label() {
        assert_eq!("a-1".parse::<Name>().map(|name| name.to_string()), Ok("a-1".to_owned()));
        assert_eq!("".parse::<Name>(), Err(NameError::Empty));
        assert_eq!("A".parse::<Name>(), Err(NameError::Character { character: 'A' }));
        assert_eq!("a/b".parse::<Name>(), Err(NameError::Character { character: '/' }));
        assert_eq!("-a".parse::<Name>(), Err(NameError::Edge));
        assert_eq!("a".repeat(64).parse::<Name>(), Err(NameError::TooLong { length: 64, limit: 63 }));
    }
}
