//! Bounds of a policy's text: what lies over them is refused, what lies at them is served by a thread of 2 MiB.

use gantry_model::resource::POLICY_BYTES_MAX;
use gantry_model::{AgentName, Catalog};
use gantry_policy::{Checked, Known, Problem, check};

/// A tenant with the agent `root` and the server `files`, which offers nothing.
fn checked(text: &str) -> Checked {
    let agent: AgentName = "root".parse().expect("an agent's name");
    let tenant = "acme".parse().expect("a tenant's name");
    let catalog = Catalog::empty(tenant, "files".parse().expect("a server's name"));
    let mut known = Known::new();
    known.add_agent(&agent);
    known.add_server(&catalog.server, Some(&catalog));
    check(text, &known)
}

fn problem(line: u32, column: u32, message: &str, help: Option<&str>) -> Problem {
    Problem { line, column, message: message.to_owned(), help: help.map(str::to_owned) }
}

fn when(condition: &str) -> String {
    format!("permit(principal, action, resource is Tool) when {{ {condition} }};")
}

#[test]
fn a_text_over_its_bounds_is_refused_before_it_is_parsed() {
    let refused = |text: &str, problem: Problem| {
        let (found, expected) = (checked(text), vec![problem]);
        assert_eq!(found, Checked { problems: expected, warnings: vec![], policy_count: 0 });
    };
    let message = format!("the text has {} bytes, more than {POLICY_BYTES_MAX}", POLICY_BYTES_MAX + 1);
    let help = Some("put some of it into another policy");
    refused(&" ".repeat(POLICY_BYTES_MAX + 1), problem(0, 0, &message, help));

    let message = "brackets and `if` nest deeper than 16";
    let help = Some("write several statements: a request is permitted when one of them permits it");
    let nested = [
        (format!("{}true{}", "(".repeat(100_000), ")".repeat(100_000)), 51 + 16),
        ("!(".repeat(100_000), 51 + 32),
        ("[".repeat(100_000), 51 + 16),
        ("{a:".repeat(80_000), 51 + 46),
        ("if true then true else ".repeat(10_000), 52 + 15 * 23),
    ];
    for (condition, column) in nested {
        refused(&when(&condition), problem(1, column, message, help));
    }

    let message = "the statement has more than 256 operators";
    let help = Some("write several statements, or a set: `[...].contains(resource.name)`");
    let chained = [
        (vec!["true"; 40_000].join("||"), 52 + 255 * 6 + 4),
        (format!("principal{}", ".a".repeat(100_000)), 52 + 9 + 255 * 2),
        (format!("principal{}", "[\"a\"]".repeat(40_000)), 52 + 9 + 255 * 5),
    ];
    for (condition, column) in chained {
        refused(&when(&condition), problem(1, column, message, help));
    }
    let clauses = format!("permit(principal, action, resource) {};", "when { true }".repeat(10_000));
    refused(&clauses, problem(1, 37 + 256 * 13, message, help));
}

#[test]
fn a_text_at_its_bounds_is_accepted() {
    // A test's thread has 2 MiB of stack, as those of a tokio runtime do; a bound that is too high aborts here.
    let conditions = [
        vec!["principal != Agent::\"root\""; 256].join("||"),
        vec!["resource.readOnly"; 128].join("&&"),
        format!("0{} > 0", "+1".repeat(255)),
        format!("{}true", "if resource.readOnly then true else ".repeat(15)),
        format!("{}{}{}", "(".repeat(15), vec!["resource.readOnly"; 128].join("||"), ")".repeat(15)),
        format!("{}resource.readOnly{}", "!(".repeat(15), ")".repeat(15)),
    ];
    for condition in conditions {
        let found = checked(&when(&condition));
        assert_eq!((found.problems, found.policy_count), (vec![], 1), "{condition}");
    }
    // This one has no type, but it is parsed and looked at.
    let found = checked(&when(&format!("{}1{}", "[".repeat(15), "]".repeat(15))));
    assert_eq!((found.problems.len(), found.policy_count), (1, 1));
}

#[test]
fn a_text_with_very_many_problems_is_answered_shortly() {
    let text: String = (0..4_000)
        .map(|index| format!("permit(principal, action, resource == Tool::\"files/x{index}\");"))
        .collect();
    let found = checked(&text);
    assert_eq!((found.problems.len(), found.policy_count), (33, 4_000));
    assert_eq!(found.problems.last(), Some(&problem(0, 0, "there are more problems", None)));
    let huge = format!("permit(principal, action, resource == Tool::\"files/{}\");", "x".repeat(200_000));
    let cut = format!("there is no Tool \"files/{}...\"", "x".repeat(240 - "files/".len()));
    assert_eq!(checked(&huge).problems, [problem(1, 39, &cut, None)]);
}
