use std::fs;

use davit_contracts::runtime::KeyValue;

use super::*;

fn emit(events: &Events, action: &str) {
    events.emit("container", action, "a", HashMap::new());
}

fn actions(events: &Events, after: u64) -> Vec<String> {
    events.read(after, u64::MAX, 0, usize::MAX).into_iter().map(|e| e.action).collect()
}

#[test]
fn numbers_go_on_after_a_restart_and_a_torn_line_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    let events = Events::open(&path);
    emit(&events, "create");
    emit(&events, "start");
    drop(events);
    let file = path.join(format!("{:020}.jsonl", 1));
    let mut text = fs::read_to_string(&file).unwrap();
    text.push_str("{\"seq\":3,");
    fs::write(&file, text).unwrap();
    let events = Events::open(&path);
    let (_, mut live) = events.subscribe();
    emit(&events, "die");
    assert_eq!(live.try_recv().unwrap().seq, 3);
    let (past, _) = events.subscribe();
    assert_eq!((past.kept.len(), past.next, past.first), (3, 4, 1));
    assert_eq!(actions(&events, 0), ["create", "start", "die"]);
    assert_eq!(actions(&events, 2), ["die"]);
}

#[test]
fn old_segments_go_and_what_is_left_has_no_gap() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("events");
    let mut events = Events::with_limits(&path, 300, 3);
    for n in 0..50 {
        emit(&events, &n.to_string());
        if n % 7 == 0 {
            events = Events::with_limits(&path, 300, 3);
        }
    }
    let (past, _) = events.subscribe();
    assert_eq!(past.next, 51);
    assert!(past.first > 1 && past.first < 51, "{}", past.first);
    let left: Vec<u64> = events.read(0, u64::MAX, 0, usize::MAX).iter().map(|e| e.seq).collect();
    assert_eq!(left, (past.first..51).collect::<Vec<_>>());
    assert_eq!(fs::read_dir(&path).unwrap().count(), 3);
    assert_eq!(
        events.read(past.first + 1, 50, 0, 2).iter().map(|e| e.seq).collect::<Vec<_>>(),
        [past.first + 2, past.first + 3]
    );
}

#[test]
fn the_one_file_of_before_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let old = Event { seq: 41, action: "start".into(), ..Event::default() };
    fs::write(dir.path().join("events.jsonl"), serde_json::to_string(&old).unwrap() + "\n").unwrap();
    let events = Events::open(&dir.path().join("events"));
    emit(&events, "die");
    assert_eq!(events.subscribe().0.next, 43);
    assert_eq!(actions(&events, 0), ["start", "die"]);
}

#[test]
fn filters() {
    let attributes = [("name", "web"), ("image", "busybox:1"), ("tier", "front")];
    let e = Event {
        id: "abc".into(),
        r#type: "container".into(),
        action: "exec_start: sh".into(),
        attributes: attributes.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        ..Event::default()
    };
    let f = |pairs: &[(&str, &str)]| {
        let list: Vec<_> =
            pairs.iter().map(|(k, v)| KeyValue { key: (*k).into(), value: (*v).into() }).collect();
        matches(&e, &Filters::new(&HashMap::new(), &list, FILTERS).unwrap())
    };
    assert!(f(&[("type", "container"), ("event", "exec_start")]) && f(&[("container", "ab")]));
    assert!(
        f(&[("container", "web"), ("image", "busybox"), ("image", "other")]) && f(&[("image", "busybox:1")])
    );
    assert!(
        f(&[("label", "tier"), ("label", "tier=front")]) && f(&[("event", "die"), ("event", "exec_start")])
    );
    for bad in [
        ("event", "exec"),
        ("label", "x"),
        ("image", "busy"),
        ("type", "network"),
        ("network", "a"),
        ("container", ""),
    ] {
        assert!(!f(&[bad]), "{bad:?}");
    }
}
