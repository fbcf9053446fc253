//! Admins by certificate, from the command line: a key that stays where it was made, a certificate that is renewed in
//! place, and the ends of it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gantry_tests::eventually::eventually;
use gantry_tests::members::{DEADLINE, Error, Member, Members, done};
use gantry_tests::process::{Finished, run};

/// A verb of an admin with these flags in place of the token of the member.
async fn by(members: &Members, at: &Member, flags: &[&str], verb: &[&str]) -> Result<Finished, Error> {
    let mut command = members.gantry(verb)?;
    command.args(["--admin", &at.address.to_string()]).args(flags);
    Ok(run(command, DEADLINE).await?)
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| "a path".into())
}

/// Kept in a context, the flags need not be given again; one that is given counts.
async fn a_context_keeps_what_proves_her(
    members: &Members,
    one: &Member,
    alone: &[&str],
) -> Result<(), Error> {
    let ca = text(&one.ca)?;
    let context = members.path("context.json");
    let in_context = ["--context", text(&context)?];
    let flags = [alone, &["--ca", ca], &in_context].concat();
    done(by(members, one, &flags, &["context", "set", "--tenant", "acme"]).await?)?;
    assert_eq!(fs::metadata(&context)?.permissions().mode() & 0o777, 0o600);
    let kept = [&["admin", "whoami"][..], &in_context].concat();
    let whoami = done(run(members.gantry(&kept)?, DEADLINE).await?)?.stdout;
    assert!(whoami.starts_with("alice: read-only\nproved by certificate "), "{whoami}");
    let root = members.path("one/admin-token");
    let other = [&kept[..], &["--token-file", text(&root)?]].concat();
    let whoami = done(run(members.gantry(&other)?, DEADLINE).await?)?.stdout;
    assert!(whoami.starts_with("root: "), "{whoami}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_has_a_certificate_by_a_request_and_the_next_one_in_its_place() -> Result<(), Error> {
    let members = Members::new()?;
    let one = members.found("one").await?;
    let (key, request) = (members.path("alice.key"), members.path("alice.csr"));
    let (certificate, own) = (members.path("alice.pem"), members.path("alice.own"));

    // What leaves her machine is the request, what comes back is the certificate: no secret travels.
    let made = done(run(members.gantry(&["admin", "request", "--key", text(&key)?])?, DEADLINE).await?)?;
    assert!(!made.stdout.contains("PRIVATE KEY"));
    assert_eq!(fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    fs::write(&request, made.stdout)?;
    let create = ["admin", "create", "alice", "--role", "read-only", "--request", text(&request)?];
    let created = done(one.admin(&members, &create).await?)?;
    assert!(created.stdout.starts_with("-----BEGIN CERTIFICATE-----"), "{}", created.stdout);
    assert!(!created.stdout.contains("gantry_admin_"), "{}", created.stdout);
    fs::write(&certificate, created.stdout)?;

    let ca = text(&one.ca)?;
    let files = ["--cert", text(&certificate)?, "--key", text(&key)?, "--ca", ca];
    let whoami = done(by(&members, &one, &files, &["admin", "whoami"]).await?)?.stdout;
    assert!(whoami.starts_with("alice: read-only\nproved by certificate "), "{whoami}");
    let denied = by(&members, &one, &files, &["cluster", "rotate-keys"]).await?;
    assert_eq!(denied.status.code(), Some(4), "{}", denied.stderr);
    let records = done(one.admin(&members, &["audit", "tail", "--admins"]).await?)?.stdout;
    let recorded = records.lines().any(|line| line.contains("alice") && line.contains("RotateNodeKeys"));
    assert!(recorded, "{records}");

    // One file has all that she needs, and is replaced as a whole.
    let keep = ["admin", "certificate", "--out", text(&own)?];
    done(by(&members, &one, &files, &keep).await?)?;
    assert_eq!(fs::metadata(&own)?.permissions().mode() & 0o777, 0o600);
    let (before, alone) = (fs::read(&own)?, ["--cert", text(&own)?]);
    done(by(&members, &one, &alone, &keep).await?)?;
    assert!(fs::read(&own)? != before, "the same file");
    let whoami = done(by(&members, &one, &alone, &["admin", "whoami"]).await?)?.stdout;
    assert!(whoami.starts_with("alice: read-only\nproved by certificate "), "{whoami}");

    a_context_keeps_what_proves_her(&members, &one, &alone).await?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o644))?;
    let open = by(&members, &one, &alone, &["admin", "whoami"]).await?;
    assert!(open.stderr.contains("can be read by others"), "{}", open.stderr);
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600))?;

    // Taken back: by name, and with her.
    done(one.admin(&members, &["cluster", "revoke", "--admin-name", "alice"]).await?)?;
    let cut_off = async || {
        let told = by(&members, &one, &alone, &["admin", "whoami"]).await.ok()?;
        told.stderr.contains("evoked").then_some(())
    };
    eventually("her certificate to be refused", DEADLINE, cut_off).await;
    done(
        one.admin(&members, &["admin", "create", "bob", "--role", "auditor", "--request", text(&request)?])
            .await?,
    )
    .map(|created| fs::write(&certificate, created.stdout))??;
    done(by(&members, &one, &files, &["admin", "whoami"]).await?)?;
    done(one.admin(&members, &["admin", "delete", "bob"]).await?)?;
    let gone = by(&members, &one, &files, &["admin", "whoami"]).await?;
    assert!(gone.stderr.contains("the admin service refuses"), "{}", gone.stderr);
    assert!(one.terminate().await?.success());
    Ok(())
}
