//! Document sets: the files, directories and standard input that `-f` names, as checked resources.
//!
//! Always holds: a set is valid document by document, or every problem of it is reported at once; a resource
//! stands in a set once; the order is that of the command line, then of paths, then of documents.

mod files;
mod parse;

use std::collections::HashMap;
use std::fmt;

use gantry_model::ResourceId;
use gantry_model::resource::Resource;
use gantry_wire::admin_v1::Problem;
use gantry_wire::resource_v1 as wire;
use serde_json::Value;

use crate::failure::Failure;

/// Most documents of one set: one set is one change, and a change has a bound.
const DOCUMENTS_MAX: usize = 2_048;

/// The flag that names a set.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct FileFlag {
    /// YAML or JSON file, directory (every .yaml, .yml and .json below it but *.test.*), or - for standard input; repeatable.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    files: Vec<String>,
}

/// The same flag where it may be absent.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct OptionalFileFlag {
    /// YAML or JSON file, directory (every .yaml, .yml and .json below it but *.test.*), or - for standard input; repeatable.
    #[arg(id = "file", short = 'f', long = "file", value_name = "FILE|DIR|-")]
    files: Vec<String>,
}

impl FileFlag {
    /// What these name; `None` where there is nothing.
    pub(crate) fn of(files: &[String]) -> Option<FileFlag> {
        (!files.is_empty()).then(|| FileFlag { files: files.to_vec() })
    }
}

impl OptionalFileFlag {
    /// The flag, when it was given.
    pub(crate) fn as_required(&self) -> Option<FileFlag> {
        FileFlag::of(&self.files)
    }
}

/// A file of cases for `gantry policy test`.
#[derive(Debug)]
pub(crate) struct CaseFile {
    /// Its path as it was named or found.
    pub(crate) name: String,
    /// What stands in it.
    pub(crate) value: Value,
}

/// Where a document stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file as it was named or found.
    pub(crate) file: String,
    /// Counts from 1 within the file.
    pub(crate) document: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:document {}", self.file, self.document)
    }
}

/// A checked document.
#[derive(Debug)]
pub(crate) struct Document {
    /// Where it stands.
    pub(crate) place: Place,
    /// What it says.
    pub(crate) resource: Resource,
}

/// The documents that a command line named; at least one.
#[derive(Debug)]
pub(crate) struct DocumentSet {
    documents: Vec<Document>,
    flags: String,
}

impl DocumentSet {
    /// Reads and checks everything that the flags name.
    pub(crate) fn read(flag: &FileFlag) -> Result<DocumentSet, Failure> {
        let flags = flag
            .files
            .iter()
            .map(|file| format!("-f {}", shell_words::quote(file)))
            .collect::<Vec<_>>()
            .join(" ");
        let files = files::read(&flag.files, false)?;
        let mut documents = Vec::new();
        let mut problems = Vec::new();
        for file in &files {
            parse::parse_file(file, &mut documents, &mut problems);
        }
        problems.extend(repeated(&documents));
        if documents.len() > DOCUMENTS_MAX {
            problems
                .push(format!("{} documents are more than {DOCUMENTS_MAX} in one change", documents.len()));
        }
        if !problems.is_empty() {
            return Err(refused(problems, &flags));
        }
        if documents.is_empty() {
            return Err(Failure::error(
                "there is no document in what -f names",
                "name a file with documents; `gantry get all -o yaml` shows their form",
            ));
        }
        Ok(DocumentSet { documents, flags })
    }

    /// The documents.
    pub(crate) fn documents(&self) -> &[Document] {
        &self.documents
    }

    /// The resources as messages, in the order of the documents.
    pub(crate) fn to_wire(&self) -> Vec<wire::Resource> {
        self.documents.iter().map(|document| (&document.resource).into()).collect()
    }

