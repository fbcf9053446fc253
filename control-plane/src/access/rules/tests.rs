//! The table against the service, and against what README.md says of it.

use gantry_wire::ADMIN_METHODS;

use super::*;

#[test]
fn every_call_of_the_service_has_one_rule_and_no_other_call_has() {
    let ruled: Vec<&str> = RULES.iter().map(|rule| rule.call).collect();
    assert_eq!(ruled, ADMIN_METHODS, "add the new call to RULES, at its place in admin.proto");
    assert_eq!(rule_of("DropEverything"), None);
}

#[test]
fn the_table_of_the_readme_is_the_table_in_force() {
    let mut table = String::from(
        "| call | cluster-admin | tenant-admin | read-only | auditor | approver |\n|---|---|---|---|---|---|\n",
    );
    for rule in RULES {
        let far = |role: &str| match reach(&[role.parse().expect("a role")], rule.permission) {
            None => "",
            Some(Reach::Everything) => "all",
            Some(Reach::Tenants(tenants)) if tenants.is_empty() => "himself",
            Some(Reach::Tenants(_)) => "his tenant",
        };
        let either = |of_cluster: &str, of_tenant: &str| match (far(of_cluster), far(of_tenant)) {
            (one, other) if one == other || other.is_empty() => one.to_owned(),
            (one, other) => format!("{one}, or {other}"),
        };
        let cells = [
            far("cluster-admin").to_owned(),
            far("tenant-admin:t").to_owned(),
            either("read-only", "read-only:t"),
            either("auditor", "auditor:t"),
            either("approver", "approver:t"),
        ];
        table.push_str(&format!("| `{}` | {} |\n", rule.call, cells.join(" | ")));
    }
    let readme = include_str!("../../../README.md");
    assert!(readme.contains(&table), "the table of README.md is to be:\n{table}");
}

#[test]
fn roles_add_up_and_a_tenants_role_gives_nothing_of_the_cluster() {
    let roles =
        |texts: &[&str]| -> Vec<Role> { texts.iter().map(|text| text.parse().expect("a role")).collect() };
    let tenants = |names: &[&str]| {
        Some(Reach::Tenants(names.iter().map(|name| name.parse().expect("a name")).collect()))
    };
    let two = roles(&["tenant-admin:acme", "read-only:globex", "auditor"]);
    assert_eq!(reach(&two, Permission::Look), tenants(&["acme", "globex"]));
    assert_eq!(reach(&two, Permission::Change), tenants(&["acme"]));
    assert_eq!(reach(&two, Permission::Audit), Some(Reach::Everything));
    for permission in [Permission::LookAtCluster, Permission::Operate, Permission::Administer] {
        assert_eq!(reach(&two, permission), None);
    }
    assert_eq!(reach(&[], Permission::Look), None);
    assert_eq!(reach(&[], Permission::Own), tenants(&[]));
}
