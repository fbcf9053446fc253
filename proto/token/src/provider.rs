//! A provider: what is trusted of it, and its keys.

use std::time::SystemTime;

use crate::claims::Claims;
use crate::compact::Compact;
use crate::keeper::{Keys, KeysError};
use crate::rules::{Rules, TokenError};

/// Believes what a provider signs. Clones are the same.
#[derive(Debug, Clone)]
pub struct Provider {
    rules: Rules,
    keys: Keys,
}

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// What is wrong with it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// Nobody can tell: nothing is wrong with it as far as is known.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Provider {
    /// Trusts so far, and by these keys.
    pub fn new(rules: Rules, keys: Keys) -> Provider {
        Provider { rules, keys }
    }

    /// What is trusted.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// The same as [`Provider::verify`], by the keys that are known; `None`: others may tell, for which one would wait.
    pub fn verify_at_once(&self, token: &str, now: SystemTime) -> Option<Result<Claims, TokenError>> {
        let token = match Compact::parse(token) {
            Ok(token) => token,
            Err(error) => return Some(Err(error)),
        };
        // Before anybody is asked for keys.
        if !self.rules.trusted().algorithms.contains(&token.algorithm) {
            return Some(Err(TokenError::Algorithm));
        }
        let checked = self.rules.check(&token, self.keys.at_hand()?.as_ref(), now);
        (checked != Err(TokenError::UnknownKey)).then_some(checked)
    }

    /// Believes a token that counts at `now`. Waits where its key is not known and may be fetched; else it is only
    /// computed. Dropping the future is safe.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, VerifyError> {
        if let Some(verified) = self.verify_at_once(token, now) {
            return Ok(verified?);
        }
        let token = Compact::parse(token)?;
        let keys = self.keys.newest().await?;
        match self.rules.check(&token, &keys, now) {
            Err(TokenError::UnknownKey) => match self.keys.newer(&keys).await {
                Some(newer) => Ok(self.rules.check(&token, &newer, now)?),
                None => Err(TokenError::UnknownKey.into()),
            },
            checked => Ok(checked?),
        }
    }
}
