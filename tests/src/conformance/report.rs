//! What one run of the suite found, read from the `checks.json` of each scenario.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The length of what the suite adds to the name of a scenario's folder: `-2026-01-31T23-59-59-999Z`.
const TIMESTAMP_LENGTH: usize = 25;

/// All checks of one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    checks: BTreeMap<CheckName, Check>,
}

/// What identifies a check in every run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CheckName {
    /// The scenario that it belongs to.
    pub scenario: String,
    /// Its id, which several checks of a scenario may share.
    pub id: String,
    /// Its name, which tells them apart most of the time.
    pub name: String,
    /// Which one it is of those that share all this, from 0.
    pub number: usize,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What the suite says.
    pub status: Status,
    /// Why, if it says so.
    pub message: Option<String>,
}

/// What the suite says about a check. The order is from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// The server does as it must.
    Success,
    /// Nothing was judged.
    Info,
    /// The check did not apply.
    Skipped,
    /// The server does not do as it should.
    Warning,
    /// The server does not do as it must.
    Failure,
}

/// A check that came out differently in two runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The check.
    pub name: CheckName,
    /// Its status in the first run; `None` where it is absent.
    pub before: Option<Status>,
    /// Its status in the second run; `None` where it is absent.
    pub after: Option<Status>,
    /// What the second run says about it.
    pub message: Option<String>,
    /// Whether the second run is the worse one.
    pub is_regression: bool,
}

/// Why the results of a run cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// A file is not what the suite writes.
    #[error("{} is not a list of checks", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// There are no results at all.
    #[error("{} holds no results", .0.display())]
    Empty(PathBuf),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawCheck {
    id: String,
    name: String,
    status: Status,
    error_message: Option<String>,
}

impl Report {
    /// Reads the results below a folder.
    ///
    /// # Errors
    /// When there are none, or they cannot be read.
    pub fn read(folder: &Path) -> Result<Self, ReportError> {
        let io_error = |path: &Path, source| ReportError::Io { path: path.to_owned(), source };
        let mut checks = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(|source| io_error(folder, source))? {
            let entry = entry.map_err(|source| io_error(folder, source))?;
            let path = entry.path().join("checks.json");
            if !path.is_file() {
                continue;
            }
            let text = fs::read_to_string(&path).map_err(|source| io_error(&path, source))?;
            let scenario = scenario(&entry.file_name().to_string_lossy()).to_owned();
            let raw: Vec<RawCheck> =
                serde_json::from_str(&text).map_err(|source| ReportError::Json { path, source })?;
            for check in raw {
                insert(&mut checks, &scenario, check);
            }
        }
        if checks.is_empty() {
            return Err(ReportError::Empty(folder.to_owned()));
        }
        Ok(Self { checks })
    }

    /// How many checks have a status.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        let statuses = self.checks.values().map(|check| check.status);
        statuses.filter(|found| *found == status).count()
    }

    /// The checks that the server did not pass.
    pub fn failures(&self) -> impl Iterator<Item = (&CheckName, &Check)> {
        self.checks.iter().filter(|(_, check)| check.status == Status::Failure)
    }
}

/// Compares two runs of the same suite: all checks whose status differs, in the order of their names.
#[must_use]
pub fn compare(before: &Report, after: &Report) -> Vec<Difference> {
    let mut names: Vec<_> = before.checks.keys().chain(after.checks.keys()).collect();
    names.sort_unstable();
    names.dedup();
    names
        .into_iter()
        .filter_map(|name| {
            let first = before.checks.get(name).map(|check| check.status);
            let second = after.checks.get(name);
            let message = second.and_then(|check| check.message.clone());
            let second = second.map(|check| check.status);
            (first != second).then(|| Difference {
                name: name.clone(),
                before: first,
                after: second,
                message,
                is_regression: is_worse(first, second),
            })
        })
        .collect()
}

