//! A token on every call: how admins, nodes without a certificate, and members show theirs.
//!
//! Always holds: the token is marked as sensitive, so nothing that prints headers prints it.

use gantry_model::Secret;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Puts a token on every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

/// The token has characters that no header can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token cannot stand in a header")]
pub struct BearerError;

impl Bearer {
    /// Takes a token, which is visible ASCII.
    pub fn new(token: &Secret<String>) -> Result<Bearer, BearerError> {
        let text = Secret::new(format!("Bearer {}", token.expose()));
        let mut value = MetadataValue::try_from(text.expose().as_str()).map_err(|_| BearerError)?;
        value.set_sensitive(true);
        Ok(Bearer(value))
    }

    /// Puts it on one call.
    pub fn show<T>(&self, request: &mut Request<T>) {
        request.metadata_mut().insert("authorization", self.0.clone());
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        self.show(&mut request);
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_on_the_call_and_is_not_printed() -> Result<(), Box<dyn std::error::Error>> {
        let mut bearer = Bearer::new(&Secret::new("hunter2".to_owned()))?;
        let request = bearer.call(Request::new(()))?;
        let value = request.metadata().get("authorization").ok_or("a value")?;
        assert_eq!(value.to_str()?, "Bearer hunter2");
        assert!(!format!("{bearer:?}{request:?}").contains("hunter2"));
        assert_eq!(Bearer::new(&Secret::new("a\nb".to_owned())).err(), Some(BearerError));
        Ok(())
    }
}
