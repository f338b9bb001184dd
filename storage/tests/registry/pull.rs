//! Pulling from a registry that behaves.

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use crate::fake::{Image, answer, ok, part};
use crate::host::{Host, busybox_layout, sh};
use crate::real::{Registry, htpasswd};
use crate::{auth, configure, request, told};

#[tokio::test]
async fn an_image_is_pulled_over_plain_http_from_loopback() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let registry = Registry::start(host.tmp.path(), None, None);
    let name = registry.name("team/app");
    registry.fill(&layout, "base", "team/app:base");
    registry.fill(&layout, "two", "team/app:two");
    // In docker's schema 2, too.
    sh(&format!(
        "skopeo copy -q --insecure-policy --src-tls-verify=false --dest-tls-verify=false --format v2s2 docker://{name}:two docker://{name}:v2s2"
    ));

    let (one, two) =
        tokio::join!(host.pull(request(&format!("{name}:base"))), host.pull(request(&format!("{name}:two"))));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(one.references, [format!("{name}:base")]);
    // The shared layer came once.
    assert_eq!(host.names("layers").len(), 3);
    let prepared = host.prepare("c1", &format!("{name}:two")).await.unwrap();
    assert!(host.in_mount(&prepared.mounts, "chroot $ROOT /bin/cat /dir/above").1.contains("above"));

    let pinned = format!("{name}@{}", two.manifest_digest);
    let by_digest = host.pull(request(&pinned)).await.unwrap();
    assert_eq!(by_digest.image_id, two.image_id);
    assert_eq!(host.inspect(&pinned).await.unwrap().image.unwrap().digests, std::slice::from_ref(&pinned));
    // The same config under another manifest is the same image.
    let v2s2 = host.pull(request(&format!("{name}:v2s2"))).await.unwrap();
    assert_eq!(host.inspect(&v2s2.image_id).await.unwrap().image.unwrap().diff_ids.len(), 3);

    let e = host.pull(request(&format!("{name}:nope"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound);
    assert_eq!(
        e.message(),
        format!("{name}:nope does not exist in its registry: manifest unknown: manifest unknown")
    );
    drop(registry);
    let e = host.pull(request(&format!("{name}:two"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable);
    assert!(
        e.message().contains("cannot reach registry") && e.message().contains("connection refused"),
        "{e}"
    );
    let e = host.pull(request("registry.invalid/x")).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unavailable, "{e}");
}

#[tokio::test]
async fn what_is_here_is_not_fetched_and_the_lines_are_dockers() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let registry = Registry::start(host.tmp.path(), None, None);
    registry.fill(&layout, "base", "app:base");
    registry.fill(&layout, "two", "app:two");
    let name = registry.name("app:base");
    let pull = async |name: &str| told(host.images().pull(request(name)).await.unwrap().into_inner()).await;
    let first = pull(&name).await.unwrap();
    let digest = &first.done[0].manifest_digest;
    assert_eq!(
        first.lines,
        [
            format!("base: Pulling from {}", registry.name("app")),
            format!("Digest: {digest}"),
            format!("Status: Downloaded newer image for {name}")
        ]
    );
    let blobs = |log: &str| log.matches("GET /v2/app/blobs/").count();
    let before = blobs(&registry.log());
    let again = pull(&name).await.unwrap();
    assert!(again.says(&format!("Status: Image is up to date for {name}")), "{:?}", again.lines);
    assert_eq!(blobs(&registry.log()), before, "{}", registry.log());
    // Two more layers and a config.
    pull(&registry.name("app:two")).await.unwrap();
    assert!(blobs(&registry.log()) <= before + 4, "{}", registry.log());

    // By digest nothing at all is asked for.
    let requests = |log: &str| log.matches("http.request.method").count();
    let before = requests(&registry.log());
    pull(&format!("{}@{digest}", registry.name("app"))).await.unwrap();
    assert_eq!(requests(&registry.log()), before);
}

#[tokio::test]
async fn all_tags_come_page_by_page() {
    let host = Host::new().await;
    let image = Image::of(&busybox_layout(host.tmp.path()), "base");
    let served = image.clone();
    let fake = crate::fake::Fake::start(move |asked| match asked.path.as_str() {
        "/v2/app/tags/list" => answer(
            "200 OK",
            "Link: </v2/app/tags/list?last=a>; rel=\"next\"\r\n",
            br#"{"name":"app","tags":["a"]}"#,
        ),
        "/v2/app/tags/list?last=a" => ok(br#"{"name":"app","tags":["b","c"]}"#),
        _ => served.answer(asked, &part),
    });
    let wanted = pb::PullRequest { all_tags: true, ..request(&fake.name("app")) };
    let all = told(host.images().pull(wanted).await.unwrap().into_inner()).await.unwrap();
    let names: Vec<&str> = all.done.iter().flat_map(|d| &d.references).map(String::as_str).collect();
    assert_eq!(names, ["a", "b", "c"].map(|t| fake.name(&format!("app:{t}"))));
    assert_eq!(host.list().await[0].references.len(), 3);
}

#[tokio::test]
async fn an_index_is_resolved_for_the_platform_and_its_variant() {
    let host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let image = Image::of(&layout, "two");
    let config_of = |variant: &str| {
        let manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
        let config = image.blob(manifest["config"]["digest"].as_str().unwrap()).unwrap();
        let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        config["architecture"] = "arm".into();
        config["variant"] = variant.into();
        let config = serde_json::to_vec(&config).unwrap();
        let mut manifest = manifest;
        manifest["config"]["digest"] = digest(&config).into();
        manifest["config"]["size"] = config.len().into();
        (config, serde_json::to_vec(&manifest).unwrap())
    };
    let all: Vec<(&str, Vec<u8>, Vec<u8>)> =
        ["v6", "v7"].into_iter().map(|v| (v, config_of(v).0, config_of(v).1)).collect();
    let entries: Vec<serde_json::Value> = all
        .iter()
        .map(|(v, _, m)| {
            serde_json::json!({"mediaType": "application/vnd.docker.distribution.manifest.v2+json", "digest": digest(m),
                "size": m.len(), "platform": {"os": "linux", "architecture": "arm", "variant": v}})
        })
        .collect();
    let index = serde_json::to_vec(&serde_json::json!({"schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": entries}))
    .unwrap();
    let served = image.clone();
    let fake = crate::fake::Fake::start(move |asked| {
        if asked.path == "/v2/app/manifests/1" {
            return ok(&index);
        }
        for (_, config, manifest) in &all {
            for bytes in [config, manifest] {
                if asked.last() == digest(bytes) {
                    return ok(bytes);
                }
            }
        }
        served.answer(asked, &part)
    });
    let name = fake.name("app:1");
    for variant in ["v7", "v6"] {
        let platform =
            Some(pb::Platform { os: "linux".into(), architecture: "arm".into(), variant: variant.into() });
        let done = host.pull(pb::PullRequest { platform, ..request(&name) }).await.unwrap();
        let found = host.inspect(&done.image_id).await.unwrap().image.unwrap();
        assert_eq!(found.platform.unwrap().variant, variant);
    }
    let platform =
        Some(pb::Platform { os: "linux".into(), architecture: "s390x".into(), variant: String::new() });
    let e = host.pull(pb::PullRequest { platform, ..request(&name) }).await.unwrap_err();
    assert!(e.kind() == Kind::NotFound && e.to_string().contains("linux/arm/v6, linux/arm/v7"), "{e}");
}

fn digest(bytes: &[u8]) -> String {
    davit_storage::digest::Digest::of(bytes).to_string()
}

#[tokio::test]
async fn credentials_are_asked_for_and_used() {
    let host = Host::new().await;
    let dir = host.tmp.path();
    let layout = busybox_layout(dir);
    let registry = Registry::start(dir, None, Some(&htpasswd(dir)));
    let name = format!("localhost:{}/app:1", registry.port);
    let e = host.pull(request(&name)).await.unwrap_err();
    assert_eq!(e.kind(), Kind::Unauthenticated);
    assert!(e.to_string().contains("unauthorized: authentication required"), "{e}");
    assert!(e.hint().contains(&format!("davit login localhost:{}", registry.port)), "{}", e.hint());
    let wrong = pb::PullRequest { auth: auth("user", "wrong"), ..request(&name) };
    assert_eq!(host.pull(wrong).await.unwrap_err().kind(), Kind::Unauthenticated);
    sh(&format!(
        "skopeo copy -q --insecure-policy --dest-creds user:secret --dest-tls-verify=false oci:{}:two docker://{name}",
        layout.display()
    ));
    host.pull(pb::PullRequest { auth: auth("user", "secret"), ..request(&name) }).await.unwrap();
}

#[tokio::test]
async fn a_token_is_fetched_and_renewed_when_it_expires_in_mid_pull() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let mut host = Host::new().await;
    configure(&mut host, "").await;
    let image = Image::of(&busybox_layout(host.tmp.path()), "two");
    let (given, used) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let fake = crate::fake::Fake::start(move |asked| {
        if asked.path.starts_with("/token") {
            assert!(
                asked.path.contains("scope=repository%3Aapp%3Apull") && asked.path.contains("service=me")
            );
            // user:secret
            assert_eq!(asked.header("authorization"), Some("Basic dXNlcjpzZWNyZXQ="));
            let n = given.fetch_add(1, Ordering::SeqCst) + 1;
            used.store(0, Ordering::SeqCst);
            return ok(format!(r#"{{"access_token":"tok{n}","expires_in":1}}"#).as_bytes());
        }
        let current = format!("Bearer tok{}", given.load(Ordering::SeqCst));
        // Each token is good for two requests.
        if asked.header("authorization") != Some(&current) || used.fetch_add(1, Ordering::SeqCst) >= 2 {
            let realm = format!("http://{}/token", asked.header("host").unwrap());
            let challenge = format!(
                "WWW-Authenticate: Bearer realm=\"{realm}\",service=\"me\",scope=\"repository:app:pull\"\r\n"
            );
            return answer("401 Unauthorized", &challenge, b"");
        }
        image.answer(asked, &part)
    });
    let wanted = pb::PullRequest { auth: auth("user", "secret"), ..request(&fake.name("app:1")) };
    host.pull(wanted).await.unwrap();
    assert!(fake.count("/token") >= 2, "{:?}", fake.seen());
}
