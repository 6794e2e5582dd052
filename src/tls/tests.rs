use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams,
    SerialNumber, date_time_ymd,
};
use rustls::crypto::ring;
use rustls::version::TLS13;
use rustls::{CipherSuite, ClientConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::files::{authorities, provider};
use super::movable::Movable;
use super::*;

/// Certificates of an authority, in a directory.
struct Authority {
    directory: PathBuf,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new(directory: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join(format!("{name}.pem")), issuer.pem()).unwrap();
        Self { directory: directory.to_owned(), issuer }
    }

    /// A certificate for these names, as `NAME.pem` and `NAME.key`.
    fn issue(&self, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(self.directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    fn revoke(&self, serial: u64) {
        self.revoke_until(serial, 4000);
    }

    /// The same, by a list that is good until that year.
    fn revoke_until(&self, serial: u64, year: i32) {
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).unwrap();
        fs::write(self.directory.join("crl.pem"), list.pem().unwrap()).unwrap();
    }
}

/// A directory with an authority, a server's certificate for localhost, and a client's.
struct Place {
    directory: tempfile::TempDir,
    authority: Authority,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let authority = Authority::new(directory.path(), "ca");
        authority.issue("server", &["localhost", "127.0.0.1"], |_| {});
        authority.issue("client", &["client.internal"], |_| {});
        Self { directory, authority }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn files(&self) -> ServerFiles {
        ServerFiles {
            cert: self.at("server.pem"),
            key: self.at("server.key"),
            client_ca: None,
            client_auth: ClientAuth::Required,
            crl: None,
        }
    }

    fn mutual(&self) -> ServerFiles {
        ServerFiles { client_ca: Some(self.at("ca.pem")), ..self.files() }
    }

    fn options(&self) -> TlsOptions {
        TlsOptions::new().server_ca(self.at("ca.pem"))
    }

    fn shows(&self, name: &str) -> TlsOptions {
        let (cert, key) = (self.at(&format!("{name}.pem")), self.at(&format!("{name}.key")));
        self.options().client_cert(cert, key)
    }
}

/// A server's side of a connection in memory, whose handshake is made where it is read.
fn shaking(stream: DuplexStream, server: &ServerTls) -> Accepted<DuplexStream> {
    let shaking = TlsAcceptor::from(server.for_locks()).accept(Movable::Watched(stream));
    Accepted::shaking(async { Ok(Box::new(shaking.await?)) }, Arc::default())
}

/// What both sides say of a connection over which one byte is to go there and back.
async fn speak(server: &ServerTls, host: &str, options: &TlsOptions) -> [Result<(), String>; 2] {
    let (here, there) = duplex(16 * 1024);
    let mut accepted = shaking(here, server);
    let serving = async move {
        let exchange = async {
            let byte = accepted.read_u8().await?;
            accepted.write_u8(byte).await?;
            accepted.flush().await
        };
        let done = exchange.await;
        // What is refused is told before the connection goes.
        let _ = accepted.flush().await;
        let _ = accepted.shutdown().await;
        done
    };
    let asking = async {
        let mut dialed = options.secure(there, host).await?;
        dialed.write_u8(7).await?;
        dialed.flush().await?;
        assert_eq!(dialed.read_u8().await?, 7);
        std::io::Result::Ok(())
    };
    let (ours, theirs) = tokio::join!(serving, asking);
    [ours, theirs].map(|done| done.map_err(|why| why.to_string()))
}

/// What the client is told.
async fn refusal(server: ServerFiles, host: &str, options: TlsOptions) -> String {
    let server = ServerTls::read(&server).unwrap();
    let [_, asked] = speak(&server, host, &options).await;
    asked.unwrap_err()
}

/// What a client that has everything in the order of the library agrees on with a server.
async fn agreed(server: &ServerTls, place: &Place) -> CipherSuite {
    let roots = authorities(&place.at("ca.pem")).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (here, there) = duplex(16 * 1024);
    let accepting = TlsAcceptor::from(server.for_locks()).accept(here);
    let name = "localhost".try_into().unwrap();
    let asking = TlsConnector::from(Arc::new(config)).connect(name, there);
    let (accepted, asked) = tokio::join!(accepting, asking);
    drop(asked.unwrap());
    accepted.unwrap().get_ref().1.negotiated_cipher_suite().unwrap().suite()
}

#[tokio::test]
async fn a_handshake_costs_no_hash_without_instructions_and_no_tickets_that_nobody_keeps() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    assert_eq!(agreed(&server, &place).await, CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(server.for_locks().send_tls13_tickets, 0);
    assert_eq!(provider().cipher_suites.len(), ring::default_provider().cipher_suites.len());
}

#[tokio::test]
async fn a_server_proves_its_name_and_its_address() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(speak(&server, host, &place.options()).await, [Ok(()), Ok(())], "{host}");
    }
    let named = place.options().server_name("localhost");
    assert_eq!(speak(&server, "10.0.0.1", &named).await, [Ok(()), Ok(())]);
}

