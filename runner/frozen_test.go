package runner

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func frozenBook(t *testing.T) (*Program, *Inputs, []byte) {
	t.Helper()
	p := mustLoad(t, inputsBook)
	in, findings, err := p.BindInputs(GivenInputs{Flags: []string{"d=90s", "slots=1-2", "f=2", "i=7", "t=two"}})
	if err != nil || len(findings) > 0 {
		t.Fatal(err, findings)
	}
	raw, err := Freeze(t.Context(), Config{Version: "v1", Operator: Operator{Name: "ana"}}, Request{Program: p, Inputs: in, Dir: "/d", Selection: Selection{From: "use"}})
	if err != nil {
		t.Fatal(err)
	}
	return p, in, raw
}

// A frozen plan gives the program and the inputs that were frozen, types and all.
func TestFreezeAndThaw(t *testing.T) {
	t.Parallel()
	p, in, raw := frozenBook(t)
	f, err := Thaw(raw)
	if err != nil {
		t.Fatal(err)
	}
	again, inputs, err := f.Program(p.Catalog)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in.Values, inputs.Values); diff != "" {
		t.Error(diff)
	}
	if p.Digest(in) != again.Digest(inputs) || f.Digest != p.Digest(in) {
		t.Error("the digest is another one")
	}
	if f.Selection.From != "use" || f.Dir != "/d" || f.Operator.Name != "ana" || f.Version != "v1" {
		t.Errorf("got %+v", f)
	}
}

func TestThawRefuses(t *testing.T) {
	t.Parallel()
	_, _, raw := frozenBook(t)
	text := string(raw)
	for name, test := range map[string]struct{ text, want string }{
		"an edited source":  {strings.Replace(text, "name: inputs", "name: output", 1), "is not the one that was frozen"},
		"an edited input":   {strings.Replace(text, `"i": 7`, `"i": 8`, 1), "it is not what was written"},
		"an added field":    {strings.Replace(text, `"format": 1`, `"format": 1, "x": 2`, 1), "unknown field"},
		"a newer format":    {strings.Replace(text, `"format": 1`, `"format": 2`, 1), "has format 2, this binary knows format 1"},
		"a torn file":       {text[:len(text)/2], "damaged"},
		"nothing":           {"", "damaged"},
		"something else":    {"{}", "it has format 0"},
		"a changed version": {strings.Replace(text, `"version": "v1"`, `"version": "v2"`, 1), "it is not what was written"},
	} {
		_, err := Thaw([]byte(test.text))
		var usage *UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, wanted %s", name, err, test.want)
		}
	}
}
