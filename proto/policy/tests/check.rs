//! What a check refuses and what it warns of, each asserted whole, with its place.

use gantry_model::{AgentName, Catalog, Definition, GroupName, ServerName};
use gantry_policy::{Checked, Known, Problem, STATEMENT_ID_BYTES_MAX, check};

/// Servers `files` and `github` with catalogs, `new` without one; agents `claude` and `root`; group `ops`.
struct Tenant {
    agents: Vec<AgentName>,
    group: GroupName,
    catalogs: Vec<Catalog>,
    new: ServerName,
}

impl Tenant {
    fn new() -> Tenant {
        let named =
            |names: &[&str]| names.iter().map(|name| Definition::new(*name, "{}")).collect::<Vec<_>>();
        let catalog = |server: &str, tools: &[&str], prompts: &[&str]| {
            let tenant = "acme".parse().expect("a tenant's name");
            let mut catalog = Catalog::empty(tenant, server.parse().expect("a server's name"));
            (catalog.tools, catalog.prompts) = (named(tools), named(prompts));
            catalog
        };
        Tenant {
            agents: ["claude", "root"].map(|name| name.parse().expect("an agent's name")).into(),
            group: "ops".parse().expect("a group's name"),
            catalogs: vec![
                catalog("files", &["read_file", "write_file", "dir/list"], &["summary"]),
                catalog("github", &["get_issue"], &[]),
            ],
            new: "new".parse().expect("a server's name"),
        }
    }

    fn check(&self, text: &str) -> Checked {
        let mut known = Known::new();
        self.agents.iter().for_each(|agent| known.add_agent(agent));
        known.add_group(&self.group);
        self.catalogs.iter().for_each(|catalog| known.add_server(&catalog.server, Some(catalog)));
        known.add_server(&self.new, None);
        check(text, &known)
    }
}

fn checked(text: &str) -> Checked {
    Tenant::new().check(text)
}

fn problem(line: u32, column: u32, message: &str, help: Option<&str>) -> Problem {
    Problem { line, column, message: message.to_owned(), help: help.map(str::to_owned) }
}

/// The text is refused for exactly this.
#[track_caller]
fn refused(text: &str, policy_count: usize, problems: &[Problem]) {
    assert_eq!(
        checked(text),
        Checked { problems: problems.to_vec(), warnings: vec![], policy_count },
        "{text}"
    );
}

/// The text is accepted with exactly these warnings.
#[track_caller]
fn accepted(text: &str, policy_count: usize, warnings: &[&str]) {
    let warnings = warnings.iter().map(|warning| (*warning).to_owned()).collect();
    assert_eq!(checked(text), Checked { problems: vec![], warnings, policy_count }, "{text}");
}

#[test]
fn a_sound_text_is_accepted_without_a_word() {
    accepted("permit(principal, action, resource);", 1, &[]);
    let text = r#"// Everything by name.
        @id("a") permit(principal == Agent::"claude", action, resource in Server::"files");
        @id("b") permit(principal in Group::"ops", action == Action::"tools/call", resource == Tool::"files/dir/list");
        @id("c") permit(principal, action, resource == Prompt::"files/summary") when { resource.name != "x" };
        permit(principal, action, resource) when { resource in [Tool::"files/read_file", Tool::"github/get_issue"] };
        forbid(principal, action == Action::"tools/call", resource) unless { resource.readOnly };
        permit(principal, action, resource == Resource::"files/any://uri/that {is} never looked up");"#;
    accepted(text, 6, &[]);
}

#[test]
fn a_syntax_error_is_refused_at_its_place() {
    let expected = Some("expected `;` or identifier");
    refused("permit(principal, action, resource)", 0, &[problem(1, 36, "unexpected end of input", expected)]);
    refused(
        "permit(principal, action, resource);\n// ñ\npermt(principal, action, resource);\n  permit(principal, action, resorce);",
        0,
        &[
            problem(3, 1, "invalid policy effect: permt", Some("effect must be either `permit` or `forbid`")),
            problem(
                4,
                29,
                "found an invalid variable in the policy scope: resorce",
                Some(
                    "policy scopes must contain a `principal`, `action`, and `resource` element in that order",
                ),
            ),
        ],
    );
    refused(
        "permit(principal, action, resource) when { \"open };",
        0,
        &[problem(1, 44, "invalid token", Some("try checking that all strings are closed properly"))],
    );
}

