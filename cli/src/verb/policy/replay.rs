//! `gantry policy check --replay`: what a candidate would answer to calls that were recorded.
//!
//! Always holds: both sides, the configuration as it is and with the candidate, are asked by the evaluator of nodes with what
//! the record tells and nothing else; what rests on more is counted as unknown. Nothing is written. Which records and
//! documents are seen is for the control plane to say: an admin of a tenant sees that tenant's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};

use gantry_model::{Definition, PolicyName, Resource, ResourceId, ServerName, Spec, TenantName};
use gantry_wire::admin_v1::ListToolsRequest;

use super::offline::Offline;
use super::recorded::Recorded;
use super::tally::{Seen, Tally};
use super::unreplayed::unreplayed;
use crate::admin::Admin;
use crate::context::AdminAccess;
use crate::documents::{Document, DocumentSet, FileFlag};
use crate::failure::{Exit, Failure};
use crate::output::{self, Paint, TextFormat};
use crate::record::AuditRecord;
use crate::verb::audit::{Missed, latest};
use crate::verb::get::get;

/// Records that the control plane keeps.
pub(super) const KEPT: u32 = 10_000;
/// Most records of one file; more take minutes.
const RECORDS_MAX: usize = 1_000_000;
/// Longest record, which is the control plane's bound on one.
const RECORD_BYTES_MAX: u64 = 1024 * 1024;

/// What is replayed.
pub(super) struct Replay<'a> {
    /// Documents that are laid over what is stored.
    pub(super) candidate: Option<&'a FileFlag>,
    /// Policies that are left out.
    pub(super) without: &'a [PolicyName],
    /// A file of records; those of the control plane when absent.
    pub(super) traffic: Option<&'a str>,
    /// How many of those.
    pub(super) last: u32,
    pub(super) output: TextFormat,
    /// The command line, for a next step.
    pub(super) again: String,
}

/// A tenant as it is, and as it would be.
struct Sides {
    present: Offline,
    candidate: Offline,
    /// Documents of the candidate with more in them than is compared.
    unreplayed: Vec<String>,
}

impl Replay<'_> {
    /// Runs it.
    pub(super) async fn run(&self, access: &AdminAccess, tenant: &str) -> Result<Exit, Failure> {
        let set = self.candidate.map(DocumentSet::read).transpose()?;
        let tenant: TenantName = tenant.parse().map_err(|error| {
            Failure::usage(format!("--tenant: {error}"), "name one of `gantry get tenants`")
        })?;
        let documents = set.as_ref().map_or(&[][..], |set| set.documents());
        if let Some(other) = documents.iter().find(|document| document.resource.tenant != tenant) {
            let message = format!("{} is of tenant {}, not {tenant}", other.place, other.resource.tenant);
            return Err(Failure::usage(
                message,
                "replay one tenant at a time: `--tenant NAME`, with its documents",
            ));
        }
        let admin = Admin::connect(access).await?;
        let sides = self.sides(&admin, &tenant, documents).await?;
        let mut tally = Tally::default();
        match self.traffic {
            None => {
                let latest = latest(&admin, tenant.as_str(), self.last).await?;
                latest.records.iter().for_each(|record| sides.count(record, &tenant, &mut tally));
                tally.missed = latest.missed;
            }
            Some("-") => {
                let count = |record| sides.count(&record, &tenant, &mut tally);
                tally.missed = read_all("stdin", &mut io::stdin().lock(), count)?;
            }
            Some(path) => {
                let file = File::open(path).map_err(|error| unreadable(path, &error.to_string()))?;
                let count = |record| sides.count(&record, &tenant, &mut tally);
                tally.missed = read_all(path, &mut BufReader::new(file), count)?;
            }
        }
        tally.unreplayed = sides.unreplayed;
        self.tell(&tally)
    }

    fn tell(&self, tally: &Tally) -> Result<Exit, Failure> {
        match self.output {
            TextFormat::Text => output::print(&tally.text(Paint::stdout()))?,
            TextFormat::Json => output::print(&output::json(&tally.report()))?,
        }
        for line in tally.remarks() {
            output::say(&line);
        }
        Ok(if tally.changes() == 0 { Exit::Done } else { Exit::Differs })
    }

    async fn sides(
        &self,
        admin: &Admin,
        tenant: &TenantName,
        documents: &[Document],
    ) -> Result<Sides, Failure> {
        let stored: Vec<Resource> =
            get(admin, "", tenant.as_str(), "").await?.into_iter().map(|(resource, _)| resource).collect();
        if !stored.iter().any(|resource| matches!(resource.spec, Spec::Tenant(_))) {
            let next = "`gantry get tenants` lists those that you may see";
            return Err(Failure::error(format!("there is no tenant {tenant}"), next));
        }
        let tools = tools(admin, tenant, &stored).await?;
        let wrong = |details: Vec<String>| {
            Failure::error(
                "the candidate would be refused; nothing was replayed",
                format!("correct it, then `{}`", self.again),
            )
            .with_details(details)
        };
        for name in self.without {
            if !stored.iter().any(|resource| resource.id() == ResourceId::policy(tenant, name)) {
                return Err(Failure::error(
                    format!("there is no policy {name} to be left out"),
                    format!("`gantry get policies --tenant {tenant}` lists them"),
                ));
            }
        }
        let present = Offline::unchecked(tenant, stored.iter(), tools.clone()).map_err(|why| {
            Failure::error(
                format!("what is stored cannot be compiled: {why}"),
                "`gantry status` shows what nodes make of it",
            )
        })?;
        let replaced: BTreeSet<ResourceId> = documents
            .iter()
            .map(|document| document.resource.id())
            .chain(self.without.iter().map(|name| ResourceId::policy(tenant, name)))
            .collect();
        let kept = stored.iter().filter(|resource| !replaced.contains(&resource.id()));
        let resources = kept.chain(documents.iter().map(|document| &document.resource));
        // What is stored was accepted; what is new has to fit.
        let gathered = Offline::unchecked(
            tenant,
            resources.clone().filter(|resource| !is_policy(resource)),
            tools.clone(),
        );
        let problems = gathered.map_err(|why| wrong(vec![why]))?.problems(tenant, documents);
        if !problems.is_empty() {
            return Err(wrong(problems));
        }
        let candidate = Offline::unchecked(tenant, resources, tools).map_err(|why| wrong(vec![why]))?;
        Ok(Sides { present, candidate, unreplayed: unreplayed(documents, &stored) })
    }
}

