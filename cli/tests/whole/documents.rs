//! Document sets that are refused before anything is sent.

use crate::program::{Folder, seen};

fn agent(name: &str) -> String {
    format!("---\nkind: Agent\ntenant: acme\nname: {name}\n")
}

#[test]
fn ten_good_documents_do_not_hide_a_bad_one() {
    let folder = Folder::new();
    let mut text: String = (0..10).map(|number| agent(&format!("bot-{number}"))).collect();
    text.push_str("---\nkind: Endpoint\ntenant: acme\nname: main\nspec:\n  servres: [files]\n");
    folder.write("set.yaml", &text);
    let expected = "error: the documents have a problem; nothing was applied
  set.yaml:document 11 (Endpoint acme/main): spec.servres: unknown field `servres`, expected one of `servers`, `naming`, `aliases`, `anonymous`, `authentication`; nearest known name: servers
next: correct the documents, then `gantry diff -f set.yaml`
";
    assert_eq!(folder.run(&["apply", "-f", "set.yaml"]), seen(1, "", expected));
}

#[test]
fn every_problem_of_every_file_is_told_at_once() {
    let folder = Folder::new();
    std::fs::create_dir_all(folder.path().join("set/.hidden")).expect("folders");
    folder.write("set/.hidden/ignored.yaml", "not: read");
    folder.write(
        "set/1.yaml",
        "kind: Server\ntenant: acme\nname: files\nspec:\n  url: http://a/\n  url: http://b/\n",
    );
    folder.write("set/2.json", r#"[{"kind": "Sever", "name": "x"}, {"kind": "Tenant", "name": "A"}]"#);
    folder.write("set/3.yml", "kind: Tenant\nname: acme\n---\nkind: [\n");
    folder.write("set/notes.txt", "not read either");
    let expected = "error: the documents have 5 problems; nothing was applied
  set/1.yaml:document 1: spec: the key \"url\" stands twice at line 5 column 3
  set/2.json:document 1 (Sever x): kind: unknown kind \"Sever\"; nearest known name: Server
  set/2.json:document 2 (Tenant A): name: \"A\": 'A' may not stand in a name (lowercase letters, digits and `-`)
  set/3.yml:document 2: did not find expected node content at line 5 column 1, while parsing a flow node
  stdin:document 1 (Tenant acme): stands in set/3.yml:document 1 already
next: correct the documents, then `gantry diff -f set -f -`
";
    let arguments = ["apply", "-f", "set", "-f", "-"];
    assert_eq!(folder.run_with(&arguments, "kind: Tenant\nname: acme\n"), seen(1, "", expected));
}

#[test]
fn a_set_without_a_document_is_refused() {
    let folder = Folder::new();
    let expected = "error: there is no document in what -f names
next: name a file with documents; `gantry get all -o yaml` shows their form
";
    assert_eq!(folder.run_with(&["apply", "-f", "-"], "# nothing\n"), seen(1, "", expected));
    let expected = "error: nowhere cannot be read: No such file or directory (os error 2)
next: name a file or a directory that exists, or `-f -`
";
    assert_eq!(folder.run(&["diff", "-f", "nowhere"]), seen(1, "", expected));
}
