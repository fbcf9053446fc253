//! Staged rollouts, with real processes: a change is on canaries first, goes on or comes back by itself or by an admin's
//! word, also when its leader dies; what is revoked or changed beside it does not wait for it.

use std::fs;
use std::net::SocketAddr;

use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use gantry_tests::members::node::{Node, add, tenant};
use gantry_tests::members::{DEADLINE, Error, Member, Members, done};
use gantry_tests::process::Finished;
use serde_json::{Value, json};

/// Takes the only tool that the tests call away from everybody.
const DENIED: &str = "kind: Policy\ntenant: acme\nname: all\nspec:\n  cedar: |\n    permit(principal, action, resource);\n    \
                      forbid(principal, action, resource == Tool::\"files/add\");\n";
/// Lets nobody in by a key, and by nothing else either.
const KEYLESS: &str =
    "kind: Endpoint\ntenant: acme\nname: main\nspec: {servers: [files], authentication: {keys: false}}\n";
/// Says something else of the agent, which changes nothing of its calls.
const HARMLESS: &str = "kind: Agent\ntenant: acme\nname: bot\nspec: {description: another}\n";
/// Calls of an agent that a stage needs before it is judged, and twice as many by somebody unknown.
const CALLS: usize = 20;

/// What an agent gets for `add`.
type Got = Option<(u16, Value, Value)>;

fn sum() -> Got {
    Some((200, json!(5), Value::Null))
}

fn denied() -> Got {
    let message = "tools/call of \"add\" is denied: a policy forbids it";
    Some((200, json!(-31403), json!(message)))
}

/// Who runs, and what the tests ask of them.
struct Cluster<'a> {
    members: &'a Members,
    key: String,
    /// Where the node is that has the label.
    canary: SocketAddr,
    /// Where the other one is.
    plain: SocketAddr,
}

impl Cluster<'_> {
    async fn gets(&self, what: &str, canary: Got, plain: Got) {
        let expected = [canary, plain];
        let look = async || {
            let got = [add(self.canary, "acme", &self.key).await, add(self.plain, "acme", &self.key).await];
            (got == expected).then_some(())
        };
        eventually(&format!("{what}: {expected:?}"), DEADLINE, look).await;
    }

    /// Waits until members know of both nodes; they tell each other every second.
    async fn known_by(&self, members: &[&Member]) {
        for member in members {
            let look = async || {
                let status = done(self.ask(member, &["status", "--output", "json"]).await.ok()?).ok()?;
                let status: Value = serde_json::from_str(&status.stdout).ok()?;
                let connected = status["nodes"].as_array()?.iter().filter(|node| node["connected"] == true);
                (connected.count() == 2).then_some(())
            };
            eventually("both nodes to be known", DEADLINE, look).await;
        }
    }

    fn file(&self, text: &str) -> Result<String, Error> {
        let file = self.members.path("change.yaml");
        fs::write(&file, text)?;
        Ok(file.to_string_lossy().into_owned())
    }

    async fn ask(&self, at: &Member, arguments: &[&str]) -> Result<Finished, Error> {
        at.admin(self.members, arguments).await
    }

    async fn apply(&self, at: &Member, text: &str, flags: &[&str]) -> Result<Finished, Error> {
        let file = self.file(text)?;
        self.ask(at, &[&["apply", "-f", &file], flags].concat()).await
    }

    async fn begin(&self, at: &Member, text: &str, flags: &[&str]) -> Result<Finished, Error> {
        done(self.apply(at, text, &[&["--rollout", "--stages", "canary"], flags].concat()).await?)
    }

    /// The tenant's rollout as a member sees it.
    async fn status(&self, at: &Member) -> Result<Value, Error> {
        let shown = done(self.ask(at, &["rollout", "status", "--tenant", "acme", "-o", "json"]).await?)?;
        Ok(serde_json::from_str::<Value>(&shown.stdout)?[0].clone())
    }

    /// How it ended: in what way, by whom, and why.
    async fn ended(&self, at: &Member) -> Result<[Value; 3], Error> {
        let status = self.status(at).await?;
        Ok([status["state"].clone(), status["ended"]["by"].clone(), status["ended"]["reason"].clone()])
    }
}

