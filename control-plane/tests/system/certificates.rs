//! Admins by certificate: on what they hang, how long they count, and who gets none.

use gantry_control_plane::ControlPlane;
use gantry_node::tls::{CertificateRequest, Certified, Presenter, Trust};
use gantry_wire::admin_v1::admin_client::AdminClient;
use gantry_wire::admin_v1::*;
use gantry_wire::enrol_v1::RenewRequest;
use gantry_wire::enrol_v1::enrol_client::EnrolClient;
use rustls::pki_types::CertificateDer;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::enrol::{Secured, dial};
use crate::harness::{Admin, Result, add_token};

/// A connection, as whoever has these.
async fn channel(plane: &ControlPlane, own: Option<&Certified>) -> Result<Channel> {
    let trust = Trust::new(&[CertificateDer::from(plane.authority().ok_or("an authority")?)])?;
    let presenter = own.map_or_else(Presenter::empty, |own| Presenter::new(own.clone()));
    dial(plane, presenter, trust).await
}

async fn client(plane: &ControlPlane, own: Option<&Certified>, token: Option<&str>) -> Result<Admin> {
    Ok(AdminClient::with_interceptor(channel(plane, own).await?, add_token(token)?))
}

fn certified(request: &CertificateRequest, made: Option<AdminCertificate>) -> Result<Certified> {
    let chain = made.ok_or("a certificate")?.chain;
    Ok(request.complete(chain.into_iter().map(CertificateDer::from).collect())?)
}

async fn certify(admin: &mut Admin, seconds: u64) -> Result<std::result::Result<Certified, Status>> {
    let request = CertificateRequest::new()?;
    let asked =
        CertifyAdminRequest { certificate_request: request.as_der().to_vec(), expires_in_seconds: seconds };
    match admin.certify_admin(asked).await {
        Ok(made) => Ok(Ok(certified(&request, made.into_inner().certificate)?)),
        Err(status) => Ok(Err(status)),
    }
}

fn create(name: &str, expires_in_seconds: u64, request: &[u8]) -> CreateAdminRequest {
    CreateAdminRequest {
        name: name.into(),
        roles: vec!["auditor".into()],
        expires_in_seconds,
        expected_revision: None,
        certificate_request: request.to_vec(),
    }
}

async fn proof(admin: &mut Admin) -> std::result::Result<String, (Code, String)> {
    let told = admin.who_am_i(WhoAmIRequest {}).await;
    let told = told.map_err(|status| (status.code(), status.message().to_owned()))?.into_inner();
    Ok(format!("{} by {}", told.name, told.proof))
}

#[tokio::test]
async fn a_certificate_and_those_that_follow_it_end_with_the_token_that_they_hang_on() -> Result {
    let mut secured = Secured::start().await?;
    // The first is made with the admin, and nobody is told a token.
    let request = CertificateRequest::new()?;
    let made = secured.admin.create_admin(create("alice", 3_600, request.as_der())).await?.into_inner();
    assert_eq!(made.token, "");
    let first = certified(&request, made.certificate)?;
    assert!(
        first.peer().expires_at_ms <= made.expires_at_ms,
        "the token has an hour, and a certificate a day"
    );
    let mut alice = client(&secured.plane, Some(&first), None).await?;
    assert_eq!(proof(&mut alice).await, Ok(format!("alice by certificate {}", first.peer().serial)));

    // The next one, and one of a shorter life.
    let second = certify(&mut alice, 0).await??;
    assert!(second.peer().expires_at_ms <= made.expires_at_ms);
    assert_eq!(second.peer().token, first.peer().token);
    let short = certify(&mut alice, 60).await??;
    assert!(short.peer().expires_at_ms + 3_000_000 < made.expires_at_ms);
    for seconds in [29, 86_401] {
        let refused = certify(&mut alice, seconds).await?.map(|_| ()).map_err(|status| status.code());
        assert_eq!(refused, Err(Code::InvalidArgument), "{seconds}");
    }
    let mut by_second = client(&secured.plane, Some(&second), None).await?;
    assert_eq!(proof(&mut by_second).await, Ok(format!("alice by certificate {}", second.peer().serial)));
    // With what it proves she makes no token that lasts longer than it.
    let rotated =
        by_second.rotate_admin_token(RotateAdminTokenRequest { grace_seconds: 0, ..Default::default() });
    let rotated = rotated.await?.into_inner();
    assert!(rotated.expires_at_ms != 0 && rotated.expires_at_ms <= second.peer().expires_at_ms);

    // That ended the token that all of them hang on.
    let ended = "the token that the certificate hangs on has ended; have another one made".to_owned();
    for certificate in [&first, &second, &short] {
        let mut alice = client(&secured.plane, Some(certificate), None).await?;
        assert_eq!(proof(&mut alice).await, Err((Code::Unauthenticated, ended.clone())));
        let renewed = certify(&mut alice, 0).await?.map(|_| ()).map_err(|status| status.code());
        assert_eq!(renewed, Err(Code::Unauthenticated));
    }
    // By the new token there is a new one, and none by it once she is gone, although another has her name.
    let mut alice = client(&secured.plane, None, Some(&rotated.token)).await?;
    let third = certify(&mut alice, 0).await??;
    secured.admin.delete_admin(DeleteAdminRequest { name: "alice".into(), ..Default::default() }).await?;
    secured.admin.create_admin(create("alice", 0, &[])).await?;
    let mut alice = client(&secured.plane, Some(&third), None).await?;
    assert_eq!(proof(&mut alice).await, Err((Code::Unauthenticated, ended)));
    Ok(secured.plane.shutdown().await?)
}

#[tokio::test]
async fn the_start_token_has_no_certificates_and_a_certificate_renews_at_its_own_door_only() -> Result {
    let mut secured = Secured::start().await?;
    let refused = certify(&mut secured.admin, 0).await?.map(|_| ()).map_err(|status| status.code());
    assert_eq!(refused, Err(Code::FailedPrecondition));
    // What cannot be signed makes no admin.
    let broken = secured.admin.create_admin(create("bob", 0, b"no request")).await;
    assert_eq!(broken.map(|_| ()).map_err(|status| status.code()), Err(Code::InvalidArgument));
    let listed = secured.admin.list_admins(ListAdminsRequest::default()).await?.into_inner();
    assert_eq!(listed.admins, []);

    let request = CertificateRequest::new()?;
    let made = secured.admin.create_admin(create("bob", 0, request.as_der())).await?.into_inner();
    let bob = certified(&request, made.certificate)?;
    let renewal = RenewRequest { certificate_request: CertificateRequest::new()?.as_der().to_vec() };
    let renewed = EnrolClient::new(channel(&secured.plane, Some(&bob)).await?).renew(renewal).await;
    let refused = renewed.map(|_| ()).map_err(|status| (status.code(), status.message().to_owned()));
    let told = "an admin renews his certificate with `gantry admin certificate`".to_owned();
    assert_eq!(refused, Err((Code::PermissionDenied, told)));
    Ok(secured.plane.shutdown().await?)
}
