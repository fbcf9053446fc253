//! `gantry audit tail`: recent audit records, then new ones as they come.

use gantry_wire::admin_v1::{TailRecordsRequest, TailRecordsResponse};

use crate::admin::{Admin, refused};
use crate::context::Access;
use crate::failure::{Exit, Failure};
use crate::output::{self, Paint, TextFormat};
use crate::record::AuditRecord;

/// Read audit records.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Audit {
    /// Show the latest records, and with --follow those that come.
    Tail(Tail),
}

/// `gantry audit tail`.
#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    /// How many past records to begin with.
    #[arg(short = 'n', long = "lines", value_name = "N", default_value_t = 20)]
    lines: u32,
    /// Show new records as they come, until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only of this tenant; every tenant when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Calls of admins to the control plane instead of agents' calls.
    #[arg(long = "admins")]
    admins: bool,
    /// A line per record for people, or the record's own JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
    #[command(flatten)]
    access: Access,
}

impl Audit {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Audit::Tail(tail) => tail.run().await,
        }
    }
}

impl Tail {
    async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.access.resolve()?).await?;
        let request = TailRecordsRequest {
            last: self.lines,
            follow: self.follow,
            tenant: self.tenant.clone().unwrap_or_default(),
            admin: self.admins,
        };
        let mut records = admin.ask(admin.service().tail_records(request), "`gantry status`").await?;
        let paint = Paint::stdout();
        let mut seen = false;
        while let Some(answer) =
            records.message().await.map_err(|status| refused(&status, "`gantry status`"))?
        {
            seen = true;
            self.show(&answer, paint)?;
        }
        if !seen {
            output::say("there is no record yet; `gantry tool call` makes one");
        }
        Ok(Exit::Done)
    }

    fn show(&self, answer: &TailRecordsResponse, paint: Paint) -> Result<(), Failure> {
        if answer.lost > 0 {
            output::warn(&format!("at least {} records were missed here", answer.lost));
        }
        if answer.record.is_empty() {
            return Ok(());
        }
        let raw = String::from_utf8_lossy(&answer.record);
        match (self.output, serde_json::from_str::<AuditRecord>(&raw)) {
            (TextFormat::Text, Ok(record)) => output::print(&format!("{}\n", record.line(paint))),
            (TextFormat::Text, Err(_)) | (TextFormat::Json, _) => {
                output::print(&format!("{}\n", raw.trim_end()))
            }
        }
    }
}

/// Records as they were told.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// Oldest first.
    pub(crate) records: Vec<AuditRecord>,
    /// What is not among them.
    pub(crate) missed: Missed,
}

/// Records that are not among those that were read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Missed {
    /// How many the control plane did not tell, at least.
    pub(crate) lost: u64,
    /// How many are in no form that is known here.
    pub(crate) unreadable: u64,
}

impl Missed {
    /// For people; empty where none is missing.
    pub(crate) fn lines(self) -> Vec<String> {
        let lost = format!("at least {} records were missed", self.lost);
        let unreadable = format!("{} records could not be read and were left out", self.unreadable);
        let lines = [(self.lost, lost), (self.unreadable, unreadable)];
        lines.into_iter().filter(|(count, _)| *count > 0).map(|(_, line)| line).collect()
    }
}

/// The latest `count` records of a tenant, or of all when it is empty.
pub(crate) async fn latest(admin: &Admin, tenant: &str, count: u32) -> Result<Latest, Failure> {
    let request = TailRecordsRequest { last: count, follow: false, tenant: tenant.to_owned(), admin: false };
    let mut stream = admin.ask(admin.service().tail_records(request), "`gantry status`").await?;
    let mut latest = Latest::default();
    while let Some(answer) = stream.message().await.map_err(|status| refused(&status, "`gantry status`"))? {
        latest.missed.lost = latest.missed.lost.saturating_add(answer.lost);
        match serde_json::from_slice(&answer.record) {
            Ok(record) => latest.records.push(record),
            // An answer may tell nothing but what was missed.
            Err(_) if answer.record.is_empty() => {}
            Err(_) => latest.missed.unreadable += 1,
        }
    }
    Ok(latest)
}