#[tokio::test]
async fn a_client_learns_why_it_does_not_trust_a_server() {
    let place = Place::new();
    let other = refusal(place.files(), "locks.internal", place.options()).await;
    assert_eq!(other, "its certificate is not for locks.internal: it is for localhost, 127.0.0.1");
    Authority::new(place.directory.path(), "stranger");
    let stranger = TlsOptions::new().server_ca(place.at("stranger.pem"));
    let told = refusal(place.files(), "localhost", stranger).await;
    assert_eq!(told, "its certificate is by an authority that is not trusted here");
    let elsewhere = tempfile::tempdir().unwrap();
    Authority::new(elsewhere.path(), "ca");
    let namesake = TlsOptions::new().server_ca(elsewhere.path().join("ca.pem"));
    let told = refusal(place.files(), "localhost", namesake).await;
    assert_eq!(
        told,
        "its certificate is not signed by the authority of that name which is trusted here"
    );
    place.authority.issue("server", &["localhost"], |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let told = refusal(place.files(), "localhost", place.options()).await;
    assert_eq!(told, "its certificate has expired");
    place.authority.issue("server", &["localhost"], |params| {
        params.not_before = date_time_ymd(3000, 1, 1);
        params.not_after = date_time_ymd(3001, 1, 1);
    });
    let told = refusal(place.files(), "localhost", place.options()).await;
    assert_eq!(told, "its certificate is not valid yet: one of the clocks is wrong");
    place.authority.issue("server", &["localhost"], |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    });
    let told = refusal(place.files(), "localhost", place.options()).await;
    assert_eq!(told, "its certificate is not for what it does with it");
}

