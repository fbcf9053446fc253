//! The policies of one tenant, compiled, and the decision on a request.
//!
//! Always holds: without a `permit` that applies the verdict is deny; a `forbid` that applies denies; a statement that
//! cannot be evaluated denies, whatever the others say. Deciding never fails, never blocks and keeps nothing.
//! It does not know schema or catalog: [`crate::check`] does, before a policy is stored.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use cedar_policy::{AuthorizationError, Authorizer, Context, PolicyId, Request};
use gantry_model::PolicyName;

use crate::decision::{Decision, Failure, Reason};
use crate::problem::{Problem, shorten};
use crate::schema::EntityKind;
use crate::statement::parse;
use crate::target::{ActsFor, Principal, Shown, Target};

/// Most statements of one tenant. A decision looks at each, at about 1 us; this many keep it at a few milliseconds.
pub const STATEMENTS_MAX: usize = 4_096;

/// The compiled policies of one tenant. It is shared by reference between threads.
#[derive(Default)]
pub struct PolicySet {
    policies: cedar_policy::PolicySet,
    statements: HashMap<PolicyId, Reason>,
    /// That statements name.
    users: HashSet<String>,
    groups: HashSet<String>,
    authorizer: Authorizer,
}

/// Why policies do not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// A text is refused for its form.
    #[error("policy {policy} does not compile")]
    Text {
        /// The policy resource.
        policy: PolicyName,
        /// The first thing that is wrong.
        #[source]
        problem: Problem,
    },
    /// Two policies have one name.
    #[error("policy {policy} is given twice")]
    Twice {
        /// The policy resource.
        policy: PolicyName,
    },
    /// More statements than a decision may look at.
    #[error("policy {policy} brings the statements of its tenant over {STATEMENTS_MAX}")]
    TooMany {
        /// The policy resource with which the bound is passed.
        policy: PolicyName,
    },
}

impl CompileError {
    /// The policy resource at fault.
    pub fn policy(&self) -> &PolicyName {
        match self {
            CompileError::Text { policy, .. }
            | CompileError::Twice { policy }
            | CompileError::TooMany { policy } => policy,
        }
    }
}

impl PolicySet {
    /// Compiles the policies of one tenant, each given by its name and its text. None at all deny everything.
    pub fn compile<'a>(
        policies: impl IntoIterator<Item = (&'a PolicyName, &'a str)>,
    ) -> Result<PolicySet, CompileError> {
        let mut compiled = PolicySet::default();
        for (name, text) in policies {
            compiled.add(name, text)?;
        }
        Ok(compiled)
    }

    fn add(&mut self, name: &PolicyName, text: &str) -> Result<(), CompileError> {
        let parsed = parse(text).map_err(|problems| {
            let first = problems.into_iter().next();
            let problem = first.unwrap_or_else(|| Problem::of_text("the text is not Cedar", None));
            CompileError::Text { policy: name.clone(), problem }
        })?;
        if self.statements.len() + parsed.statements.len() > STATEMENTS_MAX {
            return Err(CompileError::TooMany { policy: name.clone() });
        }
        for statement in parsed.statements {
            let id = statement.policy.annotation("id").map(Arc::from);
            let reason = Reason { policy: name.clone(), index: statement.index, id };
            for uid in statement.policy.entity_literals() {
                let named = match EntityKind::from_name(&uid.type_name().to_string()) {
                    Some(EntityKind::User) => &mut self.users,
                    Some(EntityKind::Group) => &mut self.groups,
                    _ => continue,
                };
                named.insert(uid.id().unescaped().to_owned());
            }
            let cedar_id = PolicyId::new(format!("{name}[{}]", statement.index));
            self.policies
                .add(statement.policy.new_id(cedar_id.clone()))
                .map_err(|_| CompileError::Twice { policy: name.clone() })?;
            self.statements.insert(cedar_id, reason);
        }
        Ok(())
    }

    /// How many statements there are.
    pub fn statement_count(&self) -> usize {
        self.statements.len()
    }

    /// What a token says, without what no statement of these sets can tell from anything else: users and groups that none
    /// names. Verdicts on both are the same; there are far fewer of these.
    pub fn reduce(sets: &[&PolicySet], mut shown: Shown) -> Shown {
        shown.groups.retain(|group| sets.iter().any(|set| set.groups.contains(group)));
        if let Some(ActsFor::User(user)) = &shown.user
            && !sets.iter().any(|set| set.users.contains(&user.to_string()))
        {
            shown.user = Some(ActsFor::Unnamed);
        }
        shown
    }

    /// Whether `principal` may have `target`. Lists and calls both ask this, so they cannot disagree.
    pub fn decide(&self, principal: &Principal, target: &Target<'_>) -> Decision {
        let unput = |message: String| {
            let failure = Failure { statement: None, message: shorten(&message) };
            Decision::new(false, Vec::new(), vec![failure])
        };
        let entity = match target.entity() {
            Ok(entity) => entity,
            Err(error) => return unput(error.to_string()),
        };
        let (uid, action) = (principal.uid.clone(), target.action().clone());
        let request = match Request::new(uid, action, entity.uid(), Context::empty(), None) {
            Ok(request) => request,
            Err(error) => return unput(error.to_string()),
        };
        let entities = match principal.entities.clone().add_entities([entity], None) {
            Ok(entities) => entities,
            Err(error) => return unput(error.to_string()),
        };
        let response = self.authorizer.is_authorized(&request, &self.policies, &entities);
        let permitted = response.decision() == cedar_policy::Decision::Allow;
        let diagnostics = response.diagnostics();
        let reasons = diagnostics.reason().filter_map(|id| self.statements.get(id)).cloned().collect();
        let failures = diagnostics.errors().map(|error| self.failure(error)).collect();
        Decision::new(permitted, reasons, failures)
    }

    fn failure(&self, error: &AuthorizationError) -> Failure {
        let AuthorizationError::PolicyEvaluationError(error) = error;
        let statement = self.statements.get(error.policy_id()).cloned();
        Failure { statement, message: shorten(&error.inner().to_string()) }
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PolicySet").field("statement_count", &self.statement_count()).finish()
    }
}
