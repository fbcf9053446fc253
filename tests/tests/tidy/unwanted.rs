//! Code that is not left behind: unfinished, silenced, printing, panicking, waiting by the clock; and secrets that are
//! opened where nobody looks for it.

use crate::finding::{Finding, expect_none};
use crate::source::{Role, Source};
use crate::test_regions::attributes;
use crate::tree::tree;

/// Macros that mark unfinished work.
const UNFINISHED: [&str; 3] = ["dbg", "todo", "unimplemented"];

/// Macros that print.
const PRINTING: [&str; 4] = ["eprint", "eprintln", "print", "println"];

/// Ways to wait by the clock.
const SLEEPS: [&str; 2] = ["sleep", "sleep_until"];

/// Functions of tests, and of what they stand on, that may wait by the clock.
const SLEEPERS: [(&str, &str, &str); 11] = [
    (
        "control-plane/src/raft/runtime.rs",
        "sleep",
        "openraft asks for it, in virtual time where one is simulated",
    ),
    ("control-plane/src/raft/runtime.rs", "sleep_until", "the same"),
    ("tests/src/eventually.rs", "soon", "polls what has no notification, with a deadline"),
    ("tests/src/fixture/plain.rs", "call", "the tool is slow: it outlasts a dropped stream"),
    ("tests/src/fixture/session.rs", "call", "the tool is slow: messages arrive one by one"),
    ("tests/src/fixture/session.rs", "progress", "the tool is slow: progress arrives step by step"),
    ("tests/src/fixture/tasks.rs", "call", "the tool is slow: for as long as the caller says"),
    ("tests/src/fixture/tasks.rs", "compute", "the task is slow: for as long as the caller says"),
    ("tests/src/fixture/tasks.rs", "failing_job", "the task is slow: it fails while it is watched"),
    ("tests/tests/system_approval_kill.rs", "kill_after", "kills at a moment that a seed chooses"),
    ("tests/src/peers/install.rs", "lock", "polls a lock that another process holds, with a deadline"),
];

/// Files that open a secret outside of tests.
const OPENERS: [(&str, &str); 47] = [
    ("cli/src/context/file.rs", "writes the context file, which only its owner can read"),
    ("cli/src/dev/announce.rs", "prints key and token of a new `dev` for the person who started it"),
    (
        "cli/src/dev/directory.rs",
        "writes the tokens of nodes and members into files that only their owner can read",
    ),
    ("cli/src/dev/planes.rs", "hands the tokens to the planes in the same process"),
    (
        "cli/src/dev/setup.rs",
        "stores headers of an imported file as credentials, and looks up the key it made",
    ),
    ("cli/src/mcp/transport.rs", "sends the agent key with each call"),
    ("cli/src/verb/admin/certificate.rs", "writes the key of an admin into a file of its own"),
    ("cli/src/verb/cluster/backup.rs", "writes the operator's new backup key into a file of its own"),
    ("cli/src/verb/cluster/make.rs", "joins with a token"),
    ("cli/src/verb/cluster/restore.rs", "reads the operator's backup key from its file"),
    ("cli/src/verb/control_plane.rs", "writes the admin token into its file, which only its owner can read"),
    ("cli/src/verb/credential.rs", "sends what was read from standard input to the vault"),
    (
        "cli/src/verb/data_plane/proof.rs",
        "hands the node token to the node in the same process, or joins with a token",
    ),
    (
        "cli/src/verb/login.rs",
        "writes the token of an issuer into a file of its own, and asks for it with a code",
    ),
    ("control-plane/src/access.rs", "hashes tokens, to compare them in constant time"),
    ("control-plane/src/access/identity.rs", "compares the presented admin token with the stored hash"),
    ("control-plane/src/admin/admins.rs", "shows a new admin token to who made it, once"),
    ("control-plane/src/admin/enrolment.rs", "shows a new join token to who made it, once"),
    (
        "control-plane/src/backup/file.rs",
        "puts the root key into a backup, which is sealed as a whole, and back",
    ),
    ("control-plane/src/ca.rs", "makes the authority's signing key of what the vault opened"),
    ("control-plane/src/admin/credential.rs", "refuses a secret that no header could carry"),
    ("control-plane/src/admin/keys.rs", "shows a new agent key to who made it, once"),
    ("control-plane/src/options.rs", "refuses tokens that are too short, or the same"),
    ("control-plane/src/vault.rs", "the vault"),
    ("control-plane/src/vault/backup_key.rs", "the vault: seals a backup's own key to the operator's"),
    ("control-plane/src/vault/refound.rs", "the vault: opens what the old cluster sealed, to seal it anew"),
    ("control-plane/src/vault/envelope.rs", "the vault: encrypts and decrypts"),
    (
        "control-plane/src/vault/node_keys.rs",
        "the vault: puts the keys that all nodes share into one sealed message",
    ),
    ("control-plane/src/vault/key_file.rs", "the vault: writes its root key into its file"),
    ("data-plane/src/config/holdings.rs", "makes keys of the cluster's key bytes"),
    ("data-plane/src/config/server.rs", "joins prefix and secret, once per update"),
    ("data-plane/src/pipeline/authenticate.rs", "compares the presented key with the stored hash"),
    ("data-plane/src/pipeline/credential.rs", "the credential stage"),
    (
        "data-plane/src/sync/distrust.rs",
        "reads a file that is its owner's alone, and has nothing that is secret",
    ),
    ("data-plane/src/sync/last_known_good/contents.rs", "seals what a node serves into its file, and back"),
    ("data-plane/src/sync/last_known_good/key.rs", "writes the key of these files into its own file"),
    ("data-plane/src/sync/last_known_good/sealed.rs", "derives the key of a file"),
    ("data-plane/src/upstream/discovery.rs", "hashes a credential, to see whether it has changed"),
    (
        "proto/model/src/key.rs",
        "writes the secret of an agent key into the key's text, which is a secret too",
    ),
    ("proto/node/src/bearer.rs", "puts a token on each call of its bearer"),
    ("proto/node/src/seal.rs", "seals a secret to one node"),
    ("proto/node/src/membership/join.rs", "gives a join token to the control plane of its cluster"),
    ("proto/node/src/membership/file.rs", "writes and reads the key of a process in its own file"),
    (
        "proto/node/src/tls/files.rs",
        "hands the key of an organisation's file to rustls, and sees whether it has changed",
    ),
    ("proto/node/src/tls/request.rs", "hands a new key to rustls, and to the file that keeps it"),
    (
        "proto/node/src/token.rs",
        "writes the secret of a join token into the token's text, which is a secret too",
    ),
    ("proto/node/src/tls/presenter.rs", "hands the key of a certificate to rustls"),
];