    /// The documents' ids as messages, in the order of the documents.
    pub(crate) fn ids(&self) -> Vec<wire::ResourceId> {
        self.documents.iter().map(|document| (&document.resource.id()).into()).collect()
    }

    /// The `-f` flags that name the set, for a next command.
    pub(crate) fn flags(&self) -> &str {
        &self.flags
    }

    /// What the server refused to apply, told by file and document.
    pub(crate) fn not_applied(&self, problems: &[Problem]) -> Failure {
        refused(self.lines(problems), &self.flags)
    }

    /// What the server refused to delete, told by file and document.
    pub(crate) fn not_deleted(&self, problems: &[Problem]) -> Failure {
        Failure::error("nothing was deleted", "`gantry get all` shows what is stored")
            .with_details(self.lines(problems))
    }

    fn lines(&self, problems: &[Problem]) -> Vec<String> {
        problems
            .iter()
            .map(|problem| {
                let document =
                    usize::try_from(problem.index).ok().and_then(|index| self.documents.get(index));
                let label = match document {
                    Some(document) => label(&document.place, &document.resource.id().to_string()),
                    None => "the set".to_owned(),
                };
                problem_line(&label, problem)
            })
            .collect()
    }
}

/// Reads documents and files of cases, the latter told by their names: `*.test.yaml`, `.yml`, `.json`.
pub(crate) fn read_with_cases(names: &[String]) -> Result<(Vec<Document>, Vec<CaseFile>), Failure> {
    let (mut documents, mut cases, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for file in files::read(names, true)? {
        if !file.is_cases {
            parse::parse_file(&file, &mut documents, &mut problems);
            continue;
        }
        for value in parse::values(&file) {
            match value {
                Ok(Value::Null) => {}
                Ok(value) => cases.push(CaseFile { name: file.name.clone(), value }),
                Err(why) => problems.push(line(&file.name, "", &why, None)),
            }
        }
    }
    problems.extend(repeated(&documents));
    if problems.is_empty() {
        return Ok((documents, cases));
    }
    let next = format!("correct them, then `gantry policy test {}`", shell_words::join(names));
    Err(Failure::error("the documents have problems; nothing was tested", next).with_details(problems))
}

/// A problem of a document's policy as a line.
pub(crate) fn problem_of(document: &Document, message: &str) -> String {
    line(&label(&document.place, &document.resource.id().to_string()), "spec.cedar", message, None)
}

/// A problem as a line, after the label of what has it.
pub(crate) fn problem_line(label: &str, problem: &Problem) -> String {
    line(
        label,
        &problem.path,
        &problem.message,
        Some(problem.nearest.as_str()).filter(|near| !near.is_empty()),
    )
}

fn label(place: &Place, id: &str) -> String {
    format!("{place} ({id})")
}

fn line(label: &str, path: &str, message: &str, nearest: Option<&str>) -> String {
    let mut line = label.to_owned();
    for part in [path, message] {
        if !part.is_empty() {
            line.push_str(": ");
            line.push_str(part);
        }
    }
    if let Some(nearest) = nearest {
        line.push_str("; nearest known name: ");
        line.push_str(nearest);
    }
    line
}

fn refused(lines: Vec<String>, flags: &str) -> Failure {
    let message = match lines.len() {
        1 => "the documents have a problem; nothing was applied".to_owned(),
        count => format!("the documents have {count} problems; nothing was applied"),
    };
    Failure::error(message, format!("correct the documents, then `gantry diff {flags}`")).with_details(lines)
}

fn repeated(documents: &[Document]) -> Vec<String> {
    let mut first: HashMap<ResourceId, &Place> = HashMap::with_capacity(documents.len());
    let mut lines = Vec::new();
    for document in documents {
        let id = document.resource.id();
        let label = label(&document.place, &id.to_string());
        match first.get(&id) {
            Some(place) => lines.push(line(&label, "", &format!("stands in {place} already"), None)),
            None => {
                first.insert(id, &document.place);
            }
        }
    }
    lines
}
