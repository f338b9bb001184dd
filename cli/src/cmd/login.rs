//! Logging in to registries and out of them. The daemon checks the credentials; they are kept here, see
//! [`crate::credentials`].

use std::io::{Read as _, stdin};

use davit_contracts::Kind;
use davit_contracts::storage::{LoginRequest, RegistryAuth};

use crate::app::App;
use crate::args::registry::{LoginArgs, LogoutArgs};
use crate::attach::terminal;
use crate::credentials::{Config, Kept, host_of, key_of};
use crate::error::{Failure, Outcome};
use crate::output;

/// Longer is no password.
const MAX_PASSWORD: u64 = 64 << 10;

/// `davit login`
pub async fn login(app: &App, args: &LoginArgs) -> Outcome {
    check(args)?;
    let registry = args.registry.as_deref().unwrap_or_default();
    let mut config = Config::load()?;
    if args.username.is_none()
        && args.password.is_none()
        && let Some(known) = config.get(registry)?
    {
        match with_known(app, args, known, &mut config).await? {
            Some(()) => return Ok(()),
            None if terminal::is_terminal(&stdin()) => {}
            None => return Err(Failure::Code(1)),
        }
    }
    let auth = asked(args)?;
    let token = attempt(app, args, &auth).await?;
    let auth = RegistryAuth { identity_token: token, ..auth };
    keep(&mut config, registry, &auth)
}

/// docker's rules for its flags.
fn check(args: &LoginArgs) -> Outcome {
    if args.password.is_some() && args.password_stdin {
        return Err(Failure::Usage(
            "conflicting options: cannot specify both --password and --password-stdin".into(),
        ));
    }
    if args.password_stdin && args.username.is_none() {
        return Err(Failure::Usage("the --password-stdin option requires --username to be set".into()));
    }
    if args.password.is_some() {
        output::complain!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    Ok(())
}

/// Tries what is known already; None when the registry does not take it.
async fn with_known(
    app: &App,
    args: &LoginArgs,
    known: RegistryAuth,
    config: &mut Config,
) -> Outcome<Option<()>> {
    let who =
        if known.username.is_empty() { String::new() } else { format!(" [Username: {}]", known.username) };
    output::line(format!("Authenticating with existing credentials...{who}"));
    match attempt(app, args, &known).await {
        Ok(token) => {
            let renewed = !token.is_empty() && token != known.identity_token;
            if renewed {
                let auth = RegistryAuth { identity_token: token, ..known };
                config.keep(args.registry.as_deref().unwrap_or_default(), &auth)?;
            }
            output::line("Login Succeeded");
            Ok(Some(()))
        }
        Err(Failure::Told(e)) if e.kind() == Kind::Unauthenticated => {
            output::complain!("Login did not succeed, error: {e}");
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

async fn attempt(app: &App, args: &LoginArgs, auth: &RegistryAuth) -> Outcome<String> {
    let ca_pem = match &args.ca_file {
        None => Vec::new(),
        Some(path) => {
            std::fs::read(path).map_err(|e| Failure::io(format!("cannot read {}", path.display()), &e))?
        }
    };
    let request = LoginRequest {
        registry: host_of(args.registry.as_deref().unwrap_or_default()).to_owned(),
        auth: Some(auth.clone()),
        plain_http: args.plain_http,
        skip_tls_verify: !args.tls_verify,
        ca_pem,
    };
    Ok(app.storage(app.registries().await?.login(request)).await?.identity_token)
}

fn keep(config: &mut Config, registry: &str, auth: &RegistryAuth) -> Outcome {
    if let Kept::InFile(path) = config.keep(registry, auth)? {
        output::complain!(
            "WARNING! Your credentials are stored unencrypted in '{}'.\nConfigure a credential helper (credsStore in that file) to remove this warning.",
            path.display()
        );
    }
    output::line("Login Succeeded");
    Ok(())
}

/// Name and password: given, on standard input, or typed.
fn asked(args: &LoginArgs) -> Outcome<RegistryAuth> {
    let typed = args.username.is_none() || (args.password.is_none() && !args.password_stdin);
    if typed && !terminal::is_terminal(&stdin()) {
        return Err(Failure::Usage(
            "cannot perform an interactive login from a non TTY device: use --username and --password-stdin"
                .into(),
        ));
    }
    let username = match &args.username {
        Some(name) => name.clone(),
        None => type_line("Username: ")?,
    };
    let password = match &args.password {
        Some(password) => password.clone(),
        None if args.password_stdin => {
            let mut text = String::new();
            let read = stdin().take(MAX_PASSWORD).read_to_string(&mut text);
            read.map_err(|e| Failure::io("cannot read the password", &e))?;
            text.trim_end_matches(['\n', '\r']).to_owned()
        }
        None => type_secret("Password: ")?,
    };
    if username.is_empty() || password.is_empty() {
        let what = if username.is_empty() { "username is required" } else { "password is required" };
        return Err(Failure::new(Kind::InvalidArgument, what));
    }
    Ok(RegistryAuth { username, password, identity_token: String::new() })
}

fn type_line(prompt: &str) -> Outcome<String> {
    output::print(prompt);
    let mut line = String::new();
    stdin().read_line(&mut line).map_err(|e| Failure::io("cannot read standard input", &e))?;
    Ok(line.trim().to_owned())
}

/// Nothing of it is shown. The terminal is raw, so that an interrupt finds it put back.
fn type_secret(prompt: &str) -> Outcome<String> {
    // Before the prompt: who types at once is not shown either.
    let raw = terminal::Raw::enter()?;
    output::print(prompt);
    let mut secret = Vec::new();
    let ended = loop {
        let mut byte = [0];
        match stdin().read(&mut byte) {
            Ok(0) => break Ok(()),
            Err(e) => break Err(Failure::io("cannot read the password", &e)),
            Ok(_) => {}
        }
        match byte[0] {
            b'\n' | b'\r' | 0x04 => break Ok(()),
            // Control-C.
            0x03 => break Err(Failure::Code(130)),
            0x08 | 0x7f => {
                let end = String::from_utf8_lossy(&secret).chars().next_back().map_or(0, char::len_utf8);
                secret.truncate(secret.len().saturating_sub(end));
            }
            // Control-U.
            0x15 => secret.clear(),
            other => secret.push(other),
        }
    };
    drop(raw);
    output::print("\n");
    ended?;
    String::from_utf8(secret)
        .map_err(|_| Failure::new(Kind::InvalidArgument, "the password is no text in UTF-8"))
}

/// `davit logout`
pub fn logout(args: &LogoutArgs) -> Outcome {
    let registry = args.registry.as_deref().unwrap_or_default();
    let mut config = Config::load()?;
    output::line(format!("Removing login credentials for {}", key_of(registry)));
    config.forget(registry)?;
    Ok(())
}