fn is_policy(resource: &Resource) -> bool {
    matches!(resource.spec, Spec::Policy(_))
}

/// What the tenant's servers offer. Each is asked for by itself, because the tools of all may not fit into one answer.
async fn tools(
    admin: &Admin,
    tenant: &TenantName,
    stored: &[Resource],
) -> Result<BTreeMap<ServerName, Vec<Definition>>, Failure> {
    let mut found = BTreeMap::new();
    for server in stored.iter().filter(|resource| matches!(resource.spec, Spec::Server(_))) {
        let offered = offered(admin, tenant.as_str(), server.name.as_str()).await?;
        if !offered.is_empty() {
            found.insert(ServerName::from(server.name.clone()), offered);
        }
    }
    Ok(found)
}

/// The definitions of a server's tools, as they are recorded.
pub(super) async fn offered(admin: &Admin, tenant: &str, server: &str) -> Result<Vec<Definition>, Failure> {
    let request = ListToolsRequest {
        tenant: tenant.to_owned(),
        server: server.to_owned(),
        agent: String::new(),
        definitions: true,
    };
    let next = format!("`gantry get servers --tenant {tenant}` lists the servers");
    let answer = admin.ask(admin.service().list_tools(request), &next).await?;
    // A member that does not know the flag leaves them out, and every tool would seem to take nothing.
    if answer.tools.iter().any(|tool| tool.definition.is_empty()) {
        return Err(Failure::error(
            "the control plane is of an earlier build, which does not tell what tools take",
            "upgrade every member first, or use the `gantry` of that build",
        ));
    }
    let of_server = answer.tools.into_iter();
    Ok(of_server.map(|tool| Definition::new(tool.name.as_str(), tool.definition.as_str())).collect())
}

