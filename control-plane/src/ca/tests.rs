//! What the authority signs, and what it does not.

use std::error::Error;

use gantry_control_state::Command;
use gantry_model::Revision;
use gantry_node::tls::Peer;
use rcgen::PKCS_ECDSA_P384_SHA384;
use rustls::RootCertStore;
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::pki_types::UnixTime;
use rustls::server::ParsedCertificate;

use super::*;

type Tested = Result<(), Box<dyn Error>>;

fn founded() -> Result<(tempfile::TempDir, Vault, State), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let cluster = Vault::found(directory.path())?;
    let vault = Vault::unseal(directory.path(), &cluster)?;
    let mut state = State::default();
    state.apply(Revision(1), &Command::Bootstrap(cluster));
    Ok((directory, vault, state))
}

fn node(ca: &Ca) -> PeerName {
    PeerName::node(ca.cluster().clone(), "a".parse().expect("a name"))
}

/// Whether a chain leads to the authority.
fn counts(ca: &Ca, chain: &[CertificateDer<'static>], at: SystemTime) -> Result<(), rustls::Error> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate().clone())?;
    let leaf = ParsedCertificate::try_from(&chain[0])?;
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970"));
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&leaf, &roots, &chain[1..], at, algorithms)
}

fn milliseconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs() * 1_000
}

#[test]
fn a_certificate_says_what_the_authority_decided_and_nothing_that_the_request_asks_for() -> Tested {
    let (_directory, vault, state) = founded()?;
    let ca = Ca::open(&vault, &state)?;
    let mut params = CertificateParams::new(vec!["admin.example.com".to_owned()])?;
    let asked = PeerName::admin(ca.cluster().clone(), "root".parse()?).to_string();
    params.subject_alt_names.push(SanType::URI(asked.try_into()?));
    let claimed = Labels { region: Some("us".parse()?), ..Labels::default() }.to_uri(ca.cluster().as_str());
    params.subject_alt_names.push(SanType::URI(claimed.try_into()?));
    params.distinguished_name.push(DnType::CommonName, "root");
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    let key = KeyPair::generate()?;
    let request = params.serialize_request(&key)?;

    let now = SystemTime::now();
    let labels =
        Labels { tenants: ["acme".parse()?].into(), region: Some("eu".parse()?), ..Labels::default() };
    let chain = ca.issue(request.der(), (&node(&ca), &labels), now)?;
    assert_eq!(chain[1..], [ca.certificate().clone()]);
    let peer = Peer::read(&chain[0])?;
    let expected = Peer {
        name: node(&ca),
        labels: labels.clone(),
        token: None,
        serial: peer.serial.clone(),
        begins_at_ms: milliseconds(now - CLOCK_SKEW),
        expires_at_ms: milliseconds(now + LEAF_LIFE),
    };
    assert_eq!(peer, expected);
    assert_eq!(counts(&ca, &chain, now), Ok(()));
    assert!(counts(&ca, &chain, now + LEAF_LIFE + Duration::from_secs(1)).is_err());
    let text = String::from_utf8_lossy(&chain[0]);
    assert!(!text.contains("root") && !text.contains("example"), "{text}");

    // Who has a certificate cannot make more of them.
    let leaf_as_authority = Issuer::from_ca_cert_der(&chain[0], key)?;
    let forged =
        leaf(&node(&ca), None, now, LEAF_LIFE)?.signed_by(&KeyPair::generate()?, &leaf_as_authority)?;
    let mut forged_chain = vec![forged.der().clone()];
    forged_chain.extend(chain);
    assert!(counts(&ca, &forged_chain, now).is_err());
    Ok(())
}

#[test]
fn a_short_certificate_counts_from_shortly_before_and_is_not_due_at_once() -> Tested {
    let (_directory, vault, state) = founded()?;
    let life = Duration::from_secs(60);
    let ca = Ca::open(&vault, &state)?.with_life(life);
    let now = SystemTime::now();
    let chain = ca.issue(CertificateRequest::new()?.as_der(), (&node(&ca), &Labels::default()), now)?;
    let peer = Peer::read(&chain[0])?;
    let expected = Peer {
        name: node(&ca),
        labels: Labels::default(),
        token: None,
        serial: peer.serial.clone(),
        begins_at_ms: milliseconds(now - life / 10),
        expires_at_ms: milliseconds(now + life),
    };
    assert_eq!(peer, expected);
    let longest = Ca::open(&vault, &state)?.with_life(LEAF_LIFE * 2);
    let chain = longest.issue(CertificateRequest::new()?.as_der(), (&node(&ca), &Labels::default()), now)?;
    assert_eq!(Peer::read(&chain[0])?.expires_at_ms, milliseconds(now + LEAF_LIFE));
    Ok(())
}

