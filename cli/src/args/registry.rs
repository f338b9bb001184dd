//! Commands on registries.

use std::path::PathBuf;

use clap::Args;

/// `davit login`
#[derive(Debug, Args)]
pub struct LoginArgs {
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password or access token; --password-stdin shows it to nobody
    #[arg(short, long, value_name = "PASSWORD")]
    pub password: Option<String>,
    /// Take the password or access token from standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Check the registry's certificate (--tls-verify=false: accept any, and HTTP)
    #[arg(long, value_name = "BOOL", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set)]
    pub tls_verify: bool,
    /// Speak HTTP without encryption
    #[arg(long)]
    pub plain_http: bool,
    /// File with a certificate authority to trust besides the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}

/// `davit logout`
#[derive(Debug, Args)]
pub struct LogoutArgs {
    /// The registry [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}