#[test]
fn an_unknown_attribute_action_or_type_is_refused_at_its_place() {
    refused(
        "permit(principal, action == Action::\"tools/call\", resource)\n  when { resource.readonly };",
        1,
        &[problem(
            2,
            10,
            "attribute `readonly` on entity type `Tool` not found",
            Some("did you mean `readOnly`?"),
        )],
    );
    refused(
        r#"permit(principal, action == Action::"tools/cal", resource);"#,
        1,
        &[problem(
            1,
            29,
            r#"unrecognized action `Action::"tools/cal"`"#,
            Some(r#"did you mean `Action::"tools/call"`?"#),
        )],
    );
    refused(
        r#"permit(principal == Agnt::"claude", action, resource is Tol);"#,
        1,
        &[
            problem(1, 21, "unrecognized entity type `Agnt`", Some("did you mean `Agent`?")),
            problem(1, 57, "unrecognized entity type `Tol`", Some("did you mean `Tool`?")),
        ],
    );
    refused(
        "permit(principal, action, resource is Tool) when { context.path == \"/\" };",
        1,
        &[problem(
            1,
            52,
            r#"attribute `path` in context for Action::"tools/call" not found"#,
            Some("did you mean `facts`?"),
        )],
    );
}

#[test]
fn a_wrong_type_is_refused_at_its_place() {
    let both = "both operands to a `==` expression must have compatible types. \
        Types must be exactly equal to be compatible";
    refused(
        "permit(principal, action, resource is Tool) when { resource.name == 3 };",
        1,
        &[problem(1, 52, "the types Long and String are not compatible", Some(both))],
    );
    refused(
        "permit(principal, action, resource is Tool) when { resource.name };",
        1,
        &[problem(1, 52, "unexpected type: expected Bool but saw String", None)],
    );
}

#[test]
fn an_attribute_that_only_some_resources_have_is_refused_for_the_others() {
    refused(
        "permit(principal, action == Action::\"completion/complete\", resource) when { resource.name == \"x\" };",
        1,
        &[problem(
            1,
            77,
            "attribute `name` on entity type `Resource` not found",
            Some("did you mean `uri`?"),
        )],
    );
}

#[test]
fn an_agent_group_or_server_that_does_not_exist_is_refused_with_the_nearest_one() {
    refused_scopes(&[
        (
            "principal == Agent::\"cluade\", action, resource",
            8 + 13,
            "there is no Agent \"cluade\"",
            Some("nearest: Agent::\"claude\""),
        ),
        (
            "principal in Group::\"op\", action, resource",
            8 + 13,
            "there is no Group \"op\"",
            Some("nearest: Group::\"ops\""),
        ),
        (
            "principal in Group::\"zebra\", action, resource",
            8 + 13,
            "there is no Group \"zebra\"",
            Some("a group exists once an agent is in it"),
        ),
        (
            "principal, action, resource in Server::\"flies\"",
            8 + 31,
            "there is no Server \"flies\"",
            Some("nearest: Server::\"files\""),
        ),
        ("principal, action, resource in Server::\"zebra\"", 8 + 31, "there is no Server \"zebra\"", None),
    ]);
}

#[test]
fn a_tool_that_does_not_exist_is_refused_with_the_nearest_one() {
    refused_scopes(&[
        (
            "principal, action, resource == Tool::\"files/raed_file\"",
            8 + 31,
            "there is no Tool \"files/raed_file\"",
            Some("nearest: Tool::\"files/read_file\""),
        ),
        (
            "principal, action, resource == Tool::\"files/zebra\"",
            8 + 31,
            "there is no Tool \"files/zebra\"",
            None,
        ),
        ("principal, action, resource == Tool::\"files/\"", 8 + 31, "there is no Tool \"files/\"", None),
        (
            "principal, action, resource == Tool::\"read_file\"",
            8 + 31,
            "there is no Tool \"read_file\"",
            Some("nearest: Tool::\"files/read_file\""),
        ),
        (
            "principal, action, resource == Tool::\"zebra\"",
            8 + 31,
            "there is no Tool \"zebra\"",
            Some("its server's name comes first: Tool::\"server/...\""),
        ),
        (
            "principal, action, resource == Tool::\"flies/read_fil\"",
            8 + 31,
            "there is no Tool \"flies/read_fil\", for there is no Server \"flies\"",
            Some("nearest: Tool::\"files/read_file\""),
        ),
        (
            "principal, action, resource == Tool::\"flies/zebra\"",
            8 + 31,
            "there is no Tool \"flies/zebra\", for there is no Server \"flies\"",
            Some("nearest: Server::\"files\""),
        ),
        (
            "principal, action, resource == Tool::\"zebra/x\"",
            8 + 31,
            "there is no Tool \"zebra/x\", for there is no Server \"zebra\"",
            None,
        ),
    ]);
}

#[test]
fn a_prompt_or_resource_of_no_server_is_refused_with_the_nearest_one() {
    refused_scopes(&[
        (
            "principal, action, resource == Prompt::\"files/sumary\"",
            8 + 31,
            "there is no Prompt \"files/sumary\"",
            Some("nearest: Prompt::\"files/summary\""),
        ),
        (
            "principal, action, resource == Prompt::\"github/summary\"",
            8 + 31,
            "there is no Prompt \"github/summary\"",
            None,
        ),
        (
            "principal, action, resource == Resource::\"flies/x://y\"",
            8 + 31,
            "there is no Resource \"flies/x://y\", for there is no Server \"flies\"",
            Some("nearest: Resource::\"files/x://y\""),
        ),
        (
            "principal, action, resource == Resource::\"x:y\"",
            8 + 31,
            "there is no Resource \"x:y\"",
            Some("its server's name comes first: Resource::\"server/...\""),
        ),
    ]);
}

/// Each scope, with where its problem stands, what it says, and the help.
fn refused_scopes(cases: &[(&str, u32, &str, Option<&str>)]) {
    for &(scope, column, message, help) in cases {
        refused(&format!("permit({scope});"), 1, &[problem(1, column, message, help)]);
    }
}

#[test]
fn an_entity_is_told_wherever_it_stands_in_the_order_of_the_text() {
    let text = "// Tool::\"files/x\" in a comment, and here: @note(\"Tool::\\\"files/x\\\"\")\n\
        @note(\"Tool::\\\"files/x\\\"\")\npermit(principal, action, resource is Tool)\nwhen {\n  \
        [Tool :: // why not\n  \"files/x\", Tool::\"files\\u{2f}x\"].contains(resource)\n  \
        || principal == Agent::\"rot\"\n};";
    let missing = "there is no Tool \"files/x\"";
    refused(
        text,
        1,
        &[
            problem(5, 4, missing, None),
            problem(6, 14, missing, None),
            problem(7, 19, "there is no Agent \"rot\"", Some("nearest: Agent::\"root\"")),
        ],
    );
}

#[test]
fn an_entity_and_a_type_are_told_together() {
    refused(
        "forbid(principal == Agent::\"nobody\", action, resource is Tool) when { resource.nam == \"\" };",
        1,
        &[
            problem(1, 21, "there is no Agent \"nobody\"", None),
            problem(1, 71, "attribute `nam` on entity type `Tool` not found", Some("did you mean `name`?")),
        ],
    );
}

#[test]
fn the_tools_of_a_server_without_a_catalog_are_not_checked_and_that_is_told_once() {
    accepted(
        r#"permit(principal, action, resource == Tool::"new/a");
        permit(principal, action, resource == Tool::"new/b");
        permit(principal, action, resource == Prompt::"new/c");
        permit(principal, action, resource == Resource::"new/d");
        permit(principal, action, resource in Server::"new");"#,
        5,
        &[
            "server `new` has no recorded catalog yet, so its prompt names are not checked",
            "server `new` has no recorded catalog yet, so its tool names are not checked",
        ],
    );
}

#[test]
fn a_template_is_refused_at_its_slot() {
    let message = "a template is not a policy: nothing here fills its slot";
    let help = Some("name an entity, such as Agent::\"name\"");
    refused(
        "permit(principal, action, resource);\npermit(principal == ?principal, action, resource in ?resource);",
        0,
        &[problem(2, 21, message, help), problem(2, 53, message, help)],
    );
}

#[test]
fn a_statement_that_never_applies_is_warned_of() {
    accepted(
        "permit(principal, action, resource);\n permit(principal == Group::\"ops\", action, resource);",
        2,
        &["line 2, column 2: never applies: no action has such a principal and such a resource; \
           try replacing `==` with `in` in the principal clause"],
    );
    accepted(
        "forbid(principal, action == Action::\"prompts/get\", resource == Tool::\"files/read_file\");",
        1,
        &["line 1, column 1: never applies: no action has such a principal and such a resource"],
    );
    accepted(
        "forbid(principal, action, resource) when { resource is Tool && resource is Prompt };",
        1,
        &["line 1, column 1: never applies: its condition is false for every request"],
    );
    accepted(
        "permit(principal, action, resource is Tool) when { resource.name == \"re\u{430}d\" };",
        1,
        &["line 1, column 69: string `\"re\u{430}d\"` contains mixed scripts"],
    );
    accepted("// nothing yet\n", 0, &["there is no `permit` and no `forbid` in the text"]);
}

#[test]
fn an_id_that_does_not_name_one_statement_is_refused() {
    let twice =
        "@id(\"a\") permit(principal, action, resource);\n@x @id(\"a\") permit(principal, action, resource);";
    refused(twice, 0, &[problem(2, 4, "the @id \"a\" stands on two statements", None)]);
    let form = format!("an @id has 1 to {STATEMENT_ID_BYTES_MAX} bytes and no control characters");
    for id in ["@id", "@id(\"\")", "@id(\"a\\nb\")", &format!("@id(\"{}\")", "a".repeat(65))] {
        let text = format!("{id} permit(principal, action, resource);");
        refused(&text, 0, &[problem(1, 1, &form, None)]);
    }
}

#[test]
fn an_argument_is_checked_against_the_schema_of_every_tool_that_the_scope_covers() {
    let mut tenant = Tenant::new();
    let takes = |properties: &str| {
        format!(
            r#"{{"inputSchema": {{"type": "object", "required": ["path"], "properties": {properties}}}}}"#
        )
    };
    let write = takes(r#"{"path": {"type": "string"}, "mode": {"type": "integer"}}"#);
    let read = takes(r#"{"path": {"type": "string"}}"#);
    tenant.catalogs[0].tools =
        vec![Definition::new("read_file", &*read), Definition::new("write_file", &*write)];
    let check = |scope: &str, condition: &str| {
        let text =
            format!("forbid(principal, action == Action::\"tools/call\", {scope})\nwhen {{ {condition} }};");
        let Checked { problems, warnings, .. } = tenant.check(&text);
        (problems.iter().map(ToString::to_string).collect::<Vec<_>>(), warnings)
    };
    let (write, server) = ("resource == Tool::\"files/write_file\"", "resource in Server::\"files\"");
    for (scope, condition) in [
        (write, "context.arguments.path like \"/etc/*\""),
        (write, "context.arguments has mode && context.arguments.mode > 8"),
        (server, "context.arguments.path == \"/\" && context.time.weekday == \"sunday\""),
        (server, "context.arguments has mode && context.arguments.mode > 8"),
    ] {
        assert_eq!(check(scope, condition), (vec![], vec![]), "{scope} {condition}");
    }
    let refused = |scope, condition| check(scope, condition).0;
    let at = |message: &str| vec![format!("line 2, column 8: for Tool::{message}")];
    let optional = "\"files/write_file\": unable to guarantee safety of access to optional attribute `arguments.mode` in context for Action::\"tools/call\" (try testing for the attribute's presence with `context.arguments has mode && ..`)";
    assert_eq!(
        refused(write, "context.arguments.pth == \"/\""),
        at(
            "\"files/write_file\": attribute `arguments.pth` in context for Action::\"tools/call\" not found (did you mean `path`?)"
        )
    );
    assert_eq!(
        refused(write, "context.arguments.path == 1"),
        at(
            "\"files/write_file\": the types Long and String are not compatible (both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible)"
        )
    );
    assert_eq!(refused(write, "context.arguments.mode > 8"), at(optional));
    let one_has_none = at(
        "\"files/read_file\": attribute `arguments.mode` in context for Action::\"tools/call\" not found (did you mean `path`?)",
    );
    assert_eq!(refused(server, "context.arguments.mode > 8 || true"), [one_has_none, at(optional)].concat());
    assert_eq!(
        refused("resource is Tool", "context.arguments.path == \"/\""),
        at(
            "\"github/get_issue\": attribute `arguments.path` in context for Action::\"tools/call\" not found"
        )
    );
    let never = |name: &str| {
        let message =
            format!("line 2, column 8: no tool in scope has an argument `{name}` that policies can read");
        vec![format!(
            "{message} (a union, a map and a number that need not be whole have no type; or is it misspelt?)"
        )]
    };
    let guarded = "context.arguments has pth && context.arguments.pth like \"/etc/*\"";
    assert_eq!(refused(write, guarded), never("pth"));
    assert_eq!(refused(server, guarded), never("pth"));
    let unchecked =
        "server `new` has no recorded catalog yet, so what is read of its tools' arguments is not checked";
    assert_eq!(
        check("resource in Server::\"new\"", "context.arguments.x > 1"),
        (vec![], vec![unchecked.to_owned()])
    );
}
