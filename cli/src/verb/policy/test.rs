//! `gantry policy test`: cases beside the policies, decided on this machine by the evaluator that nodes decide with.
//!
//! Always holds: it asks no control plane and reads nothing but the files that are named; it ends with 0 only where
//! there was a case and every one came out as it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gantry_model::{Definition, Kind, TenantName};
use gantry_policy::Decision;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::cases::{CASES_MAX, Case, Cases, Expected, Tools};
use super::offline::{Offline, definitions};
use crate::documents::{self, CaseFile, Document};
use crate::failure::{Exit, Failure};
use crate::output::{self, Paint, TextFormat, visible};

/// `gantry policy test`.
#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// Documents of `gantry apply`, and cases in *.test.yaml (.yml, .json): files, or directories with both.
    #[arg(value_name = "FILE|DIR", required = true)]
    files: Vec<String>,
    /// Form of the output.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

/// What came of a case.
#[derive(Debug, Serialize)]
struct Outcome {
    file: String,
    case: String,
    passed: bool,
    expected: &'static str,
    verdict: &'static str,
    /// What decided.
    policies: Vec<String>,
    /// What could not be evaluated.
    failures: Vec<String>,
    /// What was to decide, and did not.
    missing: Vec<String>,
}

impl Test {
    /// Runs the command.
    pub(crate) fn run(&self) -> Result<Exit, Failure> {
        let (documents, files) = documents::read_with_cases(&self.files)?;
        let (mut outcomes, mut problems) = (Vec::new(), Vec::new());
        for file in &files {
            match run_file(file, &documents) {
                Ok(found) => outcomes.extend(found),
                Err(found) => problems.extend(found),
            }
            if outcomes.len() > CASES_MAX {
                problems.push(format!("there are more than {CASES_MAX} cases"));
                break;
            }
        }
        if !problems.is_empty() {
            let count = if problems.len() == 1 {
                "a problem".to_owned()
            } else {
                format!("{} problems", problems.len())
            };
            let next = format!("correct it, then `gantry policy test {}`", shell_words::join(&self.files));
            let failure = Failure::error(format!("the files have {count}; nothing was tested"), next);
            return Err(failure.with_details(problems));
        }
        self.tell(&outcomes)
    }

    fn tell(&self, outcomes: &[Outcome]) -> Result<Exit, Failure> {
        let again = format!("gantry policy test {}", shell_words::join(&self.files));
        match self.output {
            TextFormat::Text => output::print(&lines(outcomes, Paint::stdout()))?,
            TextFormat::Json => output::print(&output::json(&outcomes))?,
        }
        let failed = outcomes.iter().filter(|outcome| !outcome.passed).count();
        match (outcomes.len(), failed) {
            (0, _) => Err(Failure::error(
                "there is no case in what is named",
                "write cases into a file NAME.test.yaml; README.md of Gantry shows one",
            )),
            (1, 0) => Ok(said("1 case passed")),
            (count, 0) => Ok(said(&format!("{count} cases passed"))),
            (count, failed) => Err(Failure::error(
                format!("{failed} of {count} cases failed"),
                format!("correct the policies or the cases, then `{again}`"),
            )),
        }
    }
}

fn said(what: &str) -> Exit {
    output::say(what);
    Exit::Done
}

/// Runs the cases of one file; an error has a line for everything that is wrong with them.
fn run_file(file: &CaseFile, documents: &[Document]) -> Result<Vec<Outcome>, Vec<String>> {
    let of_file = |message: String| vec![format!("{}: {message}", file.name)];
    let cases = Cases::deserialize(&file.value).map_err(|error| of_file(error.to_string()))?;
    let tenant = match &cases.tenant {
        Some(tenant) => tenant.clone(),
        None => only_tenant(documents).map_err(of_file)?,
    };
    let mut tools = BTreeMap::new();
    for (server, offered) in &cases.tools {
        let read = read_tools(file, offered).map_err(|why| of_file(format!("tools.{server}: {why}")))?;
        tools.insert(server.clone(), read);
    }
    check_tenant(documents, &tenant).map_err(of_file)?;
    let offline = Offline::of(&tenant, documents, tools)?;
    let (mut outcomes, mut problems) = (Vec::new(), Vec::new());
    for case in &cases.cases {
        match offline.decide(case) {
            Ok(decision) => outcomes.push(Outcome::of(file, case, &decision)),
            Err(why) => problems.push(format!("{}: case {:?}: {why}", file.name, case.title())),
        }
    }
    if problems.is_empty() { Ok(outcomes) } else { Err(problems) }
}

