//! Admins by an issuer of OpenID Connect that others wrote: the whole walk of `gantry login`, what each group may do on any
//! member, and every token that is refused.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use gantry_tests::eventually::eventually;
use gantry_tests::members::{DEADLINE, Error, Member, Members, done, write_secret};
use gantry_tests::peers::{Issuer, or_skip};
use gantry_tests::process::{Finished, Running, Stream, run};
use serde_json::Value;

/// What the groups of an issuer give.
const RULES: [&str; 3] =
    ["groups=platform:cluster-admin", "groups=watchers:auditor", "groups=acme-ops:tenant-admin:acme"];

struct Scene {
    members: Members,
    one: Member,
    issuer: Issuer,
}

impl Scene {
    /// Believes the issuer by these rules.
    async fn believe(&self, audience: &str, rules: &[&str]) -> Result<Finished, Error> {
        let url = self.issuer.url();
        let mut put = vec!["admin", "issuer", "put", "corp", "--issuer", url, "--audience", audience];
        put.push("--plain-on-loopback");
        put.extend(rules.iter().flat_map(|rule| ["--rule", rule]));
        self.one.admin(&self.members, &put).await
    }

    /// A verb at a member, by a token in a file.
    async fn by(&self, at: &Member, token: &PathBuf, verb: &[&str]) -> Result<Finished, Error> {
        let mut command = self.members.gantry(verb)?;
        command.args(["--admin", &at.address.to_string()]).arg("--ca").arg(&at.ca);
        command.arg("--token-file").arg(token);
        Ok(run(command, DEADLINE).await?)
    }

    /// A token that the issuer, or somebody in its place, made without being asked.
    async fn forged(&self, kind: &str, login: &str) -> Result<PathBuf, Error> {
        let token = self.issuer.ask(&format!("forged?kind={kind}&login={login}")).await?;
        let path = self.members.path(&format!("{kind}.token"));
        write_secret(&path, &token)?;
        Ok(path)
    }

    /// Logs in as a person would: the command shows a code, and a browser elsewhere confirms it.
    async fn login(&self, login: &str) -> Result<PathBuf, Error> {
        let path = self.members.path(&format!("{login}.login"));
        let mut command =
            self.members.gantry(&["login", "--client-id", "gantry-cli", "--scope", "groups"])?;
        command.args(["--issuer", self.issuer.url(), "--plain-on-loopback"]).arg("--token-file").arg(&path);
        let code = |stream, line: &str| {
            let code = line.strip_prefix("and confirm the code ");
            (stream == Stream::Err).then(|| code.map(str::to_owned))?
        };
        let (mut running, code) = Running::start(command, DEADLINE, code).await?;
        self.issuer.ask(&format!("confirm?code={code}&login={login}")).await?;
        assert!(running.ended(DEADLINE).await?.success(), "{}", running.output());
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
        Ok(path)
    }

    async fn whoami(&self, at: &Member, token: &PathBuf) -> Result<String, Error> {
        let told = self.by(at, token, &["admin", "whoami"]).await?;
        Ok(if told.status.success() { told.stdout } else { told.stderr })
    }
}

