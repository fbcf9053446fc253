//! Who may do what: a table of callers, and of what endpoints offer, with what the list shows and what a call comes to in
//! every cell.
//!
//! Always holds: a cell was seen by that caller at that endpoint, over HTTP, as a list and as a call. The documents that the
//! table is of stand in `permission/documents.yaml`, the table in `permission/table.md`; it is written anew by
//! `GANTRY_WRITE_TABLE=1 cargo test -p gantry-tests --test system_permission`.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use gantry_tests::governed::Governed;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Set to `1` to write the table instead of comparing it.
const WRITE_VARIABLE: &str = "GANTRY_WRITE_TABLE";
/// How long it may take until both servers are known.
const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(20);
const DOCUMENTS: &str = include_str!("permission/documents.yaml");

/// An agent, and for whom in which groups it acts.
type Caller = (&'static str, Option<(&'static str, &'static [&'static str])>);

/// The callers, with whom they act for: agents by their keys, `desktop` by tokens, and one of another tenant.
const CALLERS: [Caller; 7] = [
    ("reader", None),
    ("editor", None),
    ("robot", None),
    ("desktop", Some(("ann", &["staff"]))),
    ("desktop", Some(("bob", &["staff", "guests"]))),
    ("desktop", Some(("eve", &["readers"]))),
    ("stranger", None),
];

/// What is listed and asked for at an endpoint.
struct Row {
    endpoint: &'static str,
    ask: Ask,
}

/// How something is asked for.
enum Ask {
    Tool(&'static str, Value),
    Prompt(&'static str),
    Resource(&'static str),
    /// A template as it is listed, and what is read by it.
    Template(&'static str, &'static str),
    Completion(&'static str),
    /// What concerns the server as a whole, and is in no list.
    Server,
}

/// What a caller sees of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cell {
    /// `None`: it is in no list.
    shown: Option<bool>,
    allowed: bool,
}

/// Whose keys the tenant believes: one document on loopback.
struct Issuer {
    key: KeyPair,
    url: String,
    serving: JoinHandle<()>,
}

impl Issuer {
    async fn start() -> Issuer {
        let key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let x = URL_SAFE_NO_PAD.encode(key.public_key_raw());
        let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "one", "x": x}]})
            .to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // The one question that there is fits into one read; whoever asks otherwise gets the same.
                let _ = stream.read(&mut [0; 4_096]).await;
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n";
                let answer = format!("{head}content-length: {}\r\n\r\n{keys}", keys.len());
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Issuer { key, url, serving }
    }

    /// A token for a user of the tenant.
    fn token(&self, user: &str, groups: &[&str]) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs();
        let header = json!({"alg": "EdDSA", "kid": "one", "typ": "at+jwt"});
        let claims = json!({
            "iss": "https://id.example.com", "aud": "acme-mcp", "client_id": "laptop", "sub": user, "groups": groups,
            "iat": now, "exp": now + 3_600,
        });
        let part = |part: Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.key.sign(signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

fn rows() -> Vec<Row> {
    let row = |endpoint, ask| Row { endpoint, ask };
    let read = |path: &str| json!({"path": path});
    let (select, drop) = (json!({"name": "SELECT 1"}), json!({"name": "SELECT 1; DROP TABLE t"}));
    vec![
        row("files", Ask::Tool("read_file", read("/data/a"))),
        row("files", Ask::Tool("read_file", read("/etc/passwd"))),
        row("files", Ask::Tool("read_file", read("/data/../../etc"))),
        row("files", Ask::Tool("read_file", json!({"path": "/data/a", "limit": 5}))),
        row("files", Ask::Tool("add", json!({"a": 0, "b": 3}))),
        row("files", Ask::Tool("add", json!({"a": 1, "b": 3}))),
        row("files", Ask::Tool("test_simple_text", json!({}))),
        row("files", Ask::Prompt("test_simple_prompt")),
        row("files", Ask::Completion("test_prompt_with_arguments")),
        row("files", Ask::Resource("test://static-text")),
        row("files", Ask::Template("test://template/{id}/data", "test://template/7/data")),
        row("files", Ask::Server),
        row("all", Ask::Tool("files__read_file", read("/data/a"))),
        row("all", Ask::Tool("files__read_file", read("/etc/passwd"))),
        row("all", Ask::Tool("db__greet", select.clone())),
        row("all", Ask::Tool("db__greet", drop.clone())),
        row("all", Ask::Tool("db__read_file", read("/etc/passwd"))),
        row("all", Ask::Prompt("files__test_simple_prompt")),
        row("all", Ask::Prompt("db__test_simple_prompt")),
        row("all", Ask::Resource("files+test://static-text")),
        row("all", Ask::Resource("db+test://static-text")),
        row("all", Ask::Template("db+test://template/{id}/data", "db+test://template/7/data")),
        row("few", Ask::Tool("read", read("/data/a"))),
        row("few", Ask::Tool("read", read("/etc/passwd"))),
        row("few", Ask::Tool("sum", json!({"a": 0, "b": 3}))),
        row("few", Ask::Tool("query", select)),
        row("few", Ask::Tool("query", drop)),
        row("few", Ask::Prompt("ask")),
    ]
}

impl Ask {
    /// Where it is listed: the method, the member that has the list, the one that names an element, and its name there.
    fn listed(&self) -> Option<(&'static str, &'static str, &'static str, &'static str)> {
        match self {
            Ask::Tool(name, _) => Some(("tools/list", "tools", "name", name)),
            Ask::Prompt(name) => Some(("prompts/list", "prompts", "name", name)),
            Ask::Resource(uri) => Some(("resources/list", "resources", "uri", uri)),
            Ask::Template(uri, _) => {
                Some(("resources/templates/list", "resourceTemplates", "uriTemplate", uri))
            }
            Ask::Completion(_) | Ask::Server => None,
        }
    }

    fn message(&self) -> Message {
        match self {
            Ask::Tool(name, arguments) => Message::call(name, arguments.clone()),
            Ask::Prompt(name) => Message::modern("prompts/get", json!({"name": name})),
            Ask::Resource(uri) | Ask::Template(_, uri) => {
                Message::modern("resources/read", json!({"uri": uri}))
            }
            Ask::Completion(name) => {
                let reference = json!({"type": "ref/prompt", "name": name});
                let params = json!({"ref": reference, "argument": {"name": "arg1", "value": "par"}});
                Message::modern("completion/complete", params)
            }
            Ask::Server => Message::modern("tasks/list", json!({})),
        }
    }

    fn title(&self) -> String {
        match self {
            Ask::Tool(name, arguments) => format!("`{name}` `{arguments}`"),
            Ask::Prompt(name) => format!("prompt `{name}`"),
            Ask::Resource(uri) => format!("resource `{uri}`"),
            Ask::Template(template, uri) => format!("resource `{uri}` by `{template}`"),
            Ask::Completion(name) => format!("completion for prompt `{name}`"),
            Ask::Server => "the server as a whole".to_owned(),
        }
    }
}

impl Cell {
    fn word(self) -> &'static str {
        match (self.shown, self.allowed) {
            (Some(true) | None, true) => "yes",
            (Some(true), false) => "shown, no",
            (Some(false) | None, false) => "no",
            (Some(false), true) => "HIDDEN, YES",
        }
    }
}

