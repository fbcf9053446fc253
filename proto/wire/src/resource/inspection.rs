//! Inspection, to and from messages.

use gantry_model::inspection::{Detector, Filter, Form, Mode};
use gantry_model::resource::{Inspection, InspectionLimits};

use crate::convert::WireError;
use crate::resource_v1 as wire;

/// `None` where nothing is said.
pub(super) fn to_wire(inspection: &Inspection) -> Option<wire::Inspection> {
    (*inspection != Inspection::default()).then(|| inspection.into())
}

pub(super) fn from_wire(inspection: Option<&wire::Inspection>) -> Result<Inspection, WireError> {
    inspection.map_or(Ok(Inspection::default()), TryInto::try_into)
}

impl From<&Inspection> for wire::Inspection {
    fn from(inspection: &Inspection) -> wire::Inspection {
        let filters = inspection.filters.iter().map(|(filter, mode)| wire::FilterMode {
            filter: filter_number(*filter) as i32,
            mode: mode_number(*mode) as i32,
        });
        let arguments = inspection.arguments.iter().map(|(place, form)| wire::ArgumentForm {
            place: place.clone(),
            form: form_number(*form) as i32,
        });
        let tools = inspection.tools.iter().map(|(tool, inspection)| wire::ToolInspection {
            tool: tool.clone(),
            inspection: Some(inspection.into()),
        });
        let patterns = inspection
            .redact_patterns
            .iter()
            .map(|(name, pattern)| wire::NamedPattern { name: name.clone(), pattern: pattern.clone() });
        wire::Inspection {
            filters: filters.collect(),
            arguments: arguments.collect(),
            redact: inspection.redact.iter().map(|detector| detector_number(*detector) as i32).collect(),
            redact_fields: inspection.redact_fields.iter().cloned().collect(),
            tools: tools.collect(),
            redact_patterns: patterns.collect(),
            limits: (inspection.limits != InspectionLimits::default()).then(|| limits(&inspection.limits)),
        }
    }
}

impl TryFrom<&wire::Inspection> for Inspection {
    type Error = WireError;

    fn try_from(inspection: &wire::Inspection) -> Result<Inspection, WireError> {
        let mut read = Inspection::default();
        for said in &inspection.filters {
            read.filters.insert(filter(said.filter)?, mode(said.mode)?);
        }
        for said in &inspection.arguments {
            read.arguments.insert(said.place.clone(), form(said.form)?);
        }
        read.redact = inspection.redact.iter().map(|number| detector(*number)).collect::<Result<_, _>>()?;
        read.redact_fields = inspection.redact_fields.iter().cloned().collect();
        for said in &inspection.redact_patterns {
            read.redact_patterns.insert(said.name.clone(), said.pattern.clone());
        }
        if let Some(said) = &inspection.limits {
            read.limits = InspectionLimits {
                max_text_bytes: said.text_bytes,
                max_bytes: said.bytes,
                max_values: said.values,
                max_depth: said.depth,
            };
        }
        for said in &inspection.tools {
            // Deeper than servers have it is refused before it recurses.
            let below = said.inspection.as_ref().filter(|below| below.tools.is_empty());
            let below = below.ok_or(WireError::Missing("inspection"))?;
            read.tools.insert(said.tool.clone(), below.try_into()?);
        }
        Ok(read)
    }
}

fn limits(limits: &InspectionLimits) -> wire::InspectionLimits {
    wire::InspectionLimits {
        text_bytes: limits.max_text_bytes,
        bytes: limits.max_bytes,
        values: limits.max_values,
        depth: limits.max_depth,
    }
}

fn filter_number(filter: Filter) -> wire::Filter {
    match filter {
        Filter::Shell => wire::Filter::Shell,
        Filter::Traversal => wire::Filter::Traversal,
        Filter::Sql => wire::Filter::Sql,
        Filter::Ssrf => wire::Filter::Ssrf,
        Filter::Secrets => wire::Filter::Secrets,
        Filter::Unicode => wire::Filter::Unicode,
        Filter::Limits => wire::Filter::Limits,
        Filter::Definitions => wire::Filter::Definitions,
    }
}

fn filter(number: i32) -> Result<Filter, WireError> {
    let said = wire::Filter::try_from(number).ok();
    let found = Filter::ALL.into_iter().find(|filter| Some(filter_number(*filter)) == said);
    found.ok_or_else(|| WireError::invalid("filter", format!("{number} is no filter")))
}