fn only_tenant(documents: &[Document]) -> Result<TenantName, String> {
    let mut tenants: Vec<&TenantName> = documents.iter().map(|document| &document.resource.tenant).collect();
    tenants.dedup();
    tenants.sort_unstable();
    tenants.dedup();
    match tenants.as_slice() {
        [one] => Ok((*one).clone()),
        [] => {
            Err("there is no document beside the cases; name the directory that has the policies".to_owned())
        }
        more => Err(format!("the documents are of {} tenants; say of which with `tenant`", more.len())),
    }
}

/// A tenant without a policy is most likely a misspelt one.
fn check_tenant(documents: &[Document], tenant: &TenantName) -> Result<(), String> {
    let is_policy = |document: &&Document| {
        document.resource.tenant == *tenant && document.resource.spec.kind() == Kind::Policy
    };
    match documents.iter().find(is_policy) {
        Some(_) => Ok(()),
        None => Err(format!("no document is a policy of tenant {tenant}")),
    }
}

fn read_tools(file: &CaseFile, tools: &Tools) -> Result<Vec<Definition>, String> {
    match tools {
        Tools::Here(list) => definitions(&Value::Array(list.clone())),
        Tools::File(path) => {
            let path = Path::new(&file.name).parent().unwrap_or(Path::new("")).join(path);
            let told = |why: String| format!("{}: {why}", path.display());
            let text = fs::read_to_string(&path).map_err(|error| told(error.to_string()))?;
            let value: Value = serde_json::from_str(&text).map_err(|error| told(error.to_string()))?;
            definitions(&value).map_err(told)
        }
    }
}

impl Outcome {
    fn of(file: &CaseFile, case: &Case, decision: &Decision) -> Outcome {
        let verdict = match decision {
            _ if decision.is_allow() => Expected::Allow,
            _ if !decision.is_deny() => Expected::Approval,
            // A misspelt argument is denied too, and nobody meant that.
            Decision { reasons, failures, .. } if reasons.is_empty() && !failures.is_empty() => {
                Expected::Error
            }
            _ => Expected::Deny,
        };
        let named = |because: &&String| {
            let reasons = decision
                .reasons
                .iter()
                .chain(decision.failures.iter().filter_map(|it| it.statement.as_ref()));
            reasons
                .into_iter()
                .any(|it| it.policy.as_str() == because.as_str() || it.to_string() == **because)
        };
        let missing: Vec<String> = case.because.iter().filter(|because| !named(because)).cloned().collect();
        Outcome {
            file: file.name.clone(),
            case: case.title(),
            passed: verdict == case.expect && missing.is_empty(),
            expected: case.expect.as_str(),
            verdict: verdict.as_str(),
            policies: decision.reasons.iter().map(ToString::to_string).collect(),
            failures: decision.failures.iter().map(ToString::to_string).collect(),
            missing,
        }
    }

    /// What decided.
    fn because(&self) -> String {
        match (self.policies.as_slice(), self.failures.as_slice()) {
            ([], []) => "no policy permits it".to_owned(),
            ([], failures) => format!("denied, as it cannot be told: {}", failures.join("; ")),
            (policies, []) => policies.join(", "),
            (policies, failures) => format!("{}; also {}", policies.join(", "), failures.join("; ")),
        }
    }
}

/// The cases of each file below its name.
fn lines(outcomes: &[Outcome], paint: Paint) -> String {
    let mut text = String::new();
    let mut file = "";
    for outcome in outcomes {
        if outcome.file != file {
            file = &outcome.file;
            text.push_str(&format!("{}\n", visible(file)));
        }
        let word = if outcome.passed { paint.green("ok    ") } else { paint.red("FAILED") };
        let (case, because) = (visible(&outcome.case), visible(&outcome.because()));
        text.push_str(&format!("  {word}  {case}: {} ({because})", outcome.verdict));
        if outcome.verdict != outcome.expected {
            text.push_str(&format!(", expected {}", outcome.expected));
            if (outcome.expected, outcome.verdict) == (Expected::Deny.as_str(), Expected::Error.as_str()) {
                text.push_str(
                    ": no policy denies it; correct the case, or write `expect: error` where that is meant",
                );
            }
        } else if !outcome.missing.is_empty() {
            text.push_str(&format!(", expected because of {}", visible(&outcome.missing.join(", "))));
        }
        text.push('\n');
    }
    text
}
