//! Admins with roles, from the command line.

use crate::program::{Folder, seen};

#[test]
fn an_admin_of_a_tenant_may_what_his_role_says_and_his_calls_are_recorded() {
    let folder = Folder::new();
    let dev = folder.dev(&[]);
    let made = folder.run(&["admin", "create", "alice", "--role", "read-only:demo"]);
    assert_eq!(
        (made.code, made.stdout.starts_with("gantry_admin_alice_")),
        (Some(0), true),
        "{}",
        made.stderr
    );
    folder.write("alice", &made.stdout);
    let address = dev.text("admin_address");
    let as_alice = |arguments: &[&str]| {
        folder.run(&[arguments, &["--admin", &address, "--token-file", "alice"]].concat())
    };

    let whoami = as_alice(&["admin", "whoami"]);
    assert!(whoami.stdout.starts_with("alice: read-only:demo\nproved by token "), "{}", whoami.stdout);
    let all = as_alice(&["get", "tenants"]);
    assert_eq!((all.code, all.stdout.contains("demo")), (Some(0), true), "{}", all.stderr);
    let denied = "error: alice may not delete what is configured; `gantry admin whoami` shows the roles
next: ask an admin who may do this
";
    assert_eq!(as_alice(&["delete", "agent", "demo-agent", "--tenant", "demo"]), seen(4, "", denied));

    let records = folder.run(&["audit", "tail", "--admins"]).stdout;
    let denied = records.lines().find(|line| line.contains(" denied ")).unwrap_or_default();
    assert!(denied.contains(" alice from 127.0.0.1:") && denied.contains(": Delete,"), "{records}");
    let wrong = folder.run(&["admin", "create", "bob", "--role", "tenant-admin:dmeo"]);
    let expected = "error: there is no Tenant dmeo; nearest: demo
next: `gantry admin ls` lists the admins, `gantry get tenants` the tenants
";
    assert_eq!(wrong, seen(1, "", expected));

    // What was looked at is what is applied, or nothing is.
    folder.write("agent.yaml", "kind: Agent\ntenant: demo\nname: demo-agent\nspec: {groups: [ops]}\n");
    let shown = folder.run(&["diff", "-f", "agent.yaml"]).stderr;
    let revision = shown.strip_prefix("against revision ").and_then(|rest| rest.split(' ').next());
    let revision = revision.unwrap_or_default().to_owned();
    let apply = ["apply", "-f", "agent.yaml", "--expect", &revision];
    assert_eq!(folder.run(&apply).code, Some(0));
    let late = folder.run(&apply);
    assert_eq!(late.code, Some(1));
    assert!(late.stderr.contains(&format!("after the expected revision {revision}")), "{}", late.stderr);

    assert_eq!(folder.run(&["admin", "delete", "alice"]).code, Some(0));
    let gone = as_alice(&["admin", "whoami"]);
    assert!(gone.stderr.contains("the admin service refuses the token"), "{}", gone.stderr);
    assert!(dev.terminate().success());
}
