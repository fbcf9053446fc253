//! Checks by services of the organisation's own: asking them, in time and within bounds.
//!
//! Always holds: a question takes no longer than its specification says, the wait for a place included; no more are asked at
//! once than it says; a service that goes on failing is left alone for a while (as servers are: [`Breaker`]); what was asked
//! is told in the record of the request. Connections outlive changes of configuration that do not concern them.
//!
//! It does not decide what becomes of a call: whoever asks does, by `on_failure`.

pub(crate) mod answer;
mod connect;
mod noted;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use gantry_model::resource::{CheckPhase, ExternalCheck, OnFailure, ShownArguments};
use gantry_wire::check_v1 as wire;
use gantry_wire::check_v1::check_client::CheckClient;
use http::{HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

use crate::audit::redaction;
pub(crate) use crate::check::answer::AnswerChecks;
pub(crate) use crate::check::noted::{Noted, Notes};
use crate::upstream::health::breaker::{Breaker, Entry};

/// Longest reason of a service that anybody is told, in characters.
const REASON_CHARS_MAX: usize = 300;
/// Room of a message beside what is put in place of arguments or of an answer.
const FRAME_BYTES: usize = 64 * 1024;

/// Whose word it is that a service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    Tenant,
    Server,
}

/// One service.
pub(crate) struct Checker {
    pub(crate) origin: Origin,
    pub(crate) spec: ExternalCheck,
    credential: Option<(HeaderName, HeaderValue)>,
    places: Semaphore,
    breaker: Breaker,
    /// Made when it is first asked; `None`: its authorities cannot be read.
    channel: OnceLock<Option<Channel>>,
}

/// What a service says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Allow,
    /// With what the agent is told.
    Deny(String),
    /// With what is to stand in place of what was asked about.
    Replace(String),
}

/// Why a service said nothing that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It did not answer in time.
    Late,
    /// It failed lately, and is left alone.
    Away,
    /// Nobody answers there, or somebody else.
    Unreachable,
    /// It answered that it failed.
    Failed,
    /// What it said means nothing, or is not allowed.
    Unreadable,
    /// There is more than it may be shown.
    TooLarge,
    /// It has no secret to be asked with.
    NoCredential,
}

impl Origin {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Origin::Tenant => "tenant",
            Origin::Server => "server",
        }
    }
}

impl Failure {
    /// The word for it in records.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Failure::Late => "late",
            Failure::Away => "left alone",
            Failure::Unreachable => "unreachable",
            Failure::Failed => "failed",
            Failure::Unreadable => "unreadable",
            Failure::TooLarge => "too large",
            Failure::NoCredential => "no credential",
        }
    }
}

/// A place in the breaker, given back when nothing came of it.
struct Trial<'c> {
    breaker: &'c Breaker,
    entry: Option<Entry>,
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.breaker.cancelled(entry);
        }
    }
}

impl Checker {
    /// Of a specification; the one before where it is the same. `credential`: the header, whole, where its secret is known.
    pub(crate) fn of(
        origin: Origin,
        spec: &ExternalCheck,
        credential: Option<(HeaderName, HeaderValue)>,
        before: Option<&Arc<Checker>>,
    ) -> Arc<Checker> {
        let kept = before.filter(|kept| kept.spec == *spec && kept.credential == credential);
        kept.cloned().unwrap_or_else(|| {
            let places = Semaphore::new(usize::try_from(spec.concurrency).unwrap_or(1));
            let breaker = Breaker::new(Instant::now());
            let (spec, channel) = (spec.clone(), OnceLock::new());
            Arc::new(Checker { origin, spec, credential, places, breaker, channel })
        })
    }

    /// Whether it is asked in a phase.
    pub(crate) fn is_asked(&self, phase: CheckPhase) -> bool {
        self.spec.is_asked(phase)
    }

    /// Whether what it says nothing of passes.
    pub(crate) fn is_open(&self) -> bool {
        self.spec.on_failure == OnFailure::Open
    }