#[test]
fn nothing_is_left_unfinished() {
    let findings = tree().sources.iter().flat_map(|source| calls(source, &UNFINISHED, "!")).collect();
    expect_none(findings, "finish it, or leave it out and let the README say that it is absent");
}

#[test]
fn libraries_do_not_print() {
    let findings = tree().sources.iter().flat_map(prints).collect();
    expect_none(findings, "return it, or record it as an event of `tracing`");
}

#[test]
fn no_lint_is_allowed_away_and_no_test_is_ignored() {
    let findings = tree().sources.iter().flat_map(silencing_attributes).collect();
    expect_none(
        findings,
        "mend the cause, or use `#[expect(lint, reason = \"...\")]`; a test runs or is removed",
    );
}

#[test]
fn nothing_but_tests_unwraps() {
    let findings = tree().sources.iter().flat_map(unwraps).collect();
    expect_none(findings, "return an error, or `expect` with the reason why it cannot happen");
}

#[test]
fn tests_wait_for_conditions_and_not_for_time() {
    let (findings, used) = in_listed(sleeps_of_tests, |source, at| {
        let name = source.function_at(at).map_or("", |function| function.name.as_str());
        SLEEPERS.iter().position(|row| (row.0, row.1) == (source.path.as_str(), name))
    });
    let unused =
        unused(&used, SLEEPERS.map(|row| (row.0, format!("{} is in SLEEPERS, but does not wait", row.1))));
    let mend = "wait for a notification, or poll with a deadline in a function that SLEEPERS in \
                tests/tests/tidy/unwanted.rs lists with its reason";
    expect_none(findings.into_iter().chain(unused).collect(), mend);
}

#[test]
fn secrets_are_opened_in_known_places_only() {
    let (findings, used) =
        in_listed(openings, |source, _| OPENERS.iter().position(|row| row.0 == source.path.as_str()));
    let unused = unused(&used, OPENERS.map(|row| (row.0, "is in OPENERS, but opens no secret".to_owned())));
    let mend = "hand the secret on as it is, or add the file with its reason to OPENERS in \
                tests/tests/tidy/unwanted.rs";
    expect_none(findings.into_iter().chain(unused).collect(), mend);
}

