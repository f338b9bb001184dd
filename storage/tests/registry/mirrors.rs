//! Registries with mirrors before them.

use davit_contracts::Kind;
use davit_contracts::storage as pb;

use crate::fake::{Fake, Image, answer, ok, part};
use crate::host::{Host, busybox_layout};
use crate::real::Registry;
use crate::{auth, configure, request};

#[tokio::test]
async fn mirrors_are_asked_in_order_and_a_dead_one_is_passed_over() {
    let mut host = Host::new().await;
    let layout = busybox_layout(host.tmp.path());
    let (mirror, origin) =
        (Registry::start(host.tmp.path(), None, None), Registry::start(host.tmp.path(), None, None));
    mirror.fill(&layout, "two", "hub/team/app:1");
    origin.fill(&layout, "base", "team/only-here:1");
    let dead = Fake::start(|_| answer("503 Service Unavailable", "", b""));
    let toml = format!(
        "[registries.\"127.0.0.1:{}\"]\nmirrors = [\"127.0.0.1:9\", \"http://127.0.0.1:{}\", \"127.0.0.1:{}/hub\"]",
        origin.port, dead.port, mirror.port
    );
    configure(&mut host, &toml).await;
    // Only the mirror has it.
    let name = origin.name("team/app:1");
    let done = host.pull(request(&name)).await.unwrap();
    assert_eq!(done.references, std::slice::from_ref(&name));
    assert!(mirror.log().contains("/v2/hub/team/app/blobs/"), "{}", mirror.log());
    assert!(!origin.log().contains("/v2/team/app"), "{}", origin.log());
    // Asked once, then left out.
    assert_eq!(dead.seen().len(), 1, "{:?}", dead.seen());
    // What a mirror lacks comes from the registry.
    host.pull(request(&origin.name("team/only-here:1"))).await.unwrap();
    // Pushes do not go to mirrors.
    let push = pb::PushRequest { reference: name.clone(), ..Default::default() };
    crate::push(&host, push).await.unwrap();
    assert!(origin.log().contains("PUT /v2/team/app/manifests/1"), "{}", origin.log());
    let e = host.pull(request(&origin.name("team/nowhere:1"))).await.unwrap_err();
    assert_eq!(e.kind(), Kind::NotFound, "{e}");
}

#[tokio::test]
async fn a_mirror_that_lies_or_cuts_costs_nothing_but_time_and_gets_no_credentials() {
    let mut host = Host::new().await;
    let image = Image::of(&busybox_layout(host.tmp.path()), "two");
    let (lying, cutting) = (image.clone(), image.clone());
    let liar = Fake::start(move |asked| {
        assert_eq!(asked.header("authorization"), None);
        lying.answer(asked, &|_, body| {
            let mut body = body.to_vec();
            let middle = body.len() / 2;
            body[middle] ^= 1;
            ok(&body)
        })
    });
    let cutter = Fake::start(move |asked| {
        cutting.answer(asked, &|asked, body| part(asked, body).cut_to(body.len() / 3))
    });
    let origin = image.serve(part);
    for mirror in [&liar, &cutter] {
        let toml = format!(
            "[registries.\"127.0.0.1:{}\"]\nplain_http = true\nmirrors = [\"http://127.0.0.1:{}\"]",
            origin.port, mirror.port
        );
        configure(&mut host, &toml).await;
        let name = origin.name("app:1");
        host.pull(pb::PullRequest { auth: auth("user", "secret"), ..request(&name) }).await.unwrap();
        assert!(mirror.count("/blobs/") > 0, "{:?}", mirror.seen());
        host.remove(&name, false).await.unwrap();
        host.assert_empty();
    }
}
