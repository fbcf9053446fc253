//! What is looked for in the calls of a server's tools, compiled: of the tenant, the server and the tool together.
//!
//! Always holds: what is said of a tool counts over what is said of its server, and that over the tenant's; where nobody
//! says anything, filters report. What is taken out of answers adds up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_inspect::{Declared, Detectors, Limits, Modes, Redactor, Written};
use gantry_model::inspection::Mode;
use gantry_model::resource::Inspection;

/// Of one server.
pub(crate) struct Inspections {
    /// Of tools that are not named.
    any: Arc<Rules>,
    /// Of what is no tool, such as a stream: calls as of any tool, answers as of all that are named together, because the
    /// answer of each may come that way.
    whole: Arc<Rules>,
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
    fields: BTreeSet<String>,
}

impl Inspections {
    /// Compiles what is said.
    pub(crate) fn compile(tenant: &Inspection, server: &Inspection) -> Inspections {
        let rules = |tool: Option<&Inspection>| {
            let layers: Vec<&Inspection> = [tenant, server].into_iter().chain(tool).collect();
            Arc::new(Rules::compile(&layers))
        };
        let named = server.tools.iter().map(|(name, tool)| (name.clone(), rules(Some(tool))));
        let named: HashMap<String, Arc<Rules>> = named.collect();
        let mut whole = Rules::compile(&[tenant, server]);
        for rules in named.values() {
            whole.answers.take(&rules.answers);
        }
        Inspections { any: rules(None), whole: Arc::new(whole), named }
    }

    /// Of a tool; `None`: of whatever is no tool.
    pub(crate) fn of(&self, tool: Option<&str>) -> &Arc<Rules> {
        tool.map_or(&self.whole, |tool| self.named.get(tool).unwrap_or(&self.any))
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
            answers: Answers { detectors, fields },
        }
    }
}

impl Answers {
    /// What takes it out of one answer of a media type; `None`: nothing is to be taken out.
    pub(crate) fn redactor(&self, content_type: &str) -> Option<Redactor> {
        let is_idle = self.detectors.is_empty() && self.fields.is_empty();
        let fields = || self.fields.iter().cloned().collect::<Vec<_>>();
        (!is_idle).then(|| Redactor::new(self.detectors, &fields(), Written::of(content_type)))
    }

    fn take(&mut self, other: &Answers) {
        self.detectors = self.detectors.and(other.detectors);
        self.fields.extend(other.fields.iter().cloned());
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
        let redacted = |tool| {
            let redactor = inspections.of(tool).answers.redactor("application/json");
            let (mut redactor, mut out) = (redactor.expect("there is something to take out"), Vec::new());
            redactor.push(br#"{"ssn":1,"a":"AKIAIOSFODNN7EXAMPLE"}"#, &mut out);
            String::from_utf8(out).expect("text")
        };
        let whole = r#"{"ssn":null,"a":"[redacted: key]"}"#;
        assert_eq!(redacted(Some("query")), whole);
        assert_eq!(redacted(Some("other")), r#"{"ssn":1,"a":"[redacted: key]"}"#);
        // Of which tool the answer is that comes on a stream, nobody says.
        assert_eq!(redacted(None), whole);
        let nothing = Inspections::compile(&Inspection::default(), &Inspection::default());
        assert!(nothing.of(None).answers.redactor("application/json").is_none());
    }
}
