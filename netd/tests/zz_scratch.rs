use davit_netd::firewall::*;
#[test]
fn scratch() {
    let fw = Firewall::open("davit".into()).unwrap();
    let seg = |b: &str, s: &str, i| Segment {
        bridge: b.into(),
        subnets: vec![s.parse().unwrap()],
        internal: i,
        masquerade: true,
    };
    let f = |h: &str, t: &str| Forward {
        transport: Transport::Tcp,
        host: h.parse().unwrap(),
        to: t.parse().unwrap(),
    };
    let rules = Rules {
        segments: vec![
            seg("dv-1", "172.17.0.0/16", false),
            seg("dv-2", "172.18.0.0/16", true),
            seg("dv-3", "fd00::/64", false),
        ],
        forwards: vec![
            f("0.0.0.0:80", "172.17.0.2:80"),
            f("127.0.0.1:81", "172.17.0.2:80"),
            f("[::]:80", "[fd00::2]:80"),
        ],
    };
    let t = std::time::Instant::now();
    fw.apply(&rules).unwrap();
    eprintln!("apply {:?}", t.elapsed());
    let t = std::time::Instant::now();
    fw.publish(&[f("0.0.0.0:82", "172.17.0.3:80")]).unwrap();
    eprintln!("publish {:?}", t.elapsed());
    fw.withdraw(&[f("0.0.0.0:80", "172.17.0.2:80")]).unwrap();
    let e = fw.withdraw(&[f("0.0.0.0:80", "172.17.0.2:80")]);
    eprintln!("{e:?}");
    redirect_dns("127.0.0.11".parse().unwrap(), 4000, 4001).unwrap();
    let out = std::process::Command::new("nft").args(["list", "ruleset"]).output().unwrap();
    eprintln!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    fw.remove().unwrap();
    fw.remove().unwrap();
}
