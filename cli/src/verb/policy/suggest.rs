//! `gantry policy suggest`: which arguments of tools are SQL, paths, URLs or command lines, as a proposal.
//!
//! Always holds: nothing is changed; what is declared already is kept and not proposed again; what only sounds so stands in a
//! comment and not in the document.

use std::collections::BTreeMap;
use std::fs;

use gantry_model::document;
use gantry_model::inspection::Form;
use gantry_model::resource::{ARGUMENT_PLACES_MAX, Inspection, Resource};
use gantry_model::{Definition, Spec};
use serde::Serialize;
use serde_json::{Value, json};

use super::guess::{Found, Guess, Trust, guesses};
use super::offline::definitions;
use super::replay::offered;
use crate::admin::Admin;
use crate::context::Access;
use crate::failure::{Exit, Failure};
use crate::output::{self, TextFormat, visible};
use crate::verb::get::get;

/// Most bytes of a file of tools: as much as a server's catalog may have, and as much again.
const TOOLS_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Shown with `--help`.
pub(super) const EXAMPLES: &str = "Examples:
  gantry policy suggest files                     the Server document with what is proposed, and why
  gantry policy suggest > servers.yaml            for all servers; look at it, then `gantry diff -f servers.yaml`
  gantry policy suggest --tools files.tools.json  of a file with an answer to `tools/list`; asks no control plane";

/// `gantry policy suggest`.
#[derive(Debug, clap::Args)]
pub(crate) struct Suggest {
    /// The server; every one of the tenant when absent.
    #[arg(conflicts_with = "tools")]
    server: Option<String>,
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// A JSON file with what a server answers to `tools/list`, in place of what is recorded.
    #[arg(long, value_name = "FILE")]
    tools: Option<String>,
    /// YAML to look at and apply, or JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
    #[command(flatten)]
    access: Access,
}

/// What is proposed for one server.
struct Proposal {
    /// The server as it is stored; absent where tools are of a file.
    server: Option<Resource>,
    /// By tool, of those that are not declared.
    guesses: BTreeMap<String, Vec<Guess>>,
    /// Tools of which not all was looked at.
    cut: Vec<String>,
    tools: usize,
}

/// One guess for programs.
#[derive(Debug, Serialize)]
struct Told<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<&'a str>,
    tool: &'a str,
    place: &'a str,
    form: Form,
    trust: &'static str,
    reasons: &'a [String],
}

impl Suggest {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let proposals = match &self.tools {
            Some(file) => vec![Proposal::of(None, &read_tools(file)?, &[])],
            None => self.recorded().await?,
        };
        match self.output {
            TextFormat::Text => {
                output::print(&yaml(&proposals))?;
            }
            TextFormat::Json => {
                output::print(&output::json(&proposals.iter().flat_map(Proposal::told).collect::<Vec<_>>()))?;
            }
        }
        for tool in proposals.iter().flat_map(|proposal| &proposal.cut) {
            output::warn(&format!("the schema of {} leads to more than is looked at", visible(tool)));
        }
        output::say(&self.remark(&proposals));
        Ok(Exit::Done)
    }

    /// How much is proposed, and what to do with it.
    fn remark(&self, proposals: &[Proposal]) -> String {
        let count = |trusted: bool| {
            let all = proposals.iter().flat_map(|proposal| proposal.guesses.values()).flatten();
            all.filter(|guess| (guess.trust >= Trust::Likely) == trusted).count()
        };
        let tools: usize = proposals.iter().map(|proposal| proposal.tools).sum();
        let (proposed, perhaps) = match (tools, count(true), count(false)) {
            (0, ..) => return "no tool is known; `gantry status` shows what each server said".to_owned(),
            (tools, 0, 0) => return format!("{tools} tools, and nothing to propose"),
            (_, proposed, perhaps) => (proposed, perhaps),
        };
        let next = match &self.tools {
            _ if proposed == 0 => "",
            // Nothing tells of which server they are, so this is a part of its document.
            Some(_) => "; look at each, and put it under `spec` of the Server",
            None => "; look at each, then `gantry apply -f FILE` declares them",
        };
        format!(
            "{tools} tools: {proposed} declarations proposed, {perhaps} more that only sound so; nothing was changed{next}"
        )
    }

    async fn recorded(&self) -> Result<Vec<Proposal>, Failure> {
        let access = self.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let named = self.server.as_deref().unwrap_or_default();
        let servers = get(&admin, "Server", &tenant, named).await?;
        if servers.is_empty() && !named.is_empty() {
            return Err(Failure::error(
                format!("there is no server {named:?} in tenant {tenant}"),
                format!("`gantry get servers --tenant {tenant}` lists them"),
            ));
        }
        let of_tenant = get(&admin, "Tenant", &tenant, &tenant).await?;
        let of_tenant = of_tenant.into_iter().find_map(|(resource, _)| match resource.spec {
            Spec::Tenant(spec) => Some(spec.inspection),
            _ => None,
        });
        let mut proposals = Vec::new();
        for (server, _) in servers {
            let tools = offered(&admin, &tenant, server.name.as_str()).await?;
            proposals.push(Proposal::of(Some(server), &tools, of_tenant.as_slice()));
        }
        Ok(proposals)
    }
}