#[test]
fn an_admins_certificate_names_the_token_that_it_hangs_on_and_is_for_a_client_only() -> Tested {
    let (_directory, vault, state) = founded()?;
    let ca = Ca::open(&vault, &state)?;
    let (alice, token, now) = ("alice".parse()?, KeyId([7; 8]), SystemTime::now());
    let chain = ca.issue_to_admin(CertificateRequest::new()?.as_der(), (&alice, token), now)?;
    let peer = Peer::read(&chain[0])?;
    let expected = Peer {
        name: PeerName::admin(ca.cluster().clone(), alice),
        labels: Labels::default(),
        token: Some(token),
        serial: peer.serial.clone(),
        begins_at_ms: milliseconds(now - CLOCK_SKEW),
        expires_at_ms: milliseconds(now + LEAF_LIFE),
    };
    assert_eq!(peer, expected);
    assert!(counts(&ca, &chain, now).is_err(), "nobody is believed to be a server for it");
    Ok(())
}

#[test]
fn a_request_without_proof_of_its_key_is_refused() -> Tested {
    let (_directory, vault, state) = founded()?;
    let ca = Ca::open(&vault, &state)?;
    let now = SystemTime::now();
    let issue = |request: &[u8]| ca.issue(request, (&node(&ca), &Labels::default()), now);
    let request = CertificateRequest::new()?;
    assert!(issue(request.as_der()).is_ok());

    let mut damaged = request.as_der().to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    assert!(matches!(issue(&damaged), Err(IssueError::Request(_))));
    assert!(matches!(issue(b""), Err(IssueError::Request(_))));
    assert!(matches!(issue(&vec![0; REQUEST_BYTES_MAX + 1]), Err(IssueError::TooLarge(_))));
    let other_kind = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384)?;
    let other_kind = CertificateParams::default().serialize_request(&other_kind)?;
    assert!(matches!(issue(other_kind.der()), Err(IssueError::KeyKind)));

    let elsewhere: PeerName = "gantry://elsewhere/node/a".parse()?;
    let refused = ca.issue(request.as_der(), (&elsewhere, &Labels::default()), now);
    assert!(matches!(refused, Err(IssueError::OtherCluster(name)) if name == elsewhere));
    Ok(())
}

#[test]
fn no_two_certificates_have_one_number() -> Tested {
    let (_directory, vault, state) = founded()?;
    let ca = Ca::open(&vault, &state)?;
    let request = CertificateRequest::new()?;
    let serials = (0..32).map(|_| {
        let chain = ca.issue(request.as_der(), (&node(&ca), &Labels::default()), SystemTime::now())?;
        Ok(Peer::read(&chain[0])?.serial)
    });
    let serials: std::collections::HashSet<_> = serials.collect::<Result<_, Box<dyn Error>>>()?;
    assert_eq!(serials.len(), 32);
    assert!(serials.iter().any(|serial| serial.as_bytes().len() == SERIAL_BYTES), "{serials:?}");
    Ok(())
}

#[test]
fn the_key_opens_beside_its_own_certificate_and_in_its_own_cluster_only() -> Tested {
    let (_directory, vault, state) = founded()?;
    let (_other_directory, other_vault, other_state) = founded()?;
    let authority = |state: &State| state.cluster().and_then(|cluster| cluster.enrolment.authority.clone());
    let (ours, theirs) = (authority(&state).expect("one"), authority(&other_state).expect("one"));
    assert!(vault.open_authority(&ours).is_ok());
    assert_eq!(other_vault.open_authority(&ours).err(), Some(NotOurs));
    let mixed = gantry_model::enrolment::Authority { certificate: theirs.certificate, ..ours };
    assert_eq!(vault.open_authority(&mixed).err(), Some(NotOurs));
    Ok(())
}

#[test]
fn a_process_certifies_itself_and_no_key_is_shown() -> Tested {
    let (_directory, vault, state) = founded()?;
    let ca = Ca::open(&vault, &state)?;
    let certified = ca.certify(&node(&ca), SystemTime::now())?;
    assert_eq!(certified.peer().name, node(&ca));
    assert_eq!(format!("{ca:?}"), format!("Ca {{ cluster: {:?}, .. }}", ca.cluster()));
    let shown = format!("{:?}", CertificateRequest::new()?);
    assert!(shown.starts_with("CertificateRequest { key: Secret(hidden), request: "), "{shown}");
    Ok(())
}
