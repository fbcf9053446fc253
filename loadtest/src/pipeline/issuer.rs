//! An issuer of tokens, as a provider of a tenant: its keys over HTTP on this machine, and tokens of an hour.
//!
//! What always holds: its key is of this run alone; a token is never printed.

use std::{
    convert::Infallible,
    io,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http_body_util::Full;
use hyper::{Response, body::Bytes, header::CONTENT_TYPE, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use super::variant::GROUP;

const KEY_ID: &str = "1";
/// Longer than a run.
const TOKEN_LIFE: Duration = Duration::from_secs(3_600);

/// Signs, until dropped.
pub(super) struct Issuer {
    /// As it calls itself; its keys are at `/keys` below.
    pub(super) url: String,
    key: EcdsaKeyPair,
    task: JoinHandle<()>,
}

impl Issuer {
    /// With a new key, at a port of this machine.
    ///
    /// # Errors
    /// When there is no port or no key.
    pub(super) async fn start() -> io::Result<Self> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(io::Error::other)?;
        // An uncompressed point: a byte that says so, then both coordinates.
        let point = key.public_key().as_ref();
        let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
        let keys = json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": KEY_ID, "x": x, "y": y}]});
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(serve(listener, Bytes::from(keys.to_string())));
        Ok(Self { url, key, task })
    }

    /// A token of somebody of the group.
    pub(super) fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = json!({
            "iss": self.url, "aud": "gantry", "client_id": "desktop", "sub": "ann", "groups": [GROUP],
            "iat": now.as_secs(), "exp": (now + TOKEN_LIFE).as_secs(),
        });
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": KEY_ID});
        let signed = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        // INVARIANT: a key that was made signs.
        let signature = signature.expect("a new key signs");
        format!("{signed}.{}", encode(signature))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// One connection after the other: nodes ask once.
async fn serve(listener: TcpListener, keys: Bytes) {
    while let Ok((stream, _)) = listener.accept().await {
        let keys = keys.clone();
        let answer = service_fn(move |_| {
            let mut response = Response::new(Full::new(keys.clone()));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
            async move { Ok::<_, Infallible>(response) }
        });
        // Whoever asked and left is asked no more.
        tokio::spawn(async move {
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await)
        });
    }
}
