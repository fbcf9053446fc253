//! `gantry policy`: check, replay and test policies before they are applied, say what arguments are, explain a decision after
//! it was made.

mod cases;
mod guess;
mod offline;
mod recorded;
mod replay;
mod suggest;
mod tally;
mod test;
mod unreplayed;

use std::fs;
use std::io::{self, Read};

use gantry_model::PolicyName;
use gantry_wire::admin_v1::{CheckPolicyRequest, PolicyProblem};

use self::replay::Replay;
use self::suggest::Suggest;
use self::test::Test;
use super::explain::Explain;
use crate::admin::Admin;
use crate::context::Access;
use crate::documents::FileFlag;
use crate::failure::{Exit, Failure};
use crate::output::{self, Paint, TextFormat};

/// Most bytes that are read; the server refuses a policy long before.
const TEXT_BYTES_MAX: u64 = 1024 * 1024;

/// Check, replay and test policies, say what arguments are, and explain what was decided.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Policy {
    /// Check Cedar text against the tools that are there, or documents against recorded calls; applies nothing.
    ///
    /// With --replay, documents are laid over what is stored, and the calls that were recorded are decided by both, on this
    /// machine and by the evaluator of nodes. Printed is which answers would be others, by agent and call; exit code 3 when one
    /// would. What a record does not tell, because it was redacted or cut, is never guessed: where a decision rests on it, it is
    /// counted as unknown.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(Check),
    /// Run cases beside the policies on this machine, as nodes decide them; exit code 1 when one fails.
    Test(Test),
    /// Propose which arguments of a server's tools are SQL, paths, URLs or command lines; changes nothing.
    #[command(after_help = suggest::EXAMPLES)]
    Suggest(Suggest),
    /// Explain a decision: who, what, which policies, and what to do next.
    Explain(Explain),
}

const CHECK_EXAMPLES: &str = "Examples:
  gantry policy check -f careful.cedar --name careful
  gantry policy check --replay -f policies/
  gantry policy check --replay --without careful -o json
  gantry audit tail -n 10000 -o json > calls.jsonl && gantry policy check --replay -f policies/ --traffic calls.jsonl";

/// `gantry policy check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Check {
    /// File with Cedar text, or - for standard input; with --replay documents, as `gantry diff` takes them, repeatable.
    #[arg(short, long, value_name = "FILE", required_unless_present = "replay")]
    file: Vec<String>,
    /// The policy that the text would replace.
    #[arg(long, value_name = "NAME", conflicts_with = "replay")]
    name: Option<String>,
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Decide recorded calls anew with the documents, and print which answers would be others.
    #[arg(long)]
    replay: bool,
    /// Leave out a policy that is stored; repeatable.
    #[arg(long, value_name = "POLICY", requires = "replay")]
    without: Vec<PolicyName>,
    /// Records, one JSON object a line, or - for standard input; those that the control plane keeps when absent.
    #[arg(long, value_name = "FILE", requires = "replay")]
    traffic: Option<String>,
    /// How many of the records that the control plane keeps.
    #[arg(long, value_name = "N", requires = "replay", conflicts_with = "traffic", default_value_t = replay::KEPT)]
    last: u32,
    /// Form of what --replay prints.
    #[arg(short, long, value_enum, default_value_t, requires = "replay")]
    output: TextFormat,
    #[command(flatten)]
    access: Access,
}

impl Policy {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Policy::Check(check) => check.run().await,
            Policy::Test(test) => test.run(),
            Policy::Suggest(suggest) => suggest.run().await,
            Policy::Explain(explain) => explain.run().await,
        }
    }
}

impl Check {
    async fn run(self) -> Result<Exit, Failure> {
        if self.replay {
            return self.replay().await;
        }
        let [file] = self.file.as_slice() else {
            return Err(Failure::usage("only --replay takes several files", "name one file with Cedar text"));
        };
        let text = read(file)?;
        let access = self.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let request =
            CheckPolicyRequest { tenant, name: self.name.clone().unwrap_or_default(), cedar: text.clone() };
        let answer = admin.ask(admin.service().check_policy(request), "`gantry get tenants`").await?;
        for warning in &answer.warnings {
            output::warn(&output::visible(warning));
        }
        let name = if file == "-" { "stdin" } else { file };
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
            format!("correct it, then `gantry policy check -f {}`", shell_words::quote(file)),
        ))
    }

    async fn replay(&self) -> Result<Exit, Failure> {
        if self.file.is_empty() && self.without.is_empty() {
            return Err(Failure::usage(
                "there is nothing to compare with",
                "name documents with -f, or a policy with --without",
            ));
        }
        let is_stdin = |name: &String| name == "-";
        if self.traffic.as_ref().is_some_and(is_stdin) && self.file.iter().any(is_stdin) {
            return Err(Failure::usage("standard input is named twice", "name a file for one of both"));
        }
        let files = self.file.iter().map(|file| format!(" -f {}", shell_words::quote(file)));
        let candidate = FileFlag::of(&self.file);
        let replay = Replay {
            candidate: candidate.as_ref(),
            without: &self.without,
            traffic: self.traffic.as_deref(),
            last: self.last,
            output: self.output,
            again: format!("gantry policy check --replay{}", files.collect::<String>()),
        };
        let access = self.access.resolve()?;
        replay.run(&access, &access.tenant_or(self.tenant.as_deref())?).await
    }
}

fn read(file: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let mut read = |source: &mut dyn Read| source.take(TEXT_BYTES_MAX).read_to_string(&mut text);
    let outcome = match file {
        "-" => read(&mut io::stdin().lock()),
        path => fs::File::open(path).and_then(|mut file| read(&mut file)),
    };
    match outcome {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::error(
            format!("{file} cannot be read: {error}"),
            "name a file with Cedar text, or `-f -`",
        )),
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
