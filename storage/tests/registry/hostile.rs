//! Registries that lie, stall, cut, or lead astray. Nothing of what they give may be left.

use std::sync::atomic::{AtomicUsize, Ordering};

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use crate::fake::{Asked, Fake, Image, Then, answer, ok, part, silence};
use crate::host::{Host, busybox_layout};
use crate::{auth, configure, request};

async fn image() -> (Host, Image) {
    let host = Host::new().await;
    let image = Image::of(&busybox_layout(host.tmp.path()), "two");
    (host, image)
}

/// Pulls, expects success, and removes it again.
async fn comes_whole(host: &Host, fake: &Fake) {
    let name = fake.name("app:1");
    host.pull(request(&name)).await.unwrap_or_else(|e| panic!("{e}: {:?}", fake.seen()));
    host.remove(&name, false).await.unwrap();
    host.assert_empty();
}

async fn refused(host: &Host, fake: &Fake, kind: Kind, words: &str) {
    let e = host.pull(request(&fake.name("app:1"))).await.unwrap_err();
    assert!(e.kind() == kind && e.to_string().contains(words), "{:?} {e} ({})", e.kind(), e.hint());
    host.assert_empty();
}

#[tokio::test]
async fn a_download_that_is_cut_goes_on_where_it_was() {
    let (host, image) = image().await;
    let cutting = image.clone().serve(|asked, body| part(asked, body).cut_to(body.len().min(400_000)));
    comes_whole(&host, &cutting).await;
    // The layer of busybox is larger than one answer.
    assert!(cutting.count("/blobs/") >= 5, "{:?}", cutting.seen());

    // One that knows no ranges begins anew, and what has come already is not taken twice.
    let n = AtomicUsize::new(0);
    let forgetful = image.clone().serve(move |_, body| {
        let first = n.fetch_add(1, Ordering::SeqCst) < 2;
        ok(body).cut_to(if first { body.len() / 2 } else { body.len() })
    });
    comes_whole(&host, &forgetful).await;

    // One that refuses them, and one that answers another part than was asked for.
    for wrong_part in [false, true] {
        let n = AtomicUsize::new(0);
        let odd = image.clone().serve(move |asked, body| match asked.from() {
            None if n.fetch_add(1, Ordering::SeqCst) == 0 => ok(body).cut_to(body.len() / 2),
            None => ok(body),
            Some(_) if wrong_part => {
                let range = format!("Content-Range: bytes 7-{}/{}\r\n", body.len() - 1, body.len());
                answer("206 Partial Content", &range, &body[7..])
            }
            Some(_) => answer("416 Range Not Satisfiable", "", b""),
        });
        comes_whole(&host, &odd).await;
    }
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let (host, image) = image().await;
    let n = AtomicUsize::new(0);
    let busy = Fake::start(move |asked| match n.fetch_add(1, Ordering::SeqCst) % 3 {
        0 => answer("503 Service Unavailable", "", b""),
        1 => answer("429 Too Many Requests", "Retry-After: 1\r\n", b""),
        _ => image.answer(asked, &part),
    });
    comes_whole(&host, &busy).await;
}