/// The places that no row of a list covers, and the rows that cover one.
fn in_listed(
    places: impl Fn(&'static Source) -> Vec<usize>,
    row: impl Fn(&Source, usize) -> Option<usize>,
) -> (Vec<Finding>, Vec<usize>) {
    let (mut findings, mut used) = (Vec::new(), Vec::new());
    for source in &tree().sources {
        for at in places(source) {
            match row(source, at) {
                Some(row) => used.push(row),
                None => findings.push(source.finding(at, line_at(source, at))),
            }
        }
    }
    (findings, used)
}

fn unused<'a, const N: usize>(
    used: &[usize],
    rows: [(&'a str, String); N],
) -> impl Iterator<Item = Finding> + 'a {
    let used = used.to_vec();
    let unused = rows.into_iter().enumerate().filter(move |(row, _)| !used.contains(row));
    unused.map(|(_, (path, what))| Finding::new(path, 1, what))
}

/// The line of an offset, as it is written.
fn line_at(source: &Source, at: usize) -> &str {
    source.text.lines().nth(source.line(at) - 1).unwrap_or_default().trim()
}

fn calls(source: &Source, names: &[&'static str], after: &'static str) -> Vec<Finding> {
    let places = names.iter().flat_map(|name| source.places(&[], name, after));
    places.map(|at| source.finding(at, line_at(source, at))).collect()
}

fn prints(source: &Source) -> Vec<Finding> {
    if source.role != Role::Library {
        return Vec::new();
    }
    let places = PRINTING.iter().flat_map(|name| source.places(&[], name, "!"));
    places.filter(|at| !source.is_test(*at)).map(|at| source.finding(at, line_at(source, at))).collect()
}

fn silencing_attributes(source: &Source) -> Vec<Finding> {
    let code = &source.code;
    attributes(code)
        .filter(|attribute| is_silencing(&code[attribute.clone()]))
        .map(|attribute| source.finding(attribute.start, line_at(source, attribute.start)))
        .collect()
}

fn is_silencing(attribute: &str) -> bool {
    let inside = attribute.trim_start_matches(['#', '!', '[']);
    let is =
        |list: &str| list.starts_with("allow(") || list.starts_with("ignore]") || list.starts_with("ignore ");
    let conditional =
        |list: &str| list.contains(" allow(") || list.contains(" ignore)") || list.contains(" ignore ");
    is(inside) || inside.strip_prefix("cfg_attr(").is_some_and(conditional)
}

fn unwraps(source: &Source) -> Vec<Finding> {
    let places = source.places(&["."], "unwrap", "()").filter(|at| !source.is_test(*at));
    places.map(|at| source.finding(at, line_at(source, at))).collect()
}

fn sleeps_of_tests(source: &Source) -> Vec<usize> {
    let places = SLEEPS.iter().flat_map(|name| source.places(&[], name, "("));
    places.filter(|at| source.is_test(*at)).collect()
}

fn openings(source: &Source) -> Vec<usize> {
    source.places(&[".", "::"], "expose", "").filter(|at| !source.is_test(*at)).collect()
}

#[cfg(test)]
mod tests {
    use super::{UNFINISHED, calls, is_silencing, openings, prints, sleeps_of_tests, unwraps};
    use crate::finding::Finding;
    use crate::source::Source;

    fn lines(findings: &[Finding]) -> Vec<usize> {
        findings.iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn macros_are_found_in_code_but_not_in_words() {
        let text = "// todo!()\nfn f() {\n todo!();\n \"dbg!\";\n dbg!(x);\n println!();\n my_todo!();\n}\n\
                    #[cfg(test)]\nmod tests { fn g() { println!(); } }\n";
        assert_eq!(lines(&calls(&Source::new("a/src/b.rs", text), &UNFINISHED, "!")), [5, 3]);
        assert_eq!(lines(&prints(&Source::new("a/src/b.rs", text))), [6]);
        assert_eq!(prints(&Source::new("cli/src/b.rs", text)), []);
    }

    #[test]
    fn silencing_attributes_are_known_in_every_form() {
        for attribute in [
            "#[allow(dead_code)]",
            "#![allow(dead_code)]",
            "#[cfg_attr(test, allow(dead_code))]",
            "#[ignore]",
            "#[ignore = \"  \"]",
            "#[cfg_attr(unix, ignore)]",
        ] {
            assert!(is_silencing(attribute), "{attribute}");
        }
        for attribute in
            ["#[expect(dead_code, reason = \" \")]", "#[error(ignore)]", "#[test]", "#[is_allow(x)]"]
        {
            assert!(!is_silencing(attribute), "{attribute}");
        }
    }

    #[test]
    fn what_tests_may_do_is_found_elsewhere_and_the_other_way_round() {
        let text =
            "fn f() {\n x.unwrap();\n sleep(y);\n}\n#[cfg(test)]\nmod tests {\n x.unwrap();\n sleep(y);\n}\n";
        let source = Source::new("a/src/b.rs", text);
        assert_eq!(lines(&unwraps(&source)), [2]);
        let sleeps =
            |source: &Source| sleeps_of_tests(source).iter().map(|at| source.line(*at)).collect::<Vec<_>>();
        assert_eq!(sleeps(&source), [8]);
        assert_eq!(sleeps(&Source::new("a/tests/b.rs", text)), [3, 8]);
    }

    #[test]
    fn opening_a_secret_is_found_as_a_call_and_as_a_function() {
        let text = "fn expose() {}\nfn f() { x.expose() }\nfn g() { x.map(Secret::expose) }\n// x.expose()\n";
        let source = Source::new("a/src/b.rs", text);
        let found: Vec<_> = openings(&source).iter().map(|at| source.line(*at)).collect();
        assert_eq!(found, [2, 3]);
    }
}
