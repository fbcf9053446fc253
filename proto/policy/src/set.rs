//! The policies of one tenant, compiled, and the decision on a request.
//!
//! Always holds: without a `permit` that applies the verdict is deny; a `forbid` that applies denies, unless an approval may
//! satisfy its policy, and those of all others that apply; a statement that cannot be evaluated denies, whatever the others say. Deciding never fails, never blocks and keeps nothing. Cedar is
//! asked about the statements whose scope the request may match and about no others; a statement whose scope does not
//! match is not evaluated by Cedar either, so it cannot fail.
//! It does not know schema or catalog: [`crate::check`] does, before a policy is stored.

mod index;
mod recorded;
mod rule;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use cedar_policy_core::ast::{Context, EntityUID, Request, RequestSchemaAllPass};
use cedar_policy_core::entities::{Dereference, Entities, NoEntitiesSchema, TCComputation};
use cedar_policy_core::evaluator::Evaluator;
use cedar_policy_core::extensions::Extensions;
use gantry_model::PolicyName;

use crate::call::Call;
use crate::decision::{Decision, Failure, REASONS_MAX, Reason, Standing, Verdict};
use crate::problem::{Problem, shorten};
use crate::reads::Reads;
use crate::schema::EntityKind;
use crate::set::index::{Index, Side};
use crate::set::rule::{Effect, Rule};
use crate::statement::{PolicyText, parse};
use crate::target::{ActsFor, Principal, Shown, Target};

pub use recorded::{Gaps, Unsure};

/// Most statements of one tenant: ten thousand policies, with room to change them. So many took 0.34 s to compile and
/// 22 MB (measured); where no scope tells them apart, a decision looks at each of them, at 0.2 us.
pub const STATEMENTS_MAX: usize = 12_288;

/// The compiled policies of one tenant. It is shared by reference between threads.
#[derive(Default)]
pub struct PolicySet {
    texts: BTreeMap<PolicyName, Arc<Compiled>>,
    rules: Vec<Arc<Rule>>,
    /// Of places in `rules`.
    index: Index,
    named: Named,
}

/// One policy's text, compiled. Sets that follow each other share those that did not change.
struct Compiled {
    text: Box<str>,
    is_approvable: bool,
    rules: Vec<Arc<Rule>>,
    named: Named,
}

/// Whom statements name that tokens may tell of.
#[derive(Default)]
struct Named {
    users: HashSet<Arc<str>>,
    groups: HashSet<Arc<str>>,
}

/// A request in Cedar's form, with the entities that it needs.
struct Asked<'a> {
    entities: Entities,
    principal: &'a EntityUID,
    action: &'static EntityUID,
    resource: EntityUID,
}