#[tokio::test]
async fn a_rate_limit_is_explained_in_the_registrys_words() {
    let (host, _) = image().await;
    let fake = Fake::start(|_| {
        let body =
            br#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}"#;
        answer("429 Too Many Requests", "Retry-After: 7200\r\n", body)
    });
    let e = host.pull(request(&fake.name("app:1"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(e.to_string().contains("toomanyrequests: You have reached your pull rate limit."), "{e}");
    assert_eq!(e.hint(), format!("try again in 2 h, or log in: davit login 127.0.0.1:{}", fake.port));
    assert_eq!(fake.seen().len(), 1, "two hours are not waited for");
}

#[tokio::test]
async fn a_server_error_is_told_with_its_words_after_a_bounded_number_of_attempts() {
    let (host, _) = image().await;
    let fake = Fake::start(|_| {
        answer(
            "500 Internal Server Error",
            "",
            br#"{"errors":[{"code":"UNKNOWN","message":"disk on fire"}]}"#,
        )
    });
    refused(
        &host,
        &fake,
        Kind::Unavailable,
        "500 Internal Server Error to a request for manifest 1: unknown: disk on fire",
    )
    .await;
    assert_eq!(fake.seen().len(), 3);
}

#[tokio::test]
async fn silence_ends() {
    let (mut host, image) = image().await;
    // Not a word, half a manifest, half a layer.
    let (half_manifest, half_layer) = (image.clone(), image.clone());
    let fakes = [
        Fake::start(|_| silence()),
        Fake::start(move |_| ok(&half_manifest.manifest).cut_to(100).then(Then::Stall)),
        half_layer.serve(|asked, body| match asked.from() {
            None => ok(body).cut_to(20_000).then(Then::Stall),
            Some(_) => answer("206 Partial Content", "", body).cut_to(0).then(Then::Stall),
        }),
    ];
    let tables: Vec<String> = fakes
        .iter()
        .map(|f| format!("[registries.\"127.0.0.1:{}\"]\nplain_http = true\ntimeout_seconds = 1\n", f.port))
        .collect();
    configure(&mut host, &tables.concat()).await;
    let (a, b, c) = tokio::join!(
        host.pull(request(&fakes[0].name("app:1"))),
        host.pull(request(&fakes[1].name("app:1"))),
        host.pull(request(&fakes[2].name("app:1"))),
    );
    for result in [a, b, c] {
        let e = result.unwrap_err();
        assert!(e.kind() == Kind::Unavailable && e.to_string().contains("does not answer in time"), "{e}");
    }
    host.assert_empty();
}

#[tokio::test]
async fn wrong_bytes_are_found_out() {
    let (host, image) = image().await;
    let flipped = image.clone().serve(|_, body| {
        let mut body = body.to_vec();
        let middle = body.len() / 2;
        body[middle] ^= 1;
        ok(&body)
    });
    refused(&host, &flipped, Kind::Corrupt, "its digest is").await;
    let other = flipped.name(&format!("app@sha256:{}", "0".repeat(64)));
    let e = host.pull(request(&other)).await.unwrap_err();
    assert!(e.kind() == Kind::Corrupt && e.to_string().contains("the manifest is corrupt"), "{e}");

    let short = image.clone().serve(|asked, body| match asked.from() {
        None => ok(&body[..body.len() - 5000]),
        Some(_) => answer("206 Partial Content", "", b""),
    });
    refused(&host, &short, Kind::Corrupt, "bytes, not").await;
    let endless = image.clone().serve(|_, body| {
        let mut all = ok(body).cut_to(0);
        all = all.then(Then::Repeat(vec![b'x'; 64 << 10]));
        // Without a length the body ends with the connection.
        all.without_length()
    });
    let e = host.pull(request(&endless.name("app:1"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Corrupt, "{e}");
    host.assert_empty();
    let lacking = image.serve(|_, _| answer("404 Not Found", "", b""));
    refused(&host, &lacking, Kind::NotFound, "lacks blob").await;
}

#[tokio::test]
async fn documents_that_are_none_are_refused() {
    let (host, _) = image().await;
    let circle = r#"{"schemaVersion":2,"manifests":[{"digest":"sha256:DIGEST","size":3}]}"#;
    let giant = vec![b'['; 5 << 20];
    for (body, kind) in [
        (&b"<html>"[..], Kind::Corrupt),
        (b"{}", Kind::Corrupt),
        (br#"{"schemaVersion":1}"#, Kind::Unsupported),
        (giant.as_slice(), Kind::Corrupt),
        (circle.replace("DIGEST", &"0".repeat(64)).as_bytes(), Kind::Corrupt),
    ] {
        let body = body.to_vec();
        let fake = Fake::start(move |_| ok(&body));
        let e = host.pull(request(&fake.name("app:1"))).await.unwrap_err();
        assert_eq!(e.kind(), kind, "{e}");
    }
    // A manifest without end.
    let endless = Fake::start(|_| ok(b"").without_length().then(Then::Repeat(vec![b' '; 64 << 10])));
    refused(&host, &endless, Kind::Corrupt, "larger than").await;
    // An address that leads to itself.
    let round =
        Fake::start(|asked| answer("307 Temporary Redirect", &format!("Location: {}\r\n", asked.path), b""));
    refused(&host, &round, Kind::Unavailable, "without end").await;
    assert!(round.seen().len() < 20);
}

#[tokio::test]
async fn credentials_go_nowhere_else() {
    let (host, image) = image().await;
    // Blobs are elsewhere, as with many registries.
    let store = image.clone().serve(|asked: &Asked, body| {
        assert_eq!(asked.header("authorization"), None, "credentials came along");
        part(asked, body)
    });
    let (elsewhere, served) = (store.port, image.clone());
    let registry = Fake::start(move |asked| {
        // user:secret
        if asked.header("authorization") != Some("Basic dXNlcjpzZWNyZXQ=") {
            return answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n", b"");
        }
        served.answer(asked, &|asked, _| {
            let to = format!("Location: http://127.0.0.1:{elsewhere}{}\r\n", asked.path);
            answer("307 Temporary Redirect", &to, b"")
        })
    });
    let wanted = pb::PullRequest { auth: auth("user", "secret"), ..request(&registry.name("app:1")) };
    host.pull(wanted).await.unwrap();
    assert!(store.count("/blobs/") >= 1 && registry.count("/blobs/") > store.count("/blobs/"));
}

#[tokio::test]
async fn a_token_server_that_misbehaves_is_refused() {
    let (host, _) = image().await;
    for (answered, words) in [
        (ok(b"nonsense"), "does not answer with a token"),
        (ok(br#"{"token":"with\nnewline"}"#), "without a token"),
        (ok(b"").without_length().then(Then::Repeat(vec![b' '; 64 << 10])), "does not end"),
    ] {
        let answered = std::sync::Mutex::new(Some(answered));
        let fake = Fake::start(move |asked| {
            if asked.path.starts_with("/token") {
                return answered.lock().unwrap().take().unwrap();
            }
            let realm = format!("http://{}/token", asked.header("host").unwrap());
            answer("401 Unauthorized", &format!("WWW-Authenticate: Bearer realm=\"{realm}\"\r\n"), b"")
        });
        refused(&host, &fake, Kind::Unavailable, words).await;
    }
}
