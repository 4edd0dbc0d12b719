package diff

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page for reviewers lists every verdict; UPDATE=1 rewrites the table.
func TestRulesAreDocumented(t *testing.T) {
	const page, begin, end = "../../docs/review.md", "<!-- verdicts -->\n", "<!-- end of verdicts -->\n"
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, ok := strings.Cut(string(raw), begin)
	table, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	var want strings.Builder
	want.WriteString("| verdict | cuts over, destroys | writes | checks | looks | why |\n|---|---|---|---|---|---|\n")
	names := map[string]bool{}
	for _, r := range Rules() {
		if names[r.Name] {
			t.Errorf("%s is there twice", r.Name)
		}
		names[r.Name] = true
		l := r.Levels
		fmt.Fprintf(&want, "| `%s` | %s | %s | %s | %s | %s |\n", r.Name, l[0], l[1], l[2], l[3], r.Reason)
	}
	if table == want.String() {
		return
	}
	if os.Getenv("UPDATE") != "1" {
		t.Fatalf("the table in %s is not that of Rules: UPDATE=1 go test ./runner/diff", page)
	}
	if err := os.WriteFile(page, []byte(head+begin+want.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
