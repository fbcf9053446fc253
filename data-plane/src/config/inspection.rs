//! What is looked for in the calls of a server's tools, compiled: of the tenant, the server and the tool together.
//!
//! Always holds: what is said of a tool counts over what is said of its server, and that over the tenant's; where nobody
//! says anything, filters report. What is taken out of answers adds up.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_inspect::{Declared, Detectors, Limits, Modes, PatternError, Patterns, Redactor, Written};
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
    patterns: Patterns,
}

impl Inspections {
    /// Compiles what is said; a pattern that is none says so.
    pub(crate) fn compile(tenant: &Inspection, server: &Inspection) -> Result<Inspections, PatternError> {
        let shared = patterns(server, &patterns(tenant, &Patterns::default())?)?;
        let rules = |tool: Option<&Inspection>| {
            let layers: Vec<&Inspection> = [tenant, server].into_iter().chain(tool).collect();
            let patterns = tool.map_or(Ok(shared.clone()), |tool| patterns(tool, &shared))?;
            Ok::<_, PatternError>(Arc::new(Rules::compile(&layers, patterns)))
        };
        let named = server.tools.iter().map(|(name, tool)| Ok((name.clone(), rules(Some(tool))?)));
        let named: HashMap<String, Arc<Rules>> = named.collect::<Result<_, PatternError>>()?;
        let mut whole = Rules::compile(&[tenant, server], shared.clone());
        for rules in named.values() {
            whole.answers.take(&rules.answers);
        }
        Ok(Inspections { any: rules(None)?, whole: Arc::new(whole), named })
    }

    /// Of a tool; `None`: of whatever is no tool.
    pub(crate) fn of(&self, tool: Option<&str>) -> &Arc<Rules> {
        tool.map_or(&self.whole, |tool| self.named.get(tool).unwrap_or(&self.any))
    }
}

/// Those of a layer, and of the layers above it.
fn patterns(layer: &Inspection, above: &Patterns) -> Result<Patterns, PatternError> {
    let mut own = layer.redact_patterns.iter();
    let own = own.try_fold(Patterns::default(), |all, (name, pattern)| all.with(name, pattern))?;
    Ok(above.clone().and(&own))
}

impl Rules {
    fn compile(layers: &[&Inspection], patterns: Patterns) -> Rules {
        let mut limits = Limits::default();
        let mut modes = Modes::all(Mode::Report);
        let (mut detectors, mut fields) = (Detectors::default(), BTreeSet::new());
        for layer in layers {
            for (filter, mode) in &layer.filters {
                modes = modes.with(*filter, *mode);
            }
            detectors = layer.redact.iter().fold(detectors, |detectors, detector| detectors.with(*detector));
            fields.extend(layer.redact_fields.iter().cloned());
            let said = &layer.limits;
            for (limit, value) in [
                (&mut limits.text_bytes, said.max_text_bytes),
                (&mut limits.bytes, said.max_bytes),
                (&mut limits.values, said.max_values),
                (&mut limits.depth, said.max_depth),
            ] {
                *limit = value.and_then(|value| usize::try_from(value).ok()).unwrap_or(*limit);
            }
        }
        let (declared, left_out) = Declared::of(layers.iter().copied());
        for (place, error) in left_out {
            // Each layer was checked; what there is no room for in all together is told, and read as any text.
            tracing::warn!(place, ?error, "an argument is not inspected as it is declared");
        }
        Rules {
            calls: gantry_inspect::Inspection { modes, declared, limits },
            answers: Answers { detectors, fields, patterns },
        }
    }
}

impl Answers {
    /// What takes it out of one answer of a media type; `None`: nothing is to be taken out.
    pub(crate) fn redactor(&self, content_type: &str) -> Option<Redactor> {
        let is_idle = self.detectors.is_empty() && self.fields.is_empty() && self.patterns.is_empty();
        let fields = || self.fields.iter().cloned().collect::<Vec<_>>();
        let made = || Redactor::new(self.detectors, &fields(), Written::of(content_type));
        (!is_idle).then(|| made().with_patterns(self.patterns.clone()))
    }

    fn take(&mut self, other: &Answers) {
        self.detectors = self.detectors.and(other.detectors);
        self.fields.extend(other.fields.iter().cloned());
        self.patterns = std::mem::take(&mut self.patterns).and(&other.patterns);
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
        let inspections = Inspections::compile(&tenant, &server).expect("patterns");
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
        let nothing =
            Inspections::compile(&Inspection::default(), &Inspection::default()).expect("no patterns");
        assert!(nothing.of(None).answers.redactor("application/json").is_none());
    }

    #[test]
    fn limits_are_the_last_word_and_patterns_add_up() {
        let tenant = read(json!({
            "limits": {"max_depth": 2, "max_values": 5}, "redact_patterns": {"a": "AA"},
        }));
        let server = read(json!({
            "limits": {"max_values": 7}, "tools": {"query": {"redact_patterns": {"b": "BB"}, "limits": {"max_depth": 9}}},
        }));
        let inspections = Inspections::compile(&tenant, &server).expect("patterns");
        let limits = |tool| {
            let limits = inspections.of(Some(tool)).calls.limits;
            (limits.depth, limits.values, limits.bytes)
        };
        assert_eq!(limits("query"), (9, 7, Limits::default().bytes));
        assert_eq!(limits("other"), (2, 7, Limits::default().bytes));
        let redacted = |tool| {
            let mut out = Vec::new();
            let redactor = inspections.of(tool).answers.redactor("text/plain");
            let mut redactor = redactor.expect("something is to be taken out");
            redactor.push(b"AA BB", &mut out);
            redactor.finish(&mut out);
            String::from_utf8(out).expect("text")
        };
        assert_eq!(redacted(Some("query")), "[redacted: a] [redacted: b]");
        assert_eq!(redacted(Some("other")), "[redacted: a] BB");
        assert_eq!(redacted(None), "[redacted: a] [redacted: b]");
        let none = read(json!({"redact_patterns": {"a": "("}}));
        assert!(Inspections::compile(&none, &Inspection::default()).is_err());
    }
}
