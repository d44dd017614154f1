//! A stand-in for the crate of this name, without the public CAs that it compiles in.
//!
//! The MySQL protocol's crate trusts them beside the file of CA certificates that it is given. Here a server is held
//! against the file that the operator names, or the host's, and against nothing else.
//!
//! Invariant: nothing can be signed by what is here.

#![no_std]
#![forbid(unsafe_code)]

use pki_types::{Der, TrustAnchor};

/// Instead of the public CAs, one without a key, because that crate must be given one: where no file is given, it makes a
/// verifier all the same, which then takes any certificate.
pub static TLS_SERVER_ROOTS: &[TrustAnchor<'static>] =
    &[TrustAnchor { subject: Der::from_slice(&[]), subject_public_key_info: Der::from_slice(&[]), name_constraints: None }];
