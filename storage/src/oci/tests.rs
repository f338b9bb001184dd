use super::*;

fn digest(c: char) -> String {
    format!("sha256:{}", c.to_string().repeat(64))
}

#[test]
fn an_index_is_told_from_a_manifest() {
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[
          {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}},
          {{"digest":"{}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}},
          {{"digest":"{}","size":1,"platform":{{"os":"linux","architecture":"amd64"}}}}]}}"#,
        digest('a'),
        digest('b'),
        digest('c')
    );
    let Document::Index(index) = Document::parse(index.as_bytes()).unwrap() else { panic!("no index") };
    let wish = |arch: &str, variant: &str| Platform {
        os: "linux".into(),
        architecture: arch.into(),
        variant: variant.into(),
    };
    assert_eq!(index.choose(&wish("amd64", "")).unwrap().digest.as_str(), digest('c'));
    assert_eq!(index.choose(&wish("arm", "v7")).unwrap().digest.as_str(), digest('a'));
    let refused = index.choose(&wish("riscv64", "")).unwrap_err().to_string();
    assert!(refused.contains("linux/riscv64") && refused.contains("linux/arm/v7"), "{refused}");
}

#[test]
fn what_is_no_image_is_refused() {
    let artifact = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"{}","size":2}},"layers":[]}}"#,
        digest('a')
    );
    assert!(matches!(Document::parse(artifact.as_bytes()), Err(DocumentError::NotAnImage(_))));
    assert!(matches!(Document::parse(br#"{"schemaVersion":1}"#), Err(DocumentError::Schema1)));
    for bad in [&b""[..], b"{}", b"[]", b"null", b"{\"schemaVersion\":2,\"config\":{}}", b"\xff"] {
        assert!(Document::parse(bad).is_err(), "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn nulls_of_gos_encoder_are_defaults() {
    let file = ImageFile::parse(
        br#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"Labels":null,"Volumes":{"/v":{}},
            "Healthcheck":{"Test":["CMD","x"],"Interval":5}},"rootfs":{"type":"layers","diff_ids":null},"history":null}"#,
    )
    .unwrap();
    assert_eq!(file.config.cmd, ["sh"]);
    assert_eq!(file.config.healthcheck.unwrap().interval, 5);
    assert_eq!(file.platform.architecture, "amd64");
    assert!(file.config.volumes.contains_key("/v"));
}

#[test]
fn times_are_nanoseconds() {
    assert_eq!(unix_ns("1970-01-01T00:00:01.5Z"), 1_500_000_000);
    assert_eq!(unix_ns("yesterday"), 0);
    assert!(unix_ns(&now_rfc3339()) > 1_600_000_000_000_000_000);
}

#[test]
fn an_image_of_another_platform_is_refused_and_a_silent_one_taken() {
    let arm = ImageFile::parse(br#"{"os":"linux","architecture":"arm64"}"#).unwrap();
    let wish = |architecture: &str| Platform {
        os: "linux".into(),
        architecture: architecture.into(),
        variant: String::new(),
    };
    arm.check_platform(&wish("arm64")).unwrap();
    let refused = arm.check_platform(&wish("amd64")).unwrap_err().to_string();
    assert!(refused.contains("linux/amd64") && refused.contains("linux/arm64"), "{refused}");
    ImageFile::parse(b"{}").unwrap().check_platform(&wish("amd64")).unwrap();
}
