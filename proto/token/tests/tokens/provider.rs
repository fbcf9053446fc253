//! A provider on loopback that counts how often it is asked.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// What it answers, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct Conduct {
    pub(crate) keys: Vec<u8>,
    /// In place of all answers.
    pub(crate) status: Option<StatusCode>,
    /// Where a redirect leads to.
    pub(crate) location: Option<String>,
    /// What stands in its metadata as its issuer; its own address where there is nothing.
    pub(crate) issuer: Option<String>,
    /// Only by RFC 8414.
    pub(crate) is_oauth_alone: bool,
    pub(crate) asked: Vec<String>,
    /// How many were under way at one time, and how many are.
    pub(crate) most: usize,
    under_way: usize,
}

pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    pub(crate) conduct: Arc<Mutex<Conduct>>,
    _serving: JoinSet<()>,
}

impl Served {
    pub(crate) async fn start(keys: Vec<u8>) -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let conduct = Arc::new(Mutex::new(Conduct { keys, ..Conduct::default() }));
        let mut serving = JoinSet::new();
        let shared = conduct.clone();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let conduct = shared.clone();
                let service = service_fn(move |request| answer(conduct.clone(), address, request));
                connections.spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    let _ = connection.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Served { address, conduct, _serving: serving }
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Conduct)) {
        change(&mut self.conduct.lock().expect("whole"));
    }

    /// How often its keys were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.conduct.lock().expect("whole").asked.iter().filter(|path| *path == "/keys").count()
    }
}

async fn answer(
    conduct: Arc<Mutex<Conduct>>,
    address: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    {
        let mut conduct = conduct.lock().expect("whole");
        conduct.asked.push(request.uri().path().to_owned());
        conduct.under_way += 1;
        conduct.most = conduct.most.max(conduct.under_way);
    }
    // Whoever comes meanwhile is counted.
    tokio::task::yield_now().await;
    let mut conduct = conduct.lock().expect("whole");
    conduct.under_way -= 1;
    let issuer = conduct.issuer.clone().unwrap_or_else(|| format!("http://{address}"));
    let metadata = json!({"issuer": issuer, "jwks_uri": format!("http://{address}/keys")}).to_string();
    let (status, body) = match request.uri().path() {
        "/keys" => (StatusCode::OK, conduct.keys.clone()),
        "/.well-known/openid-configuration" if !conduct.is_oauth_alone => (StatusCode::OK, metadata.into()),
        "/.well-known/oauth-authorization-server" => (StatusCode::OK, metadata.into()),
        _ => (StatusCode::NOT_FOUND, Vec::new()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = conduct.status.unwrap_or(status);
    if let Some(location) = &conduct.location {
        response.headers_mut().insert("location", location.parse().expect("a header"));
    }
    Ok(response)
}
