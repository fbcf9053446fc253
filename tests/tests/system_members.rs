//! Three members of one control plane as processes with TLS: each takes changes and serves nodes, and the cluster goes on
//! when its leader ends in order, dies, or loses its disk.

use std::time::{Duration, Instant};

use gantry_tests::eventually::eventually;
use gantry_tests::members::{DEADLINE, Error, Member, Members, done, write_secret};
use gantry_tests::process::{Running, Stream, run};
use serde_json::Value;

/// Applies a tenant of this name at a member.
async fn apply(members: &Members, member: &Member, tenant: &str) -> Result<(), Error> {
    let file = members.path(&format!("{tenant}.yaml"));
    std::fs::write(&file, format!("kind: Tenant\nname: {tenant}\n"))?;
    let file = file.to_string_lossy().into_owned();
    done(member.admin(members, &["apply", "-f", &file]).await?).map(|_| ())
}

/// The tenants, as a member reads them.
async fn tenants(members: &Members, member: &Member) -> Result<Vec<String>, Error> {
    let got = done(member.admin(members, &["get", "tenants", "--output", "json"]).await?)?;
    let listed: Value = serde_json::from_str(&got.stdout)?;
    let listed = listed.as_array().ok_or("a list")?.iter();
    Ok(listed.filter_map(|tenant| Some(tenant["name"].as_str()?.to_owned())).collect())
}

/// A node that joins through one member and follows any of them.
async fn node(members: &Members, all: &[&Member]) -> Result<Running, Error> {
    let token = done(all[0].admin(members, &["cluster", "token", "--role", "node"]).await?)?;
    write_secret(&members.path("node.token"), &token.stdout)?;
    let addresses: Vec<_> = all.iter().map(|member| member.address.to_string()).collect();
    let mut node = members.gantry(&["data-plane", "run", "--output", "json", "--name", "a"])?;
    node.args(["--listen", "127.0.0.1:0", "--control-plane", &addresses.join(",")]);
    node.arg("--join-token-file").arg(members.path("node.token")).arg("--data-dir").arg(members.path("node"));
    let line = |stream, _: &str| (stream == Stream::Out).then_some(());
    Ok(Running::start(node, DEADLINE, line).await?.0)
}

/// Whether the node is connected somewhere, and has everything, as a member knows it.
async fn follows(members: &Members, member: &Member) -> Option<()> {
    let status = done(member.admin(members, &["status", "--output", "json"]).await.ok()?).ok()?;
    let status: Value = serde_json::from_str(&status.stdout).ok()?;
    let node = status["nodes"].as_array()?.iter().find(|node| node["name"] == "a")?.clone();
    (node["connected"] == true && node["acked_revision"] == status["revision"]).then_some(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_members_over_tls_outlive_their_leaders() -> Result<(), Error> {
    let members = Members::new()?;
    let one = members.found("one").await?;
    let two = members.voter("two", &one).await?;
    let three = members.voter("three", &two).await?;
    let voters =
        |numbers: &[u64]| numbers.iter().map(|number| (*number, "voter".to_owned())).collect::<Vec<_>>();
    assert_eq!(three.roles(&members).await?, (Some(1), voters(&[1, 2, 3])));
    let node = node(&members, &[&three, &two, &one]).await?;

    for (member, tenant) in [(&one, "at-one"), (&two, "at-two"), (&three, "at-three")] {
        apply(&members, member, tenant).await?;
    }
    for member in [&one, &two, &three] {
        assert_eq!(tenants(&members, member).await?, ["at-one", "at-three", "at-two"]);
        eventually("the node to follow", DEADLINE, async || follows(&members, member).await).await;
    }

    // A leader that is told to end lets another lead first, so that nobody waits for an election to time out.
    assert_eq!(one.terminate().await?.code(), Some(0));
    let leader = two.roles(&members).await?.0;
    assert!(matches!(leader, Some(2 | 3)), "{leader:?}");
    apply(&members, &two, "without-one").await?;
    let one = members.run("one").await?;
    assert_eq!(one.number, 1);
    // It is at another address now, and is a member again once the others know that.
    one.led_by(&members, &[2, 3]).await;

    // One that dies does not; the write waits for it, and the node goes on.
    let (killed, left, number) = match leader {
        Some(2) => (two, three, 2),
        _ => (three, two, 3),
    };
    killed.kill().await?;
    let start = Instant::now();
    apply(&members, &left, "without-a-leader").await?;
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
    assert_ne!(left.led_by(&members, &[1, 2, 3]).await, number);
    let all = ["at-one", "at-three", "at-two", "without-a-leader", "without-one"];
    assert_eq!(tenants(&members, &one).await?, all);
    eventually("the node to follow", DEADLINE, async || follows(&members, &left).await).await;

    // What died has lost its disk: another takes its place, and the number is gone with it.
    let four = members.learner("four", &left).await?;
    let replaced = ["cluster", "replace", &number.to_string(), "--with", &four.number.to_string()];
    done(left.admin(&members, &replaced).await?)?;
    let mut rest = vec![one.number, left.number, four.number];
    rest.sort_unstable();
    assert_eq!(four.roles(&members).await?.1, voters(&rest));
    apply(&members, &four, "with-four").await?;
    let lost = if number == 2 { "two" } else { "three" };
    let refused = run(members.run_command(lost)?, DEADLINE).await?;
    let why = format!(
        "the other members refuse the certificate of member {number}: it was removed from the cluster"
    );
    assert_eq!(refused.status.code(), Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains(&why), "{}", refused.stderr);
    std::fs::remove_dir_all(members.path(lost).join("consensus"))?;
    let refused = run(members.run_command(lost)?, DEADLINE).await?;
    assert!(refused.stderr.contains("so this number is never used again"), "{}", refused.stderr);
    node.kill().await?;
    Ok(())
}