/// The tenant with its servers, and each caller's key or token.
struct Scene {
    governed: Governed,
    keys: Vec<String>,
    _db: fixture::Server,
    _issuer: Issuer,
}

impl Scene {
    async fn start() -> Scene {
        let (governed, issuer) = (Governed::start().await, Issuer::start().await);
        let db = fixture::Server::start(0).await.expect("a fixture server");
        let places = [("FILES", governed.server().url()), ("DB", db.url()), ("KEYS", issuer.url.clone())];
        let documents = places.iter().fold(DOCUMENTS.to_owned(), |text, (name, url)| {
            text.replace(&format!("\"{name}\""), &format!("{url:?}"))
        });
        // Policies that read arguments are checked against tools, so those have to be known.
        let is_policy = |document: &&str| document.contains("kind: Policy\n");
        let of = |wanted: bool| {
            let parts = documents.split("---\n").filter(|document| is_policy(document) == wanted);
            parts.collect::<Vec<_>>().join("---\n")
        };
        governed.apply(&of(false)).await;
        eventually("the catalogs of both servers", DISCOVERY_TIME_MAX, async || {
            let tools = governed.admin(&["tool", "ls", "--tenant", "acme", "-o", "json"], "").await;
            let tools: Value = serde_json::from_str(&tools).expect("JSON");
            let has = |server: &str| {
                tools.as_array().is_some_and(|list| list.iter().any(|tool| tool["server"] == server))
            };
            (has("files") && has("db")).then_some(())
        })
        .await;
        governed.apply(&of(true)).await;
        let mut keys = Vec::new();
        for (agent, user) in CALLERS {
            keys.push(match user {
                Some((user, groups)) => issuer.token(user, groups),
                None => {
                    let tenant = if agent == "stranger" { "globex" } else { "acme" };
                    let key =
                        governed.admin(&["key", "create", "--agent", agent, "--tenant", tenant], "").await;
                    key.trim_end().to_owned()
                }
            });
        }
        // The last change is on the node, and with it every one before.
        governed.admin(&["apply", "-f", "-", "--wait"], "{kind: Agent, tenant: acme, name: last}").await;
        Scene { governed, keys, _db: db, _issuer: issuer }
    }