/// A check that is gone is worse than one that passed, and no worse than one that judged nothing.
fn is_worse(before: Option<Status>, after: Option<Status>) -> bool {
    let badness = |status: Option<Status>| match status {
        Some(Status::Success) => 0,
        Some(Status::Info | Status::Skipped) | None => 1,
        Some(Status::Warning) => 2,
        Some(Status::Failure) => 3,
    };
    // INFO in place of SUCCESS is how the suite reports an answer that is as good, only different.
    let as_good = before == Some(Status::Success) && after == Some(Status::Info);
    badness(after) > badness(before) && !as_good
}

fn insert(checks: &mut BTreeMap<CheckName, Check>, scenario: &str, raw: RawCheck) {
    let mut name = CheckName { scenario: scenario.to_owned(), id: raw.id, name: raw.name, number: 0 };
    while checks.contains_key(&name) {
        name.number += 1;
    }
    let check = Check { status: raw.status, message: raw.error_message };
    checks.insert(name, check);
}

fn scenario(folder: &str) -> &str {
    let name = folder.strip_prefix("server-").unwrap_or(folder);
    let end = name.len().saturating_sub(TIMESTAMP_LENGTH);
    match name.get(..end) {
        Some(scenario) if name.ends_with('Z') && !scenario.is_empty() => scenario,
        _ => name,
    }
}

impl fmt::Display for CheckName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, id, name, number } = self;
        write!(formatter, "{scenario} {id} {name} #{number}")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_regression { "REGRESSION" } else { "changed" };
        let status = |status: Option<Status>| match status {
            Some(status) => format!("{status:?}"),
            None => "Absent".to_owned(),
        };
        let (before, after) = (status(self.before), status(self.after));
        write!(formatter, "{kind} {}: {before} -> {after}", self.name)?;
        match &self.message {
            Some(message) => write!(formatter, ": {message}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &[(&str, Status)]) -> Report {
        let mut report = Report::default();
        for (id, status) in checks {
            let raw = RawCheck {
                id: (*id).to_owned(),
                name: "Name".to_owned(),
                status: *status,
                error_message: None,
            };
            insert(&mut report.checks, "scenario", raw);
        }
        report
    }

    fn regressions(before: &[(&str, Status)], after: &[(&str, Status)]) -> Vec<(String, bool)> {
        compare(&report(before), &report(after))
            .into_iter()
            .map(|difference| (difference.name.to_string(), difference.is_regression))
            .collect()
    }

    #[test]
    fn equal_runs_have_no_differences() {
        let checks = [("a", Status::Success), ("b", Status::Failure)];
        assert_eq!(regressions(&checks, &checks), vec![]);
    }

    #[test]
    fn a_check_that_fails_now_is_a_regression_and_one_that_passes_now_is_not() {
        let before = [("a", Status::Success), ("b", Status::Failure)];
        let after = [("a", Status::Failure), ("b", Status::Success)];
        assert_eq!(
            regressions(&before, &after),
            vec![("scenario a Name #0".to_owned(), true), ("scenario b Name #0".to_owned(), false),]
        );
    }

    #[test]
    fn a_check_that_is_gone_is_a_regression_only_if_it_had_passed() {
        let before = [("a", Status::Success), ("b", Status::Info)];
        assert_eq!(
            regressions(&before, &[]),
            vec![("scenario a Name #0".to_owned(), true), ("scenario b Name #0".to_owned(), false),]
        );
    }

    #[test]
    fn checks_that_share_all_names_are_compared_one_by_one() {
        let before = [("a", Status::Success), ("a", Status::Success)];
        let after = [("a", Status::Success), ("a", Status::Warning)];
        assert_eq!(regressions(&before, &after), vec![("scenario a Name #1".to_owned(), true)]);
    }

    #[test]
    fn a_different_answer_that_is_as_good_is_no_regression() {
        assert_eq!(
            regressions(&[("a", Status::Success)], &[("a", Status::Info)]),
            vec![("scenario a Name #0".to_owned(), false)]
        );
    }

    #[test]
    fn the_scenario_is_the_name_of_the_folder_without_its_time() {
        assert_eq!(scenario("server-tools-list-2026-11-22T16-57-10-918Z"), "tools-list");
        assert_eq!(scenario("tools-list"), "tools-list");
    }
}
