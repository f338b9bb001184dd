use proptest::prelude::*;
use serde_json::json;

use super::*;

fn run(text: &str) -> Result<String, String> {
    let data = json!({
        "ID": "abc", "State": {"Status": "running", "Pid": 7, "Paused": false}, "Env": ["A=1", "B=2"],
        "Networks": {"a": {"IP": "1"}, "b": {"IP": "2"}}, "Labels": {"x.y": "z"}, "None": null,
        "IPAM": {"Config": [{"Subnet": "10.0.0.0/24", "Gateway": "10.0.0.1"}, {"Subnet": "fd00::/64"}]},
        "Containers": {"c1": {"Name": "web"}, "c2": {"Name": "db"}},
    });
    Template::parse(text)?.render(&data)
}

fn prints(cases: &[(&str, &str)]) {
    for (text, expected) in cases {
        assert_eq!(run(text).as_deref(), Ok(*expected), "{text}");
    }
}

#[test]
fn what_people_write() {
    prints(&[
        ("{{.ID}}", "abc"),
        ("{{ .ID }}\\t{{.State.Status}}", "abc\trunning"),
        ("{{json .State}}", r#"{"Paused":false,"Pid":7,"Status":"running"}"#),
        ("{{.Env}}", "[A=1 B=2]"),
        ("{{.Labels}}", "map[x.y:z]"),
        (r#"{{index .Labels "x.y"}}"#, "z"),
        (r#"{{index .Labels "none"}}"#, ""),
        ("{{index .Env 1}}", "B=2"),
        ("{{len .Env}}", "2"),
        (r#"{{join .Env ","}}"#, "A=1,B=2"),
        ("{{range .Networks}}{{.IP}};{{end}}", "1;2;"),
        ("{{range .Networks}}{{$.ID}}{{end}}", "abcabc"),
        ("{{range .None}}x{{else}}none{{end}}", "none"),
        ("{{if .State.Paused}}p{{else}}r{{end}}", "r"),
        ("{{.ID | upper}}", "ABC"),
        ("{{range .Env}}{{println .}}{{end}}", "A=1\nB=2\n"),
        ("a {{- .ID }} b", "aabc b"),
        ("a {{ .ID -}} b", "a abcb"),
        ("a{{/* no {{ word */}}b{{- /* x */ -}} c", "abc"),
    ]);
}

#[test]
fn fields_have_the_names_of_dockers_objects_too() {
    let network = json!({"Id": "n1", "IPAM": {"Config": [{"AuxiliaryAddresses": {"a": "10.0.0.9"}}, {}]},
        "Labels": {"Id": "mine"}});
    let run = |text: &str| Template::parse(text)?.render(&network);
    assert_eq!(run("{{.ID}} {{.Id}}").as_deref(), Ok("n1 n1"));
    assert_eq!(run("{{(index .IPAM.Config 0).AuxAddress.a}}").as_deref(), Ok("10.0.0.9"));
    assert_eq!(
        run("{{(index .IPAM.Config 0).AuxAddress.b}}{{.Labels.ID}}"),
        run("{{.Labels.none}}{{.Labels.none}}")
    );
    assert_eq!(run("{{(index .IPAM.Config 1).AuxAddress}}").as_deref(), Ok("map[]"));
    assert!(run("{{.iD}}").unwrap_err().contains(".Id is meant"));
}

#[test]
fn brackets_and_fields_of_what_they_make() {
    prints(&[
        ("{{(index .IPAM.Config 0).Gateway}}", "10.0.0.1"),
        ("{{(index .IPAM.Config 1).Gateway}}", ""),
        ("{{with index .IPAM.Config 0}}{{.Subnet}}{{end}}", "10.0.0.0/24"),
        ("{{range .IPAM.Config}}{{.Subnet}} {{end}}", "10.0.0.0/24 fd00::/64 "),
        ("{{range $i, $c := .IPAM.Config}}{{if $i}}, {{end}}{{$c.Subnet}}{{end}}", "10.0.0.0/24, fd00::/64"),
        ("{{range $id, $c := .Containers}}{{$id}}={{$c.Name}} {{end}}", "c1=web c2=db "),
        ("{{len .Containers}}", "2"),
        ("{{(index (index .IPAM.Config 0) \"Subnet\")}}", "10.0.0.0/24"),
        ("{{printf \"%s/%d\" (upper .ID) (len .Env)}}", "ABC/2"),
        ("{{.ID | printf \"%-5s|%5s|\" .State.Status}}", "running|  abc|"),
        ("{{$n := .State.Pid}}{{$n}}{{$n = 8}}{{$n}}", "78"),
        ("{{json (index .IPAM.Config 1)}}", r#"{"Subnet":"fd00::/64"}"#),
        ("{{.Networks.a.IP}}{{.Networks.nowhere}}", "1<no value>"),
    ]);
}

#[test]
fn decisions() {
    prints(&[
        ("{{if eq .State.Status \"exited\" \"running\"}}y{{end}}", "y"),
        ("{{if and .State.Pid (gt .State.Pid 6)}}y{{else}}n{{end}}", "y"),
        ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
        ("{{if and .State.Health (eq .State.Health.Status \"healthy\")}}y{{else}}n{{end}}", "n"),
        ("{{if eq .ID \"x\"}}1{{else if eq .ID \"abc\"}}2{{else}}3{{end}}", "2"),
        ("{{with .None}}x{{else}}nothing{{end}}", "nothing"),
        ("{{with $x := .ID}}{{$x}}{{.}}{{end}}", "abcabc"),
        ("{{or .None \"default\"}}", "default"),
        ("{{not .None}} {{ne 1 2}} {{le 2 2}}", "true true true"),
        ("{{range .Env}}{{if eq . \"B=2\"}}{{break}}{{end}}{{.}}{{end}}", "A=1"),
        ("{{range .Env}}{{if eq . \"A=1\"}}{{continue}}{{end}}{{.}}{{end}}", "B=2"),
        ("{{.State.Pid | eq 7}}", "true"),
    ]);
}

#[test]
fn functions_of_go_and_docker() {
    prints(&[
        ("{{title \"my net\"}} {{truncate .ID 2}} {{pad .ID 1 2}}|", "My Net ab  abc  |"),
        ("{{slice .ID 0 2}} {{slice .Env 1}}", "ab [B=2]"),
        ("{{index (split \"a:b\" \":\") 1}}", "b"),
        ("{{print .ID 1 2 \"x\"}}", "abc1 2x"),
        (
            "{{printf \"%05d %t %q %x %.2f %% %v\" 42 true \"a\" 255 1.5 .Env}}",
            "00042 true \"a\" ff 1.50 % [A=1 B=2]",
        ),
        ("{{printf \"%s\"}}{{printf \"%d\" .ID}}", "%!s(MISSING)%!d(abc)"),
        ("{{\"}}\"}}{{`raw \"`}}", "}}raw \""),
        ("{{\"a\\\"b\"}}", "a\"b"),
    ]);
}

#[test]
fn mistakes_are_explained() {
    assert!(run("{{.Id}}").unwrap_err().contains(".ID is meant"));
    assert!(run("{{.Nope}}").unwrap_err().contains("known: .Containers"));
    assert!(run("{{(index .Env 0}}").unwrap_err().contains("without its ')'"));
    assert!(run("{{index .Env 9}}").unwrap_err().contains("there are 2"));
    assert!(run("{{$x}}").unwrap_err().contains("no variable $x"));
    for bad in [
        "{{",
        "{{}}",
        "{{range .Env}}",
        "{{if .ID}}{{else}}{{else}}{{end}}",
        "{{if}}x{{end}}",
        "{{end}}",
        "{{foo .ID}}",
        "{{.ID .ID}}",
        "{{\"x}}",
        "{{.ID | }}",
        "{{.ID)}}",
        "{{.ID.Name}}",
        "{{range .ID}}{{end}}",
        "{{$ := 1}}",
        "{{template \"x\"}}",
        "{{.ID,}}",
        "{{1x}}",
        "{{lt .ID 1}}",
    ] {
        assert!(run(bad).is_err(), "{bad}");
    }
    assert!(run(&"{{if 1}}".repeat(100)).unwrap_err().contains("too deeply"));
    assert!(run(&format!("{{{{{}1}}}}", "(".repeat(100))).unwrap_err().contains("too deeply"));
}

#[test]
fn titles_come_from_the_columns_or_the_fields() {
    let titles = |text: &str| Template::parse(text).unwrap().titles(&[("NETWORK ID", "ID")]);
    assert_eq!(titles("{{.ID}}\\t{{.Names}}"), "NETWORK ID\tNAMES");
    assert_eq!(titles("{{upper (slice .CreatedAt 0 4)}}"), "CREATED AT");
}

proptest! {
    #[test]
    fn never_panics(text in "(\\{\\{|\\}\\}|range|if|with|end|else|json|index|slice|printf|\\.|\\$|\\$x|:=| |\"%5d\"|[A-Za-z0-9\"|(),é%-]){0,20}") {
        let _ = run(&text);
    }
}