    /// What a caller sees of each row; `None` where it is nobody, of which list and call have to say the same.
    async fn column(&self, caller: usize, rows: &[Row]) -> Vec<Option<Cell>> {
        let mut agent = self.governed.connect(Protocol::Http1).await;
        let mut cells = Vec::with_capacity(rows.len());
        for Row { endpoint, ask } in rows {
            agent.go_to(&format!("/acme/{endpoint}/mcp"));
            let (mut shown, mut is_known) = (None, None);
            if let Some((method, list, member, name)) = ask.listed() {
                let answer = self.ask(caller, &mut agent, Message::modern(method, json!({}))).await;
                is_known = Some(answer.is_some());
                shown = answer.map(|answer| {
                    let list = answer["result"][list].as_array().unwrap_or_else(|| panic!("{answer}"));
                    list.iter().any(|element| element[member] == name)
                });
            }
            let answer = self.ask(caller, &mut agent, ask.message()).await;
            let of_call = answer.is_some();
            assert_eq!(is_known.unwrap_or(of_call), of_call, "{endpoint}: {}", ask.title());
            let Some(answer) = answer else {
                cells.push(None);
                continue;
            };
            let allowed = match answer["error"]["data"]["rejection"].as_str() {
                Some("denied") => false,
                None if matches!(ask, Ask::Server) || answer.get("result").is_some() => true,
                _ => panic!("{}: {answer}", ask.title()),
            };
            cells.push(Some(Cell { shown, allowed }));
        }
        cells
    }

    /// The answer to a caller; `None` for one whom the tenant does not know.
    async fn ask(&self, caller: usize, agent: &mut Agent, message: Message) -> Option<Value> {
        let answer = agent.ask(&message.with_key(&self.keys[caller])).await.expect("an answer");
        let message = answer.messages().pop().unwrap_or_default();
        if answer.status == 401 {
            assert_eq!(message["error"]["data"]["rejection"], "unauthenticated", "{message}");
            return None;
        }
        Some(message)
    }
}

/// The table as Markdown.
fn table(rows: &[Row], columns: &[Vec<Option<Cell>>]) -> String {
    let mut text = "# Who may do what\n\nOf the documents in [documents.yaml](documents.yaml). `yes`: it is in the list, and the call is let \
         through. `no`: neither. `shown, no`: other calls of it may be let through, this one is not. `-`: the caller is nobody here. \
         A completion and a server as a whole are in no list.\n\n| endpoint | what |"
        .to_owned();
    let title = |(agent, user): &Caller| match user {
        Some((user, _)) => format!("{agent} for {user}"),
        None if *agent == "stranger" => "an agent of another tenant".to_owned(),
        None => (*agent).to_owned(),
    };
    CALLERS.iter().for_each(|caller| text.push_str(&format!(" {} |", title(caller))));
    writeln!(text, "\n|{}", "---|".repeat(CALLERS.len() + 2)).expect("a text takes all");
    for (number, Row { endpoint, ask }) in rows.iter().enumerate() {
        write!(text, "| {endpoint} | {} |", ask.title()).expect("a text takes all");
        for column in columns {
            let word = column[number].map_or("-", Cell::word);
            write!(text, " {word} |").expect("a text takes all");
        }
        text.push('\n');
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_do_what_is_what_the_table_says_in_lists_and_in_calls() {
    let (scene, rows) = (Scene::start().await, rows());
    let mut columns = Vec::new();
    for caller in 0..CALLERS.len() {
        columns.push(scene.column(caller, &rows).await);
    }
    let found = table(&rows, &columns);
    println!("{found}");
    for (cells, (agent, _)) in columns.iter().zip(CALLERS) {
        for (Row { endpoint, ask }, cell) in rows.iter().zip(cells) {
            assert_eq!(cell.is_none(), agent == "stranger", "{agent} at {endpoint}: {}", ask.title());
            let Some(cell) = cell else { continue };
            assert_ne!(cell.word(), "HIDDEN, YES", "{endpoint}: {}", ask.title());
            // Only tools have arguments, and no policy here reads anything else of a call.
            let may_depend = matches!(ask, Ask::Tool(..));
            assert!(
                may_depend || cell.shown.is_none_or(|shown| shown == cell.allowed),
                "{endpoint}: {}",
                ask.title()
            );
        }
    }
    let place = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/permission/table.md"));
    if std::env::var_os(WRITE_VARIABLE).is_some_and(|value| value == "1") {
        std::fs::write(place, found).expect("the table is written");
        return;
    }
    let written = std::fs::read_to_string(place).expect("the table is there");
    assert!(written == found, "the table says\n{written}\nand found was\n{found}");
}
