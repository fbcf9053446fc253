//! What becomes of what is odd.
//!
//! Always holds: the last word of tenant, server and tool counts; where nobody says anything, it is reported.

use std::collections::BTreeMap;

use gantry_model::DefinitionKind;
use gantry_model::inspection::{Filter, Mode};
use gantry_model::resource::Inspection;

use super::Subject;

/// By definition, of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actions {
    whole: Mode,
    tools: BTreeMap<String, Mode>,
}

impl Actions {
    /// As it is said of a tenant and of a server with its tools.
    pub fn of(tenant: &Inspection, server: &Inspection) -> Actions {
        let said = |of: &Inspection| of.filters.get(&Filter::Definitions).copied();
        let tools = server.tools.iter().filter_map(|(tool, of)| Some((tool.clone(), said(of)?)));
        Actions {
            whole: said(server).or_else(|| said(tenant)).unwrap_or(Mode::Report),
            tools: tools.collect(),
        }
    }

    /// Of one subject.
    pub fn on(&self, subject: &Subject) -> Mode {
        match subject {
            Subject::Definition(DefinitionKind::Tool, name) => {
                self.tools.get(&**name).copied().unwrap_or(self.whole)
            }
            Subject::Definition(..) | Subject::Instructions => self.whole,
        }
    }

    /// Whether anything may be withheld.
    pub fn may_withhold(&self) -> bool {
        self.whole == Mode::Block || self.tools.values().any(|mode| *mode == Mode::Block)
    }
}
