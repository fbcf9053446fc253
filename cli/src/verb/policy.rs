//! `gantry policy`: check Cedar text and test policies before they are applied, explain a decision after it was made.

mod cases;
mod offline;
mod test;

use std::fs;
use std::io::{self, Read};

use gantry_wire::admin_v1::{CheckPolicyRequest, PolicyProblem};

use self::test::Test;
use super::explain::Explain;
use crate::admin::Admin;
use crate::context::Access;
use crate::failure::{Exit, Failure};
use crate::output::{self, Paint};

/// Most bytes that are read; the server refuses a policy long before.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Check and test policies, and explain what they decided.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Policy {
    /// Check Cedar text against the tools that are there, without applying it.
    Check(Check),
    /// Run cases beside the policies on this machine, as nodes decide them; exit code 1 when one fails.
    Test(Test),
    /// Explain a decision: who, what, which policies, and what to do next.
    Explain(Explain),
}

/// `gantry policy check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// File with Cedar text, or - for standard input.
    #[arg(short, long, value_name = "FILE.cedar|-")]
    file: String,
    /// The policy that the text would replace.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl Policy {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Policy::Check(check) => check.run().await,
            Policy::Test(test) => test.run(),
            Policy::Explain(explain) => explain.run().await,
        }
    }
}

impl Check {
    async fn run(self) -> Result<Exit, Failure> {
        let text = self.read()?;
        let access = self.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let request =
            CheckPolicyRequest { tenant, name: self.name.clone().unwrap_or_default(), cedar: text.clone() };
        let answer = admin.ask(admin.service().check_policy(request), "`gantry get tenants`").await?;
        for warning in &answer.warnings {
            output::warn(&output::visible(warning));
        }
        let name = if self.file == "-" { "stdin" } else { &self.file };
        let count = answer.problems.len();
        if count == 0 {
            let policies = if answer.policy_count == 1 { "policy" } else { "policies" };
            output::print(&format!("{name}: {} {policies}, no problem\n", answer.policy_count))?;
            return Ok(Exit::Done);
        }
        for problem in &answer.problems {
            output::say(&diagnosis(name, &text, problem, Paint::stderr()));
        }
        let problems = if count == 1 { "problem" } else { "problems" };
        Err(Failure::error(
            format!("{name} has {count} {problems} and would be refused"),
            format!("correct it, then `gantry policy check -f {}`", shell_words::quote(&self.file)),
        ))
    }

    fn read(&self) -> Result<String, Failure> {
        let mut text = String::new();
        let mut read = |source: &mut dyn Read| source.take(TEXT_BYTES_MAX).read_to_string(&mut text);
        let outcome = match self.file.as_str() {
            "-" => read(&mut io::stdin().lock()),
            path => fs::File::open(path).and_then(|mut file| read(&mut file)),
        };
        match outcome {
            Ok(_) => Ok(text),
            Err(error) => Err(Failure::error(
                format!("{} cannot be read: {error}", self.file),
                "name a file with Cedar text, or `-f -`",
            )),
        }
    }
}

/// A problem with the line that has it and a caret below its column.
fn diagnosis(file: &str, text: &str, problem: &PolicyProblem, paint: Paint) -> String {
    let mut shown = format!("{} {}", paint.red("error:"), output::visible(&problem.message));
    let line = usize::try_from(problem.line).ok().and_then(|line| line.checked_sub(1));
    let number = problem.line.to_string();
    let margin = " ".repeat(number.len());
    match line.and_then(|line| text.lines().nth(line)) {
        Some(line) => {
            let before = usize::try_from(problem.column.saturating_sub(1)).unwrap_or(0);
            // A tab before the column stays a tab, so that the caret stands below its column.
            let blank: String = line
                .chars()
                .take(before)
                .map(|character| if character == '\t' { '\t' } else { ' ' })
                .collect();
            shown.push_str(&format!(
                "\n{margin}--> {file}:{number}:{}\n{margin} |\n{number} | {}\n{margin} | {blank}{}",
                problem.column,
                output::visible(line),
                paint.red("^"),
            ));
        }
        None => shown.push_str(&format!("\n --> {file}")),
    }
    if !problem.help.is_empty() {
        shown.push_str(&format!("\n{margin} = help: {}", output::visible(&problem.help)));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_and_a_caret() {
        let problem = PolicyProblem {
            line: 2,
            column: 8,
            message: "unexpected token `x`".to_owned(),
            help: "remove it".to_owned(),
        };
        let expected = "\
error: unexpected token `x`
 --> p.cedar:2:8
  |
2 | permit(x);
  |        ^
  = help: remove it";
        assert_eq!(diagnosis("p.cedar", "// one\npermit(x);\n", &problem, Paint::PLAIN), expected);
    }

    #[test]
    fn a_problem_without_a_place_names_the_file() {
        let problem = PolicyProblem { message: "no policy".to_owned(), ..PolicyProblem::default() };
        assert_eq!(diagnosis("p.cedar", "", &problem, Paint::PLAIN), "error: no policy\n --> p.cedar");
    }
}
