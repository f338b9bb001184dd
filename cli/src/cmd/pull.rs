//! Fetching an image, for `pull` and for `run`.

use davit_contracts::Kind;
use davit_contracts::storage::{
    ImageDone, InspectImageRequest, InspectImageResponse, Platform, Progress, PullRequest, RegistryAuth,
};
use tonic::Streaming;

use crate::app::App;
use crate::error::{Failure, Outcome};
use crate::output::progress::Display;

/// Whether storaged has it.
pub async fn is_here(app: &App, image: &str) -> Outcome<bool> {
    Ok(find(app, image).await?.is_some())
}

/// Whether the image that storaged has is made for another platform.
pub async fn is_for_another(app: &App, image: &str, wanted: &Platform) -> Outcome<bool> {
    let is = find(app, image).await?.and_then(|found| found.image?.platform);
    let silent = |p: &Platform| p.os.is_empty() && p.architecture.is_empty();
    let differs = |p: &Platform| p.os != wanted.os || p.architecture != wanted.architecture;
    Ok(is.is_some_and(|p| !silent(&p) && differs(&p)))
}

async fn find(app: &App, image: &str) -> Outcome<Option<InspectImageResponse>> {
    let request = InspectImageRequest { reference: image.to_owned() };
    match app.storage(app.images().await?.inspect(request)).await {
        Ok(found) => Ok(Some(found)),
        Err(Failure::Told(e)) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// Fetches with default registry settings; progress is shown on stderr.
pub async fn pull(
    app: &App,
    image: &str,
    platform: Option<Platform>,
    quiet: bool,
) -> Outcome<Vec<ImageDone>> {
    let request =
        PullRequest { reference: image.to_owned(), platform, auth: auth(image), ..PullRequest::default() };
    let stream = app.storage(app.images().await?.pull(request)).await?;
    show(app, stream, quiet).await
}

/// Shows a stream of progress to its end and gives the images that came of it.
pub async fn show(app: &App, mut stream: Streaming<Progress>, quiet: bool) -> Outcome<Vec<ImageDone>> {
    let mut display = Display::new(quiet);
    let result = loop {
        match stream.message().await {
            Ok(Some(progress)) => display.event(progress),
            Ok(None) => break Ok(()),
            Err(status) => break Err(app.refused("storaged", status)),
        }
    };
    display.clear();
    result.map(|()| display.done)
}

/// Credentials that docker's configuration file has for the image's registry: base64 of `user:password`, or an identity token.
pub fn auth(image: &str) -> Option<RegistryAuth> {
    let dir = std::env::var_os("DOCKER_CONFIG")
        .map(std::path::PathBuf::from)
        .or_else(|| Some(std::path::PathBuf::from(std::env::var_os("HOME")?).join(".docker")))?;
    let text = std::fs::read_to_string(dir.join("config.json")).ok()?;
    from_config(&text, registry(image))
}

/// The registry that a reference means: a first part with a dot, a colon, or `localhost`.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

fn from_config(text: &str, registry: &str) -> Option<RegistryAuth> {
    let config: serde_json::Value = serde_json::from_str(text).ok()?;
    let names: &[&str] = if registry == "docker.io" {
        &["https://index.docker.io/v1/", "index.docker.io", "docker.io"]
    } else {
        &[registry]
    };
    let https = format!("https://{registry}");
    let entry = names.iter().copied().chain([https.as_str()]).find_map(|n| config["auths"].get(n))?;
    let decoded =
        entry["auth"].as_str().and_then(base64).and_then(|b| String::from_utf8(b).ok()).unwrap_or_default();
    let (username, password) = decoded.split_once(':').unwrap_or_default();
    let token = entry["identitytoken"].as_str().unwrap_or_default();
    if username.is_empty() && token.is_empty() {
        return None;
    }
    Some(RegistryAuth {
        username: username.to_owned(),
        password: password.trim_end_matches('\0').to_owned(),
        identity_token: token.to_owned(),
    })
}

/// Standard base64 (RFC 4648); padding is optional.
fn base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut bits, mut held) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_found_by_registry() {
        let text = r#"{"auths":{"reg:5000":{"auth":"dXNlcjpwYTpzcw=="},"https://index.docker.io/v1/":{"identitytoken":"t"},"x.y":{}}}"#;
        let a = from_config(text, registry("reg:5000/a/b:1")).unwrap();
        assert_eq!((a.username.as_str(), a.password.as_str()), ("user", "pa:ss"));
        assert_eq!(from_config(text, registry("busybox")).unwrap().identity_token, "t");
        assert_eq!(from_config(text, registry("x.y/a")), None);
        assert_eq!(from_config("{", "x"), None);
        assert_eq!(registry("team/app"), "docker.io");
        assert_eq!(registry("localhost/app"), "localhost");
    }

    #[test]
    fn base64_with_and_without_padding() {
        assert_eq!(base64("aGk=").unwrap(), b"hi");
        assert_eq!(base64("aGk").unwrap(), b"hi");
        assert_eq!(base64("a b"), None);
    }
}
