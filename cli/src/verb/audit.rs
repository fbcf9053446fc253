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

/// The latest `count` records of a tenant, or of all when it is empty, oldest first.
pub(crate) async fn latest(admin: &Admin, tenant: &str, count: u32) -> Result<Vec<AuditRecord>, Failure> {
    let request = TailRecordsRequest { last: count, follow: false, tenant: tenant.to_owned(), admin: false };
    let mut stream = admin.ask(admin.service().tail_records(request), "`gantry status`").await?;
    let mut records = Vec::new();
    while let Some(answer) = stream.message().await.map_err(|status| refused(&status, "`gantry status`"))? {
        if let Ok(record) = serde_json::from_slice(&answer.record) {
            records.push(record);
        }
    }
    Ok(records)
}
