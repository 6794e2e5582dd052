//! Authorities and certificates for tests, in files.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// Somebody who signs certificates.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// One whose own certificate is in `file`.
    pub(crate) fn new(file: &Path) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(file, issuer.pem()).unwrap();
        Self { issuer }
    }

    /// A certificate for these names, and its key, in two files.
    pub(crate) fn issue(&self, names: &[&str], cert: &Path, key: &Path) {
        self.issue_with(names, cert, key, |_| {});
    }

    /// The same, one that expires in so many days; it may have.
    pub(crate) fn issue_for_days(&self, names: &[&str], cert: &Path, key: &Path, days: i64) {
        let day = Duration::from_secs(24 * 3600);
        let length = day * u32::try_from(days.unsigned_abs()).unwrap();
        let now = SystemTime::now();
        let end = if days < 0 { now - length } else { now + length };
        self.issue_with(names, cert, key, |params| params.not_after = end.into());
    }

    fn issue_with(
        &self,
        names: &[&str],
        cert: &Path,
        key: &Path,
        change: impl FnOnce(&mut CertificateParams),
    ) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let (uris, names): (Vec<_>, Vec<_>) = names.into_iter().partition(|it| it.contains("://"));
        let mut params = CertificateParams::new(names).unwrap();
        let uris = uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap()));
        params.subject_alt_names.extend(uris);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let pair = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&pair, &self.issuer).unwrap();
        fs::write(cert, certificate.pem()).unwrap();
        fs::write(key, pair.serialize_pem()).unwrap();
    }
}
