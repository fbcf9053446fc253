//! Which certificates count, and what they are read as.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use time::OffsetDateTime;

use super::*;

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// A moment in 2030, and a year around it.
const NOW: i64 = 1_900_000_000;
const YEAR: i64 = 365 * 86_400;

fn at(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds).expect("a time")
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    (params.not_before, params.not_after) = (at(NOW - YEAR), at(NOW + YEAR));
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn authority(params: CertificateParams) -> Issuer {
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

fn client_params() -> CertificateParams {
    let mut params = params("reporter");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names =
        vec![SanType::URI("spiffe://acme.example/reporter".try_into().expect("a URI"))];
    params
}

fn signed(params: CertificateParams, by: &Issuer) -> CertificateDer<'static> {
    let key = KeyPair::generate().expect("a key");
    params.signed_by(&key, by).expect("a certificate").der().clone()
}

fn verify(bundle: &str, chain: &[CertificateDer<'_>]) -> Result<(), ClientCertificateError> {
    let now = UnixTime::since_unix_epoch(Duration::from_secs(NOW.unsigned_abs()));
    ClientAuthorities::parse(bundle).expect("a bundle").verify(chain, now)
}

#[test]
fn only_what_an_authority_of_the_bundle_vouches_for_now_and_for_clients_counts() {
    let (root, other) = (authority(authority_params("root")), authority(authority_params("root")));
    let bundle = root.pem();
    let by = |issuer: &Issuer, change: fn(&mut CertificateParams)| {
        let mut params = client_params();
        change(&mut params);
        signed(params, issuer)
    };
    let change = |change: fn(&mut CertificateParams)| by(&root, change);
    let unknown = Err(ClientCertificateError::UnknownIssuer);
    let good = change(|_| ());
    let alone = client_params().self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    let sub_authority = change(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    for (what, chain, expected) in [
        ("good", good.clone(), Ok(())),
        ("for everything", change(|params| params.extended_key_usages.clear()), Ok(())),
        (
            "another authority of the same name",
            signed(client_params(), &other),
            Err(ClientCertificateError::UnknownIssuer),
        ),
        ("its own authority", alone.der().clone(), Err(ClientCertificateError::UnknownIssuer)),
        ("expired", change(|params| params.not_after = at(NOW - 1)), Err(ClientCertificateError::Expired)),
        ("early", change(|params| params.not_before = at(NOW + 1)), Err(ClientCertificateError::Early)),
        (
            "a server's",
            change(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            Err(ClientCertificateError::Purpose),
        ),
        ("an authority's", sub_authority, Err(ClientCertificateError::Chain)),
        // Whoever makes one for himself is not told more by making it odd.
        ("another's, expired", by(&other, |params| params.not_after = at(NOW - 1)), unknown),
        ("another's, early", by(&other, |params| params.not_before = at(NOW + 1)), unknown),
        (
            "another's, a server's",
            by(&other, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            unknown,
        ),
        ("none", CertificateDer::from(vec![1, 2, 3]), Err(ClientCertificateError::Unreadable)),
    ] {
        assert_eq!(verify(&bundle, &[chain]), expected, "{what}");
    }
    assert_eq!(verify(&bundle, &[]), Err(ClientCertificateError::Unreadable));
    // Both are believed while an authority is replaced.
    let both = format!("{}\n{}", other.pem(), root.pem());
    assert_eq!(verify(&both, &[good]), Ok(()));
}

#[test]
fn an_intermediate_authority_is_shown_by_the_client_and_an_ended_one_vouches_for_nobody() {
    let root = authority(authority_params("root"));
    let key = KeyPair::generate().expect("a key");
    let middle = CertifiedIssuer::signed_by(authority_params("middle"), key, &root).expect("an authority");
    let leaf = signed(client_params(), &middle);
    assert_eq!(verify(&root.pem(), &[leaf.clone(), middle.der().clone()]), Ok(()));
    assert_eq!(verify(&root.pem(), std::slice::from_ref(&leaf)), Err(ClientCertificateError::UnknownIssuer));
    assert_eq!(verify(&middle.pem(), std::slice::from_ref(&leaf)), Ok(()));
    let not_signing = signed(client_params(), &root);
    assert_eq!(
        verify(&root.pem(), &[leaf, not_signing]),
        Err(ClientCertificateError::UnknownIssuer),
        "a client vouches for nobody"
    );
    let mut ended = authority_params("ended");
    ended.not_after = at(NOW - 1);
    let ended = authority(ended);
    let leaf = signed(client_params(), &ended);
    assert_eq!(verify(&ended.pem(), &[leaf]), Err(ClientCertificateError::UnknownIssuer));
}

#[test]
fn a_bundle_holds_certificates_of_authorities_and_nothing_else() {
    let error = |pem: &str| ClientAuthorities::parse(pem).map(|read| read.0.len());
    let root = authority(authority_params("root"));
    assert_eq!(error(&root.pem().repeat(AUTHORITIES_MAX)), Ok(AUTHORITIES_MAX));
    let too_many = AUTHORITIES_MAX + 1;
    assert_eq!(error(&root.pem().repeat(too_many)), Err(ClientAuthoritiesError::TooMany(too_many)));
    assert_eq!(error(""), Err(ClientAuthoritiesError::Empty));
    let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
    assert_eq!(error(broken), Err(ClientAuthoritiesError::Pem));
    let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(error(&format!("{}{none}", root.pem())), Err(ClientAuthoritiesError::Unreadable(2)));
    let leaf = client_params().self_signed(&KeyPair::generate().expect("a key")).expect("a certificate");
    assert_eq!(error(&leaf.pem()), Err(ClientAuthoritiesError::NoAuthority(1)));
    let mut silent = authority_params("root");
    silent.key_usages = vec![KeyUsagePurpose::CrlSign];
    assert_eq!(error(&authority(silent).pem()), Err(ClientAuthoritiesError::NoAuthority(1)));
}

#[test]
fn names_are_read_by_kind_and_no_text_of_a_subject_looks_like_another_part() {
    let root = authority(authority_params("root"));
    let mut params = client_params();
    params.subject_alt_names.extend([
        SanType::DnsName("Reporter.Acme.example".try_into().expect("a name")),
        SanType::Rfc822Name("reporter@acme.example".try_into().expect("an address")),
    ]);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "NO");
    params.distinguished_name.push(DnType::OrganizationName, "Acme, Inc+x");
    params.distinguished_name.push(DnType::CommonName, " a,O=Other #1\\ ");
    let names = ClientNames::read(&signed(params, &root)).expect("names");
    assert_eq!(
        names,
        ClientNames {
            uris: vec!["spiffe://acme.example/reporter".to_owned()],
            dns: vec!["reporter.acme.example".to_owned()],
            emails: vec!["reporter@acme.example".to_owned()],
            subject: Some(r"CN=\ a\,O=Other #1\\\ ,O=Acme\, Inc\+x,C=NO".to_owned()),
            ends_at: (NOW + YEAR).unsigned_abs(),
        }
    );
    let mut params = client_params();
    params.distinguished_name = DistinguishedName::new();
    assert_eq!(ClientNames::read(&signed(params, &root)).expect("names").subject, None);
}

#[test]
fn a_chain_is_no_longer_than_honest_ones_are() {
    let root = authority(authority_params("root"));
    let (mut issuers, mut ders): (Vec<Issuer>, Vec<CertificateDer<'static>>) = (Vec::new(), Vec::new());
    for _ in 0..=INTERMEDIATES_MAX {
        // All of one name, so that any of them might have signed any other.
        let by = issuers.last().unwrap_or(&root);
        let key = KeyPair::generate().expect("a key");
        let next = CertifiedIssuer::signed_by(authority_params("between"), key, by).expect("an authority");
        ders.insert(0, next.der().clone());
        issuers.push(next);
        let leaf = signed(client_params(), issuers.last().expect("one"));
        let chain: Vec<CertificateDer<'_>> = std::iter::once(leaf).chain(ders.iter().cloned()).collect();
        let expected = match ders.len() {
            ..=INTERMEDIATES_MAX => Ok(()),
            _ => Err(ClientCertificateError::Chain),
        };
        assert_eq!(verify(&root.pem(), &chain), expected, "{} between", ders.len());
    }
    let mut large = client_params();
    large.subject_alt_names = (0..1_000)
        .map(|number| SanType::DnsName(format!("host-{number}.acme.example").try_into().expect("a name")))
        .collect();
    assert_eq!(verify(&root.pem(), &[signed(large, &root)]), Err(ClientCertificateError::Chain));
}

#[test]
fn a_subject_that_tools_write_in_different_ways_is_none() {
    let root = authority(authority_params("root"));
    let mut params = client_params();
    params.distinguished_name.push(DnType::CustomDnType(vec![2, 5, 4, 12]), "boss");
    assert_eq!(ClientNames::read(&signed(params, &root)).expect("names").subject, None);
}
