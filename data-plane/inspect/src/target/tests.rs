//! Which URLs lead to the public network, and which do not.

use super::*;

#[test]
fn public_urls_pass() {
    for text in [
        "https://example.com/a?b=c#d",
        "http://93.184.216.34:8080/x",
        "https://ann@example.com/",
        "https://ann:secret@example.com:8443/x",
        "example.com/path",
        "https://bücher.example/ä",
        "http://[2606:2800:220:1:248:1893:25c8:1946]/",
        "https://user.github.io/?q=user@host.example",
        "s3://bucket.example/key",
        "https://www.home-depot.example/localhost",
        "https://8.8.8.8.nip.io/",
        "mailto:ann@example.com",
        "https://medium.com/@ann/a-story",
        "https://example.com?next=/@me",
        "",
    ] {
        assert_eq!(forbidden(text), None, "{text}");
    }
}

#[test]
fn what_only_the_servers_network_reaches_is_found_in_every_notation() {
    for (text, what) in [
        ("http://127.0.0.1/", LOOPBACK),
        ("http://127.1/", LOOPBACK),
        ("http://2130706433/", LOOPBACK),
        ("http://0x7f000001/", LOOPBACK),
        ("http://0177.0.0.1/", LOOPBACK),
        ("http://0x7f.1/", LOOPBACK),
        ("http://%31%32%37.0.0.1/", LOOPBACK),
        ("http://１２７.０.０.１/", LOOPBACK),
        ("http://①②⑦.0.0.1/", LOOPBACK),
        ("http://[::1]/", LOOPBACK),
        ("http://[::]/", LOOPBACK),
        ("http://[::ffff:127.0.0.1]/", LOOPBACK),
        ("http://[::ffff:a9fe:a9fe]/", LINK_LOCAL),
        ("http://[0:0:0:0:0:ffff:10.0.0.1]:80/", PRIVATE),
        ("http://[64:ff9b::a00:1]/", PRIVATE),
        ("http://[2002:a00:1::]/", PRIVATE),
        ("http://[fd00:ec2::254]/latest", PRIVATE),
        ("http://[fe80::1%25eth0]/", MALFORMED),
        ("http://[fe80::1]/", LINK_LOCAL),
        ("http://0/", LOOPBACK),
        ("http://10.1.2.3/", PRIVATE),
        ("http://172.31.0.1/", PRIVATE),
        ("http://192.168.0.1/", PRIVATE),
        ("http://169.254.169.254/latest/meta-data/", LINK_LOCAL),
        ("http://2852039166/", LINK_LOCAL),
        ("http://100.100.100.200/", LINK_LOCAL),
        ("http://localhost:8080/", LOOPBACK),
        ("http://LOCALHOST./", LOOPBACK),
        ("http://metadata.google.internal/", INTERNAL),
        ("http://redis:6379/", INTERNAL),
        ("http://api.default.svc.cluster.local/", INTERNAL),
        ("http://10.0.0.1.nip.io/", PRIVATE),
        ("http://app-192-168-1-1.sslip.io/", PRIVATE),
        ("http://7f000001.nip.io/", LOOPBACK),
        ("http://localtest.me/", LOOPBACK),
        ("http://example.com@127.0.0.1/", LOOPBACK),
        ("http://example.com\\@127.0.0.1/", LOOPBACK),
        ("http://example.com#@127.0.0.1/", LOOPBACK),
        ("http://a@127.0.0.1:80@example.com/", LOOPBACK),
        ("http://example.com\\@0xac1169e0/", PRIVATE),
        ("http://example.com#@2130706433/", LOOPBACK),
        ("http:\\\\127.0.0.1/", LOOPBACK),
        ("http:127.0.0.1/", LOOPBACK),
        ("http:///127.0.0.1/", LOOPBACK),
        ("ht\ttp://127.0.0.1/", LOOPBACK),
        ("  http://127.0.0.1/", LOOPBACK),
        ("//127.0.0.1/", LOOPBACK),
        ("127.0.0.1:80/x", LOOPBACK),
        ("localhost:8080", LOOPBACK),
        ("postgres://u:p@127.1/db", LOOPBACK),
        ("file:///etc/passwd", SCHEME),
        ("FILE:/etc/passwd", SCHEME),
        ("gopher://127.0.0.1:6379/_x", SCHEME),
        ("http://224.0.0.1/", RESERVED),
        ("http://256.256.256.256/", MALFORMED),
    ] {
        assert_eq!(forbidden(text), Some(what), "{text}");
    }
}

#[test]
fn where_nothing_is_declared_a_text_that_is_a_url_of_the_web_is_one() {
    let long = format!("http://169.254.169.254/x#{}", "a b\n".repeat(4 * 1024));
    for text in [
        "http://169.254.169.254/",
        &*long,
        " http://169.254.169.254/",
        "\thttp://169.254.169.254/\n",
        "http://169.254.169.254/ ",
        "http://169.254.169.254/ x",
        "http://169.254.169.254 x",
        "http://example.com @169.254.169.254/",
        "http://example.com#@169.254.169.254/ x",
        "ht\ttp:\n//169.254.169.254/",
        "http:169.254.169.254/ x",
    ] {
        assert_eq!(forbidden_in_any(text), Some(LINK_LOCAL), "{text:.60}");
    }
    for text in [
        "see http://localhost:3000/",
        "file:///home/ann/x",
        "localhost",
        "a:b",
        "http:\n  port: 80\n  host: localhost # http://10.0.0.1/",
        "http:\n\tport: 80",
        "http: the protocol of the web",
        "https://example.com/ is mine; who? me? you? he? she? it? we? they? all? 10.0.0.1",
        "https://example.com is mine",
        "https://example.com/a\nhttps://example.com/b\n",
    ] {
        assert_eq!(forbidden_in_any(text), None, "{text}");
    }
}

#[test]
fn a_url_is_read_for_policies() {
    let target = read("HTTPS://ann@Example.COM/x");
    let expected = Target {
        scheme: "https".to_owned(),
        host: "example.com".to_owned(),
        port: Some(443),
        is_private: false,
        has_user: true,
    };
    assert_eq!(target, Some(expected));
    let private = read("http://0x7f.1/").map(|target| (target.host, target.is_private));
    assert_eq!(private, Some(("127.0.0.1".to_owned(), true)));
    assert_eq!(read("http://"), None);
}
