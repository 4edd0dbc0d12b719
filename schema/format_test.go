package schema

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFormatAll(t *testing.T) {
	files, _ := filepath.Glob("../testdata/lint/schema/*/*.yaml")
	for _, file := range append(files, "testdata/scale-out.yaml") {
		src, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out, err := Format(src)
		if _, ok := err.(*SyntaxError); ok {
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		again, err := Format(out)
		if err != nil {
			t.Errorf("%s: %v in\n%s", file, err, out)
			continue
		}
		if diff := cmp.Diff(string(out), string(again)); diff != "" {
			t.Errorf("%s: not idempotent: %s", file, diff)
		}
	}
}

func TestFormat(t *testing.T) {
	src, err := os.ReadFile("testdata/ugly.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := Format(src)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("testdata/ugly.formatted.yaml", got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/ugly.formatted.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// What may not change although the layout does.
func TestFormatKeeps(t *testing.T) {
	for src, want := range map[string]string{
		// an alias may not come before its anchor: nothing is moved
		"vars: {x: &l {a: b}}\nlabels: *l\n": "vars: {x: &l {a: b}}\nlabels: *l\n",
		// a text that keeps the blank lines behind it gets none
		"labels:\n    k: |+\n       kept\nvars:\n    a: 1\n": "labels:\n  k: |+\n    kept\nvars:\n  a: 1\n",
		// nor a line break that its file ended without
		"name: |\n   a":                         "name: |-\n  a\n",
		"vars:\n   a: |2\n       x\n      y\n":  "vars:\n  a: |2\n      x\n     y\n",
		"name: a\r\nversion: 1\r\n":             "version: 1\nname: a\n",
		"steps:\n- uses: a.b # why?\n  id: x\n": "steps:\n  - id: x\n    uses: a.b # why?\n",
	} {
		got, err := Format([]byte(src))
		if err != nil || string(got) != want {
			t.Errorf("%q:\n got %q, %v\nwant %q", src, got, err, want)
		}
	}
	if _, err := Format([]byte("a: b: c\n")); err == nil {
		t.Error("a file that is not YAML is formatted")
	}
}

// corpus is every file of the golden folders, as seeds.
func corpus(f *testing.F) {
	files, err := filepath.Glob("../testdata/lint/schema/*/*.yaml")
	if err != nil || len(files) == 0 {
		f.Fatal("no files", err)
	}
	for _, file := range append(files, "testdata/ugly.yaml") {
		src, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(src) < 20_000 {
			f.Add(src)
		}
	}
}

// What Format accepts it gives back with the same meaning, and does not change again.
func FuzzFormat(f *testing.F) {
	corpus(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		out, err := Format(src)
		if err != nil {
			if _, ok := err.(*SyntaxError); !ok {
				t.Fatalf("%v\n%q", err, src)
			}
			return
		}
		again, err := Format(out)
		if err != nil {
			t.Fatalf("%v\n%s\nfrom\n%s", err, out, src)
		}
		if string(again) != string(out) {
			t.Fatalf("changed again:\n%s\nfrom\n%s\nfrom\n%s", again, out, src)
		}
	})
}
