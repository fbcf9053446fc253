//! Reading what is stored.

use gantry_model::record::RecordValue;
use gantry_model::{Kind, Name, Record, Resource, TenantName};
use gantry_wire::admin_v1::{GetRequest, GetResponse, StoredResource};
use prost::Message;
use tonic::Status;

use super::call::Call;
use super::rejection::{parse, parse_or_every};

/// Most bytes of resources in one answer, so that it stays one message. A larger state is read tenant by tenant.
pub(super) const ANSWER_BYTES_MAX: usize = gantry_wire::MESSAGE_BYTES_MAX - 64 * 1024;

/// Answers with the resources that fit; none is no error.
pub(super) fn get(call: &Call, request: &GetRequest) -> Result<GetResponse, Status> {
    let kind: Option<Kind> = match request.kind.as_str() {
        "" => None,
        text => Some(parse("kind", text).map_err(|_| unknown_kind(text))?),
    };
    let tenant: Option<TenantName> = parse_or_every("tenant", &request.tenant)?;
    let name: Option<Name> = parse_or_every("name", &request.name)?;
    let view = call.view();
    let asked_for = |resource: &Resource| {
        kind.is_none_or(|kind| resource.spec.kind() == kind)
            && name.as_ref().is_none_or(|name| resource.name == *name)
    };
    let records: Box<dyn Iterator<Item = &Record>> = match &tenant {
        Some(tenant) => Box::new(view.state.tenant_records(tenant)),
        None => Box::new(view.state.records()),
    };
    let mut resources = Vec::new();
    let mut bytes = 0;
    for record in records {
        let RecordValue::Resource(resource) = &record.value else { continue };
        if !asked_for(resource) {
            continue;
        }
        let stored = StoredResource { resource: Some(resource.as_ref().into()), revision: record.revision.0 };
        bytes += stored.encoded_len() + 8;
        if bytes > ANSWER_BYTES_MAX {
            return Err(Status::resource_exhausted(
                "the answer would be too long; ask for one tenant or one kind at a time",
            ));
        }
        resources.push(stored);
    }
    Ok(GetResponse { revision: view.revision.0, resources })
}

fn unknown_kind(text: &str) -> Status {
    let kinds: Vec<&str> = Kind::ALL.into_iter().map(Kind::as_str).collect();
    Status::invalid_argument(format!("unknown kind {text:?}; one of {}", kinds.join(", ")))
}
