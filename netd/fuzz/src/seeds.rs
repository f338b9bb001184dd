//! First inputs: valid documents, so that fuzzing begins behind the first check.

/// Those of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "dns_query" => vec![
            query(b"\x03web", 1, false),
            query(b"\x02C7\x03net", 255, true),
            query(b"\x05_http\x04_tcp\x01l", 33, true),
            query(b"\x017\x010\x010\x0210\x07in-addr\x04arpa", 12, false),
            query(b"\x07example\x03org", 28, true),
        ],
        "dns_reply" => vec![
            reply(&[record(1, 60, &[10, 0, 0, 1]), record(1, 30, &[10, 0, 0, 2])], 0),
            reply(&[record(6, 60, &[0; 22])], 3),
            reply(&[record(5, 60, &[0xc0, 12])], 0),
        ],
        "resolv_conf" => vec![b"# host\nnameserver 127.0.0.53\nnameserver fd00::1\nsearch a b\noptions timeout:1 rotate\n".to_vec()],
        "cni_list" => vec![
            br#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge","capabilities":{"ips":true}},{"type":"portmap"}]}"#.to_vec(),
            br#"{"cniVersions":["0.4.0","1.1.0"],"name":"n","type":"ptp","disableCheck":"true","runtimeConfig":{}}"#.to_vec(),
        ],
        _ => Vec::new(),
    }
}

fn query(name: &[u8], kind: u8, edns: bool) -> Vec<u8> {
    let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    message.extend(name);
    message.extend([0, 0, kind, 0, 1]);
    if edns {
        message.extend([0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    }
    message
}

fn record(kind: u8, ttl: u8, data: &[u8]) -> Vec<u8> {
    let mut record = vec![0xc0, 12, 0, kind, 0, 1, 0, 0, 0, ttl, 0, data.len() as u8];
    record.extend(data);
    record
}

fn reply(answers: &[Vec<u8>], code: u8) -> Vec<u8> {
    let mut message = query(b"\x07example\x03org", 1, true);
    let opt = message.split_off(message.len() - 11);
    message[2] = 0x81;
    message[3] = 0x80 | code;
    message[7] = answers.len() as u8;
    message.extend(answers.concat());
    message.extend(opt);
    message
}