impl Sides {
    fn count(&self, record: &AuditRecord, tenant: &TenantName, tally: &mut Tally) {
        // Calls of admins ask no policy.
        if record.kind.as_deref() == Some("admin") {
            return tally.skip(Seen::Undecided);
        }
        match record.tenant.as_deref() {
            // Whoever was stopped before a tenant was known was asked about by no policy.
            None | Some("") => return tally.skip(Seen::Undecided),
            Some(of) if of != tenant.as_str() => return tally.skip(Seen::OfAnother),
            Some(_) => {}
        }
        let Some(read) = Recorded::of(record) else { return tally.skip(Seen::Undecided) };
        let (before, after) = match &read {
            Ok(recorded) => (recorded.decide(&self.present), recorded.decide(&self.candidate)),
            Err(why) => (Err(why.clone()), Err(why.clone())),
        };
        let what =
            read.as_ref().map(|recorded| (recorded.agent.to_string(), recorded.asked.to_string())).ok();
        tally.add(record, what, before, after);
    }
}

/// Reads records, one JSON object a line, as `gantry audit tail -o json` and the files of nodes have them. Lines that are
/// none, such as one that a node was writing when it died, are left out and counted, unless no other is there.
fn read_all(
    name: &str,
    source: &mut dyn BufRead,
    mut take: impl FnMut(AuditRecord),
) -> Result<Missed, Failure> {
    let (mut line, mut missed, mut count, mut first) = (Vec::new(), Missed::default(), 0, None);
    for number in 1.. {
        let is_whole = read_line(source, &mut line).map_err(|error| unreadable(name, &error.to_string()))?;
        if is_whole && line.is_empty() {
            break;
        }
        if number > RECORDS_MAX {
            return Err(unreadable(name, &format!("it has more than {RECORDS_MAX} records")));
        }
        let read = match is_whole {
            true if line.iter().all(u8::is_ascii_whitespace) => continue,
            true => serde_json::from_slice(&line).map_err(|error| format!("is no record: {error}")),
            false => Err(format!("is longer than {RECORD_BYTES_MAX} bytes")),
        };
        match read {
            Ok(record) => {
                count += 1;
                take(record);
            }
            Err(why) => {
                missed.unreadable += 1;
                first.get_or_insert_with(|| format!("line {number} {why}"));
            }
        }
    }
    match first {
        Some(why) if count == 0 => Err(unreadable(name, &format!("it has no record; {why}"))),
        _ => Ok(missed),
    }
}

/// Reads a line with its end, which is empty where there is no more; `false`: it is too long, and was passed over.
fn read_line(mut source: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    (&mut source).take(RECORD_BYTES_MAX + 1).read_until(b'\n', line)?;
    let is_whole = line.len() as u64 <= RECORD_BYTES_MAX;
    let mut has_more = !is_whole && !line.ends_with(b"\n");
    while has_more {
        let ahead = source.fill_buf()?;
        let end = ahead.iter().position(|byte| *byte == b'\n');
        has_more = end.is_none() && !ahead.is_empty();
        let passed = end.map_or(ahead.len(), |end| end + 1);
        source.consume(passed);
    }
    Ok(is_whole)
}

fn unreadable(name: &str, why: &str) -> Failure {
    Failure::error(
        format!("{name}: {why}"),
        "name a file of records, one a line: `gantry audit tail -n 10000 --tenant NAME -o json > FILE` writes one",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many records were read and how many lines were not, or why none was.
    fn read(text: &str) -> Result<(usize, u64), String> {
        let mut count = 0;
        let missed = read_all("f", &mut BufReader::with_capacity(7, text.as_bytes()), |_| count += 1);
        missed.map(|missed| (count, missed.unreadable)).map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn lines_that_are_no_records_are_counted_and_a_file_of_nothing_else_is_refused() {
        let long = format!("{{\"tool\":\"{}\"}}", "x".repeat(RECORD_BYTES_MAX as usize));
        assert_eq!(read(""), Ok((0, 0)));
        assert_eq!(read("{}\n\n{\"tool\":\"a\"}"), Ok((2, 0)));
        assert_eq!(read(&format!("{{}}\n{long}\n{{\"tool\":\"a\n{{}}\n")), Ok((2, 2)));
        assert_eq!(read(&format!("{{}}\n{long}")), Ok((1, 1)), "it ends without a line's end");
        let refused = read("\n{\"to\n").expect_err("refused");
        assert!(refused.contains("f: it has no record; line 2 is no record:"), "{refused}");
        let refused = read(&format!("{long}\nx\n")).expect_err("refused");
        assert!(refused.contains("line 1 is longer than 1048576 bytes"), "{refused}");
    }
}
