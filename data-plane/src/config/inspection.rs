//! What is looked for in the calls of a server's tools, compiled: of the tenant, the server and the tool together.
//!
//! Always holds: what is said of a tool counts over what is said of its server, and that over the tenant's; where nobody
//! says anything, filters report. What is taken out of answers adds up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_inspect::{Declared, Detectors, Limits, Modes, Redactor};
use gantry_model::inspection::Mode;
use gantry_model::resource::Inspection;

/// Of one server.
pub(crate) struct Inspections {
    /// Of tools that are not named.
    any: Arc<Rules>,
    named: HashMap<String, Arc<Rules>>,
}

/// Of one tool.
pub(crate) struct Rules {
    pub(crate) calls: gantry_inspect::Inspection,
    pub(crate) answers: Answers,
}

/// What is taken out of answers.
pub(crate) struct Answers {
    detectors: Detectors,
    fields: Vec<String>,
}

impl Inspections {
    /// Compiles what is said.
    pub(crate) fn compile(tenant: &Inspection, server: &Inspection) -> Inspections {
        let rules = |tool: Option<&Inspection>| {
            let layers: Vec<&Inspection> = [tenant, server].into_iter().chain(tool).collect();
            Arc::new(Rules::compile(&layers))
        };
        let named = server.tools.iter().map(|(name, tool)| (name.clone(), rules(Some(tool))));
        Inspections { any: rules(None), named: named.collect() }
    }

    /// Of a tool; `None`: of whatever is no tool.
    pub(crate) fn of(&self, tool: Option<&str>) -> &Arc<Rules> {
        tool.and_then(|tool| self.named.get(tool)).unwrap_or(&self.any)
    }
}

impl Rules {
    fn compile(layers: &[&Inspection]) -> Rules {
        let mut modes = Modes::all(Mode::Report);
        let (mut detectors, mut fields) = (Detectors::default(), BTreeSet::new());
        for layer in layers {
            for (filter, mode) in &layer.filters {
                modes = modes.with(*filter, *mode);
            }
            detectors = layer.redact.iter().fold(detectors, |detectors, detector| detectors.with(*detector));
            fields.extend(layer.redact_fields.iter().cloned());
        }
        let (declared, left_out) = Declared::of(layers.iter().copied());
        for (place, error) in left_out {
            // Each layer was checked; what there is no room for in all together is told, and read as any text.
            tracing::warn!(place, ?error, "an argument is not inspected as it is declared");
        }
        Rules {
            calls: gantry_inspect::Inspection { modes, declared, limits: Limits::default() },
            answers: Answers { detectors, fields: fields.into_iter().collect() },
        }
    }
}

impl Answers {
    /// What takes it out of one answer; `None`: nothing is to be taken out.
    pub(crate) fn redactor(&self) -> Option<Redactor> {
        let is_idle = self.detectors.is_empty() && self.fields.is_empty();
        (!is_idle).then(|| Redactor::new(self.detectors, &self.fields))
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::inspection::Filter;
    use serde_json::json;

    use super::*;

    fn read(text: serde_json::Value) -> Inspection {
        serde_json::from_value(text).expect("it can be read")
    }

    #[test]
    fn a_tool_counts_over_its_server_and_that_over_the_tenant() {
        let tenant = read(json!({"filters": {"sql": "block", "unicode": "off"}, "redact": ["keys"]}));
        let server = read(json!({
            "filters": {"sql": "off", "shell": "block"}, "arguments": {"x": "path"},
            "tools": {"query": {"filters": {"sql": "report"}, "arguments": {"x": "sql"}, "redact_fields": ["ssn"]}},
        }));
        let inspections = Inspections::compile(&tenant, &server);
        let modes = |tool| {
            let modes = inspections.of(tool).calls.modes;
            [Filter::Sql, Filter::Shell, Filter::Unicode, Filter::Secrets].map(|filter| modes.of(filter))
        };
        assert_eq!(modes(Some("query")), [Mode::Report, Mode::Block, Mode::Off, Mode::Report]);
        assert_eq!(modes(Some("other")), [Mode::Off, Mode::Block, Mode::Off, Mode::Report]);
        assert_eq!(modes(None), modes(Some("other")));
        let found = |tool| {
            let findings =
                inspections.of(Some(tool)).calls.inspect(&json!({"x": "SELECT 1; DROP TABLE ../t"}));
            findings.as_slice().iter().map(|finding| finding.filter).collect::<Vec<_>>()
        };
        assert_eq!((found("query"), found("other")), (vec![Filter::Sql], vec![]));
        assert_eq!(inspections.of(Some("query")).answers.fields, ["ssn"]);
        assert!(inspections.of(None).answers.redactor().is_some());
        let nothing = Inspections::compile(&Inspection::default(), &Inspection::default());
        assert!(nothing.of(None).answers.redactor().is_none());
    }
}