/// What each group may do, on a member that it did not log in at, and what stands in the audit.
async fn each_group_may_what_its_rule_says(scene: &Scene, two: &Member) -> Result<PathBuf, Error> {
    scene.issuer.ask("groups?login=alice&groups=platform,others").await?;
    scene.issuer.ask("groups?login=bob&groups=acme-ops").await?;
    let (alice, bob) = (scene.login("alice").await?, scene.login("bob").await?);
    // The start of the SHA-256 of `alice`.
    let expected = "corp-2bd806c97f0e00af: cluster-admin\nproved by token of corp for \"alice\"\n";
    for member in [&scene.one, two] {
        let known = async || (scene.whoami(member, &alice).await.ok()? == expected).then_some(());
        eventually("the member to know the issuer", DEADLINE, known).await;
    }
    assert!(scene.by(two, &alice, &["cluster", "rotate-keys", "--force"]).await?.status.success());
    let whole = scene.members.path("one/admin-audit.jsonl");
    done(scene.by(&scene.one, &alice, &["admin", "ls"]).await?)?;
    let recorded = async || {
        let records = fs::read_to_string(&whole).ok()?;
        let mut records = records.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let listed = records.find(|record| {
            record["method"] == "ListAdmins" && record.to_string().contains("corp-2bd806c97f0e00af")
        })?;
        listed.to_string().contains(r#"token of corp for \"alice\""#).then_some(())
    };
    eventually("the record of the call", DEADLINE, recorded).await;

    let tenants = done(scene.by(two, &bob, &["get", "tenants"]).await?)?.stdout;
    assert!(tenants.contains("acme") && !tenants.contains("birch"), "{tenants}");
    let denied = scene.by(two, &bob, &["cluster", "rotate-keys"]).await?;
    assert_eq!(denied.status.code(), Some(4), "{}", denied.stderr);
    let none = scene.by(two, &alice, &["admin", "certificate", "--out", "none"]).await?;
    assert!(none.stderr.contains("has no certificates"), "{}", none.stderr);
    Ok(alice)
}

/// Tokens that must not count, beside one that does.
async fn forgeries_are_refused(scene: &Scene) -> Result<(), Error> {
    let good = scene.forged("good", "alice").await?;
    assert!(scene.whoami(&scene.one, &good).await?.contains("cluster-admin"));
    let kinds = [
        ("audience", "the token is for another audience"),
        ("expired", "the token has expired"),
        ("old", "the token was issued too long ago"),
        ("issuer", "the token is of no issuer that is believed here"),
        ("unsigned", "the token is not signed with an algorithm of the provider"),
        ("confused", "the token is not signed with an algorithm of the provider"),
        ("stranger", "the signature of the token is not good"),
        ("unknown-key", "the provider has no such key"),
    ];
    for (kind, reason) in kinds {
        let token = scene.forged(kind, "alice").await?;
        let told = scene.whoami(&scene.one, &token).await?;
        assert!(told.contains(reason), "{kind}: {told}");
        let quoted = fs::read_to_string(&token)?;
        assert!(!told.contains(quoted.split('.').next().unwrap_or_default()), "{kind}: {told}");
    }
    Ok(())
}

/// Who lost the group, the rule or the issuer is out.
async fn whoever_lost_it_is_out(scene: &Scene, alice: &PathBuf) -> Result<(), Error> {
    scene.issuer.ask("groups?login=alice&groups=watchers").await?;
    let next = scene.forged("good", "alice").await?;
    assert!(scene.whoami(&scene.one, &next).await?.contains(": auditor\n"));
    let denied = scene.by(&scene.one, &next, &["get", "tenants"]).await?;
    assert_eq!(denied.status.code(), Some(4), "{}", denied.stderr);
    scene.issuer.ask("groups?login=alice&groups=").await?;
    let outside = scene.forged("good", "alice").await?;
    let no_rule = "no rule of the token's issuer gives a role for what the token says";
    assert!(scene.whoami(&scene.one, &outside).await?.contains(no_rule));

    // Her first token says `platform` still, until it ends.
    assert!(scene.whoami(&scene.one, alice).await?.contains("cluster-admin"));
    done(scene.believe("gantry-cli", &RULES[1..]).await?)?;
    assert!(scene.whoami(&scene.one, alice).await?.contains(no_rule));
    done(scene.believe("gantry-cli", &RULES).await?)?;
    let again = async || scene.whoami(&scene.one, alice).await.ok()?.contains("cluster-admin").then_some(());
    eventually("the rule to count again", DEADLINE, again).await;
    done(scene.one.admin(&scene.members, &["admin", "issuer", "delete", "corp"]).await?)?;
    let gone = async || scene.whoami(&scene.one, alice).await.ok()?.contains("of no issuer").then_some(());
    eventually("the issuer to be believed no more", DEADLINE, gone).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_logs_in_at_an_issuer_and_is_one_as_long_as_it_says_so() -> Result<(), Error> {
    let Some(issuer) = or_skip(Issuer::start().await) else { return Ok(()) };
    let members = Members::new()?;
    let one = members.found("one").await?;
    let two = members.learner("two", &one).await?;
    let scene = Scene { members, one, issuer };
    let tenants = scene.members.path("tenants.yaml");
    fs::write(&tenants, "kind: Tenant\nname: acme\n---\nkind: Tenant\nname: birch\n")?;
    done(scene.one.admin(&scene.members, &["apply", "-f", tenants.to_str().ok_or("text")?]).await?)?;
    let unknown = scene.believe("gantry-cli", &["groups=ops:tenant-admin:acmee"]).await?;
    assert!(unknown.stderr.contains("there is no Tenant acmee; nearest: acme"), "{}", unknown.stderr);
    done(scene.believe("gantry-cli", &RULES).await?)?;

    let alice = each_group_may_what_its_rule_says(&scene, &two).await?;
    forgeries_are_refused(&scene).await?;
    whoever_lost_it_is_out(&scene, &alice).await?;
    assert!(two.terminate().await?.success());
    assert!(scene.one.terminate().await?.success());
    scene.issuer.stop().await?;
    Ok(())
}