fn mode_number(mode: Mode) -> wire::FilterAction {
    match mode {
        Mode::Off => wire::FilterAction::Off,
        Mode::Report => wire::FilterAction::Report,
        Mode::Block => wire::FilterAction::Block,
    }
}

fn mode(number: i32) -> Result<Mode, WireError> {
    match wire::FilterAction::try_from(number) {
        Ok(wire::FilterAction::Off) => Ok(Mode::Off),
        Ok(wire::FilterAction::Report) => Ok(Mode::Report),
        Ok(wire::FilterAction::Block) => Ok(Mode::Block),
        Ok(wire::FilterAction::Unspecified) | Err(_) => {
            Err(WireError::invalid("mode", format!("{number} is no mode")))
        }
    }
}

fn form_number(form: Form) -> wire::Form {
    match form {
        Form::Sql => wire::Form::Sql,
        Form::Path => wire::Form::Path,
        Form::Url => wire::Form::Url,
        Form::Shell => wire::Form::Shell,
    }
}

fn form(number: i32) -> Result<Form, WireError> {
    match wire::Form::try_from(number) {
        Ok(wire::Form::Sql) => Ok(Form::Sql),
        Ok(wire::Form::Path) => Ok(Form::Path),
        Ok(wire::Form::Url) => Ok(Form::Url),
        Ok(wire::Form::Shell) => Ok(Form::Shell),
        Ok(wire::Form::Unspecified) | Err(_) => {
            Err(WireError::invalid("form", format!("{number} is no form")))
        }
    }
}

fn detector_number(detector: Detector) -> wire::Detector {
    match detector {
        Detector::Keys => wire::Detector::Keys,
        Detector::Emails => wire::Detector::Emails,
        Detector::Cards => wire::Detector::Cards,
        Detector::Ibans => wire::Detector::Ibans,
    }
}

fn detector(number: i32) -> Result<Detector, WireError> {
    match wire::Detector::try_from(number) {
        Ok(wire::Detector::Keys) => Ok(Detector::Keys),
        Ok(wire::Detector::Emails) => Ok(Detector::Emails),
        Ok(wire::Detector::Cards) => Ok(Detector::Cards),
        Ok(wire::Detector::Ibans) => Ok(Detector::Ibans),
        Ok(wire::Detector::Unspecified) | Err(_) => {
            Err(WireError::invalid("redact", format!("{number} is no detector")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inspection_comes_back_as_it_was() -> Result<(), WireError> {
        let mut inspection = Inspection {
            filters: [Mode::Off, Mode::Report, Mode::Block]
                .into_iter()
                .cycle()
                .zip(Filter::ALL)
                .map(|(mode, filter)| (filter, mode))
                .collect(),
            arguments: [Form::Sql, Form::Path, Form::Url, Form::Shell]
                .into_iter()
                .map(|form| (format!("/{form:?}/*"), form))
                .collect(),
            redact: [Detector::Keys, Detector::Emails, Detector::Cards, Detector::Ibans].into(),
            redact_fields: ["ssn".to_owned()].into(),
            redact_patterns: [("employee".to_owned(), "EMP-[0-9]+".to_owned())].into(),
            limits: InspectionLimits {
                max_text_bytes: Some(1),
                max_bytes: Some(2),
                max_values: Some(3),
                max_depth: Some(4),
            },
            tools: Default::default(),
        };
        let tool = inspection.clone();
        inspection.tools.insert("query".to_owned(), tool);
        assert_eq!(from_wire(to_wire(&inspection).as_ref())?, inspection);
        assert_eq!(to_wire(&Inspection::default()), None);
        Ok(())
    }

    #[test]
    fn what_was_written_by_a_later_build_is_refused() {
        let unknown = wire::Inspection {
            filters: vec![wire::FilterMode { filter: 99, mode: 1 }],
            ..wire::Inspection::default()
        };
        assert!(Inspection::try_from(&unknown).is_err());
        let of_tools = |tools| wire::Inspection { tools, ..wire::Inspection::default() };
        let tool = |below| wire::ToolInspection { tool: "a".to_owned(), inspection: Some(below) };
        let deep = of_tools(vec![tool(of_tools(vec![tool(wire::Inspection::default())]))]);
        assert!(Inspection::try_from(&deep).is_err());
    }
}
