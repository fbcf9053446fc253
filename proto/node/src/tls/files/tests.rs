//! Certificates from files: replaced while they are in use, and told of when they cannot be.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const HOUR: Duration = Duration::from_secs(3_600);
const OWN: &str = "gantry://here/node/a";

type Organisation = CertifiedIssuer<'static, KeyPair>;

fn organisation() -> Organisation {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority")
}

/// Gives out a certificate that counts for a day from `from` on.
fn give(folder: &Path, organisation: &Organisation, name: &str, from: SystemTime) {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(name.try_into().expect("ASCII"))];
    (params.not_before, params.not_after) = (from.into(), (from + DAY).into());
    let key = KeyPair::generate().expect("a key");
    let leaf = params.signed_by(&key, organisation).expect("a certificate");
    fs::write(folder.join("own.pem"), leaf.pem()).expect("written");
    fs::write(folder.join("own.key"), key.serialize_pem()).expect("written");
    fs::set_permissions(folder.join("own.key"), fs::Permissions::from_mode(0o640)).expect("its rights");
    fs::write(folder.join("ca.pem"), organisation.pem()).expect("written");
}

struct Followed {
    folder: tempfile::TempDir,
    presenter: Arc<Presenter>,
    follower: Follower,
    now: SystemTime,
}

impl Followed {
    fn new() -> Followed {
        let folder = tempfile::tempdir().expect("a folder");
        let now = SystemTime::now();
        give(folder.path(), &organisation(), OWN, now - HOUR);
        let path = |name: &str| folder.path().join(name);
        let own = OwnFiles { certificate: path("own.pem"), key: path("own.key") };
        let files = PeerFiles { own: Some(own), authorities: path("ca.pem") };
        let loaded = files.load(None, now).expect("they fit");
        let (mark, trust) = (loaded.mark(), Trust::new(&loaded.authorities).expect("an authority"));
        let presenter = Presenter::new(loaded.certified.expect("a certificate"));
        let follower = Follower::new(files, presenter.clone(), trust, mark);
        Followed { folder, presenter, follower, now }
    }

    fn shown(&self) -> crate::identity::Serial {
        self.presenter.certified().expect("a certificate").peer().serial.clone()
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What is told of what is in the files now; the second look tells nothing more.
    fn wrong(&mut self) -> String {
        let before = self.shown();
        let Some(Finding::Wrong(wrong)) = self.follower.look(self.now) else { panic!("nothing is wrong") };
        assert_eq!((self.follower.look(self.now), self.shown()), (None, before));
        wrong
    }
}

#[test]
fn changed_files_are_in_use_at_the_next_look() {
    let mut followed = Followed::new();
    assert_eq!(followed.follower.look(followed.now), None);
    let first = followed.shown();
    give(followed.folder.path(), &organisation(), OWN, followed.now - HOUR);
    assert_eq!(followed.follower.look(followed.now), Some(Finding::Taken));
    assert_ne!(followed.shown(), first);
    assert_eq!(followed.follower.look(followed.now), None);
}

#[test]
fn what_cannot_be_used_leaves_what_is_in_use_and_is_told() {
    let mut followed = Followed::new();
    let kept = "; what was in use before stays in use";
    let (own, key, ca) = (followed.path("own.pem"), followed.path("own.key"), followed.path("ca.pem"));
    let (folder, other) = (followed.folder.path().to_owned(), organisation());

    // The certificate was replaced and the key not yet.
    let first_key = fs::read(&key).expect("read");
    give(&folder, &other, OWN, followed.now - HOUR);
    fs::write(&key, first_key).expect("written");
    let wrong = followed.wrong();
    assert!(
        wrong.starts_with(&format!("the certificate in {own} and the key in {key} cannot be used: ")),
        "{wrong}"
    );
    assert!(wrong.ends_with(kept), "{wrong}");

    give(&folder, &other, "gantry://here/node/b", followed.now - HOUR);
    let whose =
        format!("the certificate in {own} is that of gantry://here/node/b, and this process is {OWN}{kept}");
    assert_eq!(followed.wrong(), whose);

    give(&folder, &other, OWN, followed.now - 2 * DAY);
    assert_eq!(followed.wrong(), format!("the certificate in {own} has ended{kept}"));
    give(&folder, &other, OWN, followed.now + HOUR);
    assert_eq!(followed.wrong(), format!("the certificate in {own} does not count yet{kept}"));

    give(&folder, &other, OWN, followed.now - HOUR);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("its rights");
    let open =
        format!("{key} can be read by everybody, and holds a private key; `chmod o= FILE` ends that{kept}");
    assert_eq!(followed.wrong(), open);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("its rights");

    fs::write(&ca, "").expect("written");
    let none = format!("the authorities in {ca} cannot be used: there is no authority in the bundle{kept}");
    assert_eq!(followed.wrong(), none);
    fs::remove_file(&ca).expect("removed");
    assert!(followed.wrong().starts_with(&format!("{ca} cannot be read: ")));

    // It is tried again until it can be.
    fs::write(&ca, other.pem()).expect("written");
    assert_eq!(followed.follower.look(followed.now), Some(Finding::Taken));
}

#[test]
fn the_end_of_a_certificate_is_told_in_time_and_every_hour() {
    let mut followed = Followed::new();
    let own = followed.path("own.pem");
    let begin = followed.now - HOUR;
    let mut at = |hours: u32| followed.follower.look(begin + HOUR * hours);
    let late = format!("the certificate in {own} is in the last quarter of its life; replace it");
    let ended = format!("the certificate in {own} has ended, and nobody believes it; replace it");
    assert_eq!(at(17), None);
    assert_eq!(at(19), Some(Finding::Wrong(late.clone())));
    assert_eq!(at(19), None);
    assert_eq!(at(20), Some(Finding::Wrong(late)));
    assert_eq!(at(25), Some(Finding::Wrong(ended)));
    give(followed.folder.path(), &organisation(), OWN, begin + HOUR * 24);
    assert_eq!(followed.follower.look(begin + HOUR * 25), Some(Finding::Taken));
    assert_eq!(followed.follower.look(begin + HOUR * 25), None);
}
