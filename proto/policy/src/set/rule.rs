//! One statement, ready to be evaluated.
//!
//! Always holds: what stands in a `when` or `unless` is evaluated by Cedar. The scope is not: a shelf of the index settles
//! by being asked that a side is of a type, is an entity or in it, and which action it is; what is left, that it is that very
//! entity, or also of a type, is compared here. Cedar would take as long over a scope as over a short condition.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use cedar_policy_core::ast::{
    ActionConstraint, BinaryOp, EntityReference, EntityType, EntityUID, Expr, ExprKind, Literal, Policy,
    PrincipalOrResourceConstraint, SlotEnv, SlotId, UnaryOp, ValueKind,
};
use cedar_policy_core::evaluator::Evaluator;
use gantry_model::PolicyName;

use crate::decision::Reason;
use crate::reads::Reads;
use crate::statement::Statement;

/// No statement is a template, so none has a slot.
static SLOTS: LazyLock<SlotEnv> = LazyLock::new(HashMap::new);

/// A statement.
pub(super) struct Rule {
    pub(super) reason: Reason,
    pub(super) effect: Effect,
    pub(super) scope: Scope,
    /// What it reads of a call: where that is nothing, it says the same of every one.
    pub(super) reads: Reads,
    /// `None`: it applies wherever the index finds it.
    condition: Option<Expr>,
}

/// What a statement does to the requests that it applies to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Permits,
    Forbids,
    ForbidsUnlessApproved,
}

/// What a request must be, at the least.
pub(super) struct Scope {
    pub(super) principal: Key,
    /// `None`: any.
    pub(super) actions: Option<Vec<EntityUID>>,
    pub(super) resource: Key,
}

/// What one side must be, at the least.
pub(super) enum Key {
    Any,
    Type(EntityType),
    /// It is this entity, or in it.
    Entity(EntityUID, Narrower),
}

/// What else an entity of a scope asks of a side.
pub(super) enum Narrower {
    /// Nothing: `in`.
    Nothing,
    /// That it is that entity itself: `==`.
    Itself,
    /// That it is of a type: `is ... in`.
    Type(EntityType),
}

impl Rule {
    /// The rule of a statement of this policy.
    pub(super) fn of(name: &PolicyName, statement: &Statement, is_approvable: bool) -> Rule {
        let policy = &statement.policy;
        let id = policy.annotation("id").map(Arc::from);
        let (scope, condition) = match Scope::of(policy.as_ref()) {
            Some(scope) => (scope, condition(policy.as_ref())),
            None => (Scope::ANYTHING, Some(Expr::slot(SlotId::principal()))),
        };
        let reads = condition.as_ref().map(Reads::of).unwrap_or_default();
        Rule {
            reason: Reason { policy: name.clone(), index: statement.index, id },
            effect: match (policy.effect(), is_approvable) {
                (cedar_policy::Effect::Permit, _) => Effect::Permits,
                (cedar_policy::Effect::Forbid, false) => Effect::Forbids,
                (cedar_policy::Effect::Forbid, true) => Effect::ForbidsUnlessApproved,
            },
            reads,
            condition,
            scope,
        }
    }

    /// Whether it applies to a request that the index found it for; an error says why that cannot be told.
    pub(super) fn applies(
        &self,
        principal: &EntityUID,
        resource: &EntityUID,
        evaluator: &Evaluator<'_>,
    ) -> Result<bool, String> {
        if !self.scope.principal.holds(principal) || !self.scope.resource.holds(resource) {
            return Ok(false);
        }
        let Some(condition) = &self.condition else { return Ok(true) };
        match evaluator.interpret(condition, &SLOTS) {
            Ok(value) => match value.value_kind() {
                ValueKind::Lit(Literal::Bool(applies)) => Ok(*applies),
                _ => Err("the condition is neither true nor false".to_owned()),
            },
            Err(error) => Err(error.to_string()),
        }
    }
}

fn condition(policy: &Policy) -> Option<Expr> {
    let condition = policy.non_scope_constraints()?.clone();
    // Joined with another where it may be no Boolean, because it is in joining that Cedar says so.
    Some(if is_boolean(&condition) { condition } else { Expr::and(Expr::val(true), condition) })
}

/// Whether an expression is true or false wherever it does not fail.
fn is_boolean(expression: &Expr) -> bool {
    match expression.expr_kind() {
        ExprKind::And { .. } | ExprKind::Or { .. } | ExprKind::HasAttr { .. } => true,
        ExprKind::Like { .. } | ExprKind::Is { .. } => true,
        ExprKind::UnaryApp { op, .. } => matches!(op, UnaryOp::Not),
        ExprKind::BinaryApp { op, .. } => {
            matches!(op, BinaryOp::Eq | BinaryOp::In | BinaryOp::Less | BinaryOp::LessEq | BinaryOp::Contains)
        }
        _ => false,
    }
}

impl Scope {
    const ANYTHING: Scope = Scope { principal: Key::Any, actions: None, resource: Key::Any };

    /// `None`: it is a template's, with a slot. No text with one parses here; were one to get in, its statement is to be about
    /// everything and to fail there, which denies, whether it would permit or forbid.
    fn of(policy: &Policy) -> Option<Scope> {
        Some(Scope {
            principal: Key::of(policy.principal_constraint().as_inner())?,
            actions: match policy.action_constraint() {
                ActionConstraint::Any => None,
                ActionConstraint::Eq(action) => Some(vec![action.as_ref().clone()]),
                // No action of the schema is in another, so a list names all that it lets match.
                ActionConstraint::In(actions) => {
                    Some(actions.iter().map(|action| action.as_ref().clone()).collect())
                }
            },
            resource: Key::of(policy.resource_constraint().as_inner())?,
        })
    }
}

impl Key {
    fn of(constraint: &PrincipalOrResourceConstraint) -> Option<Key> {
        match constraint {
            PrincipalOrResourceConstraint::Any => Some(Key::Any),
            PrincipalOrResourceConstraint::Is(name) => Some(Key::Type(name.as_ref().clone())),
            PrincipalOrResourceConstraint::Eq(entity) => Key::entity(entity, Narrower::Itself),
            PrincipalOrResourceConstraint::In(entity) => Key::entity(entity, Narrower::Nothing),
            PrincipalOrResourceConstraint::IsIn(name, entity) => {
                Key::entity(entity, Narrower::Type(name.as_ref().clone()))
            }
        }
    }

    fn entity(reference: &EntityReference, narrower: Narrower) -> Option<Key> {
        match reference {
            EntityReference::EUID(uid) => Some(Key::Entity(uid.as_ref().clone(), narrower)),
            EntityReference::Slot(_) => None,
        }
    }

    /// Whether it holds of what the index found it by.
    fn holds(&self, uid: &EntityUID) -> bool {
        match self {
            Key::Any | Key::Type(_) | Key::Entity(_, Narrower::Nothing) => true,
            Key::Entity(own, Narrower::Itself) => own == uid,
            Key::Entity(_, Narrower::Type(name)) => uid.entity_type() == name,
        }
    }
}
