//! Statements by their scope: which of them a request can match at all.
//!
//! Always holds: a statement that is left out of a slice has a scope that the request does not match, so Cedar would
//! neither take nor fail it; one that is in it matches by type and action. It decides nothing.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use cedar_policy_core::ast::{EntityType, EntityUID};

use crate::set::rule::{Key, Scope};

/// Stands for "any" on each side.
const ANY: u32 = 0;

/// The numbers of a tenant's statements, each on the shelves of its scope.
#[derive(Default)]
pub(super) struct Index {
    principals: Keys,
    actions: HashMap<EntityUID, u32>,
    resources: Keys,
    /// A statement stands on several only where its actions are a list.
    shelves: HashMap<Shelf, Vec<u32>, BuildHasherDefault<ShelfHasher>>,
}

/// One side of a request.
pub(super) struct Side<'a, A> {
    pub(super) uid: &'a EntityUID,
    /// All that it is in, however far up.
    pub(super) ancestors: A,
}

/// The numbers of what scopes name on one side.
#[derive(Default)]
struct Keys {
    types: HashMap<EntityType, u32>,
    entities: HashMap<EntityUID, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shelf {
    principal: u32,
    action: u32,
    resource: u32,
}

/// Spreads numbers that we gave ourselves; nobody can choose them so that they collide.
#[derive(Default)]
struct ShelfHasher(u64);

impl Index {
    /// Puts a statement on its shelves.
    pub(super) fn add(&mut self, number: u32, scope: &Scope) {
        let principal = self.principals.number(&scope.principal);
        let resource = self.resources.number(&scope.resource);
        let actions = match &scope.actions {
            None => BTreeSet::from([ANY]),
            Some(named) => named.iter().map(|action| number_of(&mut self.actions, action, 1)).collect(),
        };
        for action in actions {
            self.shelves.entry(Shelf { principal, action, resource }).or_default().push(number);
        }
    }

    /// The statements that may match, each once.
    pub(super) fn slice<'a>(
        &self,
        principal: Side<'a, impl Iterator<Item = &'a EntityUID>>,
        action: &EntityUID,
        resource: Side<'a, impl Iterator<Item = &'a EntityUID>>,
    ) -> Vec<u32> {
        let (principals, resources) =
            (self.principals.matching(principal), self.resources.matching(resource));
        let actions = [Some(ANY), self.actions.get(action).copied()];
        let mut found = Vec::new();
        for principal in principals {
            for action in actions.into_iter().flatten() {
                for resource in &resources {
                    let shelf = Shelf { principal, action, resource: *resource };
                    found.extend(self.shelves.get(&shelf).into_iter().flatten());
                }
            }
        }
        found
    }
}

impl Keys {
    fn number(&mut self, key: &Key) -> u32 {
        let (types, entities) = (self.types.len(), self.entities.len());
        match key {
            Key::Any => ANY,
            Key::Type(name) => number_of(&mut self.types, name, 1 + entities),
            Key::Entity(uid, _) => number_of(&mut self.entities, uid, 1 + types),
        }
    }

    /// The numbers of all that a side is; each once, because an entity is not its own ancestor.
    fn matching<'a>(&self, side: Side<'a, impl Iterator<Item = &'a EntityUID>>) -> Vec<u32> {
        let named = |uid: &EntityUID| self.entities.get(uid).copied();
        let of_type =
            if self.types.is_empty() { None } else { self.types.get(side.uid.entity_type()).copied() };
        let own = [Some(ANY), of_type, named(side.uid)];
        own.into_iter().flatten().chain(side.ancestors.filter_map(named)).collect()
    }
}

/// The number of a key, which is a new one where it has none; `others` are in use elsewhere.
fn number_of<K: Hash + Eq + Clone>(numbers: &mut HashMap<K, u32>, key: &K, others: usize) -> u32 {
    if let Some(number) = numbers.get(key) {
        return *number;
    }
    // There are far fewer statements than numbers; two keys of one number would make a slice larger, not wrong.
    let number = u32::try_from(others + numbers.len()).unwrap_or(u32::MAX);
    numbers.insert(key.clone(), number);
    number
}

impl Hash for Shelf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(u64::from(self.principal) << 32 | u64::from(self.resource));
        state.write_u64(u64::from(self.action));
    }
}

impl Hasher for ShelfHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The multiplier is 2^64 over the golden ratio; the table takes its place from the low bits, its tag from the
        // high ones, so both need all of them.
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
