//! Checks by services of the organisation's own, to and from messages.

use gantry_model::resource::{CheckPhase, ExternalCheck, OnFailure, ShownArguments};

use crate::convert::{WireError, name_or_none, text_or_empty};
use crate::resource_v1 as wire;

impl From<&ExternalCheck> for wire::ExternalCheck {
    fn from(check: &ExternalCheck) -> wire::ExternalCheck {
        wire::ExternalCheck {
            url: check.url.to_string(),
            authorities: check.authorities.clone().unwrap_or_default(),
            credential: text_or_empty(check.credential.as_ref()),
            phases: check.phases.iter().map(|phase| number(*phase) as i32).collect(),
            timeout_ms: check.timeout_ms,
            is_open: check.on_failure == OnFailure::Open,
            concurrency: check.concurrency,
            is_redacted: check.arguments == ShownArguments::Redacted,
            may_replace: check.may_replace,
            max_answer_bytes: check.max_answer_bytes,
        }
    }
}

/// Its bounds are checked with the rest of the specification.
impl TryFrom<&wire::ExternalCheck> for ExternalCheck {
    type Error = WireError;

    fn try_from(check: &wire::ExternalCheck) -> Result<ExternalCheck, WireError> {
        Ok(ExternalCheck {
            url: check.url.parse().map_err(|problem| WireError::invalid("url", problem))?,
            authorities: (!check.authorities.is_empty()).then(|| check.authorities.clone()),
            credential: name_or_none("credential", &check.credential)?,
            phases: check.phases.iter().map(|number| phase(*number)).collect::<Result<_, _>>()?,
            timeout_ms: check.timeout_ms,
            on_failure: if check.is_open { OnFailure::Open } else { OnFailure::Closed },
            concurrency: check.concurrency,
            arguments: if check.is_redacted { ShownArguments::Redacted } else { ShownArguments::Whole },
            may_replace: check.may_replace,
            max_answer_bytes: check.max_answer_bytes,
        })
    }
}

fn number(phase: CheckPhase) -> wire::CheckPhase {
    match phase {
        CheckPhase::Request => wire::CheckPhase::Request,
        CheckPhase::Answer => wire::CheckPhase::Answer,
    }
}

fn phase(number: i32) -> Result<CheckPhase, WireError> {
    match wire::CheckPhase::try_from(number) {
        Ok(wire::CheckPhase::Request) => Ok(CheckPhase::Request),
        Ok(wire::CheckPhase::Answer) => Ok(CheckPhase::Answer),
        Ok(wire::CheckPhase::Unspecified) | Err(_) => {
            Err(WireError::invalid("phases", format!("{number} is no phase")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_comes_back_as_it_was() -> Result<(), WireError> {
        let plain = serde_json::json!({"url": "https://guard.example.com"});
        let whole = serde_json::json!({
            "url": "https://guard.example.com:8443", "authorities": "PEM", "credential": "guard",
            "phases": ["request", "answer"], "timeout_ms": 7, "on_failure": "open", "concurrency": 8,
            "arguments": "redacted", "may_replace": true, "max_answer_bytes": 9,
        });
        for said in [plain, whole] {
            let check: ExternalCheck = serde_json::from_value(said).expect("it can be read");
            assert_eq!(ExternalCheck::try_from(&wire::ExternalCheck::from(&check))?, check);
        }
        let later =
            wire::ExternalCheck { url: "https://g".to_owned(), phases: vec![9], ..Default::default() };
        assert!(ExternalCheck::try_from(&later).is_err());
        Ok(())
    }
}