/// What the statements of a slice said.
#[derive(Default)]
struct Said {
    permits: Vec<Reason>,
    forbids: Vec<Reason>,
    /// What forbids unless it is approved.
    approvals: Vec<Reason>,
    failures: Vec<Failure>,
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
    pub fn compile<'a, T: Into<PolicyText<'a>>>(
        policies: impl IntoIterator<Item = (&'a PolicyName, T)>,
    ) -> Result<PolicySet, CompileError> {
        PolicySet::default().followed_by(policies)
    }

    /// The same as [`PolicySet::compile`]; texts that stand in this set too are not parsed again.
    pub fn followed_by<'a, T: Into<PolicyText<'a>>>(
        &self,
        policies: impl IntoIterator<Item = (&'a PolicyName, T)>,
    ) -> Result<PolicySet, CompileError> {
        let mut set = PolicySet::default();
        for (name, text) in policies {
            let text = text.into();
            let known = self.texts.get(name).filter(|known| known.is_of(text));
            let compiled = match known {
                Some(known) => known.clone(),
                None => Arc::new(Compiled::of(name, text)?),
            };
            set.add(name, compiled)?;
        }
        Ok(set)
    }

    /// Whether it was compiled of exactly these, in any order.
    pub fn is_of<'a, T: Into<PolicyText<'a>>>(
        &self,
        policies: impl IntoIterator<Item = (&'a PolicyName, T)>,
    ) -> bool {
        let mut count = 0;
        let same = |(name, text): (&PolicyName, T)| {
            count += 1;
            let text = text.into();
            self.texts.get(name).is_some_and(|known| known.is_of(text))
        };
        policies.into_iter().all(same) && count == self.texts.len()
    }

    fn add(&mut self, name: &PolicyName, compiled: Arc<Compiled>) -> Result<(), CompileError> {
        if self.rules.len() + compiled.rules.len() > STATEMENTS_MAX {
            return Err(CompileError::TooMany { policy: name.clone() });
        }
        for (number, rule) in (self.rules.len()..).zip(&compiled.rules) {
            // INVARIANT: numbers stay below the bound above.
            self.index.add(u32::try_from(number).unwrap_or(u32::MAX), &rule.scope);
        }
        self.rules.extend(compiled.rules.iter().cloned());
        self.named.users.extend(compiled.named.users.iter().cloned());
        self.named.groups.extend(compiled.named.groups.iter().cloned());
        match self.texts.insert(name.clone(), compiled) {
            None => Ok(()),
            Some(_) => Err(CompileError::Twice { policy: name.clone() }),
        }
    }

    /// How many statements there are.
    pub fn statement_count(&self) -> usize {
        self.rules.len()
    }

    /// What a token says, without what no statement of these sets can tell from anything else: users and groups that none
    /// names. Verdicts on both are the same; there are far fewer of these.
    pub fn reduce(sets: &[&PolicySet], mut shown: Shown) -> Shown {
        shown.groups.retain(|group| sets.iter().any(|set| set.named.groups.contains(group.as_str())));
        if let Some(ActsFor::User(user)) = &shown.user
            && !sets.iter().any(|set| set.named.users.contains(user.to_string().as_str()))
        {
            shown.user = Some(ActsFor::Unnamed);
        }
        shown
    }

    /// What can be said of `principal` and `target` before there is a call. A list shows what [`Standing::is_shown`].
    pub fn standing(&self, principal: &Principal, target: &Target<'_>) -> Standing {
        let asked = match Asked::of(principal, target) {
            Ok(asked) => asked,
            Err(message) => return Standing::Settled(unasked(&message)),
        };
        let slice = self.slice(&asked);
        if !slice.iter().any(|rule| rule.reads.is_any) {
            return Standing::Settled(asked.decide(&slice, Context::empty()));
        }
        let (by_call, settled): (Vec<&Rule>, Vec<&Rule>) =
            slice.into_iter().partition(|rule| rule.reads.is_any);
        let said = asked.ask(&settled, Context::empty());
        let may_permit =
            !said.permits.is_empty() || by_call.iter().any(|rule| rule.effect == Effect::Permits);
        if may_permit && said.forbids.is_empty() && said.failures.is_empty() {
            Standing::Open
        } else {
            Standing::Refused
        }
    }

    /// The statements that read of a call of `target` by `principal`, in order; none where its standing is settled. At
    /// most [`REASONS_MAX`].
    pub fn readers(&self, principal: &Principal, target: &Target<'_>) -> Vec<Reason> {
        let Ok(asked) = Asked::of(principal, target) else { return Vec::new() };
        let slice = self.slice(&asked).into_iter().filter(|rule| rule.reads.is_any);
        let mut readers: Vec<Reason> = slice.map(|rule| rule.reason.clone()).collect();
        readers.sort_unstable();
        readers.truncate(REASONS_MAX);
        readers
    }

    /// Whether `principal` may have `target`, by what does not depend on a call; a statement that reads of one fails,
    /// which denies.
    pub fn decide(&self, principal: &Principal, target: &Target<'_>) -> Decision {
        match Asked::of(principal, target) {
            Ok(asked) => asked.decide(&self.slice(&asked), Context::empty()),
            Err(message) => unasked(&message),
        }
    }

    /// Whether `principal` may have `target` by this call. An argument that has no value denies, unless no statement
    /// that may match reads of the call; one that has no type, where a statement that may match reads it.
    pub fn decide_call(&self, principal: &Principal, target: &Target<'_>, call: &Call<'_>) -> Decision {
        let asked = match Asked::of(principal, target) {
            Ok(asked) => asked,
            Err(message) => return unasked(&message),
        };
        let slice = self.slice(&asked);
        if !slice.iter().any(|rule| rule.reads.is_any) {
            return asked.decide(&slice, Context::empty());
        }
        if let Some(message) = untyped(&slice, call) {
            return unasked(&message);
        }
        let reads = |read: fn(&Reads) -> bool| slice.iter().any(|rule| read(&rule.reads));
        match call.context(reads(|reads| reads.time), reads(|reads| reads.facts)) {
            Ok(context) => asked.decide(&slice, context),
            Err(message) => unasked(&message),
        }
    }

    /// The statements whose scope a request may match.
    fn slice(&self, asked: &Asked<'_>) -> Vec<&Rule> {
        let numbers = asked.slice(&self.index);
        numbers.iter().filter_map(|number| self.rules.get(*number as usize)).map(Arc::as_ref).collect()
    }
}

/// What is given and read, and has no type: a statement would take it for absent.
fn untyped(slice: &[&Rule], call: &Call<'_>) -> Option<String> {
    let (shape, given) = call.arguments?;
    let mut read = slice.iter().flat_map(|rule| &rule.reads.arguments);
    let path = read.find(|path| shape.misses(path, given))?;
    Some(format!("argument {:?} has no type that policies can read", path.join(".")))
}

/// The decision on what cannot be put to the policies.
fn unasked(message: &str) -> Decision {
    let failure = Failure { statement: None, message: shorten(message) };
    Decision::new(Verdict::Deny, Vec::new(), vec![failure])
}

impl Compiled {
    fn is_of(&self, text: PolicyText<'_>) -> bool {
        *self.text == *text.cedar && self.is_approvable == text.is_approvable
    }

    fn of(name: &PolicyName, text: PolicyText<'_>) -> Result<Compiled, CompileError> {
        let parsed = parse(text).map_err(|problems| {
            let first = problems.into_iter().next();
            let problem = first.unwrap_or_else(|| Problem::of_text("the text is not Cedar", None));
            CompileError::Text { policy: name.clone(), problem }
        })?;
        let is_approvable = text.is_approvable;
        let rule = |statement| Arc::new(Rule::of(name, statement, is_approvable));
        let rules = parsed.statements.iter().map(rule);
        let named = Named::of(parsed.statements.iter().map(|statement| &statement.policy));
        Ok(Compiled { text: text.cedar.into(), is_approvable, rules: rules.collect(), named })
    }
}

impl Named {
    fn of<'p>(policies: impl Iterator<Item = &'p cedar_policy::Policy>) -> Named {
        let mut found = Named::default();
        for uid in policies.flat_map(cedar_policy::Policy::entity_literals) {
            let named = match EntityKind::from_name(&uid.type_name().to_string()) {
                Some(EntityKind::User) => &mut found.users,
                Some(EntityKind::Group) => &mut found.groups,
                _ => continue,
            };
            named.insert(Arc::from(uid.id().unescaped()));
        }
        found
    }
}

impl<'a> Asked<'a> {
    /// What is asked; an error says why it cannot be.
    fn of(principal: &'a Principal, target: &Target<'_>) -> Result<Asked<'a>, String> {
        let (action, entity) = (target.action(), target.entity());
        let resource = entity.uid().clone();
        // Neither entity is in the other, and each tells all that it is in, so there is nothing to close over.
        let closed = TCComputation::AssumeAlreadyComputed;
        let (none, extensions) = (None::<&NoEntitiesSchema>, Extensions::all_available());
        let entities: &Entities = principal.entities.as_ref();
        let entities = entities.clone().add_entities([Arc::new(entity)], none, closed, extensions);
        let entities = entities.map_err(|error| error.to_string())?;
        Ok(Asked { entities, principal: principal.uid.as_ref(), action: action.as_ref(), resource })
    }

    fn decide(&self, rules: &[&Rule], context: Context) -> Decision {
        self.ask(rules, context).decision()
    }

    /// Asks Cedar about these statements.
    fn ask(&self, rules: &[&Rule], context: Context) -> Said {
        let uid = |uid: &EntityUID| (uid.clone(), None);
        let extensions = Extensions::all_available();
        let (principal, action, resource) = (uid(self.principal), uid(self.action), uid(&self.resource));
        let schema = None::<&RequestSchemaAllPass>;
        let Ok(request) = Request::new(principal, action, resource, context, schema, extensions);
        let evaluator = Evaluator::new(request, &self.entities, extensions);
        let mut said = Said::default();
        for rule in rules {
            said.take(rule, rule.applies(self.principal, &self.resource, &evaluator));
        }
        said
    }

    /// The statements whose scope it may match.
    fn slice(&self, index: &Index) -> Vec<u32> {
        let side = |uid| {
            let entity = match self.entities.entity(uid) {
                Dereference::Data(entity) => Some(entity),
                Dereference::NoSuchEntity | Dereference::Residual(_) => None,
            };
            let ancestors = entity.into_iter().flat_map(|entity| entity.ancestors());
            Side { uid, ancestors }
        };
        index.slice(side(self.principal), self.action, side(&self.resource))
    }
}

impl Said {
    fn take(&mut self, rule: &Rule, applies: Result<bool, String>) {
        match applies {
            Ok(false) => {}
            Ok(true) => match rule.effect {
                Effect::Permits => self.permits.push(rule.reason.clone()),
                Effect::Forbids => self.forbids.push(rule.reason.clone()),
                Effect::ForbidsUnlessApproved => self.approvals.push(rule.reason.clone()),
            },
            Err(error) => {
                let message = shorten(&error);
                self.failures.push(Failure { statement: Some(rule.reason.clone()), message });
            }
        }
    }

    fn decision(self) -> Decision {
        let (said, reasons) = if !self.forbids.is_empty() {
            (Verdict::Deny, self.forbids)
        } else if self.permits.is_empty() {
            (Verdict::Deny, Vec::new())
        } else if self.approvals.is_empty() {
            (Verdict::Allow, self.permits)
        } else {
            (Verdict::RequireApproval, self.approvals)
        };
        if said == Verdict::RequireApproval {
            return Decision::of_approvals(reasons, self.failures);
        }
        Decision::new(said, reasons, self.failures)
    }
}

impl fmt::Debug for PolicySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("PolicySet").field("statement_count", &self.statement_count()).finish()
    }
}
