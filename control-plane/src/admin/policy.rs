//! Checking policies: as a call of its own, and as part of every change of resources.
//!
//! Always holds: a policy is judged by the state as it would be after the change, so that a set may bring a policy
//! together with what it names; a text that is new or changed and has a problem is refused, one that was accepted
//! before and fits no more is told of as a warning.

use std::collections::BTreeMap;

use gantry_control_state::{ChangeKind, State};
use gantry_model::record::RecordValue;
use gantry_model::resource::{PolicySpec, Resource, Spec};
use gantry_model::{Name, PolicyName, TenantName};
use gantry_policy::{CompileError, PolicySet};
use gantry_wire::admin_v1::{CheckPolicyRequest, CheckPolicyResponse, PolicyProblem, Problem};
use tonic::Status;

use super::call::Call;
use super::names::Names;
use super::rejection::{broken_off, index, parse, parse_or_every, require_tenant};

/// Where a policy's text stands in its document.
const PATH: &str = "spec.cedar";

/// What there is to say about the policies of a change.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Judgement {
    /// Not empty: the change is refused.
    pub(super) problems: Vec<Problem>,
    /// What its author should know.
    pub(super) warnings: Vec<String>,
}

/// A document of a change and what happens to it.
pub(super) type Applied = (Resource, ChangeKind);

/// What there is to say about a text that is not stored.
pub(super) async fn check(call: &Call, request: CheckPolicyRequest) -> Result<CheckPolicyResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    parse_or_every::<PolicyName>("name", &request.name)?;
    let state = call.view().state;
    require_tenant(&state, &tenant)?;
    let spec = Spec::Policy(PolicySpec::enforced(request.cedar.clone()));
    if let Err(error) = spec.check() {
        let problem = PolicyProblem { line: 0, column: 0, message: error.message, help: String::new() };
        return Ok(CheckPolicyResponse { problems: vec![problem], warnings: Vec::new(), policy_count: 0 });
    }
    let check = move || gantry_policy::check(&request.cedar, &Names::of(&state, &tenant).known());
    let checked = tokio::task::spawn_blocking(check).await.map_err(|_| broken_off())?;
    let problem = |problem: gantry_policy::Problem| PolicyProblem {
        line: problem.line,
        column: problem.column,
        message: problem.message,
        help: problem.help.unwrap_or_default(),
    };
    Ok(CheckPolicyResponse {
        problems: checked.problems.into_iter().map(problem).collect(),
        warnings: checked.warnings,
        policy_count: index(checked.policy_count),
    })
}

/// Judges the policies of a change from one state to another: those of its documents, and those that are stored and
/// name what the change takes away. Takes time by the length of the policies.
pub(super) fn judge(
    before: &State,
    after: &State,
    documents: &[Applied],
    tenants: impl Iterator<Item = TenantName>,
) -> Judgement {
    let mut judgement = Judgement::default();
    let tenants: BTreeMap<TenantName, Names> =
        tenants.map(|tenant| (tenant.clone(), Names::of(after, &tenant))).collect();
    for (at, (document, change)) in documents.iter().enumerate() {
        let (Spec::Policy(policy), Some(names)) = (&document.spec, tenants.get(&document.tenant)) else {
            continue;
        };
        judgement.document(at, (document, *change), policy, names);
    }
    for (tenant, names) in &tenants {
        if judgement.problems.is_empty() {
            judgement.compile(after, tenant, documents);
        }
        let names_before = Names::of(before, tenant);
        if names.lost_any_of(&names_before) {
            judgement.stored(after, tenant, documents, (&names_before, names));
        }
    }
    judgement
}

impl Judgement {
    fn document(
        &mut self,
        at: usize,
        (document, change): (&Resource, ChangeKind),
        policy: &PolicySpec,
        names: &Names,
    ) {
        let checked = gantry_policy::check(policy, &names.known());
        self.warnings.extend(checked.warnings.iter().map(|warning| format!("{}: {warning}", document.id())));
        for problem in checked.problems {
            if change == ChangeKind::Unchanged {
                self.warnings.push(format!("{} is stored as it is, but {problem}", document.id()));
            } else {
                self.problems.push(problem_at(at, problem.to_string()));
            }
        }
    }

    /// All policies of a tenant together are bounded too.
    fn compile(&mut self, after: &State, tenant: &TenantName, documents: &[Applied]) {
        let changed = |(document, change): &Applied| {
            document.tenant == *tenant
                && matches!(document.spec, Spec::Policy(_))
                && *change != ChangeKind::Unchanged
        };
        let Some(first) = documents.iter().position(changed) else { return };
        let policies = policies(after, tenant);
        let compiled = PolicySet::compile(policies.iter().map(|(name, spec)| (name, spec)));
        if let Err(error) = compiled {
            let at_fault = documents
                .iter()
                .position(|document| changed(document) && document.0.name == *error.policy().as_name());
            self.problems.push(problem_at(at_fault.unwrap_or(first), told(&error)));
        }
    }

    /// Stored policies that fitted before and do not after.
    fn stored(
        &mut self,
        after: &State,
        tenant: &TenantName,
        documents: &[Applied],
        (names_before, names_after): (&Names, &Names),
    ) {
        let in_change = |name: &Name| {
            documents.iter().any(|(document, _)| {
                document.tenant == *tenant
                    && matches!(document.spec, Spec::Policy(_))
                    && document.name == *name
            })
        };
        for (name, spec) in policies(after, tenant) {
            if in_change(name.as_name()) {
                continue;
            }
            let fitted = || gantry_policy::check(&spec, &names_before.known()).problems.is_empty();
            let problems = gantry_policy::check(&spec, &names_after.known()).problems;
            if !problems.is_empty() && fitted() {
                let told = |problem: gantry_policy::Problem| format!("Policy {tenant}/{name}: {problem}");
                self.warnings.extend(problems.into_iter().map(told));
            }
        }
    }
}

/// The policies of a tenant, by name.
pub(super) fn policies(state: &State, tenant: &TenantName) -> Vec<(PolicyName, PolicySpec)> {
    let policy = |value: &RecordValue| match value {
        RecordValue::Resource(resource) => match &resource.spec {
            Spec::Policy(spec) => Some((PolicyName::from(resource.name.clone()), spec.clone())),
            _ => None,
        },
        _ => None,
    };
    state.tenant_records(tenant).filter_map(|record| policy(&record.value)).collect()
}

fn problem_at(at: usize, message: String) -> Problem {
    Problem { index: index(at), path: PATH.to_owned(), message, nearest: String::new() }
}

/// An error of compilation with its cause.
pub(super) fn told(error: &CompileError) -> String {
    match error {
        CompileError::Text { problem, .. } => format!("{error}: {problem}"),
        CompileError::Twice { .. } | CompileError::TooMany { .. } => error.to_string(),
    }
}
