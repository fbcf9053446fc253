//! What policies mean in Gantry: checking their text, compiling it, and deciding requests with it.
//!
//! A policy is [Cedar](https://docs.cedarpolicy.com) text of one or more statements, each a `permit` or a `forbid`
//! for some principals, actions and resources, under a condition or none.
//!
//! Always holds: this crate is pure (no I/O, no clock, no randomness), so the control plane that refuses a policy, the
//! node that decides with it and the CLI that tests it agree. What no `permit` allows is denied; a `forbid` that applies
//! wins; a statement that cannot be evaluated denies. It does not authenticate, and does not find out what a server
//! offers.
//!
//! # What a policy may name
//!
//! | entity | id | in | attributes |
//! |---|---|---|---|
//! | `Agent` | `Agent::"claude"` | its `Group`s | of the token that it shows, where it shows one: `provider`, `user` (a `User`, where the token is for somebody), `scopes`; tags: the claims that the provider's `claims.tags` name |
//! | `User` | `User::"corp/ann"`: the provider, `/`, its word for him | the `Group`s that his token says | |
//! | `Group` | `Group::"ops"` | | |
//! | `Server` | `Server::"files"` | | |
//! | `Tool` | `Tool::"files/read_file"`: the server, `/`, the server's own name for it | its `Server` | `name`, `readOnly`, `destructive`, `idempotent`, `openWorld` |
//! | `Prompt` | `Prompt::"files/summary"` | its `Server` | `name` |
//! | `Resource` | `Resource::"files/file:///etc/motd"` | its `Server` | `uri` |
//!
//! A server's name has no `/`, so the first one splits an id.
//!
//! | action | principal | resource | the requests |
//! |---|---|---|---|
//! | `Action::"tools/call"` | `Agent` | `Tool` | a call; the tool's place in `tools/list` |
//! | `Action::"prompts/get"` | `Agent` | `Prompt` | likewise, and `prompts/list` |
//! | `Action::"resources/read"` | `Agent` | `Resource` | likewise, and the lists of resources and templates |
//! | `Action::"resources/subscribe"` | `Agent` | `Resource` | subscribing and unsubscribing |
//! | `Action::"completion/complete"` | `Agent` | `Prompt`, `Resource` | completing an argument; the `uri` is then the template |
//! | `Action::"server/use"` | `Agent` | `Server` | what concerns a server as a whole: `logging/setLevel`, `subscriptions/listen`, `tasks/*` |
//!
//! A list shows what the same policies would let through: lists ask [`PolicySet::standing`], calls
//! [`PolicySet::decide_call`], and both evaluate the same statements in the same way.
//!
//! The four flags of a tool are its `annotations`, **which are claims of its server** (see [`Hints`]). A server that
//! lies about them is not caught here. Claims that are missing are taken as the cautious ones: not read-only,
//! destructive, not idempotent, open to the world.
//!
//! [`SCHEMA`] says the same in Cedar's language. Templates (`?principal`, `?resource`) are refused. `@id("...")` names a statement
//! where a decision is explained; without it, its place in the text does.
//!
//! # What a policy may read of a call
//!
//! | in `context` | of | |
//! |---|---|---|
//! | `time` | every request | `seconds` since 1970, `date` (such as 20261123), `hour`, `minute`, `weekday` (`"monday"`); UTC |
//! | `era`, `revision` | every request | `"legacy"` or `"modern"`; the protocol's revision, empty where the client says none |
//! | `facts` | `tools/call` | what parsers read in the arguments that are declared as SQL, paths, URLs or command lines, and how large all are |
//! | `arguments` | `tools/call` | what the tool's `inputSchema` gives one type: strings, integers, booleans, arrays (sets) and objects of them |
//!
//! A statement that reads `arguments` is checked once for each tool that its scope covers, so name one there. An
//! argument that need not be given is read after `context.arguments has path`. What a schema leaves open (unions,
//! numbers that need not be whole) cannot be named, also not after `has`. An argument whose value is not of its type denies the
//! call, and so does one that is given and read, but has no type in the schema as it is by then.
//!
//! ```cedar
//! forbid (principal, action == Action::"tools/call", resource == Tool::"files/write_file")
//! unless { context.arguments.path like "/srv/*" && context.time.hour >= 8 };
//! ```
//!
//! Which argument is SQL, a path, a URL or a command line says the server's `inspection`. Facts are of all such arguments
//! together; what a parser cannot read is of the kind, scheme and host `unknown`, and what nobody declared has none. So say
//! what may be, not what may not:
//!
//! ```cedar
//! forbid (principal, action == Action::"tools/call", resource == Tool::"db/query")
//! unless { context.facts.sql.kinds == ["select"] && ["orders", "items"].containsAll(context.facts.sql.tables) };
//! ```
//!
//! A list shows a tool unless every call of it is denied ([`Standing`]); what depends on the call is decided then.
//!
//! The principal is the agent, and `principal.user` is for whom it acts: `principal in Group::"ops"` asks for the agent,
//! `principal has user && principal.user in Group::"ops"` for the user. A group that only tokens name is not checked.
//!
//! # What may be approved
//!
//! A policy may say that what it forbids can be approved (`spec.approval`). Its text has `forbid` statements about calls of
//! tools only. Where something permits a call, no other policy forbids it and nothing fails, the verdict is then
//! [`Verdict::RequireApproval`], and the reasons are the statements of all such policies that apply: each of them is to be
//! satisfied. Lists show such a tool. Who approves, and what that is worth, is not known here.
//!
//! # What a decision costs
//!
//! Statements are kept by their scope (principal, action and resource), and a decision evaluates those that its request
//! may match. A scope that names somebody or something is therefore worth more than a condition that does: 1,000
//! statements of the form `permit(principal, action, resource) when { principal in Group::"ops" }` are all evaluated.
//! `cargo bench -p gantry-policy` prints, on a shared machine of two cores, as median and 99th percentile, for an agent
//! in four groups whose requests match the scope of about ten statements:
//!
//! | policies | compile | one changed | memory | decision | 200 decisions, as for a list |
//! |---|---|---|---|---|---|
//! | 1,000 | 32 ms | 0.6 ms | 2 MB | 4.4 us, 4.6 us | 0.9 ms, 1.0 ms |
//! | 10,000 | 340 ms | 14 ms | 22 MB | 4.5 us, 8 us | 0.9 ms, 1.0 ms |
//!
//! Where no scope says anything, a decision took 182 us (p99 245 us) at 1,000 policies.
//!
//! # Three policies
//!
//! The first lets a group use one server, the second lets one agent use two tools of another, and the third takes
//! back, for everyone, what may destroy.
//!
//! ```
//! let text = r#"
//!     @id("operators")
//!     permit (principal in Group::"ops", action, resource in Server::"files");
//!
//!     @id("issues")
//!     permit (principal == Agent::"claude", action == Action::"tools/call", resource)
//!     when { resource in [Tool::"github/list_issues", Tool::"github/get_issue"] };
//!
//!     @id("no-destruction")
//!     forbid (principal, action == Action::"tools/call", resource)
//!     when { resource.destructive };
//! "#;
//!
//! use gantry_model::{Catalog, Definition};
//! use gantry_policy::{Hints, Known, PolicySet, Principal, Target, Verdict, check};
//!
//! let (claude, ops, tenant) = ("claude".parse()?, "ops".parse()?, "acme".parse()?);
//! let (files, github) = ("files".parse()?, "github".parse()?);
//! let mut catalog = Catalog::empty(tenant, github);
//! catalog.tools = ["list_issues", "get_issue"].map(|name| Definition::new(name, "{}")).into();
//!
//! // Before it is stored: is it well formed, and does all that it names exist?
//! let mut known = Known::new();
//! known.add_agent(&claude);
//! known.add_group(&ops);
//! known.add_server(&files, None);
//! known.add_server(&catalog.server, Some(&catalog));
//! assert_eq!(check(text, &known).problems, []);
//!
//! // For each request: what do the policies say?
//! let name = "main".parse()?;
//! let policies = PolicySet::compile([(&name, text)])?;
//! let agent = Principal::new(&claude, &[ops]);
//! let reader = Hints::from_definition(r#"{"annotations": {"readOnlyHint": true}}"#);
//! let read = policies.decide(&agent, &Target::Tool { server: &files, name: "read_file", hints: reader });
//! assert_eq!((read.verdict, read.reasons[0].to_string()), (Verdict::Allow, "main/operators".to_owned()));
//! let unclaimed = Hints::default();
//! let write = policies.decide(&agent, &Target::Tool { server: &files, name: "write_file", hints: unclaimed });
//! assert_eq!((write.verdict, write.reasons[0].to_string()), (Verdict::Deny, "main/no-destruction".to_owned()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arguments;
mod call;
mod check;
mod decision;
mod facts;
mod hints;
mod known;
mod problem;
mod reads;
mod schema;
mod set;
mod source;
mod statement;
mod target;

pub use arguments::Shape;
pub use call::{Call, MakeFacts};
pub use check::{Checked, check};
pub use decision::{Decision, Failure, REASONS_MAX, Reason, Standing, Verdict};
pub use hints::Hints;
pub use known::Known;
pub use problem::Problem;
pub use schema::SCHEMA;
pub use set::{CompileError, Gaps, PolicySet, STATEMENTS_MAX, Unsure};
pub use statement::{PolicyText, STATEMENT_ID_BYTES_MAX};
pub use target::{ActsFor, Principal, Shown, Target};