async fn key(members: &Members, member: &Member, agent: &str) -> Result<String, Error> {
    let made = ["key", "create", "--agent", agent, "--tenant", "acme"];
    Ok(done(member.admin(members, &made).await?)?.stdout.trim().to_owned())
}

/// While the rollout is in its first stage.
async fn beside(
    cluster: &Cluster<'_>,
    [two, three]: [&Member; 2],
    [bob, eve]: [&str; 2],
) -> Result<(), Error> {
    let (at_canary, at_plain) = (cluster.canary, cluster.plain);
    // What is changed beside it is on every node, and who is revoked is so at once.
    let forbid = "kind: Policy\ntenant: acme\nname: no-bob\nspec:\n  cedar: forbid(principal == \
                  Agent::\"bob\", action, resource);\n";
    let told = done(cluster.apply(three, forbid, &["--wait", "--timeout", "50s"]).await?)?;
    assert!(told.stdout.contains("2 of 2 nodes acknowledged"), "{}", told.stdout);
    assert_eq!([add(at_canary, "acme", bob).await, add(at_plain, "acme", bob).await], [denied(), denied()]);
    let revoke = ["revoke", "agent", "eve", "--tenant", "acme", "--wait"];
    let told = done(cluster.ask(two, &revoke).await?)?;
    assert!(told.stdout.contains("in force on 2 of 2 nodes"), "{}", told.stdout);
    let revoked = Some((403, json!(-31410), json!("agent \"eve\" is revoked")));
    assert_eq!(
        [add(at_canary, "acme", eve).await, add(at_plain, "acme", eve).await],
        [revoked.clone(), revoked]
    );
    cluster.gets("beside another change", denied(), sum()).await;
    Ok(())
}

/// A rollout that goes on by itself, of a change that lets all call again.
async fn without_leader(cluster: &Cluster<'_>, members: Vec<Member>, permit: &str) -> Result<(), Error> {
    // The leader dies while a stage is watched; the others watched it too, and one of them goes on.
    let leader = members[0].led_by(cluster.members, &[1, 2, 3]).await;
    cluster.begin(&members[0], permit, &["--pause", "15s"]).await?;
    cluster.gets("in a stage that is watched", sum(), denied()).await;
    let (dead, alive): (Vec<_>, Vec<_>) = members.into_iter().partition(|member| member.number == leader);
    for member in dead {
        member.kill().await?;
    }
    let look = async || Some(cluster.status(&alive[0]).await.ok()?["state"].clone());
    let state = eventually("an answer without the leader", DEADLINE, look).await;
    assert_eq!(state, "running", "it ended before its leader did");
    let wait = ["rollout", "status", "--tenant", "acme", "--wait", "--timeout", "55s"];
    let ended = done(cluster.ask(&alive[0], &wait).await?)?;
    assert!(ended.stdout.contains(": promoted by itself at "), "{}", ended.stdout);
    cluster.gets("after it went on without its leader", sum(), sum()).await;
    let numbers: Vec<u64> = alive.iter().map(|member| member.number).collect();
    alive[0].led_by(cluster.members, &numbers).await;
    Ok(())
}

