package schema

import (
	"bytes"
	"testing"
)

func TestGitHub(t *testing.T) {
	block := onLine("runbooks/a.yaml", 3, 7, 2, "comma-in-flow", "100% wrong:\r\ntwice, at least", "quote it")
	block.EndLine, block.Severity = 5, Warning
	note := onLine("a,b:c.yaml", 1, 2, 2, "moved", "x", "")
	note.Severity = Note
	var b bytes.Buffer
	err := WriteGitHub(&b, []Finding{
		onLine("a.yaml", 7, 5, 12, "unknown-key", `a step has no key "tiemout"`, "timeout"), block, note,
		{Path: "-i n=x", Severity: Error, Rule: "input", Message: "not an int"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `::error file=a.yaml,line=7,endLine=7,col=5,endColumn=12,title=unknown-key::a step has no key "tiemout"%0Ahelp: timeout
::warning file=runbooks/a.yaml,line=3,endLine=5,title=comma-in-flow::100%25 wrong:%0D%0Atwice, at least%0Ahelp: quote it
::notice file=a%2Cb%3Ac.yaml,line=1,endLine=1,col=2,endColumn=2,title=moved::x
::error title=input::-i n=x: not an int
`
	if b.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", b.String(), want)
	}
}
