//! The gate, at calls as no client of ours makes them.

use std::task::{Context, Poll};
use std::time::Instant;

use gantry_wire::admin_v1::*;
use gantry_wire::sync_v1::NodeMessage;
use gantry_wire::sync_v1::sync_client::SyncClient;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http::{Request, Response, Uri};
use tonic::codegen::{BoxFuture, Service};
use tonic::transport::Channel;
use tonic::{Code, transport};

use crate::harness::{ADMIN_TOKEN, Harness, Result, add_token, channel};

/// Sends every call to another path: as a call of the admin service, with a body that goes on as long as we like.
#[derive(Clone)]
struct Elsewhere(Channel, &'static str);

impl Service<Request<Body>> for Elsewhere {
    type Response = Response<Body>;
    type Error = transport::Error;
    type Future = BoxFuture<Response<Body>, transport::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<std::result::Result<(), transport::Error>> {
        GrpcService::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        *request.uri_mut() = Uri::from_static(self.1);
        Box::pin(GrpcService::call(&mut self.0, request))
    }
}

/// How a call to a path ends that is sent until `messages` end.
async fn call(channel: Channel, path: &'static str, messages: mpsc::Receiver<NodeMessage>) -> Result<Code> {
    let token = add_token(Some(ADMIN_TOKEN))?;
    let mut client = SyncClient::with_interceptor(Elsewhere(channel, path), token);
    let answer = client.follow(ReceiverStream::new(messages)).await;
    Ok(answer.map_or_else(|status| status.code(), |_| Code::Ok))
}

/// Who, what and how it ended, of the last record of a directory.
fn last_record(directory: &std::path::Path) -> Result<[Value; 4]> {
    let file = std::fs::read_to_string(directory.join("admin-audit.jsonl"))?;
    let record: Value = serde_json::from_str(file.lines().last().ok_or("a record")?)?;
    Ok(["admin", "method", "outcome", "code"].map(|field| record[field].clone()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_never_sent_whole_does_not_hold_up_the_end() -> Result {
    let harness = Harness::start().await?;
    let channel = channel(harness.address()).await?;
    let (_open, messages) = mpsc::channel(1);
    let mut stuck = Box::pin(call(channel.clone(), "/gantry.admin.v1.Admin/Get", messages));
    let (done, none) = mpsc::channel(1);
    drop(done);
    // It is under way once a later call of the same connection is answered.
    let later = call(channel, "/gantry.admin.v1.Admin/Nothing", none);
    let later = tokio::select! {
        biased;
        ended = &mut stuck => return Err(format!("it ended with {ended:?}").into()),
        later = later => later?,
    };
    assert_eq!(later, Code::Unimplemented);
    let directory = harness.directory.path().to_owned();
    assert_eq!(last_of_journal(&harness).await?, ["root", "(no call)", "error", "Unimplemented"]);

    let began = Instant::now();
    let (ended, stopped) = tokio::join!(stuck, harness.stop());
    let kept = stopped?;
    println!("the control plane ended after {:?}", began.elapsed());
    assert_eq!(ended?, Code::DeadlineExceeded);
    assert_eq!(last_record(&directory)?, ["root", "Get", "unknown", "DeadlineExceeded"]);
    drop(kept);
    Ok(())
}

/// The same of what is in memory.
async fn last_of_journal(harness: &Harness) -> Result<[Value; 4]> {
    let mut admin = crate::harness::admin(harness.address(), Some(ADMIN_TOKEN)).await?;
    let request = TailRecordsRequest { last: 1, admin: true, ..Default::default() };
    let mut stream = admin.tail_records(request).await?.into_inner();
    let answer = stream.message().await?.ok_or("a record")?;
    let record: Value = serde_json::from_slice(&answer.record)?;
    Ok(["admin", "method", "outcome", "code"].map(|field| record[field].clone()))
}