#[tokio::test]
async fn a_client_has_to_show_a_certificate_that_is_trusted_and_not_revoked() {
    let place = Place::new();
    let server = ServerTls::read(&place.mutual()).unwrap();
    assert_eq!(speak(&server, "localhost", &place.shows("client")).await, [Ok(()), Ok(())]);
    let [ours, theirs] = speak(&server, "localhost", &place.options()).await;
    assert_eq!(ours.unwrap_err(), "the client shows no certificate");
    assert_eq!(theirs.unwrap_err(), "it wants a certificate of its clients: name one, and its key");

    let optional = ServerFiles { client_auth: ClientAuth::Optional, ..place.mutual() };
    let optional = ServerTls::read(&optional).unwrap();
    assert_eq!(speak(&optional, "localhost", &place.options()).await, [Ok(()), Ok(())]);

    place.authority.issue("late", &["late.internal"], |params| {
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    let told = refusal(place.mutual(), "localhost", place.shows("late")).await;
    assert_eq!(told, "it refused our certificate: that has expired");

    place.authority.issue("gone", &["gone.internal"], |params| {
        params.serial_number = Some(SerialNumber::from(77));
    });
    place.authority.revoke(77);
    let listed = ServerFiles { crl: Some(place.at("crl.pem")), ..place.mutual() };
    let told = refusal(listed.clone(), "localhost", place.shows("gone")).await;
    assert_eq!(told, "it refused our certificate: that was revoked");
    let server = ServerTls::read(&listed).unwrap();
    assert_eq!(speak(&server, "localhost", &place.shows("client")).await, [Ok(()), Ok(())]);
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_once_the_files_are_read_again() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    place.authority.issue("server", &["locks.internal"], |_| {});
    let options = place.options();
    assert!(speak(&server, "locks.internal", &options).await[1].is_err());
    server.take_over(ReadTls::read(&place.files()).unwrap());
    assert_eq!(speak(&server, "locks.internal", &options).await, [Ok(()), Ok(())]);

    // A mistake changes nothing, and neither does what is only read.
    fs::write(place.at("server.key"), "nonsense").unwrap();
    let told = ReadTls::read(&place.files()).unwrap_err().to_string();
    place.authority.issue("other", &["other.internal"], |_| {});
    let (cert, key) = (place.at("other.pem"), place.at("other.key"));
    ReadTls::read(&ServerFiles { cert, key, ..place.files() }).unwrap();
    assert!(told.ends_with("server.key has no private key in PEM"), "{told}");
    assert_eq!(speak(&server, "locks.internal", &options).await, [Ok(()), Ok(())]);
}

#[test]
fn the_end_of_certificates_is_known_also_of_one_that_is_over_and_the_first_of_several_counts() {
    let place = Place::new();
    let year =
        |year: i32| Duration::from_secs(date_time_ymd(year, 1, 1).unix_timestamp().cast_unsigned());
    let until = |name: &str, end: i32| {
        place.authority.issue(name, &["localhost"], |params| {
            params.not_before = date_time_ymd(2000, 1, 1);
            params.not_after = date_time_ymd(end, 1, 1);
        });
        fs::read_to_string(place.at(&format!("{name}.pem"))).unwrap()
    };
    let (late, early) = (until("late", 3000), until("early", 2001));
    until("server", 2001);
    let expiries = |files: ServerFiles| ReadTls::read(&files).unwrap().expiries().to_vec();
    let ends = expiries(place.mutual());
    assert_eq!((ends[0].of, ends[0].at), (CertificateUse::Server, UNIX_EPOCH + year(2001)));
    assert_eq!((ends[0].file.clone(), ends[1].file.clone()), {
        (place.at("server.pem"), place.at("ca.pem"))
    });
    // An authority that rcgen makes ends in 4096.
    assert_eq!((ends[1].of, ends[1].at), (CertificateUse::ClientCa, UNIX_EPOCH + year(4096)));
    fs::write(place.at("cas.pem"), late + &early).unwrap();
    let several = ServerFiles { client_ca: Some(place.at("cas.pem")), ..place.files() };
    assert_eq!(expiries(several)[1].at, UNIX_EPOCH + year(2001));
    assert_eq!(expiries(place.files()).len(), 1);
    assert_eq!(ends[0].from, UNIX_EPOCH + year(2000));
    // It begins after its end.
    until("server", 1999);
    let read = ReadTls::read(&place.mutual()).unwrap();
    assert_eq!(read.never_valid(), [(CertificateUse::Server, place.at("server.pem"))]);
    assert_eq!(read.expiries().len(), 1, "that of the authority");
    until("server", 2001);
    place.authority.revoke_until(77, 2021);
    let ends = expiries(ServerFiles { crl: Some(place.at("crl.pem")), ..place.mutual() });
    assert_eq!((ends[2].of, ends[2].at), (CertificateUse::Crl, UNIX_EPOCH + year(2021)));
}

#[tokio::test]
async fn files_that_do_not_do_are_named() {
    let place = Place::new();
    let told = |files| ServerTls::read(&files).unwrap_err().to_string();
    let missing = told(ServerFiles { cert: place.at("none.pem"), ..place.files() });
    assert!(missing.contains("none.pem: No such file"), "{missing}");
    let other = told(ServerFiles { key: place.at("client.key"), ..place.files() });
    let words = "client.key is not that of the certificate in ";
    assert!(other.contains(words) && other.ends_with("server.pem"), "{other}");
    let swapped = told(ServerFiles { cert: place.at("server.key"), ..place.files() });
    assert!(swapped.ends_with("server.key has no certificate in PEM"), "{swapped}");
    let key = fs::read_to_string(place.at("server.key")).unwrap();
    fs::write(place.at("cut.key"), &key[..key.len() / 2]).unwrap();
    let cut = told(ServerFiles { key: place.at("cut.key"), ..place.files() });
    assert!(cut.contains("cut.key is damaged"), "{cut}");
    assert!(!cut.contains(&key[40..60]), "no part of a key is told");
    for (text, is_told) in [
        (key.replace(" PRIVATE", " ENCRYPTED PRIVATE"), "is encrypted: store it"),
        (key.replacen('\n', "\nProc-Type: 4,ENCRYPTED\n", 1), "is encrypted: store it"),
    ] {
        fs::write(place.at("locked.key"), text).unwrap();
        let told = told(ServerFiles { key: place.at("locked.key"), ..place.files() });
        assert!(told.contains("locked.key") && told.contains(is_told), "{told}");
    }
    let endless = told(ServerFiles { cert: "/dev/zero".into(), ..place.files() });
    assert!(endless.ends_with("/dev/zero: it is no regular file"), "{endless}");
}

#[tokio::test]
async fn a_damaged_certificate_is_blamed_on_its_file_wherever_it_stands_in_that() {
    let place = Place::new();
    let whole = fs::read_to_string(place.at("server.pem")).unwrap();
    let lines: Vec<&str> = whole.lines().collect();
    // Whole groups of base64, or it would be no PEM.
    let cut = [&lines[..2], &lines[lines.len() - 1..]].concat().join("\n");
    let garbage = "-----BEGIN CERTIFICATE-----\nbm8gY2VydGlmaWNhdGUh\n-----END CERTIFICATE-----\n";
    for damage in [&cut, garbage] {
        for text in [damage.to_owned(), format!("{whole}{damage}")] {
            fs::write(place.at("odd.pem"), text).unwrap();
            let files = ServerFiles { cert: place.at("odd.pem"), ..place.files() };
            let told = ServerTls::read(&files).unwrap_err().to_string();
            assert!(
                told.ends_with("odd.pem is damaged: a certificate in it is cut off, or none"),
                "{told}"
            );
        }
    }
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_told_so_and_the_other_way_round() {
    let place = Place::new();
    let (ours, mut theirs) = duplex(1024);
    let server = ServerTls::read(&place.files()).unwrap();
    let mut accepted = shaking(ours, &server);
    theirs.write_all(&[46, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9]).await.unwrap();
    let told = accepted.read_u8().await.unwrap_err().to_string();
    assert_eq!(told, "the client does not speak TLS: it has to name the server with tls://");
    let mut alert = [0; 7];
    theirs.read_exact(&mut alert).await.unwrap();
    assert_eq!(alert[..2], [0x15, 3], "an alert");

    let (mut plain, theirs) = duplex(1024);
    plain.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    let told = place.options().secure(theirs, "localhost").await.err().unwrap();
    assert_eq!(told.to_string(), "it does not speak TLS: leave tls:// out");
}

/// A server's side, whose client says nothing.
fn silent(server: &ServerTls) -> (Accepted<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(1024);
    (shaking(ours, server), theirs)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_costs_nothing_and_can_be_closed() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    let (mut accepted, mut theirs) = silent(&server);
    let read = tokio::time::timeout(Duration::from_secs(5), accepted.read_u8()).await;
    assert!(read.is_err(), "it is waited for");
    accepted.shutdown().await.unwrap();
    assert_eq!(theirs.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_stays_behind_when_the_socket_takes_less_than_was_said() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    let (here, there) = duplex(4 * 1024);
    let mut accepted = shaking(here, &server);
    let options = place.options();
    let said = vec![7; 100_000];
    let say = async {
        let mut dialed = options.secure(there, "localhost").await.unwrap();
        dialed.write_all(&said).await.unwrap();
        dialed.flush().await.unwrap();
        dialed
    };
    let mut heard = vec![0; said.len()];
    let (heard_all, _dialed) = tokio::join!(accepted.read_exact(&mut heard), say);
    heard_all.unwrap();
    assert_eq!(heard, said);
}

#[tokio::test]
async fn an_end_without_a_farewell_is_an_end() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    let (mut accepted, theirs) = silent(&server);
    drop(theirs);
    assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 0, "as a probe's of TCP");

    let (here, there) = duplex(16 * 1024);
    let mut accepted = shaking(here, &server);
    let options = place.options();
    let hello = async {
        let mut dialed = options.secure(there, "localhost").await.unwrap();
        dialed.write_u8(1).await.unwrap();
        dialed.flush().await.unwrap();
        dialed
    };
    let (_, mut dialed) = tokio::join!(accepted.read_u8(), hello);
    drop(accepted);
    assert_eq!(dialed.read(&mut [0; 8]).await.unwrap(), 0, "as of a coordinator that was killed");
}

#[test]
fn no_error_tells_a_part_of_a_key() {
    let place = Place::new();
    let key = fs::read_to_string(place.at("server.key")).unwrap();
    let secret = key.lines().nth(1).unwrap();
    for damage in [key.replace('\n', "\\n"), key.replace('\n', " "), key.replace("END", "end")] {
        fs::write(place.at("odd.key"), damage).unwrap();
        let files = ServerFiles { key: place.at("odd.key"), ..place.files() };
        let error = ServerTls::read(&files).unwrap_err();
        let bytes = format!("{:?}", secret.as_bytes());
        for told in [error.to_string(), format!("{error:?}")] {
            assert!(!told.contains(&secret[..16]) && !told.contains(&bytes[1..40]), "{told}");
        }
    }
}

/// What `openssl ca -gencrl` makes where its configuration names no `crl_extensions`: version 1.
const LIST_OF_VERSION_1: &str = "\
-----BEGIN X509 CRL-----
MIGsMFQwCgYIKoZIzj0EAwIwEDEOMAwGA1UEAwwFbGFiY2EXDTI2MTEyODEzMzYx
N1oYDzIxMjUwNjIyMTMzNjE3WjAUMBICAXgXDTI2MTEyODEzMzIzOVowCgYIKoZI
zj0EAwIDSAAwRQIgKHTOQWy5iQVd62G2417b0Wvryg+De5V31JEb6JENCR0CIQCt
fAum8N8++ZL3FlkMqFpO6GM4oYodWASOI3Mr8wv9pg==
-----END X509 CRL-----
";

#[test]
fn a_list_of_an_old_version_is_named_with_what_makes_another() {
    let place = Place::new();
    fs::write(place.at("crl.pem"), LIST_OF_VERSION_1).unwrap();
    let listed = ServerFiles { crl: Some(place.at("crl.pem")), ..place.mutual() };
    let told = ServerTls::read(&listed).unwrap_err().to_string();
    assert!(told.contains("crl.pem") && told.contains("crl_extensions = crl_ext"), "{told}");
}

#[tokio::test]
async fn a_list_of_revoked_certificates_that_has_expired_is_none() {
    let place = Place::new();
    place.authority.revoke_until(77, 2021);
    let listed = ServerFiles { crl: Some(place.at("crl.pem")), ..place.mutual() };
    let told = refusal(listed, "localhost", place.shows("client")).await;
    assert!(told.ends_with("or it cannot tell whether that was revoked"), "{told}");
}

/// Both ends of a connection over loopback.
async fn connected() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(listener.accept(), TcpStream::connect(address));
    (ours.unwrap().0, theirs.unwrap())
}

#[tokio::test]
async fn a_connection_goes_on_without_the_thread_that_made_its_handshake() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    let (here, there) = connected().await;
    let descriptor = here.as_raw_fd();
    let mut accepted = server.accept_for_locks(here, Arc::default(), || {});
    let options = place.options();
    let hello = async {
        let mut dialed = options.secure(there, "localhost").await.unwrap();
        dialed.write_u8(1).await.unwrap();
        dialed.flush().await.unwrap();
        dialed
    };
    let (first, mut dialed) = tokio::join!(accepted.read_u8(), hello);
    assert_eq!(first.unwrap(), 1);
    let Accepted::Up(stream) = &accepted else { panic!("its handshake is over") };
    let Movable::Watched(moved) = stream.get_ref().0 else { panic!("it is watched here") };
    assert_eq!(moved.as_raw_fd(), descriptor, "no second one was opened for the move");
    // The thread ends with this.
    drop(server);
    for byte in 2..5 {
        dialed.write_u8(byte).await.unwrap();
        dialed.flush().await.unwrap();
        assert_eq!(accepted.read_u8().await.unwrap(), byte);
        accepted.write_u8(byte).await.unwrap();
        accepted.flush().await.unwrap();
        assert_eq!(dialed.read_u8().await.unwrap(), byte);
    }
}