fn read_tools(file: &str) -> Result<Vec<Definition>, Failure> {
    let unread = |why: String| {
        Failure::error(
            format!("{file}: {why}"),
            "name a JSON file with a list of tools, or with an object that has `tools`, as a server answers `tools/list`",
        )
    };
    let bytes = fs::metadata(file).map_err(|error| unread(error.to_string()))?.len();
    if bytes > TOOLS_BYTES_MAX {
        return Err(unread(format!("it has {bytes} bytes, more than {TOOLS_BYTES_MAX}")));
    }
    let text = fs::read_to_string(file).map_err(|error| unread(error.to_string()))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| unread(error.to_string()))?;
    // An answer as it came has the result within.
    definitions(value.get("result").unwrap_or(&value)).map_err(unread)
}

/// What is proposed for all of them. One that has only comments is no document, so nothing parts it from others.
fn yaml(proposals: &[Proposal]) -> String {
    let (mut text, mut has_document) = (String::new(), false);
    for proposal in proposals {
        let is_document = proposal.trusted().next().is_some();
        if has_document && is_document {
            text.push_str("---\n");
        }
        text.push_str(&proposal.yaml());
        has_document |= is_document;
    }
    text
}

impl Proposal {
    fn of(server: Option<Resource>, tools: &[Definition], of_tenant: &[Inspection]) -> Proposal {
        let of_server = match server.as_ref().map(|server| &server.spec) {
            Some(Spec::Server(spec)) => Some(&spec.inspection),
            _ => None,
        };
        let (mut found, mut cut) = (BTreeMap::new(), Vec::new());
        for tool in tools {
            let own = of_server.and_then(|inspection| inspection.tools.get(&*tool.name));
            let layers: Vec<&Inspection> = of_tenant.iter().chain(of_server).chain(own).collect();
            let is_declared = |place: &str| layers.iter().any(|layer| layer.arguments.contains_key(place));
            let room = ARGUMENT_PLACES_MAX.saturating_sub(own.map_or(0, |own| own.arguments.len()));
            let definition: Value = serde_json::from_str(&tool.json).unwrap_or_default();
            let Found { guesses, is_cut } = guesses(&definition);
            if is_cut {
                cut.push(tool.name.to_string());
            }
            let guessed = guesses.into_iter().filter(|guess| !is_declared(&guess.place));
            let guessed: Vec<Guess> = guessed.take(room).collect();
            if !guessed.is_empty() {
                found.insert(tool.name.to_string(), guessed);
            }
        }
        Proposal { server, guesses: found, cut, tools: tools.len() }
    }

    /// What goes into the document, by tool.
    fn trusted(&self) -> impl Iterator<Item = (&String, Vec<&Guess>)> {
        self.guesses.iter().filter_map(|(tool, guesses)| {
            let trusted: Vec<&Guess> = guesses.iter().filter(|guess| guess.trust >= Trust::Likely).collect();
            (!trusted.is_empty()).then_some((tool, trusted))
        })
    }

    /// The reasons as comments, then the document, or the part of it that tools of a file have.
    fn yaml(&self) -> String {
        let mut text = String::new();
        let mut perhaps = String::new();
        for (tool, guesses) in &self.guesses {
            for guess in guesses {
                let Guess { place, form, trust, reasons } = guess;
                let line = format!(
                    "#   {}: {} is {} ({}): {}\n",
                    visible(tool),
                    visible(place),
                    form.as_str(),
                    trust.as_str(),
                    visible(&reasons.join("; "))
                );
                if *trust >= Trust::Likely { &mut text } else { &mut perhaps }.push_str(&line);
            }
        }
        let what =
            self.server.as_ref().map_or("the server".to_owned(), |server| format!("server {}", server.name));
        let mut shown = String::new();
        if !text.is_empty() {
            shown.push_str(&format!("# What the arguments of {what} seem to be made of, and why:\n{text}"));
            shown.push_str("# What filters find in them is reported; `filters: {sql: block}` beside `tools` would refuse it.\n");
        }
        if !perhaps.is_empty() {
            shown.push_str(&format!("# Perhaps, and not proposed:\n{perhaps}"));
        }
        if text.is_empty() {
            return shown;
        }
        shown + &self.document()
    }

    fn document(&self) -> String {
        let Some(Resource { tenant, name, spec: Spec::Server(spec) }) = self.server.clone() else {
            let tools = self.trusted().map(|(tool, guesses)| {
                let places = guesses.iter().map(|guess| (guess.place.clone(), json!(guess.form)));
                (tool.clone(), json!({"arguments": Value::Object(places.collect())}))
            });
            return output::yaml(&json!({"inspection": {"tools": Value::Object(tools.collect())}}));
        };
        let mut spec = spec;
        for (tool, guesses) in self.trusted() {
            let arguments = &mut spec.inspection.tools.entry(tool.clone()).or_default().arguments;
            arguments.extend(guesses.iter().map(|guess| (guess.place.clone(), guess.form)));
        }
        output::yaml(&document::Document::from(&Resource { tenant, name, spec: Spec::Server(spec) }))
    }

    fn told(&self) -> Vec<Told<'_>> {
        let server = self.server.as_ref().map(|server| server.name.as_str());
        let told =
            self.guesses.iter().flat_map(|(tool, guesses)| guesses.iter().map(move |guess| (tool, guess)));
        told.map(|(tool, Guess { place, form, trust, reasons })| Told {
            server,
            tool,
            place,
            form: *form,
            trust: trust.as_str(),
            reasons,
        })
        .collect()
    }
}