    /// Asks about a request with its arguments, also as they were sent.
    pub(crate) async fn request(
        &self,
        subject: wire::Subject,
        arguments: Option<(&serde_json::Value, &str)>,
    ) -> Result<Verdict, Failure> {
        let redacted = self.spec.arguments == ShownArguments::Redacted;
        let arguments = match arguments {
            None => String::new(),
            Some((arguments, _)) if redacted => redaction::redact(arguments),
            Some((_, raw)) => raw.to_owned(),
        };
        let may_replace = self.spec.may_replace && !arguments.is_empty();
        let question = wire::CheckRequestRequest { subject: Some(subject), arguments, redacted, may_replace };
        let ask =
            |mut client: CheckClient<Channel>, question| async move { client.check_request(question).await };
        let answered = self.ask(question, ask);
        answered.await.and_then(|answer| match answer.verdict {
            Some(wire::check_request_response::Verdict::Allow(_)) => Ok(Verdict::Allow),
            Some(wire::check_request_response::Verdict::Deny(deny)) => Ok(Verdict::Deny(shown(&deny.reason))),
            Some(wire::check_request_response::Verdict::ReplaceArguments(text)) if may_replace => {
                Ok(Verdict::Replace(text))
            }
            Some(wire::check_request_response::Verdict::ReplaceArguments(_)) | None => {
                Err(Failure::Unreadable)
            }
        })
    }

    /// Asks about one message of an answer.
    pub(crate) async fn answer(
        &self,
        subject: wire::Subject,
        message: &str,
        index: u32,
    ) -> Result<Verdict, Failure> {
        let may_replace = self.spec.may_replace;
        let message = message.to_owned();
        let question = wire::CheckAnswerRequest { subject: Some(subject), message, index, may_replace };
        let ask =
            |mut client: CheckClient<Channel>, question| async move { client.check_answer(question).await };
        let answered = self.ask(question, ask);
        answered.await.and_then(|answer| match answer.verdict {
            Some(wire::check_answer_response::Verdict::Allow(_)) => Ok(Verdict::Allow),
            Some(wire::check_answer_response::Verdict::Deny(deny)) => Ok(Verdict::Deny(shown(&deny.reason))),
            Some(wire::check_answer_response::Verdict::ReplaceMessage(text)) if may_replace => {
                Ok(Verdict::Replace(text))
            }
            Some(wire::check_answer_response::Verdict::ReplaceMessage(_)) | None => Err(Failure::Unreadable),
        })
    }

    async fn ask<Q, A, F>(
        &self,
        question: Q,
        ask: impl FnOnce(CheckClient<Channel>, Request<Q>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let most = Duration::from_millis(u64::from(self.spec.timeout_ms));
        let until = Instant::now() + most;
        let mut request = Request::new(question);
        if self.spec.credential.is_some() {
            let (name, value) = self.credential.as_ref().ok_or(Failure::NoCredential)?;
            let name = AsciiMetadataKey::from_bytes(name.as_str().as_bytes());
            let value = AsciiMetadataValue::try_from(value.as_bytes());
            let (Ok(name), Ok(value)) = (name, value) else { return Err(Failure::NoCredential) };
            request.metadata_mut().insert(name, value);
        }
        let place = tokio::time::timeout_at(until.into(), self.places.acquire()).await;
        let _place = place.ok().and_then(Result::ok).ok_or(Failure::Late)?;
        let entry = self.breaker.enter(Instant::now()).map_err(|_| Failure::Away)?;
        let mut trial = Trial { breaker: &self.breaker, entry: Some(entry) };
        let channel = self.channel.get_or_init(|| connect::channel(&self.spec));
        let client = CheckClient::new(channel.clone().ok_or(Failure::Unreachable)?);
        let bytes_max = usize::try_from(self.spec.max_answer_bytes).unwrap_or(usize::MAX);
        let client = client
            .max_decoding_message_size(bytes_max.max(crate::pipeline::REQUEST_BODY_MAX) + FRAME_BYTES)
            .max_encoding_message_size(usize::MAX);
        request.set_timeout(until.saturating_duration_since(Instant::now()));
        let asked = tokio::time::timeout_at(until.into(), ask(client, request)).await;
        let outcome = match asked {
            Err(_) => Err(Failure::Late),
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
        };
        if let Some(entry) = trial.entry.take() {
            match &outcome {
                Ok(_) => self.breaker.succeeded(entry, Instant::now()),
                Err(_) => self.breaker.failed(entry, Instant::now(), u8::MAX),
            }
        }
        outcome
    }

    fn failure(&self, status: &Status) -> Failure {
        // Its words may repeat what was asked about.
        tracing::debug!(service = %self.spec.url, code = ?status.code(), "a check failed");
        match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => Failure::Late,
            Code::Unavailable => Failure::Unreachable,
            Code::OutOfRange => Failure::Unreadable,
            _ => Failure::Failed,
        }
    }
}

/// A reason as it may be told: of bounded length, in visible characters, without known forms of secrets.
fn shown(reason: &str) -> String {
    let visible = reason.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let cut: String = visible.take(REASON_CHARS_MAX).collect();
    redaction::redact_text(cut.trim())
}