#[tokio::test]
async fn the_farewell_goes_along_with_the_last_bytes_however_many_they_are() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    for len in [1, 3 * 16 * 1024] {
        let (here, there) = duplex(4 * 1024);
        let (mut accepted, options) = (shaking(here, &server), place.options());
        let last = vec![7; len];
        let say = async {
            assert_eq!(accepted.read_u8().await.unwrap(), 1);
            accepted.ends();
            accepted.write_all(&last).await.unwrap();
            accepted.flush().await.unwrap();
        };
        let hear = async {
            let mut dialed = options.secure(there, "localhost").await.unwrap();
            dialed.write_u8(1).await.unwrap();
            dialed.flush().await.unwrap();
            let mut heard = Vec::new();
            // To the end, though nothing is shut yet.
            dialed.read_to_end(&mut heard).await.unwrap();
            heard
        };
        let ((), heard) = tokio::join!(say, hear);
        assert_eq!(heard, last);
        accepted.shutdown().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_that_is_given_up_in_its_handshake_is_closed() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    let (here, mut there) = connected().await;
    let mut accepted = server.accept_for_locks(here, Arc::default(), || {});
    // The beginning of a handshake, and no more.
    there.write_all(&[0x16, 3, 1, 1, 0]).await.unwrap();
    let read = timeout(Duration::from_millis(50), accepted.read_u8()).await;
    assert!(read.is_err(), "it is waited for");
    drop(accepted);
    assert_eq!(there.read(&mut [0; 8]).await.unwrap_or(0), 0, "its end is told");
}

#[tokio::test]
async fn no_handshake_is_made_with_a_peer_from_which_nothing_is_read() {
    let place = Place::new();
    let server = ServerTls::read(&place.files()).unwrap();
    let (here, mut there) = connected().await;
    let mut accepted = server.accept_for_locks(here, Arc::default(), || {});
    let mut answer = [0; 8];
    // What is no handshake is refused at once, by whoever makes it.
    there.write_all(&[46, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 9, 9, 9, 9]).await.unwrap();
    assert!(timeout(Duration::from_millis(50), there.read(&mut answer)).await.is_err());
    accepted.read_u8().await.unwrap_err();
    assert!(there.read(&mut answer).await.unwrap() > 0, "an alert");
}
