//! Servers, to and from messages.

use gantry_model::resource::{CONCURRENCY_DEFAULT, PROCESSES_DEFAULT, Pin, ServerSpec, Transport};

use crate::convert::{WireError, name_or_none, text_or_empty};
use crate::resource_v1 as wire;

impl From<&ServerSpec> for wire::ServerSpec {
    fn from(spec: &ServerSpec) -> wire::ServerSpec {
        use wire::server_spec::Transport as To;
        let transport = match &spec.transport {
            Transport::Http { url } => To::Http(wire::HttpTransport { url: url.to_string() }),
            Transport::Stdio { command, environment } => To::Stdio(wire::StdioTransport {
                command: command.clone(),
                environment: environment
                    .iter()
                    .map(|(name, value)| wire::EnvironmentVariable {
                        name: name.clone(),
                        value: value.clone(),
                    })
                    .collect(),
            }),
        };
        let pin = match spec.pin {
            Pin::Auto => wire::Pin::Auto,
            Pin::Review => wire::Pin::Review,
        };
        wire::ServerSpec {
            transport: Some(transport),
            credential: text_or_empty(spec.credential.as_ref()),
            timeout_ms: spec.timeout_ms,
            pin: pin as i32,
            concurrency: spec.concurrency,
            processes: spec.processes,
            memory_mb: spec.memory_mb.unwrap_or(0),
            inspection: super::inspection::to_wire(&spec.inspection),
            check: spec.check.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<&wire::ServerSpec> for ServerSpec {
    type Error = WireError;

    fn try_from(spec: &wire::ServerSpec) -> Result<ServerSpec, WireError> {
        use wire::server_spec::Transport as From;
        let transport = match spec.transport.as_ref().ok_or(WireError::Missing("transport"))? {
            From::Http(http) => Transport::Http {
                url: http.url.parse().map_err(|problem| WireError::invalid("url", problem))?,
            },
            From::Stdio(stdio) => Transport::Stdio {
                command: stdio.command.clone(),
                environment: stdio
                    .environment
                    .iter()
                    .map(|variable| (variable.name.clone(), variable.value.clone()))
                    .collect(),
            },
        };
        let pin = match wire::Pin::try_from(spec.pin) {
            Ok(wire::Pin::Auto | wire::Pin::Unspecified) => Pin::Auto,
            Ok(wire::Pin::Review) => Pin::Review,
            Err(_) => return Err(WireError::invalid("pin", format!("{} is no pin", spec.pin))),
        };
        let or_default = |value: u32, default: u32| if value == 0 { default } else { value };
        Ok(ServerSpec {
            transport,
            credential: name_or_none("credential", &spec.credential)?,
            timeout_ms: spec.timeout_ms,
            pin,
            concurrency: or_default(spec.concurrency, CONCURRENCY_DEFAULT),
            processes: or_default(spec.processes, PROCESSES_DEFAULT),
            memory_mb: (spec.memory_mb != 0).then_some(spec.memory_mb),
            inspection: super::inspection::from_wire(spec.inspection.as_ref())?,
            check: spec.check.as_ref().map(TryInto::try_into).transpose()?,
        })
    }
}