/// A change of which agents notice nothing goes on; who has no good key is no agent.
async fn harmless(cluster: &Cluster<'_>, at: &Member) -> Result<(), Error> {
    cluster.begin(at, HARMLESS, &["--manual", "--min-calls", "20"]).await?;
    let acked = async || (cluster.status(at).await.ok()?["healthy_ms"].as_u64()? > 0).then_some(());
    eventually("the stage to be healthy", DEADLINE, acked).await;
    let count = async || {
        let status = cluster.status(at).await.ok()?;
        Some((status["calls"]["calls"].as_u64()?, status["calls"]["rejected"].clone()))
    };
    // The first counts that come are where its count begins.
    let (unknown, known) = (format!("{}x", cluster.key), cluster.key.clone());
    let counted = async || {
        for _ in 0..2 * CALLS {
            assert_eq!(add(cluster.canary, "acme", &unknown).await.map(|got| got.0), Some(401));
        }
        for node in [cluster.canary, cluster.plain] {
            assert_eq!(add(node, "acme", &known).await, sum());
        }
        count().await.filter(|(calls, _)| *calls >= CALLS as u64)
    };
    let (_, rejected) = eventually("calls to be counted", DEADLINE, counted).await;
    assert_eq!((rejected, &cluster.status(at).await?["state"]), (json!(0), &json!("running")));
    done(cluster.ask(at, &["rollout", "promote", "--tenant", "acme"]).await?)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_on_canaries_first_and_outlives_its_leader_and_others_do_not_wait_for_it()
-> Result<(), Error> {
    let server = fixture::Server::start(0).await?;
    let members = Members::new()?;
    let one = members.found("one").await?;
    let two = members.voter("two", &one).await?;
    let three = members.voter("three", &one).await?;
    let file = members.path("acme.yaml");
    let bob = "---\nkind: Agent\ntenant: acme\nname: bob\n---\nkind: Agent\ntenant: acme\nname: eve\n";
    fs::write(&file, tenant("acme", &server.url(), "") + bob)?;
    done(one.admin(&members, &["apply", "-f", &file.to_string_lossy()]).await?)?;
    let bot = key(&members, &one, "bot").await?;
    let (bob, eve) = (key(&members, &one, "bob").await?, key(&members, &one, "eve").await?);
    let canary = Node::new(&members, "canary", &[&two, &three, &one]);
    let (canary, at_canary) = canary.join(&one, &["--label", "canary"]).await?;
    let plain = Node::new(&members, "plain", &[&three, &one, &two]);
    let (plain, at_plain) = plain.join(&one, &["--label", "other"]).await?;
    let cluster = Cluster { members: &members, key: bot, canary: at_canary, plain: at_plain };
    cluster.gets("before", sum(), sum()).await;
    cluster.known_by(&[&one, &two, &three]).await;

    // Only the canary has it, and every member says so.
    let begun = cluster
        .begin(&two, DENIED, &["--manual", "--min-calls", "100000", "--wait", "--timeout", "50s"])
        .await?;
    assert!(begun.stdout.contains("updated    Policy acme/all\n"), "{}", begun.stdout);
    assert!(begun.stdout.contains("2 of 2 nodes acknowledged"), "{}", begun.stdout);
    cluster.gets("in the first stage", denied(), sum()).await;
    let expected = json!([{"name": "canary", "connected": true, "acked": true}]);
    let look = async || {
        let status = cluster.status(&three).await.ok()?;
        (status["state"] == "running" && status["nodes"] == expected && status["other_nodes"] == 1)
            .then_some(())
    };
    eventually("the canary to be shown in its stage", DEADLINE, look).await;
    let refused = cluster.apply(&one, DENIED, &[]).await?;
    assert!(!refused.status.success());
    assert!(refused.stderr.contains("Policy acme/all is part of rollout "), "{}", refused.stderr);

    beside(&cluster, [&two, &three], [&bob, &eve]).await?;

    // Taken back, and nothing of it is stored.
    let abort = ["rollout", "abort", "--tenant", "acme", "--reason", "not today"];
    done(cluster.ask(&three, &abort).await?)?;
    cluster.gets("after it was aborted", sum(), sum()).await;
    assert_eq!(cluster.ended(&two).await?, [json!("aborted"), json!("root"), json!("not today")]);
    let stored = done(cluster.ask(&one, &["get", "policy", "all", "--tenant", "acme"]).await?)?;
    assert!(!stored.stdout.contains("files/add"), "{}", stored.stdout);

    // By an admin's word to all.
    cluster.begin(&three, DENIED, &["--manual", "--min-calls", "100000"]).await?;
    cluster.gets("in the first stage again", denied(), sum()).await;
    done(cluster.ask(&two, &["rollout", "promote", "--tenant", "acme", "--stage", "1"]).await?)?;
    cluster.gets("after it was promoted", denied(), denied()).await;
    assert_eq!(cluster.ended(&one).await?, [json!("promoted"), json!("root"), json!("")]);

    let text = tenant("acme", &server.url(), "");
    let permit = text.split("---\n").last().ok_or("a policy")?;
    without_leader(&cluster, vec![one, two, three], permit).await?;
    canary.kill().await?;
    plain.kill().await?;
    Ok(())
}

/// A change by which everybody is nobody, where it is, comes back by itself.
async fn locked_out(cluster: &Cluster<'_>, at: &Member) -> Result<(), Error> {
    cluster.begin(at, KEYLESS, &["--pause", "1h", "--min-calls", "20"]).await?;
    let stopped = async || {
        for _ in 0..CALLS {
            assert!(add(cluster.canary, "acme", &cluster.key).await.is_some());
            assert_eq!(add(cluster.plain, "acme", &cluster.key).await, sum());
        }
        let ended = cluster.ended(at).await.ok()?;
        (ended[0] != "running").then_some(ended)
    };
    let [state, by, reason] = eventually("callers to be missed", DEADLINE, stopped).await;
    assert_eq!((state, by), (json!("stopped"), json!("")));
    assert!(
        reason.as_str().is_some_and(|reason| reason.contains(" were rejected on nodes with")),
        "{reason}"
    );
    cluster.gets("after nobody was let in", sum(), sum()).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_a_node_refuses_or_that_has_more_calls_rejected_comes_back_by_itself()
-> Result<(), Error> {
    let server = fixture::Server::start(0).await?;
    let members = Members::new()?;
    let one = members.found("one").await?;
    let file = members.path("acme.yaml");
    fs::write(&file, tenant("acme", &server.url(), ""))?;
    done(one.admin(&members, &["apply", "-f", &file.to_string_lossy()]).await?)?;
    let bot = key(&members, &one, "bot").await?;
    let (canary, at_canary) =
        Node::new(&members, "canary", &[&one]).join(&one, &["--label", "canary"]).await?;
    let (plain, at_plain) = Node::new(&members, "plain", &[&one]).join(&one, &[]).await?;
    let cluster = Cluster { members: &members, key: bot, canary: at_canary, plain: at_plain };
    cluster.gets("before", sum(), sum()).await;
    cluster.known_by(&[&one]).await;

    // A name that the control plane takes, and that no request can be sent to.
    let server = "kind: Server\ntenant: acme\nname: files\nspec: {url: \"http://files{1}.example/mcp\"}\n";
    cluster.begin(&one, server, &["--pause", "1h"]).await?;
    let wait = ["rollout", "status", "--tenant", "acme", "--wait", "--timeout", "55s"];
    let waited = cluster.ask(&one, &wait).await?;
    assert_eq!(waited.status.code(), Some(1), "{}", waited.stderr);
    let reason = "node canary refuses the change: the url of server files cannot be requested";
    assert_eq!(cluster.ended(&one).await?, [json!("stopped"), json!(""), json!(reason)]);
    cluster.gets("after it was refused", sum(), sum()).await;

    harmless(&cluster, &one).await?;
    locked_out(&cluster, &one).await?;

    // Agents are refused where the change is, and not elsewhere. What was before is too little to compare with.
    cluster.begin(&one, DENIED, &["--pause", "1h", "--min-calls", "100"]).await?;
    let stopped = async || {
        for _ in 0..CALLS {
            assert!(add(at_canary, "acme", &cluster.key).await.is_some());
            assert_eq!(
                add(at_plain, "acme", &cluster.key).await,
                sum(),
                "the change is where it should not be"
            );
        }
        let ended = cluster.ended(&one).await.ok()?;
        (ended[0] != "running").then_some(ended)
    };
    let [state, by, reason] = eventually("the rollout to be stopped", DEADLINE, stopped).await;
    assert_eq!((state, by), (json!("stopped"), json!("")));
    let reason = reason.as_str().ok_or("a reason")?;
    let told = [" calls were rejected on nodes with the change, and 0 of ", " of nodes without the change"];
    assert!(told.iter().all(|told| reason.contains(told)), "{reason}");
    cluster.gets("after it was stopped", sum(), sum()).await;

    // What goes is staged like what comes.
    let delete =
        ["delete", "policy", "all", "--tenant", "acme", "--rollout", "--stages", "canary", "--manual"];
    let begun = done(cluster.ask(&one, &delete).await?)?;
    assert!(begun.stdout.contains("deleted    Policy acme/all\n"), "{}", begun.stdout);
    let message = "tools/call of \"add\" is denied: no policy permits it";
    cluster.gets("where the policy is gone", Some((200, json!(-31403), json!(message))), sum()).await;
    canary.kill().await?;
    plain.kill().await?;
    Ok(())
}
